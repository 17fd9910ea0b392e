//! What several tests of the name spaces need: a store in memory that behaves like S3, a clock
//! moved by hand, and a sink that takes pages of a given size.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of this file"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use terrace_cache::store::{ListEntry, ObjectMeta, StoreError, StoreErrorKind, Stretch};
use terrace_cache::{ObjectId, Token, Version};
use terrace_fuse::live::{Clock, Lister};
use terrace_fuse::namespace::{DirEntry, DirSink, FsError, Ino, Namespace};

/// A version that differs by its number.
pub(crate) fn version(number: u64) -> Version {
    let etag = format!("\"{number:032x}\"").into();
    Version {
        token: Token::ETag {
            etag,
            version_id: None,
        },
        size: number * 10,
        mtime_ns: number as i64 * 1_000_000_000,
    }
}

/// S3 in memory: keys in order, common prefixes, pages that show objects before prefixes.
#[derive(Debug)]
pub(crate) struct FakeStore {
    pub(crate) keys: Mutex<BTreeMap<String, Version>>,
    pub(crate) prefix: String,
    pub(crate) page: AtomicUsize,
    pub(crate) ordered: AtomicBool,
    pub(crate) hierarchical: AtomicBool,
    /// Every request fails like this while set.
    pub(crate) failure: Mutex<Option<StoreErrorKind>>,
    /// Listings fail like this while set.
    pub(crate) list_failure: Mutex<Option<StoreErrorKind>>,
    pub(crate) heads: AtomicU64,
    pub(crate) lists: AtomicU64,
    pub(crate) pages: AtomicU64,
    /// Requests for many names at once.
    pub(crate) stretches: AtomicU64,
    /// Yields to other tasks before each answer.
    pub(crate) slow: AtomicBool,
}

impl FakeStore {
    pub(crate) fn new(prefix: &str, keys: impl IntoIterator<Item = String>) -> Arc<Self> {
        let keys = keys
            .into_iter()
            .enumerate()
            .map(|(n, key)| (key, version(n as u64 + 1)));
        Arc::new(Self {
            keys: Mutex::new(keys.collect()),
            prefix: prefix.to_owned(),
            page: AtomicUsize::new(1000),
            ordered: AtomicBool::new(true),
            hierarchical: AtomicBool::new(false),
            failure: Mutex::new(None),
            list_failure: Mutex::new(None),
            heads: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            stretches: AtomicU64::new(0),
            slow: AtomicBool::new(false),
        })
    }

    pub(crate) fn put(&self, key: &str, number: u64) {
        self.keys
            .lock()
            .unwrap()
            .insert(key.to_owned(), version(number));
    }

    pub(crate) fn remove(&self, key: &str) {
        self.keys.lock().unwrap().remove(key);
    }

    pub(crate) fn fail(&self, kind: Option<StoreErrorKind>) {
        *self.failure.lock().unwrap() = kind;
    }

    fn error(&self, kind: StoreErrorKind) -> StoreError {
        let reason = "as the test wants it".to_owned();
        StoreError {
            kind,
            operation: "ask",
            target: "fake://".to_owned(),
            reason,
        }
    }

    /// One page of a listing after the item `after`: items and whether more follow.
    fn level(&self, directory: &str, after: Option<&str>) -> (Vec<ListEntry>, Option<String>) {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            format!("{directory}/")
        };
        let keys = self.keys.lock().unwrap();
        let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
        let mut last = None;
        for (key, version) in keys.range(prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else {
                break;
            };
            let item = rest
                .split_once('/')
                .map_or(rest, |(name, _)| &rest[..=name.len()]);
            let item = format!("{prefix}{item}");
            if after.is_some_and(|after| item.as_str() <= after) || prefixes.contains(&item) {
                continue;
            }
            if objects.len() + prefixes.len() == self.page.load(Ordering::Relaxed) {
                let entries = Self::entries(objects, prefixes);
                return (entries, last);
            }
            last = Some(item.clone());
            if item.len() < key.len() || (item.ends_with('/') && item != prefix) {
                prefixes.insert(item);
            } else {
                objects.push(ObjectMeta {
                    key: key.as_str().into(),
                    version: version.clone(),
                });
            }
        }
        (Self::entries(objects, prefixes), None)
    }

    fn entries(objects: Vec<ObjectMeta>, prefixes: BTreeSet<String>) -> Vec<ListEntry> {
        let directory = |key: String| ListEntry::Directory(key[..key.len() - 1].to_owned());
        let objects = objects.into_iter().map(ListEntry::Object);
        objects.chain(prefixes.into_iter().map(directory)).collect()
    }
}

/// A [`FakeStore`] as the mount sees it: the state of a running listing is its own.
#[derive(Clone, Debug)]
pub(crate) struct FakeLister(pub(crate) Arc<FakeStore>);

