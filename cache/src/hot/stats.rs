//! What the tier tells about itself: plain structs, filled on request.

use std::sync::atomic::{AtomicU64, Ordering};

use super::health::DiskState;

/// How the space is used now. Bytes count allocated blocks, not lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotUsage {
    /// Resident, zombie and reserved bytes together.
    pub used_bytes: u64,
    /// The budget.
    pub limit_bytes: u64,
    /// Bytes of evicted objects that readers still hold.
    pub zombie_bytes: u64,
    /// Bytes reserved and not written yet.
    pub reserved_bytes: u64,
    /// Resident objects, partial ones included.
    pub objects: u64,
    /// Objects that are pinned or linked by a materialized tree, resident or not.
    pub pinned: u64,
    /// Filled objects that wait for their sync.
    pub pending: u64,
    /// Blocks that failed their checksum since the start.
    pub quarantined: u64,
    /// State of the disk.
    pub disk: DiskState,
}

/// Residency of an object, from memory alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// Some blocks are there.
    Partial {
        /// Bytes of those blocks, rounded up to 4 KiB.
        present_bytes: u64,
    },
    /// All blocks are there and were synced.
    Complete,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct HotStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> HotStats {
                HotStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Bytes read from data files for callers.
    read_bytes,
    /// Bytes written to data files.
    written_bytes,
    /// Blocks whose checksum was checked on read, promotion or scrub.
    verified_blocks,
    /// Blocks that failed their checksum.
    quarantined_blocks,
    /// Objects forgotten because a file or record was missing, damaged or not as described.
    discarded_objects,
    /// Objects evicted for space or on request.
    evicted_objects,
    /// Bytes of those objects.
    evicted_bytes,
    /// Objects that became complete in the index.
    completed_objects,
    /// Group syncs that carried at least one object.
    syncs,
    /// Group syncs that failed; their objects were forgotten.
    failed_syncs,
    /// Operations the disk answered with an error.
    disk_errors,
    /// Operations that overran their deadline.
    timeouts,
    /// Operations refused because the disk is unstable or down, or the queue is full.
    refused,
    /// Reservations refused because nothing more could be evicted.
    full,
    /// Bytes the scrub has read.
    scrubbed_bytes,
    /// Files without a record that a sweep removed.
    swept_files,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
