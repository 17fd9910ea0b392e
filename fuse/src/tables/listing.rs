//! Directories of a tree of tables, entry by entry.
//!
//! ```text
//! directory       entries                           cookie of an entry
//! root            namespaces                        their slot
//! namespace       tables with a version             the slot of table and version
//! a version       its snapshot's                    the snapshot's
//! .terrace        the files that can be had now     position
//! .hf and below   what was asked for before         slot, or place
//! ```
//!
//! Lists from the catalog are in the order of names, and a cookie is a slot, which tells a name for
//! ever. A scan goes on behind that name in the list that is there then, so whatever exists from its
//! beginning to its end is shown exactly once, however many tables come, go and move on meanwhile.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use terrace_catalog::{DatasetName, Selector, VersionRef};

use super::about::Made;
use super::hub;
use super::lookup::{entry_name, reference_text};
use super::place::{ABOUT, HUB, ITSELF, Place, REFS, SNAPSHOTS, SQL};
use super::reach::is_down;
use super::slot::Slot;
use super::tree::Inner;
use crate::namespace::{DirEntry, DirSink, FsError, Ino, Namespace as _};

/// How long a scan that pauses between two pages goes on in the same list.
const SCAN: Duration = Duration::from_secs(60);

/// The entries of a directory as the catalog told them at one time, in the order of names.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<(Box<[u8]>, u32)>,
    asked_at: Duration,
}

impl Listing {
    fn new(mut entries: Vec<(Box<[u8]>, u32)>, asked_at: Duration) -> Arc<Self> {
        entries.sort_unstable();
        Arc::new(Self { entries, asked_at })
    }

    /// The slot of a name.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        let found = self
            .entries
            .binary_search_by(|(known, _)| (**known).cmp(name));
        Some(self.entries.get(found.ok()?)?.1)
    }

    /// The entries behind a name.
    fn behind(&self, name: Option<&[u8]>) -> &[(Box<[u8]>, u32)] {
        let start = name.map_or(0, |name| {
            self.entries.partition_point(|(known, _)| **known <= *name)
        });
        &self.entries[start..]
    }
}

/// Numbers of a version's snapshot as those of its slot.
struct Renumbered<'a> {
    place: Place,
    sink: &'a mut dyn DirSink,
}

impl DirSink for Renumbered<'_> {
    fn push(&mut self, mut entry: DirEntry) -> bool {
        entry.attr.ino = self.place.with(entry.attr.ino.0).ino();
        self.sink.push(entry)
    }
}

impl Inner {
    pub(super) async fn read_directory(
        self: &Arc<Self>,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        let (place, slot) = self.at(directory)?;
        match (slot.as_deref(), place.place) {
            (Some(Slot::Version(..)), ABOUT) => self.list_about(directory, after, sink).await,
            // Files are found by the names that metadata gives them.
            (Some(Slot::Version(..)), SQL) => Ok(()),
            (Some(Slot::Version(_, version)), row) if row < ABOUT => {
                let opened = match self.versions.remembered(&version.manifest) {
                    Some(opened) => opened,
                    None => self.versions.fetched(&self.reach, version).await?,
                };
                let mut renumbered = Renumbered { place, sink };
                let entries = &opened.snapshot;
                entries
                    .read_directory(Ino(row), after, &mut renumbered)
                    .await
            }
            (None, ITSELF) | (Some(Slot::Namespace(_)), ITSELF) => {
                self.list_names(directory, after, sink).await
            }
            (None, HUB) => self.offer(self.slots.repositories(), after, sink),
            (Some(Slot::Repository(..)), ITSELF) => {
                for (name, part) in [("refs", REFS), ("snapshots", SNAPSHOTS)] {
                    let attr = self.directory(place.with(part), 0);
                    let (next, name) = (part, name.as_bytes().to_vec());
                    if after < part && !sink.push(DirEntry { next, name, attr }) {
                        break;
                    }
                }
                Ok(())
            }
            (Some(Slot::Repository(_, dataset)), REFS) => {
                self.list_references(dataset, after, sink)
            }
            (Some(Slot::Repository(hub, dataset)), SNAPSHOTS) => {
                self.show_newest(*hub, dataset).await;
                self.offer(self.slots.links(*hub, dataset), after, sink)
            }
            _ => Err(FsError::NotDirectory),
        }
    }

