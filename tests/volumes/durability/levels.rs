//! The promises of `docs/SEMANTICS.md` about levels, one by one.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use super::{LOCAL, Staged, ask, attribute, create, durability, errno, spooled};
use crate::world::{need_mount, wait_for};

// SEMANTICS S60, S61, S63: without it a program would be told that bytes are safe where they are not, or
// another node would see a part of them.
#[test]
fn a_file_goes_from_accepted_to_local_to_shared() {
    need_mount!("a_file_goes_from_accepted_to_local_to_shared");
    let staged = Staged::new(&[LOCAL], &[]);
    let (path, below) = (staged.path("file"), staged.below("file"));
    let mut file = create(&path);
    file.write_all(b"bytes").unwrap();
    assert_eq!(durability(&path), "accepted");
    assert_eq!(spooled(&path), 5);
    assert_eq!(
        fs::read(&below).unwrap(),
        b"",
        "others see the version before"
    );
    file.sync_all().unwrap();
    assert_eq!(durability(&path), "local");
    file.write_all(b" more").unwrap();
    assert_eq!(durability(&path), "accepted");
    // Everybody here sees them, in every way.
    assert_eq!(fs::read(&path).unwrap(), b"bytes more");
    assert_eq!(fs::metadata(&path).unwrap().len(), 10);
    assert_eq!(fs::read(&below).unwrap(), b"");
    drop(file);
    wait_for("the directory", || durability(&path) == "shared");
    assert_eq!(spooled(&path), 0);
    assert_eq!(fs::read(&below).unwrap(), b"bytes more");
    assert_eq!(fs::read(&path).unwrap(), b"bytes more");
    wait_for("the spool to give it up", || staged.data() == 0);
}

// SEMANTICS S60: without it a file would be staged although its rule asks for more.
#[test]
fn rules_choose_by_path() {
    need_mount!("rules_choose_by_path");
    let rules = ["ckpt/**:fsync=local", "safe/**:fsync=shared,close=shared"];
    let staged = Staged::new(&rules, &[]);
    for directory in ["ckpt", "safe"] {
        fs::create_dir(staged.path(directory)).unwrap();
    }
    for (name, is_staged) in [("ckpt/a", true), ("safe/b", false), ("c", false)] {
        let mut file = create(&staged.path(name));
        file.write_all(b"bytes").unwrap();
        assert_eq!(spooled(&staged.path(name)) > 0, is_staged, "{name}");
        let below = fs::read(staged.below(name)).unwrap();
        assert_eq!(below.is_empty(), is_staged, "{name}");
        // By another name, and opened by its number, it stays where it is.
        let moved = staged.path(&format!("{name}-moved"));
        fs::rename(staged.path(name), &moved).unwrap();
        let mut again = OpenOptions::new().append(true).open(&moved).unwrap();
        again.write_all(b" more").unwrap();
        assert_eq!(fs::read(&moved).unwrap(), b"bytes more");
    }
    let (good, said) = ask(
        &staged.volume.world,
        &["volume", "status", staged.volume.mount.to_str().unwrap()],
    );
    assert!(good && said.contains(" used in "), "{said}");
}

