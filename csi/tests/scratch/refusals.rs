//! What is refused: the wrong file system, a directory of somebody else's, a full disk, a neighbour's
//! mount.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use terrace_csi::scratch::{QuotaKind, Scratch, ScratchError};

use crate::world::{MIB, World, asked, assert_empty, names};

fn is_base(opened: Result<Scratch, ScratchError>, word: &str) {
    match opened {
        Err(ScratchError::Base { why, .. }) => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    }
}

// A disk that was not mounted at boot would let scratch volumes fill the node's root disk.
#[test]
fn the_wrong_file_system_is_refused() {
    let Some(world) = World::new("the_wrong_file_system_is_refused", "ext4", 64 * MIB) else {
        return;
    };
    let config = world.config(Some(QuotaKind::Accounting));
    drop(Scratch::open(&config).unwrap());
    // The kind is a part of what is there: other code would not find its limits.
    let kind = "image-ext4".parse().unwrap();
    is_base(Scratch::open(&world.config(Some(kind))), "began as");
    // Limits that do not hold are never taken instead of those that do.
    let refused = Scratch::open(&world.config(None));
    assert!(
        matches!(refused, Err(ScratchError::Unsupported { .. })),
        "{refused:?}"
    );
    // The disk goes away: the directory below its mount point is on another file system.
    umount2(&world.mount, MntFlags::MNT_DETACH).unwrap();
    is_base(Scratch::open(&config), "mount the disk first");
    assert_eq!(
        fs::read_dir(&world.mount).unwrap().count(),
        0,
        "made below a missing mount"
    );
    let mut anywhere = config.clone();
    anywhere.expected = Default::default();
    if terrace_csi::mount_of(&terrace_csi::mount_table().unwrap(), &world.mount)
        .is_some_and(|entry| entry.target == std::path::Path::new("/"))
    {
        is_base(Scratch::open(&anywhere), "root file system");
    }
    anywhere.expected.root = true;
    drop(Scratch::open(&anywhere).unwrap());
    // A directory with somebody's files is not taken over, and a link is not followed.
    let theirs = world.mount.join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("file"), "x").unwrap();
    anywhere.base = theirs;
    is_base(Scratch::open(&anywhere), "not ours");
    anywhere.base = world.mount.join("link");
    std::os::unix::fs::symlink(world.mount.join("scratch"), &anywhere.base).unwrap();
    is_base(Scratch::open(&anywhere), "link");
}

// A promise of room that is not there fails the pod in the middle of its work.
#[test]
fn more_than_there_is_is_refused() {
    let Some(world) = World::new("more_than_there_is_is_refused", "ext4", 256 * MIB) else {
        return;
    };
    let mut config = world.config(Some("image-ext4".parse().unwrap()));
    config.keep_free = 32 * MIB;
    let scratch = Scratch::open(&config).unwrap();
    let free = scratch.capacity().unwrap();
    let refused = scratch.create(&asked("large", free + MIB));
    assert!(
        matches!(refused, Err(ScratchError::Full { .. })),
        "{refused:?}"
    );
    for size in [0, u64::MAX] {
        let refused = scratch.create(&asked("odd", size));
        assert!(
            matches!(refused, Err(ScratchError::Size { .. })),
            "{refused:?}"
        );
    }
    assert_empty(&scratch);
    // Many at once: no more are made than fit, and the names of the others are free again.
    let made: usize = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..6)
            .map(|number| {
                let scratch = &scratch;
                scope.spawn(move || {
                    scratch
                        .create(&asked(&format!("v{number}"), free / 3))
                        .is_ok()
                })
            })
            .collect();
        makers
            .into_iter()
            .map(|maker| usize::from(maker.join().unwrap()))
            .sum()
    });
    assert!((1..=3).contains(&made), "{made} volumes of a third each");
    assert_eq!(names(&scratch, "volumes").len(), made);
    assert_eq!(names(&scratch, "ids").len(), made);
    let volume = scratch.volumes().unwrap().remove(0);
    let refused = scratch.expand(&volume.id, volume.size + free);
    assert!(
        matches!(refused, Err(ScratchError::Full { .. })),
        "{refused:?}"
    );
    let refused = scratch.create(&asked(&volume.name, volume.size - 1));
    assert!(
        matches!(refused, Err(ScratchError::Exists { .. })),
        "{refused:?}"
    );
}

// A mount that somebody left inside a volume leads to files that are not the volume's.
#[test]
fn removal_stops_at_a_mount() {
    let Some(world) = World::new("removal_stops_at_a_mount", "ext4", 64 * MIB) else {
        return;
    };
    let outside = world.mount.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    let scratch = world.open(Some(QuotaKind::Accounting));
    let volume = scratch.create(&asked("v", MIB)).unwrap();
    let at = scratch
        .base()
        .join("volumes")
        .join(&names(&scratch, "volumes")[0]);
    fs::create_dir(at.join("inside")).unwrap();
    let none: Option<&str> = None;
    mount(
        Some(&outside),
        &at.join("inside"),
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    scratch.delete(&volume.id).unwrap();
    let swept = scratch.sweep().unwrap();
    assert_eq!(swept.failed.len(), 1, "{swept:?}");
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    let trash = scratch
        .base()
        .join("trash")
        .join(&names(&scratch, "trash")[0]);
    umount2(&trash.join("inside"), MntFlags::empty()).unwrap();
    assert_eq!(scratch.sweep().unwrap().removed, 1);
    assert_empty(&scratch);
    // A directory that nobody has a record of may be a user's: it stays, and is told.
    fs::create_dir(scratch.base().join("volumes/stranger")).unwrap();
    assert_eq!(scratch.sweep().unwrap().unknown, ["stranger"]);
    assert!(scratch.base().join("volumes/stranger").exists());
}
