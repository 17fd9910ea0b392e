//! A store as discovery asks it: `terrace_catalog::upstream::Upstream` over `terrace_cache::store`.
//!
//! Keys of a store are relative to its bucket or root, paths of an upstream to the opened location: this
//! file adds and takes away the location's prefix, and nothing else. A file's token is the text of its
//! pinned version, the one that mounts read back (`Version::pin_text`).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use terrace_cache::identity::{ObjectId, Token, Version};
use terrace_cache::source::Source;
use terrace_cache::store::{ListEntry, ObjectMeta, Store, StoreError, StoreErrorKind};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError, UpstreamErrorKind};

/// Nanoseconds in a millisecond.
const MILLISECOND: i64 = 1_000_000;

/// One location of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StoreUpstream {
    store: Store,
    url: Arc<str>,
    prefix: Arc<str>,
}

impl StoreUpstream {
    /// The location that the store was opened with.
    pub(crate) fn new(store: Store) -> Self {
        let url = store.url();
        let text = url.to_string();
        Self {
            url: Arc::from(text.trim_end_matches('/')),
            prefix: Arc::from(url.prefix()),
            store,
        }
    }

    /// The store behind it.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The object that a file is. Errors with `Corrupt` for a token that pins none.
    pub(super) fn meta(&self, file: &UpFile) -> Result<ObjectMeta, UpstreamError> {
        let unreadable = || {
            let text = format!("{}: its token pins no version", file.path);
            UpstreamError::new(UpstreamErrorKind::Corrupt, text)
        };
        let version = Version::from_pin_text(&file.token, file.size, file.mtime_ms);
        Ok(ObjectMeta {
            key: Arc::from(self.key(&file.path)),
            version: version.ok_or_else(unreadable)?,
        })
    }

    /// The file that an object is. Errors with `Corrupt` for one beside the location.
    pub(super) fn found(&self, meta: &ObjectMeta) -> Result<UpFile, UpstreamError> {
        let outside =
            || UpstreamError::new(UpstreamErrorKind::Corrupt, "a key beside the location");
        Self::file(&self.prefix, meta).ok_or_else(outside)
    }

    pub(super) fn key(&self, path: &str) -> String {
        match (&*self.prefix, path) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        }
    }

    /// The path of a key below the location; none for a key beside it.
    fn path<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
        if prefix.is_empty() {
            return Some(key);
        }
        key.strip_prefix(prefix)?.strip_prefix('/')
    }

    fn file(prefix: &str, meta: &ObjectMeta) -> Option<UpFile> {
        let path = Self::path(prefix, &meta.key)?;
        Some(UpFile {
            path: Arc::from(path),
            size: meta.version.size,
            mtime_ms: meta.version.mtime_ns.div_euclid(MILLISECOND),
            token: Arc::from(meta.version.pin_text()),
        })
    }
}

#[async_trait]
impl Upstream for StoreUpstream {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        let prefix = Arc::clone(&self.prefix);
        let listed = self.store.list(&self.key(directory)).map_err(error);
        let entry = move |entry| {
            let found = match &entry {
                ListEntry::Object(meta) => Self::file(&prefix, meta).map(Listed::File),
                ListEntry::Directory(key) => {
                    Self::path(&prefix, key).map(|path| Listed::Directory(Arc::from(path)))
                }
            };
            std::future::ready(Ok(found))
        };
        listed.try_filter_map(entry).boxed()
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        let prefix = Arc::clone(&self.prefix);
        let listed = self.store.walk(&self.key(directory)).map_err(error);
        let file = move |meta| std::future::ready(Ok(Self::file(&prefix, &meta)));
        listed.try_filter_map(file).boxed()
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        let meta = self.store.head(&self.key(path)).await.map_err(error)?;
        self.found(&meta)
    }

    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        let meta = self.meta(file)?;
        // Reads are addressed by the store's own root, also where nodes share one under another name.
        let object = ObjectId {
            store: Arc::from(self.store.url().root()),
            key: meta.key,
            version: meta.version,
        };
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut pieces = self.store.read(&object, range).await.map_err(error)?;
        let Some(first) = pieces.try_next().await.map_err(error)? else {
            return Ok(Bytes::new());
        };
        if first.len() == length {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(length);
        whole.extend_from_slice(&first);
        while let Some(piece) = pieces.try_next().await.map_err(error)? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn keep(&self, file: &UpFile) -> Result<Option<UpFile>, UpstreamError> {
        let kept = self
            .store
            .keep(&self.key(&file.path))
            .await
            .map_err(error)?;
        let Some(kept) = kept else {
            return Ok(None);
        };
        let seen = self.meta(file)?.version;
        let same = match (&kept.token, &seen.token) {
            (Token::ETag { etag: kept, .. }, Token::ETag { etag: seen, .. }) => kept == seen,
            _ => false,
        };
        if !same || kept.size != seen.size {
            let text = format!("{}: another version is there by now", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Changed, text));
        }
        Ok(Some(UpFile {
            token: Arc::from(kept.pin_text()),
            ..file.clone()
        }))
    }
}

pub(super) fn error(error: StoreError) -> UpstreamError {
    let kind = match error.kind {
        StoreErrorKind::NotFound => UpstreamErrorKind::NotFound,
        StoreErrorKind::Permission => UpstreamErrorKind::Denied,
        StoreErrorKind::Throttled => UpstreamErrorKind::Throttled,
        StoreErrorKind::Unreachable => UpstreamErrorKind::Unreachable,
        StoreErrorKind::Changed => UpstreamErrorKind::Changed,
        StoreErrorKind::Corrupt | StoreErrorKind::Invalid => UpstreamErrorKind::Corrupt,
    };
    UpstreamError::new(kind, error.to_string())
}
