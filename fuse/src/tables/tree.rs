//! [`TableTree`]: the parts put together, and every question that is answered without the catalog.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use terrace_cache::{DatasetKey, ObjectId};
use terrace_catalog::Selector;

use super::about;
use super::catalog::{Report, TableVersion, Tables};
use super::hub;
use super::listing::Listing;
use super::names::Known;
use super::place::{ABOUT, FILE_LIST, HUB, ITSELF, Place, SNAPSHOTS, SQL};
use super::reach::Reach;
use super::serve::{TreeSource, list_object, sql_object, text_object};
use super::slot::Slot;
use super::slots::{Slots, SlotsError};
use super::sql::SqlFiles;
use super::versions::Versions;
use crate::live::bounded::Bounded;
use crate::live::flight::Flights;
use crate::live::{Clock, Opening};
use crate::namespace::{Attr, DirSink, FsError, Ino, Kind, Namespace, Ttl};
use crate::ownership::Ownership;
use crate::xattr;

/// Nanoseconds in a millisecond.
pub(super) const MILLISECOND: i64 = 1_000_000;

/// What an inode number means never changes; the kernel asks again within a day.
const IMMUTABLE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Names kept in memory, about 200 bytes each.
const NAMES: usize = 16 * 1024;
/// Directories whose listings are kept.
const LISTINGS: usize = 64;
/// Versions whose reports are kept.
const REPORTS: usize = 1024;

/// Settings of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeConfig {
    /// How long a name may be believed without asking the catalog, kernel and daemon together.
    /// Default: 1 s.
    pub name_ttl: Duration,
    /// How long the daemon believes that `@v12` exists: versions are immutable. Default: 60 s.
    pub pinned_ttl: Duration,
    /// How long a catalog may take to answer about a name with an older answer, before that is used.
    /// Default: 2 s.
    pub patience: Duration,
    /// How long a catalog may take to list its namespaces or the tables of one, a hundred thousand of
    /// them page by page. Default: 60 s.
    pub listing_patience: Duration,
    /// How old a report may be. Default: 10 s.
    pub report_ttl: Duration,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self {
            name_ttl: Duration::from_secs(1),
            pinned_ttl: Duration::from_secs(60),
            patience: Duration::from_secs(2),
            listing_patience: Duration::from_secs(60),
            report_ttl: Duration::from_secs(10),
        }
    }
}

/// What a tree is made of.
#[derive(Debug)]
pub struct TreeParts<'a> {
    /// The catalog.
    pub tables: Arc<dyn Tables>,
    /// The slot file of this mount.
    pub slots: &'a Path,
    /// Whether the kernel may know numbers of a worker before this one.
    pub opening: Opening,
    /// Settings.
    pub config: TreeConfig,
    /// Owner of everything.
    pub ownership: Ownership,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Counters of a tree since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeStatus {
    /// Inode numbers given to names and versions so far.
    pub slots: u64,
    /// Answers of before that were used because the catalog did not answer.
    pub stale_answers: u64,
    /// For how long the catalog has not answered, and why; `None`: it does.
    pub catalog_down: Option<(Duration, String)>,
}

