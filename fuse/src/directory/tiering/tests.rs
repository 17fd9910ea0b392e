//! Contents that move, are stopped in the middle, meet others, and come back: on a directory of this
//! machine with another one as the cold store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use tempfile::TempDir;
use terrace_cache::store::{Credentials, Store, StoreConfig};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::{Change, DirectoryFs, DirectoryParts, Durability, HandleOf, OMIT, ROOT, sys};
use super::demote::{Kept, Moved};
use super::{
    Action, ColdParts, Collection, ELSEWHERE, Job, Report, Step, TierError, TierPolicy, Told,
    Witness, attribute,
};
use crate::handles::HandleTable;

/// A time of modification with a part of a second, long ago.
const SECONDS: i64 = 1_600_000_000;
const NANOSECONDS: i64 = 123_456_789;

/// Done at one step of a file, once.
type AtStep = Box<dyn FnOnce() + Send>;

/// Stops at a step, or does something there; counts.
#[derive(Default)]
struct Script {
    stop: Mutex<Option<Step>>,
    act: Mutex<Option<(Step, AtStep)>>,
    hits: AtomicUsize,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl Witness for Script {
    fn passed(&self, step: Step) -> bool {
        let act = {
            let mut act = self.act.lock().unwrap();
            act.take_if(|(at, _)| *at == step)
        };
        if let Some((_, act)) = act {
            self.hits.fetch_add(1, Ordering::Relaxed);
            act();
        }
        let stops = *self.stop.lock().unwrap() == Some(step);
        self.hits.fetch_add(usize::from(stops), Ordering::Relaxed);
        !stops
    }
}

struct World {
    place: TempDir,
    script: Arc<Script>,
    store: Store,
    fs: Arc<DirectoryFs>,
}

/// Says why this machine cannot run the tests.
fn cannot() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root");
    }
    let place = tempfile::tempdir().unwrap();
    let file = File::open(place.path()).unwrap();
    let id = sys::file_id(file.as_fd());
    let reopened = id.and_then(|id| sys::open_id(file.as_fd(), &id, OFlag::O_PATH));
    if reopened.is_err() {
        return Some("the directory for temporary files has no file handles");
    }
    let kept = sys::set_xattr(file.as_fd(), c"trusted.terrace.test", b"x", 0);
    kept.err()
        .map(|_| "the directory for temporary files has no attributes trusted.*")
}

macro_rules! world {
    ($test:literal) => {
        match cannot() {
            Some(why) => {
                println!("SKIP {}: {why}", $test);
                return;
            }
            None => World::new().await,
        }
    };
}

async fn open(place: &Path, state: &str, script: &Arc<Script>) -> (Store, Arc<DirectoryFs>) {
    let url = format!("file://{}", place.join("cold").display());
    let (config, credentials) = (StoreConfig::default(), Credentials::default());
    let store = Store::open(&url.parse().unwrap(), &config, &credentials).await;
    let store = store.unwrap();
    let state = place.join(state);
    fs::create_dir_all(&state).unwrap();
    let parts = DirectoryParts {
        root: &place.join("below"),
        state: &state,
        fresh: true,
        handles: HandleTable::open(HandleTable::create_sized(64, 64).unwrap()).unwrap(),
        passthrough: false,
        ttl: Duration::ZERO,
        local_locks: true,
        durability: Durability::default(),
        spool: None,
        quota: None,
        cold: Some(ColdParts {
            store: store.clone(),
            policy: None,
            scratch: state.join("marks"),
            runtime: Handle::current(),
            witness: Some(Arc::clone(script) as Arc<dyn Witness>),
        }),
    };
    (store, DirectoryFs::open(parts).unwrap())
}

impl World {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in ["below", "cold"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let script = Arc::new(Script::default());
        let (store, fs) = open(place.path(), "state", &script).await;
        Self {
            place,
            script,
            store,
            fs,
        }
    }

    /// As after the death of the process: nothing is left but what is on disk.
    async fn restart(&mut self) {
        *self.script.stop.lock().unwrap() = None;
        *self.script.act.lock().unwrap() = None;
        let number = self.script.hits.load(Ordering::Relaxed);
        let state = format!("state-{number}-{}", rand::random::<u64>());
        (self.store, self.fs) = open(self.place.path(), &state, &self.script).await;
    }

