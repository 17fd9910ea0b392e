//! The name space of a live prefix of a store: what is there now, at most `metadata_ttl` old.
//!
//! ```text
//! try_lookup   names in memory, fresh listings
//! lookup       single flight -> fresh listing of a small directory | HEAD and LIST of the name
//!              | one LIST for the names around it
//! listing      store pages -> order -> inode table -> readers          (see `listing`, `window`)
//! attr, object inode table alone, never the store                      (see `table`, `record`)
//! ```
//!
//! Invariants: an inode number stands for one path and one version (a directory: for its path), is
//! in the table before anyone sees it, and never changes its meaning. A store that does not answer
//! is an error of the question, never "no such file". A directory wins over an object of the same
//! name; keys that cannot be paths are left out; both are counted. A directory exists while keys
//! below it do (or the store has it); the root always exists once mounted.
//!
//! Lock order: `Listings` slots -> `Listing` state; `names`, `asked` and flights are taken alone.

pub(crate) mod bounded;
mod clock;
mod config;
mod feed;
pub(crate) mod flight;
mod lister;
mod listing;
mod listings;
mod lookup;
mod nearby;
mod page;
mod record;
mod table;
mod window;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use terrace_cache::ObjectId;
use terrace_cache::store::ObjectMeta;

pub use self::clock::{Clock, SystemClock};
pub use self::config::{LiveConfig, LiveParts, Opening};
pub use self::lister::Lister;
pub use self::table::TableError;
pub(crate) use self::table::options as database_options;

pub(crate) use self::bounded::Bounded;
use self::feed::{Feed, Manners};
use self::flight::Flights;
use self::listing::{Listing, Look};
use self::listings::Listings;
use self::lookup::Binding;
use self::nearby::Nearby;
use self::record::{Record, What};
use self::table::InodeTable;
use crate::namespace::{Attr, DirEntry, DirSink, FsError, Ino, Kind, Namespace, Ttl};
use crate::ownership::Ownership;
use crate::xattr;

/// Attributes belong to an inode number for ever; the kernel asks again within the hour.
const ATTR_TTL: Duration = Duration::from_secs(3600);
/// Directories for which single questions are counted.
const ASKED: usize = 4096;

/// A live prefix of a store as a name space. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LivePrefix {
    inner: Arc<Inner>,
}

/// Counters of a live mount since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Keys left out because they cannot be paths.
    pub hidden: u64,
    /// Objects left out because a directory has the same name.
    pub shadowed: u64,
    /// Listings started.
    pub listings: u64,
    /// Names asked for one by one.
    pub heads: u64,
    /// Entries of listings in memory.
    pub listed: u64,
}

/// (parent, name) -> what was found there.
type Names = Bounded<(Ino, Box<[u8]>), Binding>;

#[derive(Debug)]
struct Inner {
    lister: Arc<dyn Lister>,
    prefix: Box<str>,
    table: Arc<InodeTable>,
    config: LiveConfig,
    ownership: Ownership,
    clock: Arc<dyn Clock>,
    manners: Arc<Manners>,
    listings: Listings,
    names: Mutex<Names>,
    /// Names asked for one by one, per directory: tells when a listing would be cheaper.
    asked: Mutex<Bounded<Ino, u32>>,
    flights: Flights<(Ino, Box<str>), Result<Attr, FsError>>,
    nearby: Nearby,
    listings_started: AtomicU64,
    heads: AtomicU64,
}

