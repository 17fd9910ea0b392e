//! A volume with a spool, without a kernel: data comes through the daemon, and the next worker is a volume
//! over the same handles.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::{
    Caller, Change, DirectoryFs, DirectoryParts, Durability, HandleOf, Level, OMIT, Place, ROOT,
    SpoolPlace,
};
use crate::handles::HandleTable;

/// Anything that is waited for takes less.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    place: tempfile::TempDir,
    handles: OwnedFd,
    requests: u64,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in ["below", "state", "spool"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        Self {
            place,
            handles: HandleTable::create_sized(64, 64).unwrap(),
            requests: 0,
        }
    }

    fn worker(&self, fresh: bool) -> Arc<DirectoryFs> {
        DirectoryFs::open(DirectoryParts {
            root: &self.place.path().join("below"),
            state: &self.place.path().join("state"),
            fresh,
            handles: HandleTable::open(self.handles.try_clone().unwrap()).unwrap(),
            passthrough: false,
            ttl: Duration::ZERO,
            revalidate: Duration::ZERO,
            local_locks: true,
            durability: Durability::parse(&["fsync=local,close=local"]).unwrap(),
            spool: Some(SpoolPlace {
                directory: self.place.path().join("spool"),
                limit: Some(1 << 30),
            }),
            cold: None,
            quota: None,
        })
        .unwrap()
    }

    fn create(&mut self, fs: &DirectoryFs, name: &str) -> HandleOf {
        self.requests += 1;
        let place = Place {
            unique: self.requests,
            caller: Caller {
                uid: 0,
                gid: 0,
                umask: 0,
            },
            parent: ROOT,
            name: name.as_bytes(),
        };
        let (entry, opened, intent) = fs.create(place, 0o644, libc::O_WRONLY).unwrap();
        drop(intent);
        HandleOf {
            node: entry.node,
            fh: opened.fh,
        }
    }

    fn open(&mut self, fs: &DirectoryFs, node: u64, flags: i32) -> HandleOf {
        self.requests += 1;
        let opened = fs.open_file(self.requests, node, flags).unwrap();
        HandleOf {
            node,
            fh: opened.fh,
        }
    }

    fn below(&self, name: &str) -> PathBuf {
        self.place.path().join("below").join(name)
    }
}

fn level(fs: &DirectoryFs, node: u64) -> String {
    String::from_utf8(fs.xattr(node, b"user.terrace.durability").unwrap()).unwrap()
}

fn files(fs: &DirectoryFs) -> u64 {
    fs.spool_status(b"").unwrap().unwrap().files
}

#[track_caller]
fn wait_for(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIP {test}: needs root");
    }
    root
}

// Without it bytes that were promised would not be found again, or never leave the SSD.
#[test]
fn a_file_is_staged_kept_over_workers_and_brought_into_the_directory() {
    if !is_root("a_file_is_staged_kept_over_workers_and_brought_into_the_directory") {
        return;
    }
    let mut world = World::new();
    let fs = world.worker(true);
    let of = world.create(&fs, "file");
    assert_eq!(fs.write(of, 0, b"bytes"), Ok(5));
    assert_eq!(level(&fs, of.node), "accepted");
    fs.sync(of, true).unwrap();
    assert_eq!(level(&fs, of.node), "local");
    assert_eq!(fs.attributes(of.node, Some(of.fh)).unwrap().st_size, 5);
    assert_eq!(fs::read(world.below("file")).unwrap(), b"");
    drop(fs);
    let fs = world.worker(false);
    assert_eq!(fs.read(of, 0, 100).unwrap(), b"bytes");
    assert_eq!(fs.write(of, 5, b" more"), Ok(5));
    fs.flush(of).unwrap();
    fs.release(of.fh);
    wait_for(|| files(&fs) == 0);
    assert_eq!(fs::read(world.below("file")).unwrap(), b"bytes more");
    assert_eq!(level(&fs, of.node), "shared");
    // Opened as it is, then truncated by an open: staged again, and the old version stays until then.
    let reader = world.open(&fs, of.node, libc::O_RDONLY);
    assert_eq!(fs.read(reader, 0, 100).unwrap(), b"bytes more");
    fs.release(reader.fh);
    let writer = world.open(&fs, of.node, libc::O_WRONLY | libc::O_TRUNC);
    assert_eq!(fs.attributes(of.node, None).unwrap().st_size, 0);
    assert_eq!(fs::read(world.below("file")).unwrap(), b"bytes more");
    fs.write(writer, 0, b"new").unwrap();
    let done = fs
        .flush_below(b"file", Level::Shared, &mut |_| true)
        .unwrap();
    assert_eq!((done.done, done.failed), (1, 0), "{}", done.error);
    assert_eq!(fs::read(world.below("file")).unwrap(), b"new");
    let change = Change {
        mode: None,
        uid: None,
        gid: None,
        size: Some(2),
        times: [OMIT, OMIT],
        fh: Some(writer.fh),
    };
    assert_eq!(fs.change(of.node, &change).unwrap().st_size, 2);
    fs.release(writer.fh);
    wait_for(|| files(&fs) == 0);
    assert_eq!(fs::read(world.below("file")).unwrap(), b"ne");
}

