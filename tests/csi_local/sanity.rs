//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

use crate::judge::{Judged, programs};
use crate::world::World;

/// Tests of what a local directory cannot have: it is attached to nothing, and there are no groups.
const SKIPPED: [&str; 4] = [
    "GroupController Service [GroupController",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    "Controller Service [Controller Server] volume lifecycle",
];

/// Runs it against the sockets of these roles and judges its report.
fn judge(test: &str, roles: &[&str], controller: &str, node: &str) {
    let Some(programs) = programs() else {
        println!("SKIP {test}: no csi-sanity (TERRACE_TEST_CSI is not set)");
        return;
    };
    let Some(world) = World::new(test, roles) else {
        return;
    };
    let judged = Judged {
        sockets: [&world.socket(controller), &world.socket(node)],
        kubelet: &world.kubelet(),
        files: &world.file(""),
        parameters: "scratch: \"true\"\n",
        // The one cap that every node can keep.
        mutable: "writeBytesPerSecond: max\n",
        skipped: &SKIPPED,
    };
    judged.run(&programs);
    assert!(world.mounts().is_empty(), "mounts are left");
    world.eventually("files of deleted volumes are gone", || {
        ["volumes", "snapshots", "making", "trash", "ids"]
            .iter()
            .all(|b| world.names(b).is_empty())
    });
}

// What every orchestrator relies on, on one socket for everything.
#[test]
fn sanity_on_one_socket() {
    judge("sanity_on_one_socket", &["all"], "all", "all");
}

// Controller and node as two processes share nothing but the base directory.
#[test]
fn sanity_on_two_sockets() {
    judge(
        "sanity_on_two_sockets",
        &["controller", "node"],
        "controller",
        "node",
    );
}
