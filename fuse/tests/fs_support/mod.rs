//! A file system over a real store (a local directory), a real hot tier and a real snapshot, for
//! the tests of `fuse::fs`. Objects can be held back at the store, so that a test decides when a
//! file becomes complete.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of this file"
)]

use std::collections::HashSet;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use terrace_cache::fill::{Cache, CacheConfig, Object};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreError, StoreUrl};
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};
use terrace_fuse::fs::{FileSystem, FileSystemConfig, FileSystemParts, Profile};
use terrace_fuse::handles::HandleTable;
use terrace_fuse::namespace::Namespace;
use terrace_fuse::ownership::Ownership;
use terrace_fuse::probe::Passthrough;
use terrace_fuse::snapshot::{Builder, Entry, EntryKind, Snapshot, Surplus};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// The 8-byte word at `index` of the file with this seed (splitmix64).
fn word(seed: u64, index: u64) -> u64 {
    let mut z =
        (seed << 40).wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a file with this seed has in `range`.
pub(crate) fn content(seed: u64, range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize + 16);
    for index in range.start / 8..range.end.div_ceil(8) {
        bytes.extend_from_slice(&word(seed, index).to_le_bytes());
    }
    bytes.drain(..(range.start % 8) as usize);
    bytes.truncate((range.end - range.start) as usize);
    bytes
}

/// A file of the tree under test.
#[derive(Clone, Debug)]
pub(crate) struct TestFile {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) seed: u64,
}

impl TestFile {
    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        content(
            self.seed,
            range.start.min(self.size)..range.end.min(self.size),
        )
    }
}

/// A source that holds back chosen objects.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Store,
    held: Mutex<HashSet<String>>,
    changed: Notify,
    pub(crate) bytes: AtomicU64,
}

impl Gate {
    /// Keeps reads of `key` waiting.
    pub(crate) fn hold(&self, key: &str) {
        self.held.lock().unwrap().insert(key.to_owned());
    }

    /// Lets reads of `key` go on.
    pub(crate) fn let_go(&self, key: &str) {
        self.held.lock().unwrap().remove(key);
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl Source for Gate {
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        loop {
            let changed = self.changed.notified();
            if !self.held.lock().unwrap().contains(&*object.key) {
                break;
            }
            // Also looks by itself, for a change between the two lines above.
            tokio::time::timeout(Duration::from_millis(20), changed)
                .await
                .ok();
        }
        self.bytes.fetch_add(range.end - range.start, Relaxed);
        self.inner.read(object, range).await
    }
}

/// Everything below a file system.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) files: Vec<TestFile>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) cache: Cache,
    pub(crate) namespace: Arc<Snapshot>,
    pub(crate) table: OwnedFd,
    pub(crate) data: PathBuf,
    pub(crate) hot: PathBuf,
    _directory: TempDir,
}

/// Extra entries of a tree that have no bytes behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    /// Empty files `many/fNNNNNN`.
    pub(crate) many: u32,
}

impl World {
    /// A tree of `files` (name, size) below a fresh directory in `base`.
    pub(crate) fn new(base: &Path, files: &[(&str, u64)], extras: Extras) -> Self {
        Self::with_limit(base, files, extras, 4 << 30)
    }

