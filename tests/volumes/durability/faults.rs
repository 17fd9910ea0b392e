//! What goes wrong around a spool: no room, a directory that refuses, a directory that is gone, another
//! node, rot.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::{LOCAL, Staged, ask, create, durability, errno, spooled, status};
use crate::disk::{Disk, shut_down};
use crate::world::{World, need_mount, wait_for};

const MIB: u64 = 1 << 20;

/// A disk, or the end of the test with a skip line.
macro_rules! disk_or_skip {
    ($test:literal, $disk:expr) => {
        match $disk {
            Ok(disk) => disk,
            Err(why) => {
                println!("SKIP {}: {why}", $test);
                return;
            }
        }
    };
}

pub(super) use disk_or_skip;

// SEMANTICS S65: without it one node would write over what another one has written, or lose what it had
// promised to keep.
#[test]
fn a_change_by_another_node_wins_and_no_byte_is_lost() {
    need_mount!("a_change_by_another_node_wins_and_no_byte_is_lost");
    let staged = Staged::new(&[LOCAL], &[]);
    fs::create_dir(staged.path("deep")).unwrap();
    let path = staged.path("deep/file");
    let mut file = create(&path);
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"ours").unwrap();
    file.sync_all().unwrap();
    fs::write(staged.below("deep/file"), "theirs, and longer").unwrap();
    let (good, said) = staged.flush(&path);
    assert!(!good && said.contains("changed by another node"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for handle in [&file, &other] {
        assert_eq!(errno(handle.sync_all()), nix::libc::ESTALE);
    }
    let lost = staged.lost();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].0, b"ours");
    assert!(
        lost[0].1.contains("deep/file") && lost[0].1.contains("another node"),
        "{}",
        lost[0].1
    );
    assert_eq!(staged.number("errors"), 1);
    assert_eq!(staged.number("conflicts_total"), 1);
    let mount = staged.volume.mount.to_str().unwrap();
    let (good, said) = ask(
        &staged.volume.world,
        &["volume", "status", "--acknowledge", mount],
    );
    assert!(good, "{said}");
    assert_eq!(staged.number("errors"), 0);
    drop((file, other));
    wait_for("the other node's version", || {
        fs::read(&path).unwrap() == b"theirs, and longer"
    });
    assert_eq!(staged.number("set_aside"), 1);
    // The file goes on as any other.
    fs::write(&path, "newest").unwrap();
    staged.wait_until_drained();
    assert_eq!(fs::read(staged.below("deep/file")).unwrap(), b"newest");
}

// SEMANTICS S65: without it bytes that were promised would be dropped because another node deleted the
// name they had.
#[test]
fn bytes_of_a_file_that_another_node_deleted_are_kept() {
    need_mount!("bytes_of_a_file_that_another_node_deleted_are_kept");
    let staged = Staged::new(&[LOCAL], &[]);
    let mut file = create(&staged.path("file"));
    file.write_all(b"ours").unwrap();
    file.sync_all().unwrap();
    fs::remove_file(staged.below("file")).unwrap();
    drop(file);
    wait_for("the bytes in lost+found", || !staged.lost().is_empty());
    assert_eq!(staged.lost()[0].0, b"ours");
}

// SEMANTICS S67: without it a full spool would stop programs, or promise what it cannot keep.
#[test]
fn beyond_its_budget_a_spool_takes_no_more_files() {
    need_mount!("beyond_its_budget_a_spool_takes_no_more_files");
    let staged = Staged::new(&[LOCAL], &["--spool-size", "4MiB"]);
    let mut first = create(&staged.path("first"));
    first.write_all(&[1; 5 << 20]).unwrap();
    first.sync_all().unwrap();
    let mut second = create(&staged.path("second"));
    second.write_all(b"through").unwrap();
    second.sync_all().unwrap();
    assert_eq!(spooled(&staged.path("second")), 0);
    assert_eq!(fs::read(staged.below("second")).unwrap(), b"through");
    assert!(staged.number("refused_total") > 0);
    drop(first);
    staged.wait_until_drained();
    wait_for("room", || staged.number("used_bytes") == 0);
    let mut third = create(&staged.path("third"));
    third.write_all(b"staged").unwrap();
    assert_eq!(spooled(&staged.path("third")), 6);
}

