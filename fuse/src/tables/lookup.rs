//! Finding one name: decided by what the parent is, from memory where that knows enough.
//!
//! [`Inner::step`] says what a name is, or the one thing that has to be obtained first ([`Need`]); it
//! is then called again with that thing in hand, however old it became meanwhile.

use std::sync::Arc;

use terrace_catalog::{DatasetName, Selector};

use super::about::{self, Made};
use super::catalog::{Report, TableVersion};
use super::hub::{self, Hub};
use super::listing::Listing;
use super::place::{ABOUT, HUB, ITSELF, Place, REFS, SNAPSHOTS, SQL};
use super::slot::Slot;
use super::slots::SlotsError;
use super::sql;
use super::tree::Inner;
use super::versions::Opened;
use crate::names::{NAME_MAX, check_segment};
use crate::namespace::{Attr, FsError, Ino, Namespace as _};

/// Name of the Hugging Face tree.
pub(super) const HUB_NAME: &str = ".hf";

/// What is missing to answer.
#[derive(Debug)]
pub(super) enum Need {
    Namespaces,
    Name(Selector),
    Files(TableVersion),
    FileList(TableVersion),
    Report(u32, TableVersion, Report),
    Sql(TableVersion, String),
}

/// What was missing.
#[derive(Debug)]
pub(super) enum Got {
    Namespaces(Arc<Listing>),
    Name(Option<u32>),
    Files(Arc<Opened>),
    Report(u32),
    Sql(Option<u32>),
}

/// Why there is no answer yet, or no good one.
#[derive(Debug)]
pub(super) enum Miss {
    Need(Need),
    Error(FsError),
}

impl From<FsError> for Miss {
    fn from(error: FsError) -> Self {
        Self::Error(error)
    }
}

impl From<SlotsError> for Miss {
    fn from(error: SlotsError) -> Self {
        Self::Error(error.into())
    }
}

impl Inner {
    pub(super) fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>> {
        match self.step(parent, name, None) {
            Ok(attr) => Some(Ok(attr)),
            Err(Miss::Error(error)) => Some(Err(error)),
            Err(Miss::Need(_)) => None,
        }
    }

    pub(super) async fn lookup(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
    ) -> Result<Attr, FsError> {
        let need = match self.step(parent, name, None) {
            Ok(attr) => return Ok(attr),
            Err(Miss::Error(error)) => return Err(error),
            Err(Miss::Need(need)) => need,
        };
        let got = self.obtain(need).await?;
        match self.step(parent, name, Some(&got)) {
            Ok(attr) => Ok(attr),
            Err(Miss::Error(error)) => Err(error),
            Err(Miss::Need(need)) => Err(FsError::Local(format!("{need:?} is not enough"))),
        }
    }

    async fn obtain(self: &Arc<Self>, need: Need) -> Result<Got, FsError> {
        match need {
            Need::Namespaces => Ok(Got::Namespaces(self.listing_of(Ino::ROOT).await?)),
            Need::Name(selector) => Ok(Got::Name(self.resolve(&selector).await?)),
            Need::Files(version) => {
                let files = self.versions.fetched(&self.reach, &version);
                Ok(Got::Files(files.await?))
            }
            Need::FileList(version) => {
                let opened = self.versions.fetched(&self.reach, &version).await?;
                Ok(Got::Files(about::with_list(opened).await?))
            }
            Need::Sql(version, name) => Ok(Got::Sql(self.sql_file(version, &name).await?)),
            Need::Report(slot, version, report) => {
                Ok(Got::Report(self.report(slot, &version, report).await?))
            }
        }
    }