    /// The entries of the root or a namespace, if they were asked for within the time to live.
    pub(super) fn fresh_listing(&self, directory: Ino) -> Option<Arc<Listing>> {
        self.kept_listing(directory, self.config.name_ttl / 2)
    }

    fn kept_listing(&self, directory: Ino, age: Duration) -> Option<Arc<Listing>> {
        let now = self.clock.now();
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let listing = listings.get(&directory)?;
        let good = now.saturating_sub(listing.asked_at) < age;
        good.then(|| Arc::clone(listing))
    }

    /// The entries of the root or a namespace, asked for now when those in memory are too old.
    pub(super) async fn listing_of(
        self: &Arc<Self>,
        directory: Ino,
    ) -> Result<Arc<Listing>, FsError> {
        if let Some(listing) = self.fresh_listing(directory) {
            return Ok(listing);
        }
        let inner = Arc::clone(self);
        let ask = move || async move { inner.ask_listing(directory).await };
        self.listing.join(directory, ask).await
    }

    async fn ask_listing(&self, directory: Ino) -> Result<Arc<Listing>, FsError> {
        let asked_at = self.clock.now();
        let (_, slot) = self.at(directory)?;
        let entries = match slot.as_deref() {
            Some(Slot::Namespace(namespace)) => self.ask_tables(namespace, asked_at).await?,
            _ => self.ask_namespaces().await?,
        };
        let listing = Listing::new(entries, asked_at);
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.insert(directory, Arc::clone(&listing));
        Ok(listing)
    }

    async fn ask_namespaces(&self) -> Result<Vec<(Box<[u8]>, u32)>, FsError> {
        let patience = Some(self.config.listing_patience);
        let names = match self.reach.ask(patience, self.tables.namespaces()).await {
            Ok(names) => names,
            Err(error) => {
                let known = Some(self.slots.namespaces()).filter(|known| !known.is_empty());
                let last = self.last_answer(known, error)?.into_iter();
                let entry = |(name, slot): (Arc<str>, u32)| (name.as_bytes().into(), slot);
                return Ok(last.map(entry).collect());
            }
        };
        // What cannot be a namespace's name cannot be a directory's either.
        let good = |name: &String| format!("{name}.t").parse::<DatasetName>().is_ok();
        let mut names: Vec<String> = names.into_iter().filter(good).collect();
        names.sort_unstable();
        names.dedup();
        let slots: Vec<Slot> = names
            .iter()
            .map(|name| Slot::Namespace(name.as_str().into()))
            .collect();
        let slots = self.slots.put(&slots)?;
        let names = names.iter().map(|name| Box::from(name.as_bytes()));
        Ok(names.zip(slots).collect())
    }

    async fn ask_tables(
        &self,
        namespace: &str,
        asked_at: Duration,
    ) -> Result<Vec<(Box<[u8]>, u32)>, FsError> {
        let latest = |dataset: &DatasetName| Selector::new(dataset.clone(), VersionRef::Latest);
        let patience = Some(self.config.listing_patience);
        let mut tables = match self
            .reach
            .ask(patience, self.tables.tables(namespace))
            .await
        {
            Ok(tables) => tables,
            Err(error) => {
                let known = self.slots.tables(namespace);
                let known = Some(known).filter(|known| !known.is_empty());
                let last = self.last_answer(known, error)?;
                let entry =
                    |(dataset, slot): (DatasetName, u32)| (dataset.table().as_bytes().into(), slot);
                return Ok(last.into_iter().map(entry).collect());
            }
        };
        tables.retain(|table| table.dataset.namespace() == namespace && table.number > 0);
        tables.sort_unstable_by(|a, b| a.dataset.cmp(&b.dataset));
        tables.dedup_by(|a, b| a.dataset == b.dataset);
        let names: Vec<Box<[u8]>> = tables
            .iter()
            .map(|table| table.dataset.table().as_bytes().into())
            .collect();
        let named = tables
            .into_iter()
            .map(|table| (latest(&table.dataset), table));
        let named: Vec<_> = named.collect();
        let selectors: Vec<Selector> = named.iter().map(|(selector, _)| selector.clone()).collect();
        let slots = self.slots.point(named)?;
        // The names were answered too: what follows a listing asks for them at once.
        for (selector, slot) in selectors.into_iter().zip(&slots) {
            self.remember(selector, Some(*slot), asked_at);
        }
        Ok(names.into_iter().zip(slots).collect())
    }

