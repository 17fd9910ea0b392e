//! Contents that move, are stopped in the middle, meet others, and come back: on a directory of this
//! machine with another one as the cold store.
//!
//! `moving` is what everybody sees, `broken` what fails on the way, `outside` what others do to the
//! directory, `choosing` what jobs and collections take, `level` the level `cold` of durability.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broken;
mod choosing;
mod level;
mod moving;
mod outside;

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
    /// Rules of durability.
    rules: Vec<&'static str>,
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
        world!($test, &[])
    };
    ($test:literal, $rules:expr) => {
        match cannot() {
            Some(why) => {
                println!("SKIP {}: {why}", $test);
                return;
            }
            None => World::ruled($rules).await,
        }
    };
}

use world;

async fn open(
    place: &Path,
    state: &str,
    script: &Arc<Script>,
    rules: &[&str],
) -> (Store, Arc<DirectoryFs>) {
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
        revalidate: Duration::ZERO,
        local_locks: true,
        durability: Durability::parse(rules).unwrap(),
        spool: None,
        quota: None,
        cold: Some(ColdParts {
            store: store.clone(),
            policy: None,
            scratch: state.join("marks"),
            held: None,
            runtime: Handle::current(),
            witness: Some(Arc::clone(script) as Arc<dyn Witness>),
        }),
    };
    (store, DirectoryFs::open(parts).unwrap())
}

impl World {
    /// A volume with rules of durability.
    async fn ruled(rules: &[&'static str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in ["below", "cold"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let script = Arc::new(Script::default());
        let (store, fs) = open(place.path(), "state", &script, rules).await;
        Self {
            place,
            script,
            store,
            fs,
            rules: rules.to_vec(),
        }
    }

    /// As after the death of the process: nothing is left but what is on disk.
    async fn restart(&mut self) {
        *self.script.stop.lock().unwrap() = None;
        *self.script.act.lock().unwrap() = None;
        let number = self.script.hits.load(Ordering::Relaxed);
        let state = format!("state-{number}-{}", rand::random::<u64>());
        (self.store, self.fs) = open(self.place.path(), &state, &self.script, &self.rules).await;
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
            let looked = self.fs.lookup(node, part.as_bytes()).unwrap();
            node = looked.entry().unwrap().node;
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
