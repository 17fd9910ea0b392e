//! What the tests of the hot tier share: objects with content made from a seed, and tiers on
//! temporary directories.

#[path = "../support/damage.rs"]
mod damage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use terrace_cache::hot::{BLOCK, HotConfig, HotError, HotObject, HotTier};
use terrace_cache::policy::Lru;
use terrace_cache::{DatasetKey, Digest, ObjectId, Token, Version};

pub(crate) use damage::flip_bit;

/// A directory that goes away with the test, on the disk the build lies on.
pub(crate) fn directory(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("hot-{name}-"))
        .tempdir()
        .unwrap()
}

/// A small tier that never waits long and does nothing in the background.
pub(crate) fn config(directory: &Path) -> HotConfig {
    HotConfig {
        limit_bytes: 1 << 30,
        min_free_bytes: 0,
        min_free_inodes: 0,
        sync_interval: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(50),
        scrub_bytes_per_second: 0,
        sweep_after: Duration::ZERO,
        boot_id: Some([1; 16]),
        ..HotConfig::new(directory.join("hot"))
    }
}

/// The same on another boot of the machine.
pub(crate) fn rebooted(config: &HotConfig, boot: u8) -> HotConfig {
    HotConfig {
        boot_id: Some([boot; 16]),
        ..config.clone()
    }
}

pub(crate) fn open(config: &HotConfig) -> HotTier {
    try_open(config).unwrap()
}

pub(crate) fn try_open(config: &HotConfig) -> Result<HotTier, HotError> {
    HotTier::open(config.clone(), Box::new(Lru::new()))
}

pub(crate) fn dataset() -> DatasetKey {
    DatasetKey("ads.clicks".into())
}

/// Object number `seed` of `size` bytes.
pub(crate) fn id(seed: u64, size: u64) -> ObjectId {
    ObjectId {
        store: "s3://bucket".into(),
        key: format!("part-{seed}").into(),
        version: Version {
            token: Token::ETag {
                etag: format!("\"{seed}\"").into(),
                version_id: None,
            },
            size,
            mtime_ns: 0,
        },
    }
}

/// Byte `offset..offset + length` of the content of object `seed`.
pub(crate) fn content(seed: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    let mut word = offset / 8;
    let skip = (offset % 8) as usize;
    while out.len() < length + skip {
        let mut value = (seed << 40 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(value ^ value >> 31).to_le_bytes());
        word += 1;
    }
    out.drain(..skip);
    out.truncate(length);
    out
}

pub(crate) fn block_content(seed: u64, size: u64, block: u32) -> Bytes {
    let start = u64::from(block) * BLOCK;
    let length = (size - start).min(BLOCK);
    Bytes::from(content(seed, start, length as usize))
}

/// Writes every missing block.
pub(crate) async fn fill(object: &Arc<HotObject>, seed: u64) -> Result<(), HotError> {
    let size = object.id().size();
    for run in object.missing(0..u32::MAX) {
        for block in run {
            object
                .write(block, block_content(seed, size, block))
                .await?;
        }
    }
    Ok(())
}

/// Opens and fills object `seed`.
pub(crate) async fn filled(tier: &HotTier, seed: u64, size: u64) -> Arc<HotObject> {
    let object = tier.object(&id(seed, size), &dataset()).unwrap();
    fill(&object, seed).await.unwrap();
    assert!(object.is_filled());
    object
}

/// Reads all of it; `None` when a block is missing. Panics on a wrong byte.
pub(crate) async fn read_all(object: &Arc<HotObject>, seed: u64) -> Option<()> {
    let size = object.id().size();
    let mut at = 0;
    while at < size {
        let end = (at + 3 * BLOCK / 2).min(size);
        let bytes = object.read(at..end).await.unwrap()?;
        assert!(
            bytes == content(seed, at, (end - at) as usize),
            "wrong bytes at {at}"
        );
        at = end;
    }
    Some(())
}

pub(crate) fn digest(seed: u64, size: u64) -> Digest {
    id(seed, size).digest()
}

/// The data file of an object, found in the directory rather than asked from the tier.
pub(crate) fn data_file(config: &HotConfig, digest: &Digest) -> PathBuf {
    find(config, digest, |name| !name.ends_with(".map"))
}

pub(crate) fn sidecar_file(config: &HotConfig, digest: &Digest) -> PathBuf {
    find(config, digest, |name| name.ends_with(".map"))
}

fn find(config: &HotConfig, digest: &Digest, keep: impl Fn(&str) -> bool) -> PathBuf {
    let hex = digest.hex();
    let shard = config.directory.join("objects").join(&hex[..2]);
    let mut found: Vec<PathBuf> = std::fs::read_dir(shard)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&hex) && keep(name)
        })
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Waits until `condition` holds, which another thread brings about; panics with `what` after a minute.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "never came true: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
