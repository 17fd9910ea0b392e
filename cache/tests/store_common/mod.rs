//! What the store's tests share: bytes that tell their version and offset, and short configurations.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use terrace_cache::store::{Credentials, Store, StoreConfig, StoreError, StoreErrorKind};
use terrace_cache::units::Span;
use terrace_cache::{ObjectId, Source as _};

/// Bytes of version `version` of a test object: every 8 bytes hold version and offset.
pub(crate) fn content(version: u32, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        let word =
            (u64::from(version) << 40 | bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(size);
    Bytes::from(bytes)
}

/// Deadlines short enough for a test, retries that repeat.
pub(crate) fn quick() -> StoreConfig {
    let millis = |millis| Span(Duration::from_millis(millis));
    StoreConfig {
        connect_timeout: millis(500),
        attempt_timeout: millis(500),
        stall_timeout: millis(400),
        deadline: millis(5_000),
        attempts: 5,
        backoff: millis(4),
        jitter_seed: Some(11),
        ..StoreConfig::default()
    }
}

/// Credentials from pairs.
pub(crate) fn credentials(pairs: &[(&str, &str)]) -> Credentials {
    Credentials::new(
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string())),
    )
}

/// All bytes of a range; what came before an error is given with it.
pub(crate) async fn read(
    store: &Store,
    object: &ObjectId,
    range: Range<u64>,
) -> Result<Bytes, (Vec<u8>, StoreError)> {
    let mut got = Vec::new();
    let mut stream = match store.read(object, range).await {
        Ok(stream) => stream,
        Err(error) => return Err((got, error)),
    };
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => return Err((got, error)),
        }
    }
    Ok(Bytes::from(got))
}

/// The kind a read ends with, after checking that what came before is a prefix of `expected`.
pub(crate) async fn read_error(
    store: &Store,
    object: &ObjectId,
    range: Range<u64>,
    expected: &[u8],
) -> StoreErrorKind {
    let start = range.start as usize;
    let (got, error) = read(store, object, range).await.unwrap_err();
    assert!(
        expected[start..].starts_with(&got),
        "bytes of another version before: {error}"
    );
    error.kind
}
