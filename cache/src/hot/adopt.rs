//! Objects that are filled and not yet synced: how they outlive the process.
//!
//! The page cache outlives a process that is killed, so only the knowledge of what lies in it has to
//! be written down, and that needs no sync either: a record of stage *filled*, written when the
//! object becomes filled. The next process of the same boot believes it as it believes a complete
//! one (by the fingerprint), and its sync thread *adopts* it: syncs the file system once, and
//! records those files that are still what their records say as complete. After another boot the
//! record is a claim like any other: every block is checked before it is used.
//!
//! Invariant: the directory is not called clean while a filled record of a trusted epoch is neither
//! pending nor adopted. Otherwise an epoch would go on over a boot that took unsynced data with it.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError};

use super::commit::candidate;
use super::data::Fingerprint;
use super::error::HotError;
use super::index::Change;
use super::object::HotObject;
use super::record::{Record, Stage};
use super::shared::Shared;
use super::stats::add;
use super::sys;
use crate::identity::Digest;

/// Objects recorded by one write to the index.
const BATCH: usize = 512;

impl Shared {
    /// Writes down that `object` is filled, so that it survives the death of this process. An error
    /// costs only that: the group sync tries again.
    pub(super) fn record_filled(self: &Arc<Self>, object: &Arc<HotObject>) {
        let Some(candidate) = candidate(self, Arc::clone(object)) else {
            return;
        };
        if candidate.record.stage != Stage::Filled {
            return;
        }
        let put = Change::Put(object.digest, candidate.record.clone());
        let written = self
            .write_sidecar(&candidate)
            .and_then(|()| self.index.apply(&[put], false));
        match written {
            // Discarded meanwhile: the record must not outlive the file.
            Ok(()) if !self.is_here(&candidate) => {
                self.unrecord(&object.digest, candidate.file.incarnation);
            }
            Ok(()) => {}
            Err(error) => self.report(Some(&error)),
        }
    }

    /// Makes complete what an earlier process filled. Does nothing after it succeeded once.
    pub(super) fn adopt(self: &Arc<Self>) -> Result<(), HotError> {
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let orphans = std::mem::take(&mut *self.lock_orphans());
        if orphans.is_empty() {
            return Ok(());
        }
        let result = nix::unistd::syncfs(&self.directory.handle)
            .map_err(|e| HotError::io("sync file system", &self.directory.root, &e.into()));
        if let Err(error) = result {
            // As with any failed sync, what was dirty may be gone.
            add(&self.counters.failed_syncs, 1);
            for digest in &orphans {
                self.forget(digest, None);
            }
            return Err(error);
        }
        add(&self.counters.syncs, 1);
        for (number, batch) in orphans.chunks(BATCH).enumerate() {
            if let Err(error) = self.adopt_batch(batch) {
                self.lock_orphans()
                    .extend_from_slice(&orphans[number * BATCH..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing of the batch is evicted meanwhile.
    fn adopt_batch(self: &Arc<Self>, orphans: &[Digest]) -> Result<(), HotError> {
        self.catalogue().busy = orphans.iter().copied().collect();
        let result = self.adopt_these(orphans);
        self.round_ended();
        result
    }

    fn adopt_these(self: &Arc<Self>, orphans: &[Digest]) -> Result<(), HotError> {
        let mut adopted: Vec<(Digest, Record)> = Vec::with_capacity(orphans.len());
        for digest in orphans {
            // What was evicted or filled anew meanwhile needs no adoption.
            let Ok(Some(mut record)) = self.index.get(digest) else {
                continue;
            };
            let filled = record.stage == Stage::Filled && self.trust.believes(record.epoch);
            if filled && self.take_charge(digest, &mut record) {
                record.stage = Stage::Complete;
                adopted.push((*digest, record));
            }
        }
        let changes: Vec<_> = adopted
            .iter()
            .map(|(digest, record)| Change::Put(*digest, record.clone()))
            .collect();
        self.index.apply(&changes, true)?;
        for (digest, record) in &adopted {
            self.adopted(digest, record);
        }
        Ok(())
    }

    /// Whether the files are what the record says; also takes what they occupy.
    fn take_charge(&self, digest: &Digest, record: &mut Record) -> bool {
        let data = self.directory.data(digest, record.incarnation);
        let Ok(metadata) = std::fs::symlink_metadata(data) else {
            return false;
        };
        let sidecar = match record.table {
            Some(_) => 0,
            None => std::fs::symlink_metadata(self.directory.sidecar(digest, record.incarnation))
                .map_or(0, |metadata| metadata.len()),
        };
        record.charged = metadata.blocks() * 512 + sidecar;
        Fingerprint::of(&metadata) == record.fingerprint
    }

    fn adopted(&self, digest: &Digest, record: &Record) {
        let mut catalogue = self.catalogue();
        let replaced = catalogue
            .file(digest)
            .is_some_and(|file| file.incarnation != record.incarnation);
        if replaced || catalogue.table.get(digest).is_none() {
            drop(catalogue);
            return self.unrecord(digest, record.incarnation);
        }
        catalogue.set_charged(digest, record.charged);
        if let Some(entry) = catalogue.table.get_mut(digest) {
            entry.complete = true;
            entry.verified_at = sys::now_seconds();
            entry.dirty = true;
        }
        drop(catalogue);
        add(&self.counters.completed_objects, 1);
    }

    fn lock_orphans(&self) -> std::sync::MutexGuard<'_, Vec<Digest>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
