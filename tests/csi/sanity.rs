//! `csi-sanity`, the judge of CSI drivers, with nothing skipped by request.

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

/// What volumes are made of: parameters, and what may be modified, as YAML.
const DATASET: [&str; 2] = ["dataset: ads.clicks\n", "warm: metadata\n"];

/// Likewise, of directories; nothing of them may be modified.
const DIRECTORY: [&str; 2] = ["directory: checkpoints\n", "{}\n"];

/// Runs it against these roles and judges its report.
fn judge(test: &str, world: &World, [controller, node]: [&str; 2], of: [&str; 2]) {
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
    judge("sanity_on_one_socket", &world, ["all", "all"], DATASET);
}

// In a cluster controller and node are two processes; each answers for itself.
#[test]
fn sanity_on_two_sockets() {
    need_mount!("sanity_on_two_sockets");
    let world = World::with(&["controller", "node"], &[]);
    let roles = ["controller", "node"];
    judge("sanity_on_two_sockets", &world, roles, DATASET);
}

// A volume that is written is judged as one that is not, and leaves nothing on the shared file system.
#[test]
fn sanity_of_directories() {
    need_mount!("sanity_of_directories");
    let world = World::with(&["controller", "node"], &[]);
    let class = world.shared().join("checkpoints");
    std::fs::create_dir(&class).unwrap();
    judge(
        "sanity_of_directories",
        &world,
        ["controller", "node"],
        DIRECTORY,
    );
    crate::directories::assert_empty(&class);
}
