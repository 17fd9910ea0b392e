//! What the tier uses besides its resident objects: bytes of reservations and zombies, descriptors
//! of idle backings.
//!
//! Resident bytes are counted in the catalogue, under its lock. These are atomics because they go
//! down in destructors, which must not take locks.
//!
//! Zombies of evicted objects are *leaving*: nobody used them when they were evicted, and whoever
//! keeps their files open for a later open has been told to let go.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::closer::Closer;

/// The numbers; see the module text.
#[derive(Debug, Default)]
pub(super) struct Counts {
    zombie: AtomicU64,
    leaving: AtomicU64,
    reserved: AtomicU64,
    idle: AtomicU64,
}

/// The numbers, and who closes the files of zombies.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) counts: Arc<Counts>,
    pub(super) closer: Closer,
}

impl Ledger {
    /// Starts the thread that closes files.
    pub(super) fn start() -> Self {
        Self {
            counts: Arc::default(),
            closer: Closer::start(),
        }
    }

    /// Holds `bytes` of the budget until the returned value is dropped.
    pub(super) fn hold(&self, bytes: u64) -> Reservation {
        self.counts.reserved.fetch_add(bytes, Ordering::AcqRel);
        Reservation {
            bytes,
            counts: Arc::clone(&self.counts),
        }
    }
}

impl Deref for Ledger {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        &self.counts
    }
}

impl Counts {
    /// Backings that nobody uses now.
    pub(super) fn idle(&self) -> u64 {
        self.idle.load(Ordering::Acquire)
    }

    pub(super) fn add_idle(&self) {
        self.idle.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn remove_idle(&self) {
        self.idle.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn zombie(&self) -> u64 {
        self.zombie.load(Ordering::Acquire)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Those of them that come free in a moment.
    pub(super) fn leaving(&self) -> u64 {
        self.leaving.load(Ordering::Acquire)
    }

    pub(super) fn add_zombie(&self, bytes: u64, leaving: bool) {
        self.zombie.fetch_add(bytes, Ordering::AcqRel);
        if leaving {
            self.leaving.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    pub(super) fn remove_zombie(&self, bytes: u64, leaving: bool) {
        self.zombie.fetch_sub(bytes, Ordering::AcqRel);
        if leaving {
            self.leaving.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

/// Bytes of the budget kept free for somebody; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    counts: Arc<Counts>,
}

impl Reservation {
    /// Bytes still held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives `bytes` (at most what is held) back early.
    pub fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.counts.reserved.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}
