//! Counters of the fill engine: what readers got from where, and how long they waited for it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One tier as readers met it. Totals since the cache was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Bytes that readers got from here.
    pub hit_bytes: u64,
    /// Bytes that readers asked for here and had to get further down.
    pub miss_bytes: u64,
    /// Time that readers waited here, summed over readers.
    pub waited: Duration,
}

/// A snapshot of all counters; see [`Cache::stats`](super::Cache::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Recently fetched blocks in memory.
    pub window: TierStats,
    /// The hot tier, as far as reads come through the daemon (passthrough reads do not).
    pub hot: TierStats,
    /// The source: warm tier or store. It has no misses.
    pub store: TierStats,
    /// Bytes held by the window now.
    pub window_bytes: u64,
    /// Bytes that arrived and are not yet at rest, now.
    pub in_flight_bytes: u64,
    /// Bytes fetched from the source, for readers or not.
    pub fetched_bytes: u64,
    /// Ranged reads of the source.
    pub parts: u64,
    /// Ranged reads that ended with an error.
    pub parts_failed: u64,
    /// Ranged reads given up because nobody wanted them any more.
    pub parts_cancelled: u64,
    /// Times a reader waited for a block that was already on its way.
    pub joined: u64,
    /// Whole-object fills that came to their end.
    pub fills: u64,
    /// Whole-object fills that ended with an error of the source.
    pub fills_failed: u64,
    /// Whole-object fills given up because nobody wanted them any more.
    pub fills_cancelled: u64,
    /// Blocks that the hot tier did not take.
    pub hot_refused: u64,
    /// Objects that somebody holds now.
    pub objects: u64,
}

#[derive(Debug, Default)]
pub(super) struct TierCounters {
    pub(super) hit: AtomicU64,
    pub(super) miss: AtomicU64,
    waited_ns: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) window: TierCounters,
    pub(super) hot: TierCounters,
    pub(super) store: TierCounters,
    pub(super) fetched: AtomicU64,
    pub(super) parts: AtomicU64,
    pub(super) parts_failed: AtomicU64,
    pub(super) parts_cancelled: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) fills: AtomicU64,
    pub(super) fills_failed: AtomicU64,
    pub(super) fills_cancelled: AtomicU64,
    pub(super) hot_refused: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Relaxed);
}

impl TierCounters {
    /// Adds the time since `start`.
    pub(super) fn waited_since(&self, start: Instant) {
        add(
            &self.waited_ns,
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        );
    }

    fn snapshot(&self) -> TierStats {
        TierStats {
            hit_bytes: self.hit.load(Relaxed),
            miss_bytes: self.miss.load(Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Relaxed)),
        }
    }
}

impl Counters {
    /// Bytes that came from memory.
    pub(super) fn window_hit(&self, bytes: usize) {
        add(&self.window.hit, bytes as u64);
    }

    /// Bytes that came from the hot tier.
    pub(super) fn hot_hit(&self, bytes: usize) {
        add(&self.window.miss, bytes as u64);
        add(&self.hot.hit, bytes as u64);
    }

    /// Bytes that came from the source.
    pub(super) fn store_hit(&self, bytes: usize) {
        add(&self.window.miss, bytes as u64);
        add(&self.hot.miss, bytes as u64);
        add(&self.store.hit, bytes as u64);
    }

    /// All totals; the gauges are the caller's to add.
    pub(super) fn snapshot(&self) -> CacheStats {
        let total = |counter: &AtomicU64| counter.load(Relaxed);
        CacheStats {
            window: self.window.snapshot(),
            hot: self.hot.snapshot(),
            store: self.store.snapshot(),
            fetched_bytes: total(&self.fetched),
            parts: total(&self.parts),
            parts_failed: total(&self.parts_failed),
            parts_cancelled: total(&self.parts_cancelled),
            joined: total(&self.joined),
            fills: total(&self.fills),
            fills_failed: total(&self.fills_failed),
            fills_cancelled: total(&self.fills_cancelled),
            hot_refused: total(&self.hot_refused),
            window_bytes: 0,
            in_flight_bytes: 0,
            objects: 0,
        }
    }
}