    fn below(&self, name: &str) -> PathBuf {
        self.place.path().join("below").join(name)
    }

    /// Writes a file below with times of long ago.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.below(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let long_ago =
            SystemTime::UNIX_EPOCH + Duration::new(SECONDS.unsigned_abs(), NANOSECONDS as u32);
        let times = FileTimes::new()
            .set_modified(long_ago)
            .set_accessed(long_ago);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
    }

    fn node(&self, name: &str) -> u64 {
        let mut node = ROOT;
        for part in name.split('/') {
            node = self.fs.lookup(node, part.as_bytes()).unwrap().node;
        }
        node
    }

    fn length(&self, name: &str) -> i64 {
        self.fs.attributes(self.node(name), None).unwrap().st_size
    }

    async fn demote(&self, name: &str) -> Result<Moved, TierError> {
        let target = self.fs.target(self.node(name)).await.unwrap();
        self.fs.demote(&target).await
    }

    /// What an application reads.
    async fn read(&self, name: &str) -> Result<Vec<u8>, Errno> {
        let node = self.node(name);
        let opened = match self.fs.open_file(0, node, libc::O_RDONLY) {
            Err(ELSEWHERE) => {
                self.fs.recall(node).await?;
                self.fs.open_file(0, node, libc::O_RDONLY)
            }
            other => other,
        }?;
        let of = HandleOf {
            node,
            fh: opened.fh,
        };
        let bytes = self.fs.read(of, 0, 64 << 20);
        self.fs.release(opened.fh);
        bytes
    }

    /// Objects of the cold store.
    fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.place.path().join("cold")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path)
                } else {
                    found.push(path)
                }
            }
        }
        found
    }

    async fn job(&self, job: Job) -> (Report, Vec<String>) {
        let (told, mut heard) = mpsc::channel(4);
        let listen = async {
            let mut rows = Vec::new();
            while let Some(told) = heard.recv().await {
                if let Told::File(row) = told {
                    rows.push(String::from_utf8(row.path).unwrap());
                }
            }
            rows.sort();
            rows
        };
        let work = async {
            let report = self.fs.run_job(job, &told).await.unwrap();
            drop(told);
            report
        };
        tokio::join!(work, listen)
    }

    async fn collect(&self, grace: Duration, dry_run: bool) -> super::Collected {
        let (told, mut heard) = mpsc::channel(4);
        let listen = async { while heard.recv().await.is_some() {} };
        let work = async {
            let done = self.fs.collect(Collection { grace, dry_run }, &told).await;
            drop(told);
            done.unwrap()
        };
        tokio::join!(work, listen).0
    }
}

fn contents(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 7 + at / 4096) as u8 ^ seed)
        .collect()
}

fn xattr(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let file = File::open(path).unwrap();
    let mut room = [0; 4096];
    let length = sys::get_xattr(file.as_fd(), name, &mut room).ok()?;
    Some(room[..length].to_vec())
}

