//! A page of a listing in memory, and what is known about its names by now.
//!
//! Entries are in the order of [`super::window`]; names lie one behind the other in one allocation.
//! A page never changes. When names of an old page are asked for again and again, one request to the
//! store asks for all of them, and its answer is kept beside the page as its renewal: a page of its
//! own, which is believed for as long and then dropped. Memory for renewals is at most as much as for
//! the listings themselves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::listing::Found;
use super::lookup::TRY_LISTING_AFTER;
use super::record::{Record, What};
use super::table::InodeTable;
use super::window::order;
use crate::namespace::{FsError, Ino, Kind};

/// Entries that came in together.
#[derive(Debug)]
pub(super) struct Page {
    /// When they were asked for, by the mount's clock.
    pub(super) fetched: Duration,
    names: Box<[u8]>,
    slots: Box<[Slot]>,
    /// Answers given out of it, when it is the renewal of another page.
    used: AtomicU32,
    renewal: Mutex<Renewal>,
}

/// What is known about the names around an old page by now.
#[derive(Debug, Default)]
struct Renewal {
    page: Option<Arc<Page>>,
    /// Questions since `since` that no listing answered.
    asked: u32,
    since: Duration,
}

/// One entry, 40 bytes beside its name.
#[derive(Clone, Copy, Debug)]
struct Slot {
    name_end: u32,
    kind: Kind,
    ino: Ino,
    size: u64,
    mtime_ns: i64,
}

/// One entry, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
    pub(super) ino: Ino,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
}

impl Listed<'_> {
    /// As an answer to a question about its name.
    pub(super) fn found(&self) -> Found {
        Found::Entry(self.ino, self.kind, self.size, self.mtime_ns)
    }
}

impl Page {
    /// Numbers for entries (full paths, in order; not empty), and the entries as readers see them.
    pub(super) fn new(
        entries: &[(String, What)],
        fetched: Duration,
        table: &InodeTable,
    ) -> Result<Self, FsError> {
        let numbers = table.resolve(entries)?;
        let mut names = Vec::new();
        let mut slots = Vec::with_capacity(entries.len());
        for ((path, what), ino) in entries.iter().zip(numbers) {
            names.extend_from_slice(Record::name_of(path).as_bytes());
            let (size, mut mtime_ns) = what.shown();
            if what.kind() == Kind::Directory {
                // The table may know the directory for longer than this listing.
                let record = table.record(ino)?.ok_or(FsError::Stale)?;
                mtime_ns = record.what.shown().1;
            }
            let name_end = names.len() as u32;
            slots.push(Slot {
                name_end,
                kind: what.kind(),
                ino,
                size,
                mtime_ns,
            });
        }
        Ok(Self {
            fetched,
            names: names.into(),
            slots: slots.into(),
            used: AtomicU32::new(0),
            renewal: Mutex::default(),
        })
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The entry of this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<Listed<'_>> {
        let place = self.partition_point(|other| order(other, name).is_lt());
        let entry = (place < self.slots.len()).then(|| self.entry(place))?;
        (entry.name == name).then_some(entry)
    }

    /// [`Page::find`] in a renewal, which counts.
    pub(super) fn use_renewed(&self, name: &[u8]) -> Option<Listed<'_>> {
        let found = self.find(name);
        if found.is_some() {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The first name in the order of bytes; a file whose name goes on in others comes after them.
    pub(super) fn smallest_name(&self) -> &[u8] {
        let names = (0..self.slots.len()).map(|place| self.name(place));
        names.min().unwrap_or_default()
    }

    /// Takes what was found anew around this page.
    pub(super) fn renew(&self, page: Arc<Page>) {
        self.renewal().page = Some(page);
    }

    /// The renewal while it may be believed.
    pub(super) fn renewed(&self, now: Duration, ttl: Duration) -> Option<Arc<Page>> {
        let renewal = self.renewal();
        let page = renewal.page.as_ref()?;
        (now < page.fetched + ttl).then(|| Arc::clone(page))
    }

    /// Notes a question about a name of this page that no listing answered; says whether so many
    /// of them came within `ttl` that asking for all names at once is cheaper.
    pub(super) fn is_worth_renewing(&self, now: Duration, ttl: Duration) -> bool {
        let mut renewal = self.renewal();
        let fresh = |page: &Arc<Page>| now < page.fetched + ttl;
        if renewal.page.as_ref().is_some_and(fresh) {
            // It does not know the name, and would not the second time.
            return false;
        }
        if now >= renewal.since + ttl {
            // What the last renewal answered would have been questions without it.
            let last = renewal.page.take();
            renewal.asked = last.map_or(0, |page| page.used.load(Ordering::Relaxed));
            renewal.since = now;
        }
        renewal.asked = renewal.asked.saturating_add(1);
        renewal.asked > TRY_LISTING_AFTER
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries from a place on.
    pub(super) fn from(&self, place: usize) -> impl Iterator<Item = Listed<'_>> {
        (place..self.slots.len()).map(|place| self.entry(place))
    }

    fn entry(&self, place: usize) -> Listed<'_> {
        let Slot {
            kind,
            ino,
            size,
            mtime_ns,
            ..
        } = self.slots[place];
        Listed {
            name: self.name(place),
            kind,
            ino,
            size,
            mtime_ns,
        }
    }

    pub(super) fn name(&self, place: usize) -> &[u8] {
        let start = place
            .checked_sub(1)
            .map_or(0, |before| self.slots[before].name_end);
        &self.names[start as usize..self.slots[place].name_end as usize]
    }

    pub(super) fn last_name(&self) -> &[u8] {
        self.name(self.slots.len() - 1)
    }

    /// Number of entries at the front for which `test` holds; it holds for a prefix of them.
    pub(super) fn partition_point(&self, test: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.slots.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if test(self.name(middle)) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}