#[async_trait]
impl Lister for FakeLister {
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        self.0.heads.fetch_add(1, Ordering::Relaxed);
        if self.0.slow.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        if let Some(kind) = *self.0.failure.lock().unwrap() {
            return Err(self.0.error(kind));
        }
        let keys = self.0.keys.lock().unwrap();
        let version = keys
            .get(key)
            .ok_or_else(|| self.0.error(StoreErrorKind::NotFound))?;
        Ok(ObjectMeta {
            key: key.into(),
            version: version.clone(),
        })
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<ListEntry, StoreError>> {
        self.0.lists.fetch_add(1, Ordering::Relaxed);
        let (store, directory) = (Arc::clone(&self.0), directory.to_owned());
        let first = (None::<String>, true);
        stream::unfold(Some(first), move |state| {
            let (store, directory) = (Arc::clone(&store), directory.clone());
            async move {
                let (after, first) = state?;
                if store.slow.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
                let failure = store
                    .failure
                    .lock()
                    .unwrap()
                    .or(*store.list_failure.lock().unwrap());
                if let Some(kind) = failure {
                    return Some((vec![Err(store.error(kind))], None));
                }
                store.pages.fetch_add(1, Ordering::Relaxed);
                let (entries, next) = store.level(&directory, after.as_deref());
                if entries.is_empty() && first && directory != store.prefix {
                    return Some((vec![Err(store.error(StoreErrorKind::NotFound))], None));
                }
                let next = next.map(|next| (Some(next), false));
                Some((entries.into_iter().map(Ok).collect(), next))
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }

    async fn list_after(
        &self,
        directory: &str,
        after: &str,
    ) -> Result<Option<Stretch>, StoreError> {
        self.0.stretches.fetch_add(1, Ordering::Relaxed);
        if self.0.slow.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        let failure = self.0.failure.lock().unwrap();
        if let Some(kind) = failure.or(*self.0.list_failure.lock().unwrap()) {
            return Err(self.0.error(kind));
        }
        let (entries, more) = self.0.level(directory, Some(after));
        let key = |entry: &ListEntry| match entry {
            ListEntry::Object(meta) => Some(Arc::clone(&meta.key)),
            ListEntry::Directory(_) => None,
        };
        let reaches = more.map(|_| entries.iter().filter_map(key).max().unwrap_or(after.into()));
        Ok(Some(Stretch { entries, reaches }))
    }

    fn object(&self, meta: &ObjectMeta) -> ObjectId {
        let (key, version) = (Arc::clone(&meta.key), meta.version.clone());
        ObjectId {
            store: "fake://".into(),
            key,
            version,
        }
    }

    fn hierarchical(&self) -> bool {
        self.0.hierarchical.load(Ordering::Relaxed)
    }

    fn ordered(&self) -> bool {
        self.0.ordered.load(Ordering::Relaxed)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct HandClock(Mutex<Duration>);

impl HandClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wall_ns(&self) -> i64 {
        1_000_000_000_000 + self.now().as_nanos() as i64
    }
}

/// Takes at most so many entries per call.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) limit: usize,
    pub(crate) taken: Vec<DirEntry>,
}

impl DirSink for Sink {
    fn push(&mut self, entry: DirEntry) -> bool {
        if self.taken.len() == self.limit {
            return false;
        }
        self.taken.push(entry);
        true
    }
}

/// One page of a listing.
pub(crate) async fn page(
    names: &dyn Namespace,
    directory: Ino,
    after: u64,
    limit: usize,
) -> Result<Vec<DirEntry>, FsError> {
    let mut sink = Sink {
        limit,
        taken: Vec::new(),
    };
    names.read_directory(directory, after, &mut sink).await?;
    Ok(sink.taken)
}

/// A whole listing, read in pages of `limit`.
pub(crate) async fn list(
    names: &dyn Namespace,
    directory: Ino,
    limit: usize,
) -> Result<Vec<DirEntry>, FsError> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let entries = page(names, directory, after, limit).await?;
        let Some(last) = entries.last() else {
            return Ok(all);
        };
        after = last.next;
        all.extend(entries);
    }
}

/// A runtime that runs tasks on the calling thread, so that tests are deterministic.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// A store that claims to list in order and does the opposite.
#[derive(Debug)]
pub(crate) struct Backwards(pub(crate) FakeLister);

#[async_trait]
impl Lister for Backwards {
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        self.0.head(key).await
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<ListEntry, StoreError>> {
        let forward = self.0.list(directory);
        let all = async move { forward.collect::<Vec<_>>().await.into_iter().rev() };
        stream::once(all).flat_map(stream::iter).boxed()
    }

    fn object(&self, meta: &ObjectMeta) -> ObjectId {
        self.0.object(meta)
    }

    fn hierarchical(&self) -> bool {
        self.0.hierarchical()
    }

    fn ordered(&self) -> bool {
        true
    }
}