// SEMANTICS S80, S81, S82, S85: without it a demotion would change what a file looks like, or a recall what it has.
#[tokio::test(flavor = "multi_thread")]
async fn contents_go_and_come_back() {
    let world = world!("contents_go_and_come_back");
    let bytes = contents(1, 9_000_001);
    world.write("d/file", &bytes);
    fs::set_permissions(world.below("d/file"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = world.fs.attributes(world.node("d/file"), None).unwrap();
    assert_eq!(
        world.demote("d/file").await.unwrap(),
        Moved::Away(9_000_001)
    );
    let below = fs::metadata(world.below("d/file")).unwrap();
    assert_eq!(below.len(), 0);
    let why = String::from_utf8(xattr(&world.below("d/file"), attribute::WHY).unwrap()).unwrap();
    assert!(
        why.contains("9000001 bytes") && why.contains("terrace volume recall"),
        "{why}"
    );
    let objects = world.objects();
    assert_eq!(objects.len(), 1);
    assert!(
        fs::read(&objects[0]).unwrap() == bytes,
        "the object is the contents"
    );
    let path = xattr(&objects[0], c"user.terrace.size").unwrap();
    assert_eq!(path, b"9000001");
    let shown = world.fs.attributes(world.node("d/file"), None).unwrap();
    assert_eq!(
        (shown.st_size, shown.st_mode),
        (before.st_size, before.st_mode)
    );
    assert_eq!(
        (shown.st_mtime, shown.st_mtime_nsec),
        (SECONDS, NANOSECONDS)
    );
    assert!(
        (1..=8).contains(&shown.st_blocks),
        "{} blocks",
        shown.st_blocks
    );
    let node = world.node("d/file");
    assert_eq!(world.fs.open_file(0, node, libc::O_RDONLY), Err(ELSEWHERE));
    let names = world.fs.xattr_names(node, 0).unwrap();
    assert!(
        !String::from_utf8_lossy(&names).contains("terrace"),
        "records are not listed"
    );
    assert!(world.read("d/file").await.unwrap() == bytes);
    let back = fs::metadata(world.below("d/file")).unwrap();
    assert_eq!(
        (back.len(), back.mtime(), back.mtime_nsec()),
        (9_000_001, SECONDS, NANOSECONDS)
    );
    assert!(back.atime() > SECONDS, "it was used");
    assert_eq!(xattr(&world.below("d/file"), attribute::WHY), None);
    // The copy spares the next upload.
    assert_eq!(
        world.demote("d/file").await.unwrap(),
        Moved::Away(9_000_001)
    );
    assert_eq!(world.objects(), objects);
    assert!(world.read("d/file").await.unwrap() == bytes);
}

// SEMANTICS S83: without it a worker that dies while it moves a file loses it.
#[tokio::test(flavor = "multi_thread")]
async fn no_step_loses_anything_when_the_process_dies_there() {
    let mut world = world!("no_step_loses_anything_when_the_process_dies_there");
    let steps = [
        Step::Verified,
        Step::Copied,
        Step::Explained,
        Step::Demoting,
        Step::Emptied,
        Step::Dated,
        Step::Stubbed,
        Step::Recalling,
        Step::Fetched,
        Step::Filled,
        Step::Returned,
        Step::Recalled,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("file{number}");
        let bytes = contents(number as u8, 9 << 20);
        world.write(&name, &bytes);
        if step >= Step::Recalling {
            assert!(matches!(world.demote(&name).await, Ok(Moved::Away(_))));
        }
        *world.script.stop.lock().unwrap() = Some(step);
        if step >= Step::Recalling {
            world.read(&name).await.unwrap_err();
        } else {
            assert!(
                matches!(world.demote(&name).await, Err(TierError::Stopped)),
                "{step:?}"
            );
        }
        let hits = world.script.hits.load(Ordering::Relaxed);
        assert_eq!(hits, number + 1, "{step:?} was passed once");
        world.restart().await;
        if step != Step::Fetched {
            assert_eq!(world.length(&name), 9 << 20, "{step:?}");
        }
        let stat = world.fs.attributes(world.node(&name), None).unwrap();
        if step < Step::Recalling || step >= Step::Returned {
            assert_eq!(
                (stat.st_mtime, stat.st_mtime_nsec),
                (SECONDS, NANOSECONDS),
                "{step:?}"
            );
        }
        assert!(world.read(&name).await.unwrap() == bytes, "{step:?}");
        let stat = world.fs.attributes(world.node(&name), None).unwrap();
        assert_eq!(
            (stat.st_mtime, stat.st_mtime_nsec),
            (SECONDS, NANOSECONDS),
            "{step:?}"
        );
        // And it can go again.
        assert_eq!(
            world.demote(&name).await.unwrap(),
            Moved::Away(9 << 20),
            "{step:?}"
        );
        assert!(world.read(&name).await.unwrap() == bytes, "{step:?}");
    }
}

// SEMANTICS S84: without it what somebody writes without Terrace is lost to an older copy.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_without_terrace_wins_at_every_step() {
    let world = world!("what_is_written_without_terrace_wins_at_every_step");
    let steps = [
        Step::Verified,
        Step::Copied,
        Step::Explained,
        Step::Demoting,
        Step::Emptied,
        Step::Dated,
        Step::Stubbed,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let name = format!("file{number}");
        world.write(&name, &contents(1, 100_000));
        let path = world.below(&name);
        let writer = Arc::new(Mutex::new(None));
        let started = Arc::clone(&writer);
        let act: AtStep = Box::new(move || {
            let write = move || fs::write(&path, "written by another program").unwrap();
            if step <= Step::Copied {
                write();
            } else {
                // It waits for the lease, which is given back when the file is a stub.
                *started.lock().unwrap() = Some(std::thread::spawn(write));
            }
        });
        *world.script.act.lock().unwrap() = Some((step, act));
        let moved = world.demote(&name).await.unwrap();
        if step <= Step::Copied {
            assert_eq!(moved, Moved::Kept(Kept::Changed), "{step:?}");
        }
        let writer = writer.lock().unwrap().take();
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        assert_eq!(world.script.hits.load(Ordering::Relaxed), number + 1);
        let read = world.read(&name).await.unwrap();
        assert_eq!(read, b"written by another program", "{step:?}");
        assert_eq!(world.length(&name), 26, "{step:?}");
    }
}

// SEMANTICS S84: without it a stub that is written, or only touched, without Terrace would be read as
// something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_stub_is_changed_without_terrace() {
    let world = world!("a_stub_is_changed_without_terrace");
    for name in ["written", "touched", "truncated", "grown"] {
        world.write(name, &contents(3, 5000));
        assert!(matches!(world.demote(name).await, Ok(Moved::Away(5000))));
    }
    fs::write(world.below("written"), "new").unwrap();
    assert_eq!(world.read("written").await.unwrap(), b"new");
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::options()
        .write(true)
        .open(world.below("touched"))
        .unwrap()
        .set_times(times)
        .unwrap();
    assert_eq!(world.length("touched"), 5000);
    assert!(world.read("touched").await.unwrap() == contents(3, 5000));
    assert_eq!(fs::metadata(world.below("touched")).unwrap().mtime(), 0);
    // Emptying what is empty below changes nothing that anybody without Terrace could see.
    File::create(world.below("truncated")).unwrap();
    assert!(world.read("truncated").await.unwrap() == contents(3, 5000));
    File::options()
        .write(true)
        .open(world.below("grown"))
        .unwrap()
        .set_len(9)
        .unwrap();
    assert_eq!(world.read("grown").await.unwrap(), [0; 9]);
}