/// The tables of a catalog as a name space. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TableTree {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) tables: Arc<dyn Tables>,
    pub(super) slots: Slots,
    pub(super) versions: Arc<Versions>,
    pub(super) reach: Arc<Reach>,
    pub(super) config: TreeConfig,
    pub(super) ownership: Ownership,
    pub(super) clock: Arc<dyn Clock>,
    /// What names name, for a moment.
    pub(super) names: Mutex<Bounded<Selector, Known>>,
    pub(super) asking: Flights<Selector, Result<Option<u32>, FsError>>,
    /// Entries of the root and of namespaces, for a moment and for running scans.
    pub(super) listings: Mutex<Bounded<Ino, Arc<Listing>>>,
    pub(super) listing: Flights<Ino, Result<Arc<Listing>, FsError>>,
    /// (slot of a version, report) -> until when, and the slot of its text.
    pub(super) reports: Mutex<Bounded<(u32, Report), (Duration, u32)>>,
    pub(super) sql: SqlFiles,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TableTree");
        shown.field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl TableTree {
    /// Opens the tree; local only, the catalog is not asked (see [`TableTree::check`]).
    pub fn open(parts: TreeParts<'_>) -> Result<Self, SlotsError> {
        let slots = Slots::open(parts.slots, parts.opening)?;
        let versions = Versions::new(Arc::clone(&parts.tables), parts.ownership);
        let inner = Inner {
            slots,
            versions: Arc::new(versions),
            reach: Arc::new(Reach::new(Arc::clone(&parts.clock))),
            config: parts.config,
            ownership: parts.ownership,
            clock: parts.clock,
            tables: parts.tables,
            names: Mutex::new(Bounded::new(NAMES)),
            asking: Flights::new(),
            listings: Mutex::new(Bounded::new(LISTINGS)),
            listing: Flights::new(),
            reports: Mutex::new(Bounded::new(REPORTS)),
            sql: SqlFiles::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Asks the catalog for its namespaces, as a new mount should before it answers. A catalog that
    /// does not answer is an error, unless an earlier mount at the same place left something to show.
    pub async fn check(&self) -> Result<(), FsError> {
        self.inner.listing_of(Ino::ROOT).await.map(drop)
    }

    /// Where the bytes of files that are made up come from ([`super::STORE`]).
    pub fn source(&self) -> TreeSource {
        TreeSource::new(Arc::clone(&self.inner))
    }

    /// The snapshot file of the version whose directory `ino` is, fetched when it is not here.
    ///
    /// Errors: `Invalid` for anything but the directory of a version; those of the catalog.
    pub async fn snapshot_file(&self, ino: Ino) -> Result<PathBuf, FsError> {
        let (place, slot) = self.inner.at(ino)?;
        match slot.as_deref() {
            Some(Slot::Version(_, version)) if place.place == ITSELF => {
                let fetched = self.inner.versions.fetched(&self.inner.reach, version);
                fetched.await?;
                Ok(self.inner.tables.file(&version.manifest))
            }
            _ => Err(FsError::Invalid("not the directory of a version")),
        }
    }

    /// Counters.
    pub fn status(&self) -> TreeStatus {
        TreeStatus {
            slots: self.inner.slots.len(),
            stale_answers: self.inner.reach.stale(),
            catalog_down: self.inner.reach.down(),
        }
    }
}

impl Inner {
    /// What an inode number means: its place, and the slot unless that is the tree's own.
    pub(super) fn at(&self, ino: Ino) -> Result<(Place, Option<Arc<Slot>>), FsError> {
        let place = Place::from(ino);
        match place.slot {
            0 => Ok((place, None)),
            slot => Ok((place, Some(self.slots.get(slot).ok_or(FsError::Stale)?))),
        }
    }

    /// A directory that has nothing to tell but that it is one.
    pub(super) fn directory(&self, place: Place, mtime_ms: i64) -> Attr {
        let mtime_ns = mtime_ms.saturating_mul(MILLISECOND);
        self.ownership
            .attr(place.ino(), Kind::Directory, 0, mtime_ns)
    }

    pub(super) fn attr(&self, place: Place, slot: Option<&Slot>) -> Result<Attr, FsError> {
        let file = |kind: Kind, size: usize, mtime_ms: i64| {
            let mtime_ns = mtime_ms.saturating_mul(MILLISECOND);
            self.ownership
                .attr(place.ino(), kind, size as u64, mtime_ns)
        };
        let own = place.place == ITSELF;
        match slot {
            None if own || place.place == HUB => Ok(self.directory(place, 0)),
            Some(Slot::Namespace(_)) if own => Ok(self.directory(place, 0)),
            Some(Slot::Repository(..)) if (ITSELF..=SNAPSHOTS).contains(&place.place) => {
                Ok(self.directory(place, 0))
            }
            Some(Slot::Version(_, version)) => self.version_attr(place, version),
            Some(Slot::Link(_, version)) if own => {
                let length = hub::target(version).len();
                Ok(file(Kind::Symlink, length, version.committed_ms))
            }
            Some(Slot::Text(mtime_ms, bytes)) if own => {
                Ok(file(Kind::File, bytes.len(), *mtime_ms))
            }
            Some(Slot::Sql(made)) if own => {
                let mtime_ns = made.version.committed_ms.saturating_mul(MILLISECOND);
                Ok(self
                    .ownership
                    .attr(place.ino(), Kind::File, made.size, mtime_ns))
            }
            _ => Err(FsError::Stale),
        }
    }

    fn version_attr(&self, place: Place, version: &TableVersion) -> Result<Attr, FsError> {
        match place.place {
            // Without its files, which are fetched when somebody looks into it.
            ITSELF | ABOUT | SQL => Ok(self.directory(place, version.committed_ms)),
            FILE_LIST => {
                let opened = self.versions.shown(&version.manifest)?;
                let mtime_ns = version.committed_ms.saturating_mul(MILLISECOND);
                let size = opened.list()?.len();
                Ok(self.ownership.attr(place.ino(), Kind::File, size, mtime_ns))
            }
            row => {
                let opened = self.versions.shown(&version.manifest)?;
                let attr = opened.snapshot.attr(Ino(row))?;
                let ino = place.ino();
                Ok(Attr { ino, ..attr })
            }
        }
    }

    fn object(&self, ino: Ino) -> Result<ObjectId, FsError> {
        let (place, slot) = self.at(ino)?;
        match slot.as_deref() {
            Some(Slot::Text(mtime_ms, bytes)) if place.place == ITSELF => {
                Ok(text_object(*mtime_ms, bytes))
            }
            Some(Slot::Version(_, version)) if place.place == FILE_LIST => {
                let opened = self.versions.shown(&version.manifest)?;
                Ok(list_object(version, opened.list()?.len()))
            }
            Some(Slot::Version(_, version)) if place.place < ABOUT => {
                let opened = self.versions.shown(&version.manifest)?;
                opened.snapshot.object(Ino(place.place))
            }
            Some(Slot::Sql(made)) if place.place == ITSELF => Ok(sql_object(made)),
            Some(Slot::Link(..)) => Err(FsError::Invalid("a symbolic link has no object")),
            _ => Err(FsError::IsDirectory),
        }
    }
}

#[async_trait]
impl Namespace for TableTree {
    fn ttl(&self) -> Ttl {
        let half = self.inner.config.name_ttl / 2;
        Ttl {
            entry: half,
            attr: IMMUTABLE_TTL,
            negative: half,
            cache_directories: false,
        }
    }

    fn ttl_in(&self, directory: Ino) -> Ttl {
        match self.inner.at(directory) {
            Ok((place, Some(slot)))
                if place.place < ABOUT && matches!(*slot, Slot::Version(..)) =>
            {
                Ttl {
                    entry: IMMUTABLE_TTL,
                    attr: IMMUTABLE_TTL,
                    negative: IMMUTABLE_TTL,
                    cache_directories: true,
                }
            }
            _ => self.ttl(),
        }
    }

    fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>> {
        self.inner.try_lookup(parent, name)
    }

    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.inner.lookup(parent, name).await
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        let (place, slot) = self.inner.at(ino)?;
        self.inner.attr(place, slot.as_deref())
    }

    async fn read_directory(
        &self,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        self.inner.read_directory(directory, after, sink).await
    }

    fn object(&self, ino: Ino) -> Result<ObjectId, FsError> {
        self.inner.object(ino)
    }

    fn dataset(&self, ino: Ino) -> Option<DatasetKey> {
        match self.inner.at(ino).ok()?.1.as_deref() {
            Some(Slot::Version(_, version)) => Some(DatasetKey(version.dataset.as_str().into())),
            _ => None,
        }
    }

    fn link_target(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let (place, slot) = self.inner.at(ino)?;
        match slot.as_deref() {
            Some(Slot::Link(_, version)) if place.place == ITSELF => {
                Ok(hub::target(version).into_bytes())
            }
            Some(Slot::Version(_, version)) if place.place < ABOUT => {
                let opened = self.inner.versions.shown(&version.manifest)?;
                opened.snapshot.link_target(Ino(place.place))
            }
            _ => Err(FsError::Invalid("not a symbolic link")),
        }
    }

    fn attributes(&self, ino: Ino) -> Result<Vec<(String, Vec<u8>)>, FsError> {
        let (place, slot) = self.inner.at(ino)?;
        let mut all = Vec::new();
        if let Some(Slot::Version(_, version)) = slot.as_deref() {
            let number = about::version_text(version).into_bytes();
            all.push((xattr::VERSION.to_owned(), number));
        }
        let kind = self.inner.attr(place, slot.as_deref())?.kind;
        if kind == Kind::File {
            let digest = self.inner.object(ino)?.digest().hex();
            all.push((xattr::DIGEST.to_owned(), digest.into_bytes()));
        }
        Ok(all)
    }

    fn totals(&self) -> (u64, u64) {
        (0, 0)
    }
}
