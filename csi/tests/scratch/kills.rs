//! A driver that is killed at every step of every operation: nothing that was answered is lost,
//! nothing that was not answered stays.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use terrace_csi::VolumeId;
use terrace_csi::scratch::{Expected, QuotaKind, Scratch, ScratchConfig};

use crate::world::{MIB, World, asked, assert_empty, names};

const SIZE: u64 = 32 * MIB;

/// Operations and the steps that each has.
const STEPS: [(&str, &[&str]); 4] = [
    (
        "create",
        &[
            "create: recorded",
            "create: numbered",
            "create: made",
            "create: renamed",
            "create: ready",
        ],
    ),
    ("expand", &["expand: recorded", "expand: limited"]),
    (
        "snapshot",
        &[
            "snapshot: recorded",
            "snapshot: made",
            "snapshot: renamed",
            "snapshot: sealed",
        ],
    ),
    (
        "delete",
        &[
            "delete: recorded",
            "delete: in the trash",
            "remove: files",
            "remove: limit",
            "remove: number",
        ],
    ),
];

/// What the child is to do: operation, step, base directory, its mount, kind of limits.
const ORDER: &str = "TERRACE_TEST_SCRATCH_ORDER";

/// Ends this process the hard way at the step of its order.
fn end_here(step: &'static str) {
    let order = std::env::var(ORDER).unwrap_or_default();
    if order.split('|').nth(1) == Some(step) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGKILL);
    }
}

fn operate(scratch: &Scratch, operation: &str) {
    let id = VolumeId::of_name("scratch", "v").unwrap();
    match operation {
        "create" => drop(scratch.create(&asked("v", SIZE)).unwrap()),
        "expand" => drop(scratch.expand(&id, 2 * SIZE).unwrap()),
        "snapshot" => drop(
            scratch
                .create_snapshot("s", &id, &Default::default(), 1)
                .unwrap(),
        ),
        "delete" => {
            scratch.delete(&id).unwrap();
            assert!(scratch.sweep().unwrap().failed.is_empty());
        }
        other => panic!("{other}"),
    }
}

// The other half of the tests below: the process that is killed. Does nothing without an order.
#[test]
fn child_of_the_kills() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let words: Vec<&str> = order.split('|').collect();
    let [operation, _, base, mount, kind] = words[..] else {
        panic!("{order}");
    };
    let mut config = ScratchConfig::new(base.as_ref());
    config.expected = Expected {
        mount: Some(mount.into()),
        root: false,
    };
    config.kind = Some(kind.parse().unwrap());
    operate(
        &Scratch::open(&config).unwrap().with_steps(end_here),
        operation,
    );
}

fn killed_at(world: &World, kind: QuotaKind, operation: &str, step: &str) -> ExitStatus {
    let base = world.mount.join("scratch");
    let order = format!(
        "{operation}|{step}|{}|{}|{kind}",
        base.display(),
        world.mount.display()
    );
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "kills::child_of_the_kills"])
        .env(ORDER, order);
    child.output().unwrap().status
}

/// Kills at every step, and looks at what the next start finds and what the same call makes of it.
fn survives(world: &World, kind: QuotaKind) {
    let id = VolumeId::of_name("scratch", "v").unwrap();
    for (operation, steps) in STEPS {
        if operation == "snapshot" && !world.open(Some(kind)).copies() {
            continue;
        }
        for step in steps {
            let scratch = world.open(Some(kind));
            if operation != "create" {
                operate(&scratch, "create");
            }
            drop(scratch);
            let status = killed_at(world, kind, operation, step);
            assert_eq!(status.signal(), Some(9), "{step} was not reached: {status}");
            let scratch = world.open(Some(kind));
            let swept = scratch.sweep().unwrap();
            assert!(
                swept.failed.is_empty() && swept.unknown.is_empty(),
                "{step}: {swept:?}"
            );
            for below in ["making", "trash"] {
                assert!(names(&scratch, below).is_empty(), "{step}: {below}");
            }
            let (volumes, snapshots) = (scratch.volumes().unwrap(), scratch.snapshots().unwrap());
            let answered = operation != "create" || *step == "create: ready";
            let gone = operation == "delete";
            assert_eq!(volumes.len(), usize::from(answered && !gone), "{step}");
            assert_eq!(
                names(&scratch, "ids").len(),
                volumes.len() + snapshots.len(),
                "{step}"
            );
            operate(&scratch, operation);
            if !gone {
                let size = scratch.volume(&id).unwrap().size;
                assert_eq!(
                    size,
                    if operation == "expand" {
                        2 * SIZE
                    } else {
                        SIZE
                    },
                    "{step}"
                );
                let limit = scratch.usage(&id).unwrap().byte_limit;
                assert!(limit > size / 2 && limit <= size, "{step}: {limit}");
                operate(&scratch, "delete");
            }
            for snapshot in scratch.snapshots().unwrap() {
                scratch.delete_snapshot(&snapshot.id).unwrap();
            }
            scratch.sweep().unwrap();
            assert_empty(&scratch);
        }
    }
}

// A kill between two steps has left volumes without limits, and numbers that two volumes had.
#[test]
fn plain_directories_survive_kills() {
    let Some(world) = World::new("plain_directories_survive_kills", "xfs", 320 * MIB) else {
        return;
    };
    survives(&world, QuotaKind::Accounting);
}

// As above, with a subvolume that only its own call removes.
#[test]
fn subvolumes_survive_kills() {
    let Some(world) = World::new("subvolumes_survive_kills", "btrfs", 512 * MIB) else {
        return;
    };
    survives(&world, QuotaKind::BtrfsQgroup);
}

// As above, with loop devices: none may stay behind.
#[test]
fn images_survive_kills() {
    let Some(world) = World::new("images_survive_kills", "ext4", 320 * MIB) else {
        return;
    };
    survives(&world, "image-ext4".parse().unwrap());
}

/// For the guest: the same for project quotas.
pub(crate) fn projects_survive(world: &World, kind: QuotaKind) {
    survives(world, kind);
}
