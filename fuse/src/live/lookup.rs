//! Finding one name: from memory, by a listing of a small directory, or by asking for the name.
//!
//! In a store of plain keys a name is two questions (is it an object, is it a prefix), while one
//! page of a listing answers for a thousand names. So a directory known to be small is listed anew
//! when its listing has grown old, and one whose names are asked for again and again is listed once
//! to find out whether it is small. Names of a large directory that was listed some time ago are asked
//! for many at once, see `nearby`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use terrace_cache::store::{StoreError, StoreErrorKind};

use super::listing::{Found, Listing};
use super::record::{Record, What};
use super::{Inner, table::TableError};
use crate::names::{NAME_MAX, check_segment};
use crate::namespace::{Attr, FsError, Ino};

/// Directories up to this size are looked up by listing them: one page of the store.
const SMALL: u64 = 1000;
/// Names asked for one by one before a listing is tried.
pub(super) const TRY_LISTING_AFTER: u32 = 4;

/// What was found at a name, and until when that holds.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// `None`: nothing is there.
    attr: Option<Attr>,
    /// By the mount's clock.
    until: Duration,
}

impl Inner {
    /// What memory says about a name, while it may be believed.
    pub(super) fn remembered(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>> {
        if name.len() > NAME_MAX {
            return Some(Err(FsError::NameTooLong));
        }
        // What cannot be a key's segment is not there; the kernel never asks for `.` and `..`.
        if check_segment(name).is_err() || std::str::from_utf8(name).is_err() {
            return Some(Err(FsError::NotFound));
        }
        let now = self.clock.now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binding) = names.get(&(parent, name.into()))
            && now < binding.until
        {
            return Some(binding.attr.clone().ok_or(FsError::NotFound));
        }
        drop(names);
        self.listings
            .newest(parent)
            .and_then(|listing| self.listed(&listing, name))
    }

    /// What a listing says about a name, while it may be believed.
    fn listed(&self, listing: &Listing, name: &[u8]) -> Option<Result<Attr, FsError>> {
        match listing.find(name, self.clock.now(), self.ttl()) {
            Found::Entry(ino, kind, size, mtime_ns) => {
                Some(Ok(self.ownership.attr(ino, kind, size, mtime_ns)))
            }
            Found::Missing if self.config.negative_ttl.is_zero() => None,
            Found::Missing => Some(Err(FsError::NotFound)),
            Found::Unknown => None,
        }
    }

    fn remember(&self, parent: Ino, name: &str, asked_at: Duration, attr: Option<Attr>) {
        let ttl = if attr.is_some() {
            self.ttl()
        } else {
            self.config.negative_ttl / 2
        };
        if ttl.is_zero() {
            return;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(
            (parent, name.as_bytes().into()),
            Binding {
                attr,
                until: asked_at + ttl,
            },
        );
    }

    /// True when names of this directory have been asked for often and it was never listed.
    fn worth_listing(&self, directory: Ino) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get(&directory) {
            Some(count) => {
                *count += 1;
                *count > TRY_LISTING_AFTER
            }
            None => {
                asked.insert(directory, 1);
                false
            }
        }
    }

    /// A complete and fresh listing of the directory, when it is small.
    async fn small_listing(
        &self,
        ino: Ino,
        directory: &Record,
    ) -> Result<Option<Arc<Listing>>, FsError> {
        let small = match self.listings.newest(ino) {
            Some(listing) => listing.is_complete() && listing.len() <= SMALL,
            None => self.worth_listing(ino),
        };
        if !small {
            return Ok(None);
        }
        let listing = self.listing(ino, directory);
        while !listing.is_complete() && listing.len() <= SMALL {
            self.more(&listing).await?;
        }
        Ok(Some(listing).filter(|listing| listing.is_complete()))
    }

    /// Asks the store what is at one path.
    async fn ask(&self, path: &str) -> Result<What, FsError> {
        self.heads.fetch_add(1, Ordering::Relaxed);
        let key = self.key(path);
        if self.lister.hierarchical() {
            return match self.lister.head(&key).await {
                Ok(meta) => Ok(What::File(meta.version)),
                Err(error) if error.kind == StoreErrorKind::NotFound => {
                    self.ask_directory(&key).await?.ok_or(FsError::NotFound)
                }
                Err(error) => Err(error.into()),
            };
        }
        let (head, directory) = tokio::join!(self.lister.head(&key), self.ask_directory(&key));
        match (head, directory) {
            (_, Ok(Some(directory))) => Ok(directory),
            // Who may read but not list sees no directories, and still reads files by name.
            (Ok(meta), Err(error)) if error.kind == StoreErrorKind::Permission => {
                Ok(What::File(meta.version))
            }
            (_, Err(error)) => Err(error.into()),
            (Ok(meta), Ok(None)) => Ok(What::File(meta.version)),
            (Err(error), Ok(None)) if error.kind == StoreErrorKind::NotFound => {
                Err(FsError::NotFound)
            }
            (Err(error), Ok(None)) => Err(error.into()),
        }
    }

    async fn ask_directory(&self, key: &str) -> Result<Option<What>, StoreError> {
        match self.lister.list(key).next().await {
            Some(Err(error)) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(Some(What::Directory(self.clock.wall_ns()))),
        }
    }

    /// Gives what was found its inode number, in the table before anyone sees it.
    async fn bind(&self, path: String, what: What) -> Result<Attr, FsError> {
        let table = Arc::clone(&self.table);
        let work = move || {
            let numbers = table.resolve(&[(path, what)])?;
            let ino = numbers.first().copied().ok_or(TableError::Exhausted)?;
            Ok::<_, TableError>((ino, table.record(ino)?))
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (ino, record) = done.map_err(|error| FsError::Local(error.to_string()))??;
        Ok(self.record_attr(ino, &*record.ok_or(FsError::Stale)?))
    }

    async fn find(self: Arc<Self>, parent: Ino, name: Box<str>) -> Result<Attr, FsError> {
        let directory = self.directory(parent)?;
        if let Some(listing) = self.small_listing(parent, &directory).await? {
            let now = self.clock.now();
            match listing.find(name.as_bytes(), now, Duration::MAX - now) {
                Found::Entry(ino, kind, size, mtime_ns) => {
                    return Ok(self.ownership.attr(ino, kind, size, mtime_ns));
                }
                Found::Missing => return Err(FsError::NotFound),
                Found::Unknown => {}
            }
        }
        if let Some(attr) = self.nearby(parent, &directory, &name).await? {
            return Ok(attr);
        }
        let path = match &*directory.path {
            "" => name.to_string(),
            path => format!("{path}/{name}"),
        };
        let asked_at = self.clock.now();
        let result = match self.ask(&path).await {
            Ok(what) => self.bind(path, what).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(attr) => self.remember(parent, &name, asked_at, Some(attr.clone())),
            Err(FsError::NotFound) => self.remember(parent, &name, asked_at, None),
            Err(_) => {}
        }
        result
    }
}

/// See [`crate::namespace::Namespace::lookup`].
pub(super) async fn lookup(inner: &Arc<Inner>, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
    if let Some(answer) = inner.remembered(parent, name) {
        return answer;
    }
    // `remembered` has answered for names that are not text.
    let name: Box<str> = std::str::from_utf8(name)
        .map_err(|_| FsError::NotFound)?
        .into();
    let asker = Arc::clone(inner);
    let ask = || asker.find(parent, name.clone());
    inner.flights.join((parent, name.clone()), ask).await
}
