//! Bytes of files that are made up, behind the same seam as those of a store.
//!
//! ```text
//! store   "catalog:"
//! key     "text/<sha-256 of the bytes>"    a small text, from the slot file
//!         "list/<manifest>"                the files of a version, made from its snapshot
//!         "sql/<sha-256 of the bytes>"     a file for SQL engines, asked of the catalog
//! token   ETag "<the same hex>"
//! ```
//!
//! Keys name content, so two mounts of one node share what the tiers keep, and a restarted worker reads
//! on where the one before it was.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use sha2::{Digest as _, Sha256};
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_cache::{ByteStream, ObjectId, Source, Token, Version};

use super::catalog::{ManifestId, TableVersion};
use super::slot::SqlFile;
use super::tree::{Inner, MILLISECOND};
use super::versions::Opened;

/// The store of what is made up.
pub const STORE: &str = "catalog:";

const TEXT: &str = "text/";
const LIST: &str = "list/";
const SQL: &str = "sql/";

/// Reads objects of [`STORE`].
#[derive(Clone, Debug)]
pub struct TreeSource {
    inner: Arc<Inner>,
}

impl TreeSource {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

fn object(kind: &str, hex: &str, size: u64, mtime_ms: i64) -> ObjectId {
    ObjectId {
        store: STORE.into(),
        key: format!("{kind}{hex}").into(),
        version: Version {
            token: Token::ETag {
                etag: format!("\"{hex}\"").into(),
                version_id: None,
            },
            size,
            mtime_ns: mtime_ms.saturating_mul(MILLISECOND),
        },
    }
}

/// The object of a text.
pub(super) fn text_object(mtime_ms: i64, bytes: &[u8]) -> ObjectId {
    let digest = ManifestId(Sha256::digest(bytes).into());
    object(TEXT, &digest.hex(), bytes.len() as u64, mtime_ms)
}

/// The object of a file for SQL engines.
pub(super) fn sql_object(file: &SqlFile) -> ObjectId {
    let digest = ManifestId(file.digest);
    object(SQL, &digest.hex(), file.size, file.version.committed_ms)
}

/// The object of a version's list of files.
pub(super) fn list_object(version: &TableVersion, size: u64) -> ObjectId {
    object(LIST, &version.manifest.hex(), size, version.committed_ms)
}

#[async_trait]
impl Source for TreeSource {
    /// Errors: `NotFound` for what this mount never showed, `Changed` for another length.
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        if range.is_empty() || range.end > object.size() {
            return Err(failed(
                object,
                StoreErrorKind::Invalid,
                "range outside the object",
            ));
        }
        let unknown = || failed(object, StoreErrorKind::NotFound, "not shown by this mount");
        if let Some(digest) = object.key.strip_prefix(TEXT) {
            let digest = ManifestId::from_hex(digest).ok_or_else(unknown)?;
            let text = self.inner.slots.text(&digest.0).ok_or_else(unknown)?;
            let piece = text.get(range.start as usize..range.end as usize);
            let changed = || failed(object, StoreErrorKind::Changed, "another length");
            let piece = Bytes::copy_from_slice(piece.ok_or_else(changed)?);
            return Ok(stream::iter([Ok(piece)]).boxed());
        }
        if let Some(digest) = object.key.strip_prefix(SQL) {
            let digest = ManifestId::from_hex(digest).ok_or_else(unknown)?;
            let bytes = self.inner.sql_bytes(&digest.0).await?.ok_or_else(unknown)?;
            let changed = || failed(object, StoreErrorKind::Changed, "another length");
            let fits = range.end <= bytes.len() as u64;
            let bytes = fits.then_some(bytes).ok_or_else(changed)?;
            let piece = bytes.slice(range.start as usize..range.end as usize);
            return Ok(stream::iter([Ok(piece)]).boxed());
        }
        let manifest = object.key.strip_prefix(LIST).and_then(ManifestId::from_hex);
        let manifest = manifest.ok_or_else(unknown)?;
        let opened = self.inner.versions.local(&manifest);
        let opened = opened.map_err(|error| local(object, &error))?;
        Ok(list(opened, object.clone(), range))
    }
}

/// Pieces of a list, each made on the blocking pool.
fn list(opened: Arc<Opened>, object: ObjectId, range: Range<u64>) -> ByteStream {
    let pieces = stream::try_unfold(range, move |range| {
        let (opened, object) = (Arc::clone(&opened), object.clone());
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let wanted = range.clone();
            let making = tokio::task::spawn_blocking(move || {
                let list = opened.list()?;
                list.piece(&opened.snapshot, &wanted)
            });
            let piece = match making.await {
                Ok(piece) => piece.map_err(|error| local(&object, &error))?,
                Err(error) => return Err(local(&object, &error)),
            };
            let rest = range.start + piece.len() as u64..range.end;
            Ok(Some((piece, rest)))
        }
    });
    pieces.boxed()
}

fn local(object: &ObjectId, error: &dyn std::fmt::Display) -> StoreError {
    failed(object, StoreErrorKind::Corrupt, &error.to_string())
}

fn failed(object: &ObjectId, kind: StoreErrorKind, reason: &str) -> StoreError {
    StoreError {
        kind,
        operation: "read range",
        target: object.to_string(),
        reason: reason.to_owned(),
    }
}