// SEMANTICS S60: without it what cannot be promised would be promised.
#[test]
fn what_cannot_be_promised_is_refused() {
    need_mount!("what_cannot_be_promised_is_refused");
    let staged = Staged::new(&[LOCAL], &[]);
    let world = &staged.volume.world;
    let elsewhere = world.scratch("elsewhere");
    for (rule, why) in [
        ("fsync=cold", "cold store"),
        ("fsync=accepted", "least is fsync=local"),
        ("fsync=sharde", "levels are"),
    ] {
        let options = ["--rw", "--durability", rule];
        let (status, said) = world.try_mount(&world.source_url(), &elsewhere, &options);
        assert!(status != 0 && said.contains(why), "{rule}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Two owners of one spool would each think the other's files unknown.
    let options = ["--rw", "--durability", LOCAL];
    let (status, said) = world.try_mount(&world.source_url(), &elsewhere, &options);
    assert!(
        status != 0 && said.contains("in use by another mount"),
        "{said}"
    );
    let path = staged.path("file");
    fs::write(&path, "bytes").unwrap();
    for name in ["user.terrace.durability", "user.terrace.spooled_bytes"] {
        attribute(&path, name).unwrap();
        let (path, name) = (
            std::ffi::CString::new(path.to_str().unwrap()).unwrap(),
            std::ffi::CString::new(name).unwrap(),
        );
        // SAFETY: both strings end; the value is one byte.
        let done = unsafe {
            nix::libc::setxattr(path.as_ptr(), name.as_ptr(), b"x".as_ptr().cast(), 1, 0)
        };
        assert_eq!(
            (done, nix::errno::Errno::last_raw()),
            (-1, nix::libc::EPERM)
        );
    }
    assert!(attribute(&staged.volume.mount, "user.terrace.durability").is_err());
    // Nor is it listed: a program that copies all attributes would fail, or set them where they are not true.
    let listed = |path: &std::path::Path| {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the string ends; no room is given, so only the length is told.
        unsafe { nix::libc::listxattr(path.as_ptr(), std::ptr::null_mut(), 0) }
    };
    assert_eq!(listed(&path), listed(&staged.below("file")));
}

// SEMANTICS S60: without it O_SYNC, a shared close and files that were there would be less safe than
// their rule says.
#[test]
fn what_is_not_staged_is_written_through() {
    need_mount!("what_is_not_staged_is_written_through");
    let staged = Staged::new(&[LOCAL], &[]);
    fs::write(staged.below("old"), "there before").unwrap();
    let path = staged.path("old");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"THERE", 0).unwrap();
    assert_eq!(fs::read(staged.below("old")).unwrap(), b"THERE before");
    assert_eq!(spooled(&path), 0);
    // While it is open there is one file behind it, whoever truncates it.
    let mut second = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    second.write_all(b"new").unwrap();
    assert_eq!(fs::read(staged.below("old")).unwrap(), b"new");
    drop((file, second));
    // The kernel tells of a close after close(2) has returned.
    wait_for("the closes", || staged.volume.status()["handles"] == 0);
    // Nobody has it open: truncated by its open, it is staged, and others see the version before.
    let mut third = File::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    third.write_all(b"newest").unwrap();
    assert_eq!(spooled(&path), 6);
    assert_eq!(fs::read(staged.below("old")).unwrap(), b"new");
    drop(third);
    staged.wait_until_drained();
    assert_eq!(fs::read(staged.below("old")).unwrap(), b"newest");
    let synced = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(nix::libc::O_SYNC)
        .open(staged.path("synced"))
        .unwrap();
    synced.write_all_at(b"bytes", 0).unwrap();
    assert_eq!(spooled(&staged.path("synced")), 5);
}

// SEMANTICS S62: without it `ls`, `make`, `rsync` and `tar` would see other attributes than they have set.
#[test]
fn attributes_of_a_staged_file_are_its_own() {
    need_mount!("attributes_of_a_staged_file_are_its_own");
    let staged = Staged::new(&[LOCAL], &[]);
    let path = staged.path("file");
    let mut file = create(&path);
    file.write_all(&[1; 100_000]).unwrap();
    file.set_permissions(Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
        .unwrap();
    let check = |what: &str| {
        for seen in [fs::metadata(&path).unwrap(), file.metadata().unwrap()] {
            assert_eq!(seen.len(), 100_000, "{what}");
            assert_eq!(seen.mode() & 0o7777, 0o640, "{what}");
            assert_eq!((seen.uid(), seen.gid()), (1234, 2345), "{what}");
            assert_eq!(seen.modified().unwrap(), time, "{what}");
            assert_eq!(seen.nlink(), 1, "{what}");
        }
    };
    check("staged");
    let number = fs::metadata(&path).unwrap().ino();
    let (good, said) = staged.flush(&path);
    assert!(good, "{said}");
    check("copied");
    let below = fs::metadata(staged.below("file")).unwrap();
    assert_eq!((below.len(), below.modified().unwrap()), (100_000, time));
    file.set_len(10).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 10);
    drop(file);
    staged.wait_until_drained();
    assert_eq!(fs::metadata(&path).unwrap().ino(), number);
    assert_eq!(fs::read(staged.below("file")).unwrap(), [1; 10]);
    // And without anybody having it open.
    fs::write(staged.path("other"), [2; 50]).unwrap();
    nix::unistd::truncate(&staged.path("other"), 20).unwrap();
    assert_eq!(fs::metadata(staged.path("other")).unwrap().len(), 20);
    staged.wait_until_drained();
    assert_eq!(fs::read(staged.below("other")).unwrap(), [2; 20]);
}

// SEMANTICS S64: without it a deleted file would come back, or its bytes stay on the SSD for ever.
#[test]
fn what_loses_its_last_name_is_dropped() {
    need_mount!("what_loses_its_last_name_is_dropped");
    let staged = Staged::new(&[LOCAL], &[]);
    let (path, other) = (staged.path("file"), staged.path("other"));
    let mut file = create(&path);
    file.write_all(b"bytes").unwrap();
    fs::hard_link(&path, &other).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"bytes");
    fs::remove_file(&other).unwrap();
    // Its bytes are there while somebody has it open.
    file.sync_all().unwrap();
    let mut back = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut back).unwrap();
    assert_eq!(back, "bytes");
    assert_eq!(file.metadata().unwrap().len(), 5);
    drop(file);
    wait_for("the bytes to go", || staged.data() == 0);
    // The same by a rename over it.
    let first = create(&staged.path("first"));
    first.write_all_at(b"first", 0).unwrap();
    fs::write(staged.path("second"), "second").unwrap();
    fs::rename(staged.path("second"), staged.path("first")).unwrap();
    assert_eq!(fs::read(staged.path("first")).unwrap(), b"second");
    drop(first);
    staged.wait_until_drained();
    wait_for("the bytes to go", || staged.data() == 0);
    assert_eq!(fs::read(staged.below("first")).unwrap(), b"second");
    assert!(staged.lost().is_empty());
}

