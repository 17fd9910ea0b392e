//! A hot tier over made-up objects, snapshots of them, and what a tree must look like.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use terrace_cache::fill::{Cache, CacheConfig};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};
use terrace_fuse::materialize::{
    MaterializeError, MaterializeOptions, Objects, Progress, Report, materialize,
};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};

/// Bytes that follow from the key; fails for objects whose number is below `broken`.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) reads: AtomicU64,
    pub(crate) broken: AtomicU64,
}

pub(crate) fn content(object: &ObjectId) -> Vec<u8> {
    let seed = object.key.bytes().fold(7_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    (0..object.size())
        .map(|at| (seed.wrapping_add(at) % 251) as u8)
        .collect()
}

#[async_trait]
impl Source for Made {
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if (object.version.mtime_ns as u64) < self.broken.load(Ordering::Relaxed) {
            let (kind, operation) = (StoreErrorKind::Unreachable, "read range");
            let (target, reason) = (object.to_string(), "as the test wants it".to_owned());
            return Err(StoreError {
                kind,
                operation,
                target,
                reason,
            });
        }
        let bytes = content(object)[range.start as usize..range.end as usize].to_vec();
        Ok(futures::stream::iter([Ok(Bytes::from(bytes))]).boxed())
    }
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) made: Arc<Made>,
    pub(crate) hot: Option<HotTier>,
}

pub(crate) fn ownership() -> Ownership {
    let (uid, gid) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    Ownership {
        uid,
        gid,
        ..Ownership::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let mut world = Self {
            directory: tempfile::tempdir().unwrap(),
            runtime: builder.worker_threads(2).enable_all().build().unwrap(),
            made: Arc::default(),
            hot: None,
        };
        world.open();
        world
    }

    pub(crate) fn open(&mut self) {
        let config = HotConfig {
            limit_bytes: 1 << 30,
            min_free_bytes: 0,
            min_free_inodes: 0,
            sync_interval: Duration::from_millis(10),
            scrub_bytes_per_second: 0,
            ..HotConfig::new(self.directory.path().join("hot"))
        };
        self.hot = None;
        self.hot = Some(HotTier::open(config, Box::new(Lru::new())).unwrap());
    }

    pub(crate) fn hot(&self) -> &HotTier {
        self.hot.as_ref().unwrap()
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    pub(crate) fn try_build(
        &self,
        snapshot: &Arc<Snapshot>,
        tree: &Path,
    ) -> Result<Report, MaterializeError> {
        let runtime = self.runtime.handle().clone();
        let cache = Cache::new(CacheConfig::default(), self.hot().clone(), runtime);
        let (source, dataset) = (Arc::clone(&self.made) as _, DatasetKey("d".into()));
        let objects = Objects {
            cache: cache.clone(),
            source,
            dataset,
        };
        self.runtime.block_on(async {
            let last = std::sync::Mutex::new(Progress::default());
            let progress = |now| *last.lock().unwrap() = now;
            let options = MaterializeOptions::default();
            let built = materialize(snapshot, &objects, tree, &options, &progress).await;
            if built.as_ref().is_ok_and(|report| !report.unchanged) {
                let last = *last.lock().unwrap();
                assert_eq!(
                    (last.filled, last.linked),
                    (last.files, last.entries),
                    "{last:?}"
                );
            }
            cache.shutdown().await;
            built
        })
    }

    pub(crate) fn build(&self, snapshot: &Arc<Snapshot>) -> Report {
        self.try_build(snapshot, &self.tree()).unwrap()
    }
}

pub(crate) fn push(builder: &mut Builder, path: &str, mode: Option<u16>, kind: EntryKind<'_>) {
    builder.push(&Entry { path, mode, kind }).unwrap();
}

pub(crate) fn version(number: u64, size: u64, mtime_ns: i64) -> Version {
    let etag = format!("\"{number:032x}\"").into();
    Version {
        token: Token::ETag {
            etag,
            version_id: None,
        },
        size,
        mtime_ns,
    }
}

/// A snapshot of `files` in directories of ten, with the odd ones a data set has.
pub(crate) fn snapshot(files: u64, first: i64) -> Arc<Snapshot> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let mut builder = Builder::new("s3://bucket", "p", Surplus::Refuse);
    for number in 0..files {
        let path = format!("class{}/file-{number:05}", number / 10);
        let version = version(number, 100 + number, first + number as i64);
        push(&mut builder, &path, None, EntryKind::File(&version));
    }
    let big = version(900_000, (1 << 20) + 17, 5_000_000_000 + first);
    push(
        &mut builder,
        "deep/er/big",
        Some(0o640),
        EntryKind::File(&big),
    );
    push(
        &mut builder,
        "deep/empty-file",
        None,
        EntryKind::File(&version(900_001, 0, first)),
    );
    push(
        &mut builder,
        "deep/link",
        None,
        EntryKind::Symlink(b"er/big", -1_500_000_000),
    );
    push(
        &mut builder,
        "deep/outside",
        None,
        EntryKind::Symlink(b"/etc/passwd", 3),
    );
    push(
        &mut builder,
        "empty",
        Some(0o750),
        EntryKind::Directory(1_700_000_000_000_000_000),
    );
    builder.finish(&path).unwrap();
    Arc::new(Snapshot::open(&path, ownership()).unwrap())
}

/// Compares a tree with its snapshot: kinds, bytes, modes, times.
pub(crate) fn check(snapshot: &Snapshot, tree: &Path) {
    use terrace_fuse::namespace::{Ino, Kind, Namespace as _};
    let mut expected = 0;
    for number in 1..=snapshot.entries() {
        let attr = snapshot.attr(Ino(number)).unwrap();
        let path = String::from_utf8(snapshot.path(Ino(number)).unwrap()).unwrap();
        let found = tree.join(&path);
        let meta = found.symlink_metadata().unwrap();
        expected += 1;
        let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        assert_eq!(mtime, attr.mtime_ns, "{path}");
        match attr.kind {
            Kind::Directory => assert!(meta.is_dir(), "{path}"),
            Kind::File => {
                assert!(meta.is_file() && meta.len() == attr.size, "{path}");
                let object = snapshot.object(Ino(number)).unwrap();
                assert!(fs::read(&found).unwrap() == content(&object), "{path}");
            }
            Kind::Symlink => {
                let target = snapshot.link_target(Ino(number)).unwrap();
                assert_eq!(
                    fs::read_link(&found)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    target
                );
                continue;
            }
        }
        assert_eq!(
            meta.permissions().mode() & 0o7777,
            u32::from(attr.mode),
            "{path}"
        );
    }
    let count = walk(tree);
    assert_eq!(count, expected);
}

pub(crate) fn walk(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    1 + entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path())
            } else {
                1
            }
        })
        .sum::<u64>()
}
