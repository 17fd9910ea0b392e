//! The listings of a mount: which one a reader gets, and how much memory all of them take.
//!
//! A scan from the start gets a fresh listing, shared with everyone who starts within the time to
//! live. A scan that goes on gets the listing that already reaches its place, be it old: so a scan
//! of a large directory does not start over each second. Two older listings per directory are kept
//! for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::bounded::Bounded;
use super::listing::{Listing, Look};
use crate::namespace::Ino;

/// Directories with a listing in memory.
const DIRECTORIES: usize = 4096;
/// Listings kept for scans that are under way when a newer one is started.
const OLDER: usize = 2;

/// The listings of one directory, newest first.
#[derive(Debug)]
struct Slot(Vec<Arc<Listing>>);

/// See the module text.
#[derive(Debug)]
pub(super) struct Listings {
    slots: Mutex<Bounded<Ino, Slot>>,
    /// Entries in memory, also of listings only readers still hold.
    retained: Arc<AtomicU64>,
    /// Most entries in memory.
    limit: u64,
}

impl Listings {
    pub(super) fn new(limit: u64) -> Self {
        let slots = Mutex::new(Bounded::new(DIRECTORIES));
        Self {
            slots,
            retained: Arc::default(),
            limit,
        }
    }

    /// Counter for new listings.
    pub(super) fn retained(&self) -> &Arc<AtomicU64> {
        &self.retained
    }

    /// The newest listing of a directory, fresh or not, unless it failed.
    pub(super) fn newest(&self, directory: Ino) -> Option<Arc<Listing>> {
        let mut slots = self.lock();
        let newest = slots.get(&directory)?.0.first()?;
        (!newest.has_failed()).then(|| Arc::clone(newest))
    }

    /// A listing of the directory that is younger than `ttl`, made by `make` when there is none.
    pub(super) fn fresh(
        &self,
        directory: Ino,
        now: Duration,
        ttl: Duration,
        make: impl FnOnce() -> Listing,
    ) -> Arc<Listing> {
        let mut slots = self.lock();
        if let Some(newest) = slots.get(&directory).and_then(|slot| slot.0.first())
            && now < newest.started + ttl
            && !newest.has_failed()
        {
            return Arc::clone(newest);
        }
        let made = Arc::new(make());
        match slots.get(&directory) {
            Some(slot) => {
                slot.0.retain(|listing| !listing.has_failed());
                slot.0.truncate(OLDER);
                slot.0.insert(0, Arc::clone(&made));
            }
            None => drop(slots.insert(directory, Slot(vec![Arc::clone(&made)]))),
        }
        made
    }

    /// The listing to go on with after `name`: the newest that reaches it, else the newest.
    pub(super) fn continuing(&self, directory: Ino, name: &[u8]) -> Option<Arc<Listing>> {
        let mut slots = self.lock();
        let usable = |listing: &&Arc<Listing>| !listing.has_failed();
        let listings = &slots.get(&directory)?.0;
        let reaches = |listing: &&Arc<Listing>| {
            matches!(listing.after(Some(name)), Look::Page(..) | Look::End)
        };
        let listings = listings.iter().filter(usable);
        listings
            .clone()
            .find(reaches)
            .or_else(|| listings.clone().next())
            .map(Arc::clone)
    }

    /// Frees memory after `grown` took more: listings used longest ago go first, then the front of
    /// `grown` itself.
    pub(super) fn trim(&self, grown: &Listing) {
        let mut freed = Vec::new();
        let mut slots = self.lock();
        while self.retained.load(Ordering::Relaxed) > self.limit && slots.len() > 1 {
            // Dropped at once: each subtracts its entries from `retained`.
            drop(slots.pop_oldest());
        }
        if self.retained.load(Ordering::Relaxed) > self.limit {
            let remaining = slots.pop_oldest();
            if let Some((directory, mut slot)) = remaining {
                freed.extend(slot.0.split_off(1));
                slots.insert(directory, slot);
            }
        }
        drop(slots);
        drop(freed);
        if self.retained.load(Ordering::Relaxed) > self.limit {
            grown.shorten(self.limit / 2);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<Ino, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
