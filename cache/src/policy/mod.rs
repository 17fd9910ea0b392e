//! Which objects the hot tier keeps: admission on open, victims when room is needed.
//!
//! A policy does no I/O and has no clock, so a simulator runs the same code as the daemon. It is
//! told every open ([`Policy::open`]), every object that came in ([`Policy::inserted`]) and went
//! out ([`Policy::removed`]), and it is asked for [`Policy::victims`]. It may forget an object it
//! was told about (that object is then never a victim until it is inserted again) but must never
//! name one that was removed.
//!
//! The hot tier calls a policy under one lock, the last of the lock order in `lib.rs`.

use std::fmt::Debug;

use crate::identity::{DatasetKey, Digest};

mod curve;
mod epoch;
mod evict;
mod fifo;
mod ghosts;
mod lru;
mod pending;
mod plan;
mod residents;
mod reuse;
mod share;
mod tenants;

pub use epoch::{DatasetShare, EpochPolicy};
pub use fifo::{Fifo, S3Fifo};
pub use lru::Lru;
pub use tenants::{TenantShare, TenantUse};

/// One open of an object, as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The dataset it was opened through.
    pub dataset: &'a DatasetKey,
    /// The object.
    pub digest: &'a Digest,
    /// Length of the object in bytes.
    pub size: u64,
    /// Whether the hot tier has (part of) it.
    pub resident: bool,
}

/// An object that is there when the tier opens.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Its dataset, by position in the list that comes with it.
    pub dataset: usize,
    /// The object.
    pub digest: Digest,
    /// Bytes it takes.
    pub size: u64,
}

/// What to do with the bytes of an object that is not resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write them to the hot tier.
    Keep,
    /// Serve them from memory and never write them.
    Bypass,
}

/// Decides what is worth keeping.
pub trait Policy: Send + Debug {
    /// Counts one open and says whether an object that is not resident should become so.
    fn open(&mut self, access: &Access<'_>) -> Admission;

    /// `digest` of `size` bytes is resident now. Called again for a known digest when its
    /// size changes.
    fn inserted(&mut self, dataset: &DatasetKey, digest: Digest, size: u64);

    /// Everything that is resident at the start, each object once, least recently used first; called
    /// at most once and before anything else. A policy that has a quicker way than to insert one by
    /// one takes it: applications wait for it.
    fn restored(
        &mut self,
        datasets: &[DatasetKey],
        residents: &mut dyn ExactSizeIterator<Item = Resident>,
    ) {
        for resident in residents {
            let dataset = &datasets[resident.dataset];
            self.inserted(dataset, resident.digest, resident.size);
        }
    }

    /// `digest` is not resident any more, for whatever reason.
    fn removed(&mut self, digest: &Digest);

    /// Objects to evict so that at least `need` bytes come free, worst first; fewer when there are
    /// not enough for which `evictable` holds (pinned and in-use objects are not). The caller
    /// reports each one it did evict with [`Policy::removed`].
    fn victims(&mut self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest>;

    /// The bytes that residents may take from now on: the budget, or less while the disk has no
    /// room for it. A policy that divides the tier between datasets needs it; others ignore it.
    fn set_capacity(&mut self, _bytes: u64) {}

    /// Objects to evict although there is room, because they are of a tenant that has more than it may;
    /// asked for before room is made for another object. As with [`Policy::victims`] only those for
    /// which `evictable` holds.
    fn over_cap(&mut self, _evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        Vec::new()
    }

    /// What tenants have, for reports; nothing from a policy without tenants.
    fn tenants(&self) -> Vec<TenantUse> {
        Vec::new()
    }
}
