//! Stores: S3-compatible, HDFS, WebHDFS and directories behind one type.
//!
//! A [`Store`] answers three questions - what is at a key ([`Store::head`]), what is below a prefix
//! ([`Store::list`], [`Store::walk`]), and which bytes a range of a *pinned version* holds
//! ([`Source::read`]). The invariant: a byte it hands out belongs to exactly the asked version.
//! Directories, S3 and HDFS also take new objects ([`Store::create`]).
//!
//! ```text
//! Store -> listing, read     streams; resume, hold back what is not confirmed
//!       -> write             new objects, whole or not at all
//!       -> traffic, retry    slots, bandwidth, deadlines, back-off, retry budget, counters
//!       -> backend           one attempt, checked against the pin: s3 | hdfs | webhdfs | directory
//! ```
//!
//! How versions are pinned: S3 by ETag (`If-Match`, and the answer's ETag, Content-Range, total and
//! length on every attempt; version id too when the identity has one), HDFS by length + mtime
//! (+ file id over WebHDFS) checked before and after the bytes, directories by device + inode +
//! size + mtime checked around every piece.
//!
//! "Unreachable" is never "deleted": only an answer of the store itself is `NotFound`.

mod backend;
mod bandwidth;
mod config;
mod credentials;
mod directory;
mod error;
mod failure;
mod hdfs;
mod listing;
mod read;
mod retry;
mod s3;
mod stats;
mod traffic;
mod url;
mod webhdfs;
mod window;
mod write;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::identity::{ObjectId, Version};
use crate::source::{ByteStream, Source};

use backend::Backend;
use listing::Lister;
use stats::Operation;
use traffic::Traffic;

pub use bandwidth::Bandwidth;
pub use config::StoreConfig;
pub use credentials::Credentials;
pub use error::{StoreError, StoreErrorKind};
pub use stats::{RequestCount, StoreStats};
pub use url::{Scheme, StoreUrl};
pub use write::{Labels, NewObject};

/// A store: cheap to clone, closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    url: StoreUrl,
    backend: Arc<dyn Backend>,
    traffic: Arc<Traffic>,
}

/// An object as a listing or a head request shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key below the store's root, exactly as in the store, no leading slash.
    pub key: Arc<str>,
    /// The version found; the same from `head`, `list` and `walk`.
    pub version: Version,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// An object, by its full key.
    Object(ObjectMeta),
    /// A directory or common prefix: its full key without trailing slash.
    Directory(String),
}

/// Some of the entries directly below a directory, side by side in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// What is there.
    pub entries: Vec<ListEntry>,
    /// Every object `k` and every directory `k` with `k/` up to this full key is among the entries;
    /// later ones may be, too. `None`: everything to the end of the directory is.
    pub reaches: Option<Arc<str>>,
}

impl Store {
    /// Connects lazily: an unreachable S3 or HDFS store shows at the first request. A directory is
    /// opened at once. Must be called inside a tokio runtime.
    ///
    /// Errors: `Invalid` for settings that cannot work, `NotFound` and `Permission` for a directory.
    pub async fn open(
        url: &StoreUrl,
        config: &StoreConfig,
        credentials: &Credentials,
    ) -> Result<Store, StoreError> {
        config.check()?;
        let backend = match url.scheme() {
            Scheme::S3 => s3::open(url, config, credentials),
            Scheme::Hdfs => hdfs::open(url, config, credentials),
            Scheme::WebHdfs { tls } => webhdfs::open(url, tls, config, credentials),
            Scheme::File => directory::open(url, config).await,
        };
        Ok(Store {
            backend: backend.map_err(|failure| failure.into_error("open", url.to_string()))?,
            traffic: Traffic::new(config),
            url: url.clone(),
        })
    }

    /// Puts the store and its clones under a bandwidth limit that it shares with others, beside its
    /// own. The first one stays.
    pub fn share(&self, bandwidth: Arc<Bandwidth>) {
        self.traffic.shared.set(bandwidth).ok();
    }

    /// The URL the store was opened with.
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// How long one operation may take, attempts and pauses included.
    pub fn deadline(&self) -> Duration {
        self.traffic.config.deadline.0
    }

    /// Metadata of the object at exactly `key`.
    ///
    /// Errors: `NotFound` when nothing is there or only a directory is.
    pub async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        let attempt = || self.backend.head(key);
        let answer = self.traffic.run(Operation::Head, attempt).await;
        answer.map_err(|failure| {
            failure.into_error(Operation::Head.verb(), self.url.display_key(key))
        })
    }

    /// What is directly below `dir` (a full key; empty for the root), in the store's order, page by
    /// page. Ends after the first error. `NotFound` when the directory does not exist; where
    /// directories are only prefixes, when nothing is below it - except for the prefix the store
    /// was opened with, which always exists.
    pub fn list(&self, dir: &str) -> BoxStream<'static, Result<ListEntry, StoreError>> {
        self.lister().list(dir.trim_matches('/'))
    }

    /// What is directly below `dir` and after the full key `after` (objects by their key, directories
    /// by theirs with a slash at its end), as far as one request tells. It asks for many names at
    /// once; a directory that does not exist is empty. `None`: the store cannot begin in the middle
    /// of a listing, or ignored that it should.
    pub async fn list_after(&self, dir: &str, after: &str) -> Result<Option<Stretch>, StoreError> {
        self.lister().stretch(dir.trim_matches('/'), after).await
    }

    /// All objects below `prefix` (a full key of a directory; empty for the root), page by page.
    /// Directories reached through links are left out. Ends after the first error.
    pub fn walk(&self, prefix: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.lister().walk(prefix.trim_matches('/'))
    }

    /// Identity of an object of this store.
    pub fn object(&self, meta: &ObjectMeta) -> ObjectId {
        ObjectId {
            store: self.url.shared_root(),
            key: Arc::clone(&meta.key),
            version: meta.version.clone(),
        }
    }

    /// Counters since the store was opened.
    pub fn stats(&self) -> StoreStats {
        self.traffic.counters.snapshot()
    }

    fn lister(&self) -> Lister {
        Lister {
            url: self.url.clone(),
            backend: Arc::clone(&self.backend),
            traffic: Arc::clone(&self.traffic),
        }
    }
}

#[async_trait]
impl Source for Store {
    /// Also refuses, as `Invalid`, objects of another store and ranges outside the object.
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let reason = if *object.store != *self.url.root() {
            Some("object of another store")
        } else if range.is_empty() || range.end > object.size() {
            Some("range outside the object")
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(StoreError {
                kind: StoreErrorKind::Invalid,
                operation: Operation::Read.verb(),
                target: object.to_string(),
                reason: reason.to_string(),
            });
        }
        let (backend, traffic) = (Arc::clone(&self.backend), Arc::clone(&self.traffic));
        read::read(backend, traffic, object.clone(), range).await
    }
}