    async fn list_names(
        self: &Arc<Self>,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        let name = match after {
            0 => None,
            cookie => Some(self.cookie_name(directory, cookie)?),
        };
        let kept = name
            .as_ref()
            .and_then(|_| self.kept_listing(directory, SCAN));
        let listing = match kept {
            Some(listing) => listing,
            None => self.listing_of(directory).await?,
        };
        for (name, slot) in listing.behind(name.as_deref()) {
            let (place, about) = self.at(Place::of(*slot).ino())?;
            let attr = self.attr(place, about.as_deref())?;
            let (next, name) = (u64::from(*slot), name.to_vec());
            if !sink.push(DirEntry { next, name, attr }) {
                break;
            }
        }
        Ok(())
    }

    /// The name that a cookie of this directory stands for.
    fn cookie_name(&self, directory: Ino, cookie: u64) -> Result<Box<[u8]>, FsError> {
        let unknown = FsError::Invalid("unknown position in a directory");
        let slot = u32::try_from(cookie)
            .ok()
            .and_then(|slot| self.slots.get(slot));
        let (_, here) = self.at(directory)?;
        match (here.as_deref(), slot.as_deref()) {
            (None, Some(Slot::Namespace(name))) => Ok(name.as_bytes().into()),
            (Some(Slot::Namespace(namespace)), Some(Slot::Version(selector, _)))
                if selector.dataset().namespace() == &**namespace =>
            {
                Ok(entry_name(selector).as_bytes().into())
            }
            _ => Err(unknown),
        }
    }

    /// What can be had now; a report that cannot is left out.
    async fn list_about(
        self: &Arc<Self>,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        for ((name, made), next) in Made::ALL.into_iter().zip(1..) {
            if next <= after {
                continue;
            }
            let attr = match self.lookup(directory, name.as_bytes()).await {
                Ok(attr) => attr,
                Err(FsError::Store(_)) if matches!(made, Made::Report(_)) => continue,
                Err(error) => return Err(error),
            };
            let name = name.as_bytes().to_vec();
            if !sink.push(DirEntry { next, name, attr }) {
                break;
            }
        }
        Ok(())
    }

    /// Makes sure that a repository shows at least its newest version, when the catalog says it.
    async fn show_newest(self: &Arc<Self>, hub: hub::Hub, dataset: &DatasetName) {
        let latest = Selector::new(dataset.clone(), VersionRef::Latest);
        let slot = match self.resolve(&latest).await {
            Ok(Some(slot)) => self.slots.get(slot),
            Ok(None) => None,
            Err(error) => {
                // What was shown before is still there; the catalog's state is logged elsewhere.
                let expected = matches!(&error, FsError::Store(error) if is_down(error));
                if !expected {
                    tracing::warn!(%error, %dataset, "newest version is not listed");
                }
                None
            }
        };
        if let Some(Slot::Version(_, version)) = slot.as_deref()
            && let Err(error) = self.slots.put(&[Slot::Link(hub, version.clone())])
        {
            tracing::warn!(%error, %dataset, "newest version is not listed");
        }
    }

    fn list_references(
        &self,
        dataset: &DatasetName,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        let mut names = self.slots.names(dataset);
        names.sort_unstable_by_key(|(_, slot)| *slot);
        for (version, slot) in names {
            let next = u64::from(slot);
            let about = self.slots.get(slot);
            let Some(Slot::Version(_, named)) = about.as_deref() else {
                continue;
            };
            if next <= after {
                continue;
            }
            let texts = self.slots.put(&[reference_text(named)])?;
            let text = texts.first().copied().ok_or(FsError::Stale)?;
            let (place, about) = self.at(Place::of(text).ino())?;
            let attr = self.attr(place, about.as_deref())?;
            let name = hub::revision(&version).into_bytes();
            if !sink.push(DirEntry { next, name, attr }) {
                break;
            }
        }
        Ok(())
    }

    /// Offers entries in the order of their slots.
    fn offer(
        &self,
        slots: Vec<(Slot, u32)>,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        for (about, slot) in slots {
            let next = u64::from(slot);
            let name = match &about {
                Slot::Repository(hub, dataset) => hub.directory(dataset),
                Slot::Link(_, version) => hub::commit(version),
                _ => continue,
            };
            if next <= after {
                continue;
            }
            let attr = self.attr(Place::of(slot), Some(&about))?;
            let name = name.into_bytes();
            if !sink.push(DirEntry { next, name, attr }) {
                break;
            }
        }
        Ok(())
    }
}
