//! Immutable bytes under their SHA-256, and named files beside them. Knows no dataset.
//!
//! Invariants: what [`Blobs::put`] answered is durable; what [`Blobs::get`] answers has the digest that
//! was asked for; a blob never changes. A named file is replaced whole or not at all. Names are parsed
//! ([`BlobName`]), so no text becomes a path by accident.

mod directory;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sha2::{Digest as _, Sha256};

pub use directory::DirectoryBlobs;

/// Most bytes of one blob and of one named file: what a reader takes into memory at once.
pub const MAX_BLOB: usize = 64 << 20;
/// Longest name, in bytes.
const MAX_NAME: usize = 512;
/// Longest segment of a name, in bytes.
const MAX_SEGMENT: usize = 128;

/// The SHA-256 of a blob's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest that came from somewhere else.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = BlobError;

    /// 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, BlobError> {
        let bad = || BlobError::Name(crate::name::shortened(text));
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(bad());
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let high = digit(pair[0]).ok_or_else(bad)?;
            *byte = high << 4 | digit(pair[1]).ok_or_else(bad)?;
        }
        Ok(Self(id))
    }
}

/// The name of a named file: segments joined by `/`.
///
/// ```text
/// segment = [a-z0-9] [a-z0-9._-]{0,127}       so neither "..", ".", "" nor a hidden file
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(Arc<str>);

impl BlobName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobName {
    type Err = BlobError;

    fn from_str(text: &str) -> Result<Self, BlobError> {
        let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let inner = |byte: u8| first(&byte) || matches!(byte, b'.' | b'_' | b'-');
        let segment = |segment: &str| {
            segment.len() <= MAX_SEGMENT
                && segment.as_bytes().first().is_some_and(first)
                && segment.bytes().all(inner)
        };
        if text.len() <= MAX_NAME && text.split('/').all(segment) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(BlobError::Name(crate::name::shortened(text)))
        }
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none with this id or name.
    #[error("{0} is not in the catalog's store")]
    NotFound(String),
    /// The stored bytes do not have the digest they are stored under.
    #[error("{0} is damaged in the catalog's store: its bytes have another digest")]
    Corrupt(BlobId),
    /// Not the text of an id or of a name.
    #[error("{0:?} is no name in the catalog's store")]
    Name(String),
    /// Larger than [`MAX_BLOB`].
    #[error("{0} bytes are more than the {MAX_BLOB} of one file in the catalog's store")]
    TooLarge(u64),
    /// The store did not do it; it may later.
    #[error("the catalog's store: {operation} {name}: {reason}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// On what.
        name: String,
        /// What the store said.
        reason: String,
    },
}

/// A blob as [`Blobs::list`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its digest.
    pub id: BlobId,
    /// Its bytes.
    pub size: u64,
    /// How long ago it was last put. An existing blob that is put again is young again.
    pub age: Duration,
}

/// See the module text. Every method may be dropped before it ends; a dropped change may still happen.
#[async_trait]
pub trait Blobs: Send + Sync + fmt::Debug + 'static {
    /// Stores bytes; durable when it returns. Storing the same again is no error.
    async fn put(&self, bytes: Bytes) -> Result<BlobId, BlobError>;

    /// The bytes of a blob, checked against its id.
    async fn get(&self, id: &BlobId) -> Result<Bytes, BlobError>;

    /// Removes a blob; no error when there is none. For garbage collection only.
    async fn delete(&self, id: &BlobId) -> Result<(), BlobError>;

    /// Removes a blob unless it was put within `grace`; whether it did. A `put` at the same time either
    /// makes it young before, so that it stays, or stores it again.
    async fn collect(&self, id: &BlobId, grace: Duration) -> Result<bool, BlobError>;

    /// Every blob, in no order.
    fn list(&self) -> BoxStream<'static, Result<Listed, BlobError>>;

    /// Sets a named file, whole or not at all; durable when it returns.
    async fn put_named(&self, name: &BlobName, bytes: Bytes) -> Result<(), BlobError>;

    /// The bytes of a named file.
    async fn get_named(&self, name: &BlobName) -> Result<Bytes, BlobError>;

    /// Removes a named file; no error when there is none.
    async fn delete_named(&self, name: &BlobName) -> Result<(), BlobError>;

    /// The names that begin with `prefix` (whole segments, or empty for all), in no order.
    fn list_named(&self, prefix: &str) -> BoxStream<'static, Result<BlobName, BlobError>>;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    // A name that climbs out of its directory would let a mirror file overwrite anything.
    #[test]
    fn hostile_names_are_refused() {
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", ".hidden", "a/.b", "A", "a b", "a\0", "ü",
            "a\\b", "-a",
        ] {
            assert!(bad.parse::<BlobName>().is_err(), "{bad:?} was accepted");
        }
        assert!("datasets/01/v1.json".parse::<BlobName>().is_ok());
    }

    // An id that prints as another text would be another file.
    #[test]
    fn an_id_prints_as_it_is_parsed() {
        let id = BlobId::of(b"terrace");
        assert_eq!(id.to_string().parse::<BlobId>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<BlobId>().is_err());
    }

    proptest! {
        // Ids come from the network: no text may panic the parser.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = text.parse::<BlobId>();
            let _ = text.parse::<BlobName>();
        }
    }
}
