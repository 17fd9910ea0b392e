//! What every suite starts from: a hot tier in a temporary directory and a cache over it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use terrace_cache::fill::{Cache, CacheConfig, Object, ReadError, ReadStream};
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::{Lru, Policy};
use terrace_cache::units::ByteSize;
use terrace_cache::{ObjectId, Source};
use tokio::runtime::Handle;

use crate::support::{MIB, check, dataset};

/// A cache and the directory of its hot tier, which goes with it.
pub(crate) struct World {
    pub(crate) cache: Cache,
    pub(crate) directory: TempDir,
}

impl World {
    /// A hot tier with room for everything.
    pub(crate) fn start() -> Self {
        Self::with(CacheConfig::default(), 1 << 30)
    }

    /// What the next process makes of this one's directory, when every data file in it seems to have
    /// been touched by somebody.
    pub(crate) async fn touched_and_reopened(self) -> Self {
        let Self { cache, directory } = self;
        cache.shutdown().await;
        drop(cache);
        for shard in std::fs::read_dir(directory.path().join("objects")).unwrap() {
            for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
                let file = std::fs::File::open(file.unwrap().path()).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }
        }
        let mut hot = HotConfig::new(directory.path());
        hot.limit_bytes = 1 << 30;
        hot.min_free_bytes = 0;
        let hot = HotTier::open(hot, Box::new(Lru::new())).expect("open the hot tier again");
        Self {
            cache: Cache::new(CacheConfig::default(), hot, Handle::current()),
            directory,
        }
    }

    /// A hot tier of `hot_bytes` below a cache with `config`.
    pub(crate) fn with(config: CacheConfig, hot_bytes: u64) -> Self {
        Self::with_policy(config, hot_bytes, Box::new(Lru::new()))
    }

    /// The same under another policy.
    pub(crate) fn with_policy(
        config: CacheConfig,
        hot_bytes: u64,
        policy: Box<dyn Policy>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let mut hot = HotConfig::new(directory.path());
        hot.limit_bytes = hot_bytes;
        hot.min_free_bytes = 0;
        let hot = HotTier::open(hot, policy).expect("open the hot tier");
        Self {
            cache: Cache::new(config, hot, Handle::current()),
            directory,
        }
    }

    /// The object, read from `source`.
    pub(crate) fn object<S: Source>(&self, id: &ObjectId, source: &Arc<S>) -> Arc<Object> {
        let source: Arc<dyn Source> = Arc::<S>::clone(source);
        self.cache.object(id, &source, &dataset())
    }
}

/// Limits small enough to be met by small objects: 8 MiB of each, parts of 2 MiB.
pub(crate) fn small() -> CacheConfig {
    CacheConfig {
        window: ByteSize(8 * MIB),
        in_flight: ByteSize(8 * MIB),
        part: ByteSize(2 * MIB),
        parts_per_object: 3,
        readahead: ByteSize(4 * MIB),
        whole_after: ByteSize(1 << 40),
    }
}

/// Reads and checks what came.
pub(crate) async fn read(
    object: &Object,
    stream: &ReadStream,
    offset: u64,
    length: u64,
) -> Result<Bytes, ReadError> {
    let range = offset..offset + length;
    let bytes = match object.read_now(stream, range.clone()) {
        Some(result) => result?,
        None => object.read(stream, range.clone()).await?,
    };
    let expected = range.end.min(object.id().size()).saturating_sub(offset);
    assert_eq!(bytes.len() as u64, expected, "short read at {offset}");
    check(object.id(), offset, &bytes);
    Ok(bytes)
}