impl LivePrefix {
    /// Opens the name space; local only, the store is not asked (see [`LivePrefix::check`]).
    /// Blocks on the disk for as long as the inode table takes to open.
    pub fn open(parts: LiveParts<'_>) -> Result<Self, TableError> {
        let now_ns = parts.clock.wall_ns();
        let table = InodeTable::open(parts.table, now_ns)?;
        if parts.opening == Opening::Mount {
            table.forget_over(parts.config.inodes, now_ns)?;
        }
        let manners = Manners {
            ordered: AtomicBool::new(parts.lister.ordered()),
            hidden: AtomicU64::new(0),
            shadowed: AtomicU64::new(0),
        };
        let inner = Inner {
            lister: parts.lister,
            prefix: parts.prefix.into(),
            table: Arc::new(table),
            config: parts.config,
            ownership: parts.ownership,
            clock: parts.clock,
            manners: Arc::new(manners),
            listings: Listings::new(parts.config.listed),
            names: Mutex::new(Bounded::new(parts.config.names)),
            asked: Mutex::new(Bounded::new(ASKED)),
            flights: Flights::new(),
            nearby: Nearby::default(),
            listings_started: AtomicU64::new(0),
            heads: AtomicU64::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Asks the store for the root, as a new mount should before it answers: a missing bucket or
    /// directory, or a store that cannot be reached, is an error here and not an empty mount.
    pub async fn check(&self) -> Result<(), FsError> {
        match self.inner.lister.list(&self.inner.prefix).next().await {
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Counters.
    pub fn stats(&self) -> LiveStats {
        let inner = &self.inner;
        LiveStats {
            hidden: inner.manners.hidden.load(Ordering::Relaxed),
            shadowed: inner.manners.shadowed.load(Ordering::Relaxed),
            listings: inner.listings_started.load(Ordering::Relaxed),
            heads: inner.heads.load(Ordering::Relaxed),
            listed: inner.listings.retained().load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// Key in the store of a path of the mount.
    fn key(&self, path: &str) -> String {
        match (&*self.prefix, path) {
            (prefix, "") => prefix.to_owned(),
            ("", path) => path.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        }
    }

    fn record(&self, ino: Ino) -> Result<Arc<Record>, FsError> {
        self.table.record(ino)?.ok_or(FsError::Stale)
    }

    fn directory(&self, ino: Ino) -> Result<Arc<Record>, FsError> {
        let record = self.record(ino)?;
        match record.what {
            What::Directory(_) => Ok(record),
            What::File(_) => Err(FsError::NotDirectory),
        }
    }

    fn record_attr(&self, ino: Ino, record: &Record) -> Attr {
        let (size, mtime_ns) = record.what.shown();
        self.ownership.attr(ino, record.what.kind(), size, mtime_ns)
    }

    /// The daemon's half of the time to live.
    fn ttl(&self) -> Duration {
        self.config.metadata_ttl / 2
    }

    /// A listing of `directory`, started within the time to live.
    fn listing(&self, ino: Ino, directory: &Record) -> Arc<Listing> {
        let now = self.clock.now();
        self.listings
            .fresh(ino, now, self.ttl(), || self.new_listing(now, directory))
    }

    fn new_listing(&self, now: Duration, directory: &Record) -> Listing {
        self.listings_started.fetch_add(1, Ordering::Relaxed);
        let key = self.key(&directory.path);
        let stream = self.lister.list(&key);
        let seen = self.clock.wall_ns();
        let feed = Feed::new(stream, &key, &directory.path, seen, &self.manners);
        Listing::new(now, feed, self.listings.retained())
    }

    async fn more(&self, listing: &Listing) -> Result<(), FsError> {
        listing
            .more(listing.len(), &self.table, self.clock.now())
            .await?;
        self.listings.trim(listing);
        Ok(())
    }

    /// Name of the entry a cookie stands for: the cookie is its inode number, so it means the same
    /// in every listing and every process.
    fn cookie_name(&self, directory: &Record, cookie: u64) -> Result<Box<[u8]>, FsError> {
        let unknown = FsError::Invalid("unknown position in a directory");
        let record = self.table.record(Ino(cookie))?.ok_or(unknown.clone())?;
        if record.path.is_empty() || record.parent() != &*directory.path {
            return Err(unknown);
        }
        Ok(record.name().as_bytes().into())
    }
}

#[async_trait]
impl Namespace for LivePrefix {
    fn ttl(&self) -> Ttl {
        Ttl {
            entry: self.inner.config.metadata_ttl / 2,
            attr: ATTR_TTL,
            negative: self.inner.config.negative_ttl / 2,
            cache_directories: false,
        }
    }

    fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>> {
        self.inner.remembered(parent, name)
    }

    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        lookup::lookup(&self.inner, parent, name).await
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        Ok(self.inner.record_attr(ino, &*self.inner.record(ino)?))
    }

    async fn read_directory(
        &self,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        let inner = &*self.inner;
        let record = inner.directory(directory)?;
        let mut name = match after {
            0 => None,
            cookie => Some(inner.cookie_name(&record, cookie)?),
        };
        let going_on = name
            .as_deref()
            .and_then(|name| inner.listings.continuing(directory, name));
        let mut listing = going_on.unwrap_or_else(|| inner.listing(directory, &record));
        loop {
            let (page, place) = match listing.after(name.as_deref()) {
                Look::Page(page, place) => (page, place),
                Look::End => return Ok(()),
                Look::More => {
                    inner.more(&listing).await?;
                    continue;
                }
                // Whoever is far ahead keeps the listing that was shared so far.
                Look::Lost => {
                    let now = inner.clock.now();
                    let make = || inner.new_listing(now, &record);
                    listing = inner.listings.fresh(directory, now, Duration::ZERO, make);
                    continue;
                }
            };
            let mut last = None;
            for entry in page.from(place) {
                let attr = inner
                    .ownership
                    .attr(entry.ino, entry.kind, entry.size, entry.mtime_ns);
                let name = entry.name.to_vec();
                if !sink.push(DirEntry {
                    next: entry.ino.0,
                    name,
                    attr,
                }) {
                    return Ok(());
                }
                last = Some(entry.name);
            }
            name = last.map(Box::from).or(name);
        }
    }

    fn object(&self, ino: Ino) -> Result<ObjectId, FsError> {
        let record = self.inner.record(ino)?;
        match &record.what {
            What::Directory(_) => Err(FsError::IsDirectory),
            What::File(version) => Ok(self.inner.lister.object(&ObjectMeta {
                key: self.inner.key(&record.path).into(),
                version: version.clone(),
            })),
        }
    }

    fn link_target(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.inner.record(ino)?;
        Err(FsError::Invalid("not a symbolic link"))
    }

    fn attributes(&self, ino: Ino) -> Result<Vec<(String, Vec<u8>)>, FsError> {
        if self.inner.record(ino)?.what.kind() != Kind::File {
            return Ok(Vec::new());
        }
        Ok(xattr::of_object(&self.object(ino)?))
    }

    fn totals(&self) -> (u64, u64) {
        (0, 0)
    }
}