    fn step(&self, parent: Ino, name: &[u8], got: Option<&Got>) -> Result<Attr, Miss> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong.into());
        }
        let (place, slot) = self.at(parent)?;
        if let Some(Slot::Version(_, version)) = slot.as_deref() {
            return self.in_version(place, version, name, got);
        }
        // Everything else has names of letters only. The kernel never asks for `.` and `..`.
        let text = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
        check_segment(name).map_err(|_| FsError::NotFound)?;
        let found = match (slot.as_deref(), place.place) {
            (None, ITSELF) if text == HUB_NAME => Place::of(0).with(HUB),
            (None, ITSELF) => self.namespace(text, got)?,
            (None, HUB) => self.repository(text, got)?,
            (Some(Slot::Namespace(namespace)), ITSELF) => self.table(namespace, text, got)?,
            (Some(Slot::Repository(..)), ITSELF) => match text {
                "refs" => place.with(REFS),
                "snapshots" => place.with(SNAPSHOTS),
                _ => return Err(FsError::NotFound.into()),
            },
            (Some(Slot::Repository(_, dataset)), REFS) => self.reference(dataset, text, got)?,
            (Some(Slot::Repository(hub, dataset)), SNAPSHOTS) => {
                self.commit(*hub, dataset, text, got)?
            }
            _ => return Err(FsError::NotDirectory.into()),
        };
        let (place, slot) = self.at(found.ino())?;
        Ok(self.attr(place, slot.as_deref())?)
    }

    fn namespace(&self, name: &str, got: Option<&Got>) -> Result<Place, Miss> {
        if format!("{name}.t").parse::<DatasetName>().is_err() {
            return Err(FsError::NotFound.into());
        }
        let fresh;
        let listing = match got {
            Some(Got::Namespaces(listing)) => listing,
            _ => {
                fresh = self.fresh_listing(Ino::ROOT);
                fresh.as_ref().ok_or(Miss::Need(Need::Namespaces))?
            }
        };
        let slot = listing.find(name.as_bytes()).ok_or(FsError::NotFound)?;
        Ok(Place::of(slot))
    }

    fn table(&self, namespace: &str, name: &str, got: Option<&Got>) -> Result<Place, Miss> {
        let selector: Selector = format!("{namespace}.{name}")
            .parse()
            .map_err(|_| FsError::NotFound)?;
        // One spelling only (not `@latest`): each name has an inode of its own.
        if entry_name(&selector) != name {
            return Err(FsError::NotFound.into());
        }
        let slot = self.named(&selector, got)?;
        Ok(Place::of(slot.ok_or(FsError::NotFound)?))
    }

    /// The slot of a name, if it names anything.
    fn named(&self, selector: &Selector, got: Option<&Got>) -> Result<Option<u32>, Miss> {
        match got {
            Some(Got::Name(slot)) => Ok(*slot),
            _ => self
                .remembered(selector)
                .ok_or_else(|| Miss::Need(Need::Name(selector.clone()))),
        }
    }

    fn named_version(&self, selector: &Selector, got: Option<&Got>) -> Result<TableVersion, Miss> {
        let slot = self.named(selector, got)?.ok_or(FsError::NotFound)?;
        match self.slots.get(slot).as_deref() {
            Some(Slot::Version(_, version)) => Ok(version.clone()),
            _ => Err(FsError::Stale.into()),
        }
    }

    fn repository(&self, name: &str, got: Option<&Got>) -> Result<Place, Miss> {
        let (hub, dataset) = hub::parse_directory(name).ok_or(FsError::NotFound)?;
        let latest = hub::selector(&dataset, hub::MAIN).ok_or(FsError::NotFound)?;
        self.named(&latest, got)?.ok_or(FsError::NotFound)?;
        self.placed(Slot::Repository(hub, dataset))
    }

    fn reference(
        &self,
        dataset: &DatasetName,
        name: &str,
        got: Option<&Got>,
    ) -> Result<Place, Miss> {
        let selector = hub::selector(dataset, name).ok_or(FsError::NotFound)?;
        if hub::revision(selector.version()) != name {
            return Err(FsError::NotFound.into());
        }
        let version = self.named_version(&selector, got)?;
        self.placed(reference_text(&version))
    }

    fn commit(
        &self,
        hub: Hub,
        dataset: &DatasetName,
        name: &str,
        got: Option<&Got>,
    ) -> Result<Place, Miss> {
        let number = hub::parse_commit(name).ok_or(FsError::NotFound)?;
        let selector = hub::selector(dataset, &format!("v{number}")).ok_or(FsError::NotFound)?;
        let version = self.named_version(&selector, got)?;
        if hub::commit(&version) != name {
            return Err(FsError::NotFound.into());
        }
        self.placed(Slot::Link(hub, version))
    }

    /// The place of a slot that is recorded now if it was not before.
    pub(super) fn placed(&self, slot: Slot) -> Result<Place, Miss> {
        let numbers = self.slots.put(std::slice::from_ref(&slot))?;
        let number = numbers.first().copied().ok_or(FsError::Stale)?;
        Ok(Place::of(number))
    }

    fn in_version(
        &self,
        place: Place,
        version: &TableVersion,
        name: &[u8],
        got: Option<&Got>,
    ) -> Result<Attr, Miss> {
        match place.place {
            ITSELF if name == about::NAME.as_bytes() => {
                Ok(self.directory(place.with(ABOUT), version.committed_ms))
            }
            ITSELF if name == sql::NAME.as_bytes() => {
                Ok(self.directory(place.with(SQL), version.committed_ms))
            }
            SQL => self.in_sql(version, name, got),
            ABOUT => {
                let made = Made::named(name).ok_or(FsError::NotFound)?;
                self.made(place, version, made, got)
            }
            row if row > ABOUT => Err(FsError::NotDirectory.into()),
            row => {
                let opened = self.files(version, got)?;
                let found = opened.snapshot.try_lookup(Ino(row), name);
                let attr = found.ok_or(FsError::Stale)??;
                let ino = place.with(attr.ino.0).ino();
                Ok(Attr { ino, ..attr })
            }
        }
    }

    /// The files of a version, when they are opened.
    pub(super) fn files(
        &self,
        version: &TableVersion,
        got: Option<&Got>,
    ) -> Result<Arc<Opened>, Miss> {
        match got {
            Some(Got::Files(opened)) => Ok(Arc::clone(opened)),
            _ => self
                .versions
                .remembered(&version.manifest)
                .ok_or_else(|| Miss::Need(Need::Files(version.clone()))),
        }
    }
}

/// What `refs/<revision>` says: the commit, without a line's end.
pub(super) fn reference_text(version: &TableVersion) -> Slot {
    let commit = hub::commit(version);
    Slot::Text(version.committed_ms, commit.as_bytes().into())
}

/// A selector's name in the directory of its namespace.
pub(super) fn entry_name(selector: &Selector) -> String {
    let full = selector.to_string();
    let namespace = selector.dataset().namespace().len();
    full[namespace + 1..].to_owned()
}
