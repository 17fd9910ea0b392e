//! Objects whose bytes follow from their name, a source that counts, tiers that are ready.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_cache::units::Span;
use terrace_cache::warm::{WarmConfig, WarmSource, WarmTier};
use terrace_cache::{ByteStream, ObjectId, Source, Token, Version};
use tokio::runtime::Handle;

pub(crate) const MIB: u64 = 1 << 20;

/// Size of the pieces in which the pattern comes.
const PIECE: u64 = 200_000;

/// Serves [`bytes_of`] and counts them.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    pub(crate) served: AtomicU64,
    /// Pause before each piece.
    pub(crate) pause: Duration,
    /// Reads fail when they come to this offset.
    pub(crate) fails_at: Option<u64>,
}

pub(crate) fn object(name: &str, size: u64) -> ObjectId {
    let token = Token::ETag {
        etag: format!("\"{name}\"").into(),
        version_id: None,
    };
    let version = Version {
        token,
        size,
        mtime_ns: 0,
    };
    ObjectId {
        store: "s3://pattern".into(),
        key: name.into(),
        version,
    }
}

/// Bytes of an object; every 8 bytes tell the object and the offset.
pub(crate) fn bytes_of(object: &ObjectId, range: Range<u64>) -> Vec<u8> {
    let seed = u64::from(crc32c::crc32c(object.key.as_bytes())) << 32;
    let words = range.start / 8..range.end.div_ceil(8);
    let all: Vec<u8> = words
        .flat_map(|word| {
            (seed ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        })
        .collect();
    let skip = (range.start % 8) as usize;
    all[skip..skip + (range.end - range.start) as usize].to_vec()
}

#[async_trait]
impl Source for Pattern {
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let object = object.clone();
        let (pause, fails_at) = (self.pause, self.fails_at);
        self.served.fetch_add(range.end - range.start, Relaxed);
        let end = range.end;
        let pieces = stream::iter(range.step_by(PIECE as usize)).then(move |begin| {
            let object = object.clone();
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                let piece = begin..(begin + PIECE).min(end);
                if fails_at.is_some_and(|at| piece.contains(&at)) {
                    return Err(StoreError {
                        kind: StoreErrorKind::Unreachable,
                        operation: "read range",
                        target: object.to_string(),
                        reason: "as the test asked".into(),
                    });
                }
                Ok(Bytes::from(bytes_of(&object, piece)))
            }
        });
        Ok(pieces.boxed())
    }
}

pub(crate) fn config(dir: &Path) -> WarmConfig {
    WarmConfig {
        dir: dir.to_path_buf(),
        lease_ttl: Span(Duration::from_secs(2)),
        wait: Span(Duration::from_secs(20)),
        deadline: Span(Duration::from_secs(10)),
        ..WarmConfig::default()
    }
}

/// One daemon's tier over a pattern of its own.
pub(crate) struct Node {
    pub(crate) source: WarmSource,
    pub(crate) cold: Arc<Pattern>,
}

impl Node {
    /// Ready as a mount is: the first reads may come before the directories are made.
    pub(crate) fn start(config: WarmConfig, cold: Pattern) -> Self {
        let tier = WarmTier::new(config, Handle::current()).unwrap();
        let cold = Arc::new(cold);
        let inner: Arc<dyn Source> = Arc::<Pattern>::clone(&cold);
        Self {
            source: WarmSource::new(tier, inner),
            cold,
        }
    }

    pub(crate) async fn read(
        &self,
        object: &ObjectId,
        range: Range<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        let pieces = self.source.read(object, range).await?;
        pieces
            .try_fold(Vec::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
    }

    /// Reads all of an object and checks every byte.
    pub(crate) async fn check(&self, object: &ObjectId) {
        let all = 0..object.size();
        let bytes = self.read(object, all.clone()).await.unwrap();
        assert!(bytes == bytes_of(object, all), "wrong bytes of {object}");
    }

    /// Waits for the fills of this node.
    pub(crate) async fn settle(&self) {
        eventually("fills end", || !self.source.tier().is_busy()).await;
    }

    pub(crate) fn served(&self) -> u64 {
        self.cold.served.load(Relaxed)
    }

    pub(crate) fn stats(&self) -> terrace_cache::warm::WarmStats {
        self.source.tier().stats()
    }
}

/// Waits for a condition, for at most half a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what}: not within 30 s"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Directories to test on: always a local one; a shared file system where there is one.
pub(crate) fn directories(test: &str) -> Vec<tempfile::TempDir> {
    let mut directories = vec![tempfile::tempdir().unwrap()];
    match std::env::var_os("TERRACE_TEST_SHARED_FS") {
        Some(shared) => directories.push(tempfile::tempdir_in(shared).unwrap()),
        None => println!("SKIP {test} on a shared file system: TERRACE_TEST_SHARED_FS is not set"),
    }
    directories
}

/// Path of a file of an object in the warm directory; `suffix` with its dot.
pub(crate) fn path(dir: &Path, object: &ObjectId, suffix: &str) -> PathBuf {
    let digest = object.digest().hex();
    dir.join("objects")
        .join(&digest[..2])
        .join(format!("{digest}{suffix}"))
}

/// Writes a file that a daemon may have left, also where none has been yet.
pub(crate) fn leave(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Files below the object directories whose name ends so.
pub(crate) fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(dir.join("objects")).unwrap() {
        for entry in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}
