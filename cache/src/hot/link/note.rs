//! The number of owners of objects, in memory and in the index, and what links have moved.

use std::sync::{Arc, PoisonError};

use super::Changed;
use super::find::Sight;
use crate::hot::data::DataFile;
use crate::hot::error::HotError;
use crate::hot::index::Change;
use crate::hot::record::{Pins, Record, Times};
use crate::hot::shared::Shared;
use crate::identity::Digest;

impl Shared {
    /// Keeps a complete object from being evicted from now on; its pins before. `None`: it is not
    /// complete.
    pub(super) fn hold(&self, digest: &Digest) -> Option<Pins> {
        let mut catalogue = self.catalogue();
        let complete = catalogue
            .table
            .get(digest)
            .is_some_and(|entry| entry.complete);
        if !complete {
            return None;
        }
        let pins = catalogue.pins.entry(*digest).or_default();
        let before = *pins;
        pins.owners = pins.owners.saturating_add(1);
        Some(before)
    }

    /// Undoes [`Shared::hold`].
    pub(super) fn unhold(&self, digest: &Digest, before: Pins) {
        self.own(digest, before.owners);
    }

    /// Sets the number of owners in memory. Tells what is to be recorded, and the data file if it is
    /// open.
    pub(super) fn own(&self, digest: &Digest, owners: u32) -> (Pins, Option<Arc<DataFile>>) {
        let mut catalogue = self.catalogue();
        let pins = catalogue.pins.entry(*digest).or_default();
        pins.owners = owners;
        let now = *pins;
        if !now.is_held() {
            catalogue.pins.remove(digest);
        }
        (now, catalogue.file(digest))
    }

    /// Sets the number of owners in memory and in the index.
    pub(super) fn set_owners(
        &self,
        digest: &Digest,
        owners: u32,
        changed: &Changed,
    ) -> Result<(), HotError> {
        let (pins, _) = self.own(digest, owners);
        if changed.contains_key(digest) {
            return Ok(());
        }
        self.index.apply(&[Change::Pin(*digest, pins)], false)
    }

    /// Writes down what linkers have changed, without a sync.
    pub(in crate::hot) fn write_links(&self) -> Result<(), HotError> {
        for shard in &self.links.0 {
            let mut changed = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.write_changed(&mut changed)?;
        }
        Ok(())
    }

    pub(super) fn write_changed(&self, changed: &mut Changed) -> Result<(), HotError> {
        if changed.is_empty() {
            return Ok(());
        }
        // Not while a group sync writes records of its own.
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut changes, mut free) = (Vec::with_capacity(changed.len()), Vec::new());
        {
            let catalogue = self.catalogue();
            for (digest, seen) in changed.iter() {
                let pins = catalogue.pins.get(digest).copied().unwrap_or_default();
                let resident = catalogue.table.get(digest).is_some();
                changes.push(match resident && pins.owners > 0 {
                    true => Change::Link(*digest, pins, seen.times()),
                    false => Change::Pin(*digest, pins),
                });
                if resident && pins.owners == 0 {
                    free.push((*digest, seen));
                }
            }
        }
        // Nothing will stand beside their owners, so the records have to say it. A record that cannot
        // be read is one of which nothing is believed.
        free.sort_unstable_by_key(|(digest, _)| *digest);
        let digests: Vec<Digest> = free.iter().map(|(digest, _)| *digest).collect();
        self.index.get_many(&digests, |place, head, bytes| {
            let (digest, seen) = free[place];
            if head.incarnation == seen.incarnation
                && let Some(mut record) = Record::decode(&digest, bytes)
            {
                record.fingerprint = seen.fingerprint;
                changes.push(Change::Put(digest, record));
            }
        })?;
        self.index.apply(&changes, false)?;
        changed.clear();
        Ok(())
    }
}

impl Sight {
    /// What the next start has to know beside the record.
    fn times(&self) -> Times {
        Times {
            incarnation: self.incarnation,
            recorded_ns: self.recorded_ns,
            mtime_ns: self.fingerprint.mtime_ns,
            ctime_ns: self.fingerprint.ctime_ns,
        }
    }
}
