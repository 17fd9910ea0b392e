//! Spaces whose files are staged: what counts is what was written, wherever its bytes are.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::spaces::Space;
use crate::world::{need_mount, wait_for};

const MIB: u64 = 1 << 20;

/// A space of 1 MiB that is counted every second, and whose files are staged.
fn staged() -> Space {
    let rules = ["--rw", "--durability", "fsync=local,close=local"];
    Space::counting("1MiB", "20", &rules)
}

/// A new file of so many bytes, synced on this node.
fn write(at: &Path, bytes: u64) -> File {
    let mut file = File::create(at).unwrap();
    file.write_all(&vec![7; usize::try_from(bytes).unwrap()])
        .unwrap();
    file.sync_all().unwrap();
    file
}

fn is_full(written: std::io::Result<usize>) {
    let error = written.expect_err("it was not refused");
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
}

// Without it a tenant with an SSD below has no limit at all, or pays for every file twice.
#[test]
fn staged_bytes_count_once() {
    need_mount!("staged_bytes_count_once");
    let space = staged();
    let (shown, below) = (space.mount.join("file"), space.below.join("file"));
    let mut file = write(&shown, MIB);
    // It is open, so all of it is in the spool; no count may take that for nothing.
    assert_eq!(fs::metadata(&below).unwrap().len(), 0);
    is_full(file.write(b"x"));
    space.counted();
    assert_eq!(space.used(), (MIB, 1));
    is_full(File::create(space.mount.join("other")).unwrap().write(b"x"));
    fs::remove_file(space.mount.join("other")).unwrap();
    drop(file);
    wait_for("the copy", || {
        fs::metadata(&below).is_ok_and(|found| found.len() == MIB)
    });
    space.counted();
    wait_for("the file alone", || space.used() == (MIB, 1));
    // Written anew: what it had is given back when it is truncated, before any of it is copied.
    let file = write(&shown, MIB / 2);
    assert_eq!(fs::metadata(&shown).unwrap().len(), MIB / 2);
    assert_eq!(space.used(), (MIB / 2, 1));
    file.set_len(MIB / 4).unwrap();
    assert_eq!(space.used(), (MIB / 4, 1));
    assert!(file.set_len(MIB + 1).is_err(), "longer than the limit");
    space.counted();
    assert_eq!(space.used(), (MIB / 4, 1));
    drop(file);
    let rest = write(&space.mount.join("rest"), MIB / 4 * 3);
    drop(rest);
    wait_for("both copies", || {
        let length = |name| fs::metadata(space.below.join(name)).map_or(0, |found| found.len());
        (length("file"), length("rest")) == (MIB / 4, MIB / 4 * 3)
    });
    space.sum_is_right();
}

// Without it files that are deleted while they are staged are paid for ever, or never were; and the next worker
// begins with another sum.
#[test]
fn staged_bytes_count_until_they_are_gone() {
    need_mount!("staged_bytes_count_until_they_are_gone");
    let space = staged();
    let shown = space.mount.join("file");
    let mut file = write(&shown, MIB / 2);
    fs::remove_file(&shown).unwrap();
    file.write_all(&vec![7; MIB as usize / 4]).unwrap();
    space.counted();
    assert_eq!(space.used(), (MIB / 4 * 3, 1));
    drop(file);
    wait_for("nothing", || space.used() == (0, 0));
    let mut file = write(&shown, MIB / 2);
    space.kill_worker();
    assert_eq!(space.used(), (MIB / 2, 1));
    space.counted();
    assert_eq!(space.used(), (MIB / 2, 1));
    file.write_all(&vec![7; MIB as usize / 2]).unwrap();
    is_full(file.write(b"x"));
    drop(file);
    // Replaced by another one, whether it is copied by then or not.
    let new = space.mount.join("new");
    drop(File::create(&new).unwrap());
    fs::rename(&new, &shown).unwrap();
    wait_for("the empty one", || space.used() == (0, 1));
    space.sum_is_right();
}