// SEMANTICS S86: without it eight programs that open one file would fetch it eight times.
#[tokio::test(flavor = "multi_thread")]
async fn contents_come_once_for_all_who_wait() {
    let world = world!("contents_come_once_for_all_who_wait");
    let bytes = contents(7, 3 << 20);
    world.write("file", &bytes);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let before = world.store.stats().bytes;
    let node = world.node("file");
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let fs = Arc::clone(&world.fs);
            tokio::spawn(async move { fs.recall(node).await })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
    assert_eq!(world.store.stats().bytes - before, 3 << 20, "read once");
    let status = world.fs.tier_status().unwrap();
    assert_eq!(
        (status.recalled_files, status.recalled_bytes, status.waited),
        (1, 3 << 20, 8)
    );
    assert!(world.read("file").await.unwrap() == bytes);
}

// SEMANTICS S81: without it listing or measuring a tree would bring it back.
#[tokio::test(flavor = "multi_thread")]
async fn looking_at_files_brings_nothing_back() {
    let world = world!("looking_at_files_brings_nothing_back");
    for number in 0..20 {
        let name = format!("f{number}");
        world.write(&name, &contents(number, 10_000));
        assert!(matches!(world.demote(&name).await, Ok(Moved::Away(_))));
    }
    let before = world.store.stats().bytes;
    let listing = world.fs.open_listing(ROOT).unwrap();
    let mut lengths = Vec::new();
    let mut tell = |row: &super::super::Row<'_>| {
        lengths.extend(row.entry.map(|entry| entry.stat.st_size));
        true
    };
    world.fs.list((ROOT, listing), 0, true, &mut tell).unwrap();
    world.fs.close_listing(listing);
    assert_eq!(lengths, [10_000; 20]);
    // Names, owners, modes and times change without contents.
    let node = world.node("f0");
    let change = Change {
        mode: Some(0o600),
        uid: Some(7),
        gid: None,
        size: None,
        times: [
            OMIT,
            libc::timespec {
                tv_sec: 99,
                tv_nsec: 5,
            },
        ],
        fh: None,
    };
    let stat = world.fs.change(node, &change).unwrap();
    assert_eq!((stat.st_size, stat.st_mtime, stat.st_uid), (10_000, 99, 7));
    world.fs.rename(3, (ROOT, b"f0"), (ROOT, b"g0"), 0).unwrap();
    world.fs.link(4, node, ROOT, b"h0").unwrap();
    world.fs.remove(5, ROOT, b"g0", false).unwrap();
    assert_eq!(world.length("h0"), 10_000);
    assert_eq!(world.store.stats().bytes, before);
    assert!(world.read("h0").await.unwrap() == contents(0, 10_000));
    assert_eq!(fs::metadata(world.below("h0")).unwrap().mtime(), 99);
}

