//! What discovery may ask of a store: four questions about one opened location.
//!
//! Whoever runs the catalog implements [`Upstream`] over its stores; this crate opens none. Paths are
//! relative to the location, exactly as in the store, without a leading or trailing slash; the empty
//! path is the location itself.
//!
//! Two things are kept apart everywhere behind this seam: what a store *answers* ([`NotFound`]) and that
//! it does not answer ([`Unreachable`]). Only the first can ever lead to "deleted", and a listing that
//! ends with an error says nothing about what it has not shown.
//!
//! Places that the catalog itself writes to are [`crate::vault`].
//!
//! [`NotFound`]: UpstreamErrorKind::NotFound
//! [`Unreachable`]: UpstreamErrorKind::Unreachable

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// A file as a listing or a head request shows it: where, and which version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpFile {
    /// Path below the location.
    pub path: Arc<str>,
    /// Length in bytes.
    pub size: u64,
    /// Modification time by the store's clock, milliseconds since the epoch. Compared with other times
    /// of the same store only.
    pub mtime_ms: i64,
    /// Opaque text that, with `size` and `mtime_ms`, pins this version in its store.
    pub token: Arc<str>,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A file.
    File(UpFile),
    /// The path of a directory (or common prefix), without a trailing slash.
    Directory(Arc<str>),
}

/// What a caller has to do about an [`UpstreamError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamErrorKind {
    /// The store answered that nothing is there.
    NotFound,
    /// The store refused the caller.
    Denied,
    /// The store asked to slow down until its client gave up.
    Throttled,
    /// No answer in time. Never means "deleted".
    Unreachable,
    /// The version that was asked for is gone; another one is there.
    Changed,
    /// The answer contradicts itself, or the request cannot be answered at all.
    Corrupt,
}

/// A failed question, in one line without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct UpstreamError {
    /// What to do about it.
    pub kind: UpstreamErrorKind,
    /// What failed, on what, and why.
    pub message: String,
}

/// One opened location: `s3://bucket/prefix`, `hdfs://host:port/path`, `file:///directory`.
///
/// Implementations bring their own deadlines and retries: callers repeat nothing within one pass.
/// Every call is cancelled by dropping it.
#[async_trait]
pub trait Upstream: Send + Sync + Debug + 'static {
    /// The location, without credentials and without a trailing slash.
    fn url(&self) -> &str;

    /// What is directly in a directory, page by page, each path in full. Ends after the first error.
    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>>;

    /// Every file below a directory, page by page, in no order. Ends after the first error.
    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>>;

    /// The file at exactly this path. `NotFound` when nothing or only a directory is there.
    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError>;

    /// A range (non-empty, inside the file) of exactly this version, or `Changed`.
    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError>;

    /// The same version under a token that a later overwrite does not take away, where the store
    /// keeps old versions. None: it does not. `Changed` when another version is there by now.
    async fn keep(&self, _file: &UpFile) -> Result<Option<UpFile>, UpstreamError> {
        Ok(None)
    }
}

impl UpstreamError {
    /// Joins the two parts.
    pub fn new(kind: UpstreamErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Whether the store answered that nothing is there.
    pub fn is_not_found(&self) -> bool {
        self.kind == UpstreamErrorKind::NotFound
    }
}

/// Reads a whole small file. Files above `limit` bytes are refused as `Corrupt`.
pub(crate) async fn read_small(
    upstream: &dyn Upstream,
    file: &UpFile,
    limit: u64,
) -> Result<Bytes, UpstreamError> {
    if file.size > limit {
        let message = format!("{}: {} bytes, at most {limit}", file.path, file.size);
        return Err(UpstreamError::new(UpstreamErrorKind::Corrupt, message));
    }
    if file.size == 0 {
        return Ok(Bytes::new());
    }
    upstream.read(file, 0..file.size).await
}
