//! Volumes of a directory on GlusterFS, a file system of another machine and in user space: its files
//! have no handles that last, its server judges callers again, and other clients change it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::Volume;
use crate::exerciser::exercise;
use crate::posix::{judge, suite};
use crate::soak::under_kills;
use crate::world::need_mount;

/// Operations on one file; each of them takes a round trip or more.
const OPERATIONS: u32 = 1500;
const KILLS: u64 = 5;

/// The mounts of two clients of one shared file system, or why there are none.
pub(crate) fn clients() -> Result<[PathBuf; 2], &'static str> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let one = variable("TERRACE_TEST_SHARED_FS");
    match (one, variable("TERRACE_TEST_SHARED_FS_OTHER")) {
        (Some(one), Some(other)) => Ok([one, other]),
        _ => Err("no GlusterFS (TERRACE_TEST_SHARED_FS_OTHER is not set)"),
    }
}

/// Ends the test with a skip line without a shared file system; its mounts otherwise.
macro_rules! need_shared {
    ($test:literal) => {{
        need_mount!($test);
        match $crate::shared::clients() {
            Ok(clients) => clients,
            Err(why) => {
                println!("SKIP {}: {why}", $test);
                return;
            }
        }
    }};
}

pub(crate) use need_shared;

// SEMANTICS S96: without it a program would break on a volume of the shared file system that works beside
// it there.
#[test]
fn the_posix_suite_passes_where_the_shared_file_system_does() {
    let [place, _] = need_shared!("the_posix_suite_passes_where_the_shared_file_system_does");
    let Some(program) = suite("the_posix_suite_passes_where_the_shared_file_system_does") else {
        return;
    };
    let volume = Volume::fresh_below(&place, &["-o", "suid", "--ssd-cache", "off"]);
    let beside = tempfile::tempdir_in(&place).unwrap();
    let alone = judge(&program, &volume.world, beside.path());
    let here = judge(&program, &volume.world, &volume.mount);
    let (passed, expected) = (here.passed, alone.passed);
    let failed: Vec<&String> = here.failed.keys().collect();
    println!(
        "pjdfstest: {passed} passed on the volume, {expected} on GlusterFS; {failed:?} failed"
    );
    let worse = failed
        .into_iter()
        .filter(|name| !alone.failed.contains_key(*name));
    let worse: Vec<&String> = worse.collect();
    assert!(
        worse.is_empty(),
        "GlusterFS passes {worse:?}\n{}",
        here.said
    );
    assert!(
        passed >= expected,
        "{passed} passed, {expected} on GlusterFS"
    );
}

// SEMANTICS S41, S96: without it a write by one way would be unseen by another one.
#[test]
fn every_way_to_write_a_shared_file_agrees() {
    let [place, _] = need_shared!("every_way_to_write_a_shared_file_agrees");
    // Ranges made zero by fallocate(2) have old bytes on GlusterFS itself, too.
    let volume = Volume::fresh_below(&place, &[]);
    exercise(&volume, "file", &[7], OPERATIONS, false);
}

// SEMANTICS S44, S46, S96: without it the death of a worker would lose files whose handles do not last.
#[test]
fn workers_are_killed_under_writers_of_a_shared_directory() {
    let [place, _] = need_shared!("workers_are_killed_under_writers_of_a_shared_directory");
    let volume = Volume::fresh_below(&place, &[]);
    under_kills(&volume.world, &volume.mount, &volume.below, KILLS);
}

// SEMANTICS S96: without it a file that is open, was renamed or lies deep would be lost with the worker.
#[test]
fn files_are_found_again_by_where_they_were() {
    let [place, _] = need_shared!("files_are_found_again_by_where_they_were");
    let volume = Volume::fresh_below(&place, &["--ttl", "0s"]);
    let deep = volume.mount.join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "before").unwrap();
    let number = fs::metadata(deep.join("file")).unwrap().ino();
    let mut open = OpenOptions::new()
        .read(true)
        .append(true)
        .open(deep.join("file"))
        .unwrap();
    let held = File::open(&deep).unwrap();
    // The way of everything below changes with one rename.
    fs::rename(volume.mount.join("a"), volume.mount.join("moved")).unwrap();
    let mut deleted = File::create_new(volume.mount.join("deleted")).unwrap();
    deleted.write_all(b"still here").unwrap();
    fs::remove_file(volume.mount.join("deleted")).unwrap();
    crate::manners::kill(&volume);
    let path = volume.mount.join("moved/b/c/file");
    assert_eq!(fs::metadata(&path).unwrap().ino(), number);
    assert_eq!(open.metadata().unwrap().ino(), number);
    open.write_all(b" and after").unwrap();
    open.sync_all().unwrap();
    let mut text = String::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and after");
    assert_eq!(
        held.metadata().unwrap().ino(),
        fs::metadata(path.parent().unwrap()).unwrap().ino()
    );
    // What has no name is not found again, and is no other file either.
    let lost = deleted.read_exact_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(lost.raw_os_error(), Some(nix::libc::ESTALE), "{lost}");
}

// SEMANTICS S40, S96: without it a file that is made read-only could not be written by who makes it, as git
// does, because the server judges the kernel's second open of it.
#[test]
fn a_file_made_read_only_is_written_by_its_maker() {
    let [place, _] = need_shared!("a_file_made_read_only_is_written_by_its_maker");
    let volume = Volume::fresh_below(&place, &[]);
    fs::set_permissions(&volume.mount, fs::Permissions::from_mode(0o777)).unwrap();
    let root = File::open(&volume.mount).unwrap();
    let made = crate::differential::as_user((1001, 2001, &[]), || {
        use nix::fcntl::{OFlag, openat};
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o444);
        let file = File::from(openat(&root, "object", flags, mode)?);
        file.write_all_at(b"written", 0)
            .map_err(|_| nix::errno::Errno::EIO)
    });
    assert_eq!(made, Ok(()));
    assert_eq!(fs::read(volume.below.join("object")).unwrap(), b"written");
}

// SEMANTICS S42, S96: without it who may write in a directory through a second group could not make a file
// there, because the server does not know the group.
#[test]
fn what_the_server_refuses_again_is_made_and_given() {
    let [place, _] = need_shared!("what_the_server_refuses_again_is_made_and_given");
    let volume = Volume::fresh_below(&place, &[]);
    fs::set_permissions(&volume.below, fs::Permissions::from_mode(0o755)).unwrap();
    let home = volume.mount.join("group");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(0), Some(2002)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o2770)).unwrap();
    let root = File::open(&home).unwrap();
    let directory = || {
        use nix::fcntl::{OFlag, openat};
        use nix::sys::stat::{Mode, mkdirat};
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        openat(&root, "file", flags, Mode::from_bits_truncate(0o640)).map(drop)?;
        mkdirat(&root, "directory", Mode::from_bits_truncate(0o750))
    };
    crate::differential::as_user((1001, 2001, &[2002]), directory).unwrap();
    for (name, mode) in [("file", 0o640), ("directory", 0o2750)] {
        let made = fs::metadata(home.join(name)).unwrap();
        let seen = (made.uid(), made.gid(), made.mode() & 0o7777);
        assert_eq!(seen, (1001, 2002, mode), "{name}");
    }
    let refused = crate::differential::as_user((1003, 2001, &[]), directory);
    assert_eq!(refused, Err(nix::errno::Errno::EACCES));
}