// SEMANTICS S67: without it a program would learn only from its fsync, or never, that the SSD is full.
#[test]
fn a_full_ssd_refuses_writes_and_keeps_what_it_has_promised() {
    need_mount!("a_full_ssd_refuses_writes_and_keeps_what_it_has_promised");
    let disk = disk_or_skip!(
        "a_full_ssd_refuses_writes_and_keeps_what_it_has_promised",
        Disk::ext4(64 * MIB, &[])
    );
    let spool = disk.path().join("spool");
    let staged = Staged::new(&[LOCAL], &["--spool", spool.to_str().unwrap()]);
    let mut kept = create(&staged.path("kept"));
    kept.write_all(&[1; 1 << 20]).unwrap();
    kept.sync_all().unwrap();
    let full = create(&staged.path("full"));
    let mut written = 0;
    let refused = loop {
        match full.write_at(&[2; 1 << 20], written) {
            Ok(length) => written += length as u64,
            Err(error) => break error.raw_os_error().unwrap(),
        }
        assert!(written < 128 * MIB, "the disk is never full");
    };
    assert_eq!(refused, nix::libc::ENOSPC);
    // What was accepted can be made durable, and what is no longer wanted can be deleted.
    full.sync_all().unwrap();
    kept.sync_all().unwrap();
    assert_eq!(full.metadata().unwrap().len(), written);
    fs::write(staged.path("through"), "through").unwrap();
    fs::remove_file(staged.path("full")).unwrap();
    drop((full, kept));
    staged.wait_until_drained();
    assert_eq!(fs::read(staged.below("kept")).unwrap(), [1; 1 << 20]);
    assert_eq!(fs::read(staged.below("through")).unwrap(), b"through");
    wait_for("the room to come back", || staged.data() == 0);
    staged.volume.world.umount(&staged.volume.mount);
    wait_for("the node's end", || {
        staged.volume.world.processes().is_empty()
    });
}

fn make_immutable(path: &Path, on: bool) {
    let flag = if on { "+i" } else { "-i" };
    let done = Command::new("chattr").arg(flag).arg(path).status().unwrap();
    assert!(done.success());
}

// SEMANTICS S68: without it a directory that refuses for a while would lose bytes, or stop programs.
#[test]
fn a_directory_that_refuses_is_tried_until_it_takes() {
    need_mount!("a_directory_that_refuses_is_tried_until_it_takes");
    let disk = disk_or_skip!(
        "a_directory_that_refuses_is_tried_until_it_takes",
        Disk::ext4(64 * MIB, &[])
    );
    let world = World::start();
    let below = disk.path().join("below");
    fs::create_dir(&below).unwrap();
    let options = ["--rw", "--durability", LOCAL, "--ttl", "0s"];
    let mount = world.mount(&format!("file://{}", below.display()), &options);
    let mut file = create(&mount.join("file"));
    file.write_all(b"bytes").unwrap();
    file.sync_all().unwrap();
    make_immutable(&below.join("file"), true);
    file.write_all(b" more").unwrap();
    file.sync_all().unwrap(); // the SSD is enough for it
    let spool = || status(&world, &mount)["spool"].clone();
    let (good, said) = ask(&world, &["volume", "flush", mount.to_str().unwrap()]);
    assert!(!good && said.contains("EPERM"), "{said}");
    drop(file);
    wait_for("another attempt", || {
        spool()["failed_total"].as_u64() > Some(1)
    });
    assert_eq!(spool()["files"], 1);
    let error = spool()["list"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("open a file of the directory"), "{error}");
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"bytes more");
    make_immutable(&below.join("file"), false);
    wait_for("the directory to take it", || spool()["files"] == 0);
    assert_eq!(fs::read(below.join("file")).unwrap(), b"bytes more");
    world.umount(&mount);
    wait_for("the node's end", || world.processes().is_empty());
}

