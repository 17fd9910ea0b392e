//! The bound on bytes that have arrived and are not yet at rest.
//!
//! A permit is taken for a block just before its bytes are received and given back when the hot
//! tier has it (or the window, which has its own bound). A part that waits for a permit holds none,
//! so the parts cannot wait for each other; it leaves its bytes in the socket, which slows the
//! store down. What a reader waits for draws on its own quarter, so that no amount of background
//! filling makes it queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits count units of 1 KiB, because a semaphore counts in `u32`.
const UNIT: u64 = 1 << 10;

/// Which part of the budget a block draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A reader waits for it.
    Demand,
    /// Readahead and fills.
    Ahead,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Budget {
    demand: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    used: Arc<AtomicU64>,
}

/// Room for one block; given back on drop.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes`, a quarter of it for readers.
    pub(super) fn new(bytes: u64) -> Self {
        let units = |bytes: u64| Arc::new(Semaphore::new((bytes / UNIT) as usize));
        let demand = bytes / 4;
        Self {
            demand: units(demand),
            ahead: units(bytes - demand),
            used: Arc::default(),
        }
    }

    /// Waits for room for `bytes` (at most one block). Cancelled by dropping.
    pub(super) async fn room(&self, class: Class, bytes: u64) -> Room {
        let semaphore = match class {
            Class::Demand => Arc::clone(&self.demand),
            Class::Ahead => Arc::clone(&self.ahead),
        };
        let units = u32::try_from(bytes.div_ceil(UNIT)).expect("a block is 1 MiB");
        let permit = semaphore
            .acquire_many_owned(units)
            .await
            .expect("never closed");
        self.used.fetch_add(bytes, Relaxed);
        Room {
            _permit: permit,
            used: Arc::clone(&self.used),
            bytes,
        }
    }

    /// Bytes that have room now.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    // Without it a background fill could take all memory and a reader would wait for the disk.
    #[tokio::test]
    async fn background_work_leaves_room_for_readers() {
        const MIB: u64 = 1 << 20;
        let budget = Budget::new(8 * MIB);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(budget.room(Class::Ahead, MIB).await);
        }
        assert!(budget.room(Class::Ahead, 1).now_or_never().is_none());
        held.push(budget.room(Class::Demand, MIB).await);
        assert_eq!(budget.used(), 7 * MIB);
        drop(held);
        assert_eq!(budget.used(), 0);
        assert!(budget.room(Class::Ahead, MIB).now_or_never().is_some());
    }
}
