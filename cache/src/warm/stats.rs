//! What the warm tier did since start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::hot::DiskState;

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters { $(pub(super) $name: AtomicU64,)+ }

        /// Counters since start, and the state of the directory.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct WarmStats {
            $($(#[$doc])+ pub $name: u64,)+
            /// Whether the directory can be relied on.
            pub health: DiskState,
        }

        impl Counters {
            pub(super) fn snapshot(&self, health: DiskState) -> WarmStats {
                WarmStats { $($name: self.$name.load(Relaxed),)+ health }
            }
        }
    };
}

counters! {
    /// Bytes served from finished copies.
    hit_bytes,
    /// Bytes served from a fill of this daemon while it ran.
    streamed_bytes,
    /// Bytes served from another daemon's fill while it ran.
    followed_bytes,
    /// Bytes served by the inner source because the tier did not have them in time: the sum of the
    /// four below, which say why.
    cold_bytes,
    /// Of those: the directory was down.
    cold_down_bytes,
    /// Of those: too many fills were running for too long.
    cold_crowded_bytes,
    /// Of those: the wait for a block of a running fill came to its limit.
    cold_late_bytes,
    /// Of those: the fill or the copy failed.
    cold_failed_bytes,
    /// Time readers waited for the tier, in nanoseconds, summed over readers.
    waited_nanos,
    /// Bytes that fills of this daemon read from the inner source.
    fill_bytes,
    /// Copies published by this daemon.
    fills,
    /// Fills given up: the store or the directory failed.
    fills_failed,
    /// Leases another daemon took over from this one.
    leases_lost,
    /// Leases of silent daemons that this one removed.
    leases_broken,
    /// Waits for a block that ended at their limit.
    waits_expired,
    /// Reads that went past the tier because too many fills were running for too long.
    skipped,
    /// Copies that failed their checksum and were put aside.
    quarantined,
    /// Copies removed to make room.
    evicted,
    /// Bytes of copies removed to make room.
    evicted_bytes,
    /// Left-over temporary files removed.
    swept,
    /// File operations that failed or overran their deadline.
    faults,
}

/// Why the inner source served bytes that the tier should have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cold {
    Down,
    Crowded,
    Late,
    Failed,
}

impl Counters {
    /// Counts `bytes` that the inner source serves.
    pub(super) fn cold(&self, why: Cold, bytes: u64) {
        let reason = match why {
            Cold::Down => &self.cold_down_bytes,
            Cold::Crowded => &self.cold_crowded_bytes,
            Cold::Late => &self.cold_late_bytes,
            Cold::Failed => &self.cold_failed_bytes,
        };
        add(reason, bytes);
        add(&self.cold_bytes, bytes);
    }

    /// Counts the time a reader waited since `begun`.
    pub(super) fn waited_since(&self, begun: Instant) {
        let nanos = begun.elapsed().as_nanos();
        add(&self.waited_nanos, u64::try_from(nanos).unwrap_or(u64::MAX));
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}