// SEMANTICS S66: without it an unmount would forget what is on the SSD, or hide that it is only there.
#[test]
fn an_unmount_tells_what_it_leaves_and_a_drain_leaves_nothing() {
    need_mount!("an_unmount_tells_what_it_leaves_and_a_drain_leaves_nothing");
    let staged = Staged::new(&[LOCAL], &[]);
    let world = &staged.volume.world;
    let mount = staged.volume.mount.to_str().unwrap().to_owned();
    let mut file = create(&staged.path("open"));
    file.write_all(b"bytes of a file that is open").unwrap();
    let (good, said) = ask(world, &["umount", &mount]);
    assert!(good && said.contains("1 file ("), "{said}");
    assert!(said.contains("copied when it is mounted again"), "{said}");
    drop(file);
    wait_for("the node's end", || world.processes().is_empty());
    let options = ["--rw", "--durability", LOCAL, "--ttl", "0s"];
    let again = world.mount(&world.source_url(), &options);
    assert_eq!(
        fs::read(again.join("open")).unwrap(),
        b"bytes of a file that is open"
    );
    for number in 0..20 {
        fs::write(again.join(format!("file{number}")), [number; 1000]).unwrap();
    }
    let (good, said) = ask(world, &["umount", "--drain", again.to_str().unwrap()]);
    assert!(good, "{said}");
    assert!(!said.contains("not in the directory"), "{said}");
    for number in 0..20 {
        let below = fs::read(staged.below(&format!("file{number}"))).unwrap();
        assert_eq!(below, [number; 1000]);
    }
    assert_eq!(errno(fs::metadata(again.join("open"))), nix::libc::ENOENT);
}
