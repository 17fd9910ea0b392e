//! What the index says of many objects at once, before their links are made or removed.
//!
//! Objects of a tree lie anywhere in the index. Looked up one by one, each costs a block of it; in the
//! order of their digests, neighbours share one. So a build asks for as many as it can remember.

use std::num::NonZeroUsize;

use super::{Changed, Linker};
use crate::hot::data::Fingerprint;
use crate::hot::error::HotError;
use crate::hot::record::{Head, Record, Stage};
use crate::hot::shared::Shared;
use crate::identity::Digest;

/// Records that are read from the index at a time: each keeps a block of it in memory meanwhile.
const LOOKUP: usize = 1024;

/// What is known of the file of a complete object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hot) struct Sight {
    pub(in crate::hot) incarnation: u64,
    pub(in crate::hot) epoch: u32,
    pub(in crate::hot) fingerprint: Fingerprint,
    /// ctime that the record has.
    pub(in crate::hot) recorded_ns: i64,
}

/// What [`Linker::find`] found out about an object. It may be out of date: [`Linker::link_all`]
/// compares it with the file, and looks again when they differ.
#[derive(Clone, Copy, Debug)]
pub struct Found(pub(super) Option<Sight>);

impl Sight {
    fn of(head: &Head<'_>) -> Option<Self> {
        (head.stage == Stage::Complete).then_some(Self {
            incarnation: head.incarnation,
            epoch: head.epoch,
            fingerprint: head.fingerprint,
            recorded_ns: head.fingerprint.ctime_ns,
        })
    }
}

impl Linker {
    /// Looks up many objects with `threads` threads; one answer for each, in the same order. Blocks on
    /// the disk.
    pub fn find(&self, digests: &[Digest], threads: NonZeroUsize) -> Result<Vec<Found>, HotError> {
        self.shared.admit("look up objects")?;
        let mut sorted: Vec<(Digest, usize)> = digests.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let mut found = vec![Found(None); digests.len()];
        let share = sorted.len().div_ceil(threads.get()).max(LOOKUP);
        std::thread::scope(|scope| {
            let shared = &*self.shared;
            let parts: Vec<_> = sorted
                .chunks(share)
                .map(|part| scope.spawn(move || shared.find(part)))
                .collect();
            for part in parts {
                let part = part
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e))?;
                for (place, sight) in part {
                    found[place] = Found(Some(sight));
                }
            }
            Ok(found)
        })
    }
}

impl Shared {
    /// What the index has about sorted objects, by the number that stands beside each.
    fn find(&self, sorted: &[(Digest, usize)]) -> Result<Vec<(usize, Sight)>, HotError> {
        let mut found = Vec::with_capacity(sorted.len());
        for part in sorted.chunks(LOOKUP) {
            let digests: Vec<Digest> = part.iter().map(|(digest, _)| *digest).collect();
            let first = found.len();
            self.index.get_many(&digests, |place, head, _| {
                found.extend(Sight::of(&head).map(|sight| (place, sight)));
            })?;
            let owned: Vec<bool> = {
                let catalogue = self.catalogue();
                let owners = |digest| catalogue.pins.get(digest).map_or(0, |pins| pins.owners);
                let found = found[first..].iter();
                found
                    .map(|(place, _)| owners(&digests[*place]) > 0)
                    .collect()
            };
            for ((place, sight), owned) in found[first..].iter_mut().zip(owned) {
                if owned && let Some(times) = self.index.times(&digests[*place])? {
                    times.apply(sight.incarnation, &mut sight.fingerprint);
                }
                *place = part[*place].1;
            }
        }
        Ok(found)
    }

    /// What is known of one object now; `None`: it is not complete.
    pub(super) fn see(
        &self,
        changed: &Changed,
        digest: &Digest,
    ) -> Result<Option<Sight>, HotError> {
        if let Some(seen) = changed.get(digest) {
            return Ok(Some(*seen));
        }
        let found = self.find(&[(*digest, 0)])?;
        Ok(found.first().map(|(_, seen)| *seen))
    }

    /// The record of an object, with what links have moved since.
    pub(in crate::hot) fn recorded(&self, digest: &Digest) -> Result<Option<Record>, HotError> {
        let Some(mut record) = self.index.get(digest)? else {
            return Ok(None);
        };
        let owners = self
            .catalogue()
            .pins
            .get(digest)
            .map_or(0, |pins| pins.owners);
        if owners > 0
            && let Some(times) = self.index.times(digest)?
        {
            times.apply(record.incarnation, &mut record.fingerprint);
        }
        Ok(Some(record))
    }
}
