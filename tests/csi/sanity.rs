//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

use crate::copies::Shared;
use crate::judge::{Judged, programs};
use crate::support::{need_mount, skip};
use crate::world::World;

/// Tests that a driver of versions cannot have, by the first words of their names: it attaches nothing,
/// its volumes are no copies and have no snapshots, and there is no room to speak of.
const SKIPPED: [&str; 11] = [
    "GroupController Service [GroupController",
    "DeleteSnapshot [Controller Server]",
    "CreateSnapshot [Controller Server]",
    "ListSnapshots [Controller Server]",
    "GetSnapshot [Controller Server]",
    "Controller Service [Controller Server] GetCapacity",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    // Of publishing and unpublishing by the controller.
    "Controller Service [Controller Server] volume lifecycle",
    "Controller Service [Controller Server] CreateVolume should create volume from an existing source",
    "Controller Service [Controller Server] CreateVolume should fail when the volume source",
];

/// Likewise of directories on a file system that shares blocks: they have snapshots and copies.
const SKIPPED_DIRECTORIES: [&str; 5] = [
    "GroupController Service [GroupController",
    "Controller Service [Controller Server] GetCapacity",
    "Controller Service [Controller Server] ControllerPublishVolume",
    "Controller Service [Controller Server] ControllerUnpublishVolume",
    "Controller Service [Controller Server] volume lifecycle",
];

/// What volumes are made of: parameters, and what may be modified, as YAML.
const DATASET: [&str; 2] = ["dataset: ads.clicks\n", "warm: metadata\n"];

/// Runs it against these roles and judges its report.
fn judge(
    test: &str,
    world: &World,
    [controller, node]: [&str; 2],
    of: [&str; 2],
    skipped: &[&str],
) {
    let Some(programs) = programs() else {
        skip(test, "TERRACE_TEST_CSI is not set");
        return;
    };
    let sockets = [controller, node].map(|role| world.socket(role));
    let judged = Judged {
        sockets: sockets.each_ref().map(|socket| socket.as_path()),
        kubelet: &world.kubelet(),
        files: &world.node.scratch("sanity"),
        parameters: of[0],
        mutable: of[1],
        skipped,
    };
    judged.run(&programs);
    assert_eq!(world.mounts(), Vec::<String>::new(), "mounts are left");
}

// What every orchestrator relies on, on one socket for everything.
#[test]
fn sanity_on_one_socket() {
    need_mount!("sanity_on_one_socket");
    let world = World::new();
    judge(
        "sanity_on_one_socket",
        &world,
        ["all", "all"],
        DATASET,
        &SKIPPED,
    );
}

// In a cluster controller and node are two processes; each answers for itself.
#[test]
fn sanity_on_two_sockets() {
    need_mount!("sanity_on_two_sockets");
    let world = World::with(&["controller", "node"], &[]);
    let roles = ["controller", "node"];
    judge("sanity_on_two_sockets", &world, roles, DATASET, &SKIPPED);
}

// A volume that is written is judged as one that is not, and leaves nothing on the shared file system.
#[test]
fn sanity_of_directories() {
    need_mount!("sanity_of_directories");
    let roles = ["controller", "node"];
    let Some(shared) = Shared::new("sanity_of_directories", &roles, &[]) else {
        return;
    };
    let class = format!("directory: {}\n", shared.directory());
    judge(
        "sanity_of_directories",
        &shared.world,
        roles,
        // Nothing of them may be modified.
        [&class, "{}\n"],
        &SKIPPED_DIRECTORIES,
    );
    crate::directories::assert_empty(&shared.class);
}