// SEMANTICS S68: without it the loss of the directory under a live node would take bytes along that are
// safe on the SSD.
#[test]
fn a_directory_that_is_gone_gets_everything_when_it_is_back() {
    need_mount!("a_directory_that_is_gone_gets_everything_when_it_is_back");
    let mut disk = disk_or_skip!(
        "a_directory_that_is_gone_gets_everything_when_it_is_back",
        Disk::ext4(64 * MIB, &[])
    );
    let world = World::start();
    let below = disk.path().join("below");
    fs::create_dir(&below).unwrap();
    let source = format!("file://{}", below.display());
    let options = ["--rw", "--durability", LOCAL, "--ttl", "0s"];
    let mount = world.mount(&source, &options);
    let files: Vec<(String, File)> = (0..5)
        .map(|number| {
            let name = format!("file{number}");
            let file = create(&mount.join(&name));
            file.write_all_at(&[number; 10_000], 0).unwrap();
            file.sync_all().unwrap();
            (name, file)
        })
        .collect();
    shut_down(&disk.handle());
    // They are found already, and need nothing of the directory.
    for (_, file) in &files {
        file.write_all_at(b"after", 0).unwrap();
        file.sync_all().unwrap();
    }
    drop(files);
    wait_for("a failure", || {
        status(&world, &mount)["spool"]["failed_total"].as_u64() > Some(0)
    });
    for pid in world.processes() {
        world.signal(pid, Signal::SIGKILL);
    }
    wait_for("the node's end", || world.processes().is_empty());
    umount2(&mount, MntFlags::MNT_DETACH).ok();
    disk.unmount();
    disk.mount().unwrap();
    let mount = world.mount(&source, &options);
    let (good, said) = ask(&world, &["volume", "flush", mount.to_str().unwrap()]);
    assert!(good, "{said}");
    for number in 0..5_u8 {
        let mut expected = vec![number; 10_000];
        expected[..5].copy_from_slice(b"after");
        let name = format!("file{number}");
        assert!(fs::read(below.join(&name)).unwrap() == expected, "{name}");
        assert_eq!(durability(&mount.join(&name)), "shared");
    }
    world.umount(&mount);
    wait_for("the node's end", || world.processes().is_empty());
}

// SEMANTICS S69: without it an SSD that loses bytes would pass them on as good ones.
#[test]
fn a_failed_ssd_is_told_to_everybody_who_has_the_file_open() {
    need_mount!("a_failed_ssd_is_told_to_everybody_who_has_the_file_open");
    let disk = disk_or_skip!(
        "a_failed_ssd_is_told_to_everybody_who_has_the_file_open",
        Disk::ext4(64 * MIB, &[])
    );
    let spool = disk.path().join("spool");
    let staged = Staged::new(&[LOCAL], &["--spool", spool.to_str().unwrap()]);
    let path = staged.path("file");
    let mut file = create(&path);
    let other = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"safe").unwrap();
    file.sync_all().unwrap();
    file.write_all(b" not safe").unwrap();
    shut_down(&disk.handle());
    assert_eq!(errno(file.sync_all()), nix::libc::EIO);
    // Never made good by asking again.
    assert_eq!(errno(file.sync_all()), nix::libc::EIO);
    assert_eq!(errno(other.sync_all()), nix::libc::EIO);
    let status = staged.status();
    assert_eq!(status["spool"]["errors"], 1, "{status}");
    drop((file, other));
    // New files do without the SSD.
    fs::write(staged.path("new"), "written through").unwrap();
    assert_eq!(fs::read(staged.below("new")).unwrap(), b"written through");
    staged.volume.world.umount(&staged.volume.mount);
    wait_for("the node's end", || {
        staged.volume.world.processes().is_empty()
    });
}