// SEMANTICS S87: without it a file would be emptied under whoever reads it, here or on another node.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_stays() {
    let world = world!("what_is_open_stays");
    world.write("file", &contents(1, 5000));
    let node = world.node("file");
    let opened = world.fs.open_file(1, node, libc::O_RDONLY).unwrap();
    assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
    world.fs.release(opened.fh);
    // Another node: another instance, which knows nothing of this one.
    let script = Arc::new(Script::default());
    let (_, other) = open(world.place.path(), "other", &script).await;
    let node = other.lookup(ROOT, b"file").unwrap().node;
    for flags in [libc::O_RDONLY, libc::O_WRONLY] {
        let opened = other.open_file(1, node, flags).unwrap();
        assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
        other.release(opened.fh);
    }
    // A program without Terrace.
    let program = File::open(world.below("file")).unwrap();
    assert_eq!(world.demote("file").await.unwrap(), Moved::Kept(Kept::Open));
    drop(program);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(5000))));
    // Both bring it back at once.
    let (one, two) = tokio::join!(world.fs.recall(node), other.recall(node));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert!(world.read("file").await.unwrap() == contents(1, 5000));
}

// SEMANTICS S82: without it truncating a stub would fetch what is thrown away, or keep what is not.
#[tokio::test(flavor = "multi_thread")]
async fn truncating_takes_only_what_it_needs() {
    let world = world!("truncating_takes_only_what_it_needs");
    let truncate = |node, size| {
        let change = Change {
            mode: None,
            uid: None,
            gid: None,
            size: Some(size),
            times: [OMIT, OMIT],
            fh: None,
        };
        world.fs.change(node, &change)
    };
    world.write("file", &contents(1, 5000));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(5000))));
    let node = world.node("file");
    assert_eq!(truncate(node, 100).unwrap_err(), ELSEWHERE);
    world.fs.recall(node).await.unwrap();
    assert_eq!(truncate(node, 100).unwrap().st_size, 100);
    assert!(world.read("file").await.unwrap() == contents(1, 5000)[..100]);
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(100))));
    let before = world.store.stats().bytes;
    assert_eq!(truncate(node, 0).unwrap().st_size, 0);
    assert_eq!(world.store.stats().bytes, before);
    assert_eq!(world.read("file").await.unwrap(), b"");
    // By an open, also by one that only reads; of a stub and of a file.
    for name in ["stub", "file2"] {
        world.write(name, &contents(2, 5000));
    }
    assert!(matches!(world.demote("stub").await, Ok(Moved::Away(5000))));
    let before = world.store.stats().bytes;
    for name in ["stub", "file2"] {
        let node = world.node(name);
        let flags = libc::O_RDONLY | libc::O_TRUNC;
        let opened = world.fs.open_file(1, node, flags).unwrap();
        world.fs.release(opened.fh);
        assert_eq!(world.read(name).await.unwrap(), b"", "{name}");
    }
    assert_eq!(world.store.stats().bytes, before);
}

// SEMANTICS S88: without it a store that lost or changed an object would be read as something else, or
// would take the stub along.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_changes_nothing() {
    let world = world!("a_store_that_fails_changes_nothing");
    world.write("file", &contents(1, 6 << 20));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let object = world.objects().remove(0);
    let aside = world.place.path().join("aside");
    fs::rename(&object, &aside).unwrap();
    assert_eq!(
        world.read("file").await,
        Err(Errno::EIO),
        "the object is gone"
    );
    assert_eq!(world.length("file"), 6 << 20);
    fs::rename(&aside, &object).unwrap();
    let damaged = File::options().write(true).open(&object).unwrap();
    damaged.write_all_at(b"!", 5 << 20).unwrap();
    assert_eq!(world.read("file").await, Err(Errno::EIO), "other bytes");
    assert_eq!(fs::metadata(world.below("file")).unwrap().len(), 0);
    assert_eq!(world.length("file"), 6 << 20);
    damaged
        .write_all_at(&contents(1, 6 << 20)[5 << 20..][..1], 5 << 20)
        .unwrap();
    assert!(world.read("file").await.unwrap() == contents(1, 6 << 20));
    assert_eq!(world.fs.tier_status().unwrap().recalls_failed, 2);
}