    /// The same with a limit of the hot tier.
    pub(crate) fn with_limit(
        base: &Path,
        files: &[(&str, u64)],
        extras: Extras,
        limit: u64,
    ) -> Self {
        let directory = tempfile::tempdir_in(base).unwrap();
        let (data, hot) = (directory.path().join("data"), directory.path().join("hot"));
        std::fs::create_dir(&data).unwrap();
        let files: Vec<TestFile> = files
            .iter()
            .zip(1..)
            .map(|((name, size), seed)| TestFile {
                name: (*name).into(),
                size: *size,
                seed,
            })
            .collect();
        for file in &files {
            let path = data.join(&file.name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.bytes(0..file.size)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let url: StoreUrl = format!("file://{}", data.display()).parse().unwrap();
        let store = runtime
            .block_on(Store::open(
                &url,
                &StoreConfig::default(),
                &Credentials::default(),
            ))
            .unwrap();
        let snapshot = directory.path().join("snapshot");
        runtime.block_on(build(&store, &files, extras, &snapshot));
        let namespace = Arc::new(Snapshot::open(&snapshot, Ownership::default()).unwrap());
        let mut config = HotConfig::new(&hot);
        config.limit_bytes = limit;
        config.min_free_bytes = 0;
        let tier = HotTier::open(config, Box::new(Lru::default())).unwrap();
        let cache = Cache::new(CacheConfig::default(), tier, runtime.handle().clone());
        let gate = Arc::new(Gate {
            inner: store,
            held: Mutex::default(),
            changed: Notify::new(),
            bytes: AtomicU64::new(0),
        });
        let table = HandleTable::create_sized(4096, 8192).unwrap();
        Self {
            runtime,
            files,
            gate,
            cache,
            namespace,
            table,
            data,
            hot,
            _directory: directory,
        }
    }

    /// A file system over it, as a worker makes one: open handles are taken over.
    pub(crate) fn file_system(
        &self,
        profile: Profile,
        passthrough: Passthrough,
        fill_on_open: u64,
    ) -> Arc<FileSystem> {
        FileSystem::new(FileSystemParts {
            namespace: Arc::clone(&self.namespace) as Arc<dyn Namespace>,
            cache: self.cache.clone(),
            source: Arc::clone(&self.gate) as Arc<dyn Source>,
            dataset: DatasetKey("test".into()),
            handles: HandleTable::open(self.table.try_clone().unwrap()).unwrap(),
            runtime: self.runtime.handle().clone(),
            profile,
            passthrough,
            config: FileSystemConfig {
                fill_on_open,
                idle_backings: 4,
                inflight: 64,
            },
        })
    }

    /// Passthrough, as far as the kernel allows it.
    pub(crate) fn wanted(&self) -> Passthrough {
        Passthrough::Wanted {
            directory: self.hot.clone(),
        }
    }

    /// The cache's object behind a file.
    pub(crate) fn object(&self, file: &TestFile) -> Arc<Object> {
        let mut ino = terrace_fuse::namespace::Ino::ROOT;
        for part in file.name.split('/') {
            let found = self.namespace.try_lookup(ino, part.as_bytes()).unwrap();
            ino = found.unwrap().ino;
        }
        let id = self.namespace.object(ino).unwrap();
        let source = Arc::clone(&self.gate) as Arc<dyn Source>;
        self.cache.object(&id, &source, &DatasetKey("test".into()))
    }
}

async fn build(store: &Store, files: &[TestFile], extras: Extras, path: &Path) {
    let prefix = store.url().prefix().to_owned();
    let mut builder = Builder::new(store.url().root(), &prefix, Surplus::Refuse);
    for file in files {
        let key = format!("{prefix}/{}", file.name);
        let meta = store.head(&key).await.unwrap();
        let kind = EntryKind::File(&meta.version);
        builder
            .push(&Entry {
                path: &file.name,
                mode: None,
                kind,
            })
            .unwrap();
    }
    let link = EntryKind::Symlink(b"a/target", 1_500_000_000_000_000_000);
    builder
        .push(&Entry {
            path: "link",
            mode: None,
            kind: link,
        })
        .unwrap();
    let etag = Token::ETag {
        etag: "\"0\"".into(),
        version_id: None,
    };
    let empty = Version {
        token: etag,
        size: 0,
        mtime_ns: 0,
    };
    for number in 0..extras.many {
        let name = format!("many/f{number:06}");
        let kind = EntryKind::File(&empty);
        builder
            .push(&Entry {
                path: &name,
                mode: None,
                kind,
            })
            .unwrap();
    }
    builder.finish(path).unwrap();
}