// Without it one node would overwrite another one's version, or drop its own.
#[test]
fn a_conflict_keeps_both_versions() {
    if !is_root("a_conflict_keeps_both_versions") {
        return;
    }
    let mut world = World::new();
    let fs = world.worker(true);
    let of = world.create(&fs, "file");
    let reader = world.open(&fs, of.node, libc::O_RDONLY);
    fs.write(of, 0, b"ours").unwrap();
    fs.sync(of, false).unwrap();
    fs::write(world.below("file"), "theirs").unwrap();
    let done = fs.flush_below(b"", Level::Shared, &mut |_| true).unwrap();
    assert_eq!((done.done, done.failed), (0, 1));
    assert_eq!(fs.sync(of, false), Err(Errno::ESTALE));
    assert_eq!(fs.sync(reader, false), Err(Errno::ESTALE));
    assert_eq!(fs.acknowledge_below(b""), Ok(1));
    let status = fs.spool_status(b"").unwrap().unwrap();
    assert_eq!(
        (status.set_aside, status.conflicts_total, status.errors),
        (1, 1, 0)
    );
    fs.release(of.fh);
    fs.release(reader.fh);
    let reader = world.open(&fs, of.node, libc::O_RDONLY);
    assert_eq!(fs.read(reader, 0, 100).unwrap(), b"theirs");
    fs.release(reader.fh);
    drop(fs);
    // The next one knows of nothing that would be left to do.
    let fs = world.worker(true);
    assert_eq!(
        (files(&fs), fs.spool_status(b"").unwrap().unwrap().set_aside),
        (0, 1)
    );
}

// Without it what was deleted would come up again, or take room for ever.
#[test]
fn what_was_deleted_goes_with_its_last_handle() {
    if !is_root("what_was_deleted_goes_with_its_last_handle") {
        return;
    }
    let mut world = World::new();
    let fs = world.worker(true);
    let of = world.create(&fs, "file");
    fs.write(of, 0, b"bytes").unwrap();
    fs.sync(of, false).unwrap();
    drop(fs.remove(77, ROOT, b"file", false).unwrap());
    drop(fs);
    let fs = world.worker(false);
    assert_eq!(fs.read(of, 0, 100).unwrap(), b"bytes");
    let stat = fs.attributes(of.node, Some(of.fh)).unwrap();
    assert_eq!(
        (stat.st_size, stat.st_nlink, stat.st_mode & 0o777),
        (5, 0, 0o644)
    );
    fs.sync(of, false).unwrap();
    fs.release(of.fh);
    wait_for(|| fs.spool_status(b"").unwrap().unwrap().used_bytes == 0);
    let status = fs.spool_status(b"").unwrap().unwrap();
    assert_eq!((status.files, status.set_aside), (0, 0));
}

// Without it a file that is saved again while it is copied would be taken for another node's.
#[test]
fn a_file_that_is_saved_again_and_again_is_no_conflict() {
    if !is_root("a_file_that_is_saved_again_and_again_is_no_conflict") {
        return;
    }
    let mut world = World::new();
    let fs = world.worker(true);
    let of = world.create(&fs, "file");
    fs.release(of.fh);
    let mut last = Vec::new();
    for step in 0..30_u8 {
        last = vec![step + 1; 3 << 20];
        let of = world.open(&fs, of.node, libc::O_WRONLY | libc::O_TRUNC);
        fs.write(of, 0, &last).unwrap();
        fs.flush(of).unwrap();
        fs.release(of.fh);
    }
    wait_for(|| files(&fs) == 0);
    assert!(fs::read(world.below("file")).unwrap() == last);
    assert_eq!(fs.spool_status(b"").unwrap().unwrap().set_aside, 0);
}