// SEMANTICS S89: without it a damaged record would be read as an empty file, or destroy one.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_an_error_and_nothing_else() {
    let world = world!("a_damaged_record_is_an_error_and_nothing_else");
    world.write("file", &contents(1, 5000));
    assert!(matches!(world.demote("file").await, Ok(Moved::Away(_))));
    let path = world.below("file");
    let name = c"trusted.terrace.cold";
    let good = xattr(&path, name).unwrap();
    let set = |value: &[u8]| {
        sys::set_xattr(File::open(&path).unwrap().as_fd(), name, value, 0).unwrap();
    };
    let mut bad = vec![good[..20].to_vec(), Vec::new(), vec![0xff; 3000]];
    for at in [0, 5, 8, 40, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        bad.push(flipped);
    }
    let node = world.node("file");
    for value in bad {
        set(&value);
        assert_eq!(world.fs.open_file(0, node, libc::O_RDONLY), Err(Errno::EIO));
        assert_eq!(world.fs.recall(node).await, Err(Errno::EIO));
        world.fs.attributes(node, None).unwrap();
        let (told, _heard) = mpsc::channel(4);
        let collection = Collection {
            grace: Duration::ZERO,
            dry_run: false,
        };
        world.fs.collect(collection, &told).await.unwrap_err();
        assert_eq!(xattr(&path, name).unwrap(), value, "nothing was changed");
        assert_eq!(world.objects().len(), 1);
    }
    // What has contents keeps them, whatever its record says.
    world.write("full", b"contents");
    sys::set_xattr(
        File::open(world.below("full")).unwrap().as_fd(),
        name,
        b"junk",
        0,
    )
    .unwrap();
    world.demote("full").await.unwrap_err();
    assert_eq!(fs::read(world.below("full")).unwrap(), b"contents");
    set(&good);
    assert!(world.read("file").await.unwrap() == contents(1, 5000));
    // Nobody sets it through the volume.
    for name in [
        &b"trusted.terrace.cold"[..],
        b"user.terrace.cold",
        b"user.terrace.why",
    ] {
        assert_eq!(
            world.fs.set_xattr(9, node, name, b"x", 0).unwrap_err(),
            Errno::EPERM
        );
        assert_eq!(
            world.fs.remove_xattr(9, node, name).unwrap_err(),
            Errno::EPERM
        );
    }
}

// SEMANTICS S90: without it a policy would move what it should not, or say something else than it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_moves_what_its_policy_chooses() {
    let world = world!("a_job_moves_what_its_policy_chooses");
    for number in 0..30_u8 {
        world.write(
            &format!("runs/{}/model{number}.bin", number % 3),
            &contents(number, 2000),
        );
    }
    world.write("runs/0/small.bin", b"small");
    world.write("runs/0/notes.txt", &contents(0, 2000));
    world.write("runs/1/kept.bin", &contents(0, 2000));
    world.write("pinned/a.bin", &contents(0, 2000));
    world.write("fresh.bin", &contents(0, 2000));
    let now = FileTimes::new().set_modified(SystemTime::now());
    File::options()
        .write(true)
        .open(world.below("fresh.bin"))
        .unwrap()
        .set_times(now)
        .unwrap();
    world.fs.pin(b"pinned".to_vec(), true).await.unwrap();
    world
        .fs
        .pin(b"runs/1/kept.bin".to_vec(), true)
        .await
        .unwrap();
    std::os::unix::fs::symlink("/etc", world.below("link")).unwrap();
    let policy: TierPolicy = serde_json::from_str(
        r#"{"older_than": "1d", "larger_than": "1KiB", "exclude": ["*.txt"]}"#,
    )
    .unwrap();
    let job = |action, dry_run| Job {
        action,
        path: Vec::new(),
        policy: policy.clone(),
        dry_run,
    };
    let (would, rows) = world.job(job(Action::Demote, true)).await;
    assert_eq!((would.chosen, would.moved, would.files), (30, 0, 34));
    assert_eq!((would.kept_pinned, rows.len()), (2, 30));
    let (done, moved) = world.job(job(Action::Demote, false)).await;
    assert_eq!((done.moved, done.moved_bytes, done.failed), (30, 60_000, 0));
    assert_eq!(moved, rows);
    let (scan, _) = world.job(job(Action::Scan, true)).await;
    assert_eq!((scan.chosen, scan.stubs, scan.stub_bytes), (0, 30, 60_000));
    let part = Job {
        path: b"runs/2".to_vec(),
        ..job(Action::Recall, false)
    };
    let (back, rows) = world.job(part).await;
    assert_eq!((back.moved, rows.len()), (10, 10));
    assert!(world.read("runs/2/model5.bin").await.unwrap() == contents(5, 2000));
    let one = Job {
        path: b"runs/1/model4.bin".to_vec(),
        ..job(Action::Recall, false)
    };
    assert_eq!(world.job(one).await.0.moved, 1);
    let nowhere = Job {
        path: b"../etc".to_vec(),
        ..job(Action::Scan, true)
    };
    let (told, _heard) = mpsc::channel(4);
    world.fs.run_job(nowhere, &told).await.unwrap_err();
}

