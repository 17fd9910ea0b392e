//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

use crate::judge::{Judged, programs};
use crate::support::{need_mount, skip};
use crate::world::World;

/// Tests that a driver of versions cannot have, by the first words of their names: it attaches nothing,
/// its volumes do not grow, are no copies and have no snapshots, and there is no room to speak of.
const SKIPPED: [&str; 13] = [
    "GroupController Service [GroupController",
    "DeleteSnapshot [Controller Server]",
    "CreateSnapshot [Controller Server]",
    "ListSnapshots [Controller Server]",
    "GetSnapshot [Controller Server]",
    "ExpandVolume [Controller Server]",
    "Controller Service [Controller Server] GetCapacity",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    // Of publishing and unpublishing by the controller.
    "Controller Service [Controller Server] volume lifecycle",
    "Controller Service [Controller Server] CreateVolume should create volume from an existing source",
    "Controller Service [Controller Server] CreateVolume should fail when the volume source",
    "Node Service NodeExpandVolume",
];

/// Runs it against these roles and judges its report.
fn judge(test: &str, world: &World, controller: &str, node: &str) {
    let Some(programs) = programs() else {
        skip(test, "TERRACE_TEST_CSI is not set");
        return;
    };
    let judged = Judged {
        sockets: [&world.socket(controller), &world.socket(node)],
        kubelet: &world.kubelet(),
        files: &world.node.scratch("sanity"),
        parameters: "dataset: ads.clicks\n",
        mutable: "warm: metadata\n",
        skipped: &SKIPPED,
    };
    judged.run(&programs);
    assert_eq!(world.mounts(), Vec::<String>::new(), "mounts are left");
}

// What every orchestrator relies on, on one socket for everything.
#[test]
fn sanity_on_one_socket() {
    need_mount!("sanity_on_one_socket");
    let world = World::new();
    judge("sanity_on_one_socket", &world, "all", "all");
}

// In a cluster controller and node are two processes; each answers for itself.
#[test]
fn sanity_on_two_sockets() {
    need_mount!("sanity_on_two_sockets");
    let world = World::with(&["controller", "node"], &[]);
    judge("sanity_on_two_sockets", &world, "controller", "node");
}