// SEMANTICS S91: without it the store would fill with what nobody names, or lose what somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_found_and_nothing_else() {
    let world = world!("orphans_are_found_and_nothing_else");
    for name in [
        "deleted",
        "rewritten",
        "kept",
        "copied",
        "moved-out",
        "renamed",
    ] {
        world.write(name, &contents(1, 3000));
        assert!(matches!(world.demote(name).await, Ok(Moved::Away(3000))));
    }
    fs::remove_file(world.below("deleted")).unwrap();
    fs::write(world.below("rewritten"), "new").unwrap();
    world.read("copied").await.unwrap(); // state copy: its object is still of use
    fs::rename(
        world.below("moved-out"),
        world.place.path().join("moved-out"),
    )
    .unwrap();
    fs::rename(world.below("renamed"), world.below("other-name")).unwrap();
    world.read("rewritten").await.unwrap(); // the record goes when it is opened
    fs::write(world.objects()[0].with_file_name("of-somebody-else"), "x").unwrap();
    let day = Duration::from_secs(24 * 3600);
    let young = world.collect(day, false).await;
    assert_eq!((young.taken, young.young, young.objects), (0, 2, 7));
    let dry = world.collect(Duration::ZERO, true).await;
    assert_eq!(
        (dry.taken, dry.taken_bytes, world.objects().len()),
        (2, 6000, 7)
    );
    let done = world.collect(Duration::ZERO, false).await;
    assert_eq!((done.taken, done.elsewhere, done.foreign), (2, 1, 1));
    assert_eq!(world.objects().len(), 5);
    for name in ["kept", "copied", "other-name"] {
        assert!(
            world.read(name).await.unwrap() == contents(1, 3000),
            "{name}"
        );
    }
    fs::rename(world.place.path().join("moved-out"), world.below("back")).unwrap();
    assert!(world.read("back").await.unwrap() == contents(1, 3000));
    // A copy of what a file had before goes in two runs.
    let mut file = File::options()
        .append(true)
        .open(world.below("copied"))
        .unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    assert_eq!(world.collect(Duration::ZERO, false).await.taken, 0);
    assert_eq!(world.collect(Duration::ZERO, false).await.taken, 1);
}

// SEMANTICS S91: without it a collection beside demotions would take what they have just written.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_runs_beside_demotions() {
    let world = world!("a_collection_runs_beside_demotions");
    for number in 0..40_u8 {
        world.write(&format!("f{number}"), &contents(number, 4000));
    }
    let job = Job {
        action: Action::Demote,
        path: Vec::new(),
        policy: TierPolicy {
            larger_than: "1B".parse().unwrap(),
            ..TierPolicy::default()
        },
        dry_run: false,
    };
    let collecting = async {
        let mut taken = 0;
        for _ in 0..20 {
            taken += world.collect(Duration::ZERO, false).await.taken;
        }
        taken
    };
    let ((done, _), taken) = tokio::join!(world.job(job), collecting);
    assert_eq!((done.moved, taken), (40, 0));
    for number in 0..40_u8 {
        let read = world.read(&format!("f{number}")).await.unwrap();
        assert!(read == contents(number, 4000), "f{number}");
    }
}
