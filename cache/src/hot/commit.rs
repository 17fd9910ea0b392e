//! The sync thread: filled objects become complete in groups, partial ones are checkpointed.
//!
//! A round: (1) take what is pending; (2) write sidecars; (3) sync: few files one by one, many with
//! one syncfs(2); (4) one synced write to the index marks them complete. Whatever stops a round
//! before (4), the objects stay usable in this process; the next one of the same boot knows them as
//! filled (`adopt.rs`), and one of another boot checks them.
//!
//! A failed sync may have thrown dirty pages away, and the kernel reports it once only. So its
//! objects are forgotten as a whole; syncing again would prove nothing.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::catalogue::Catalogue;
use super::data::DataFile;
use super::error::{HotError, HotErrorKind};
use super::index::Change;
use super::object::HotObject;
use super::record::{Record, Stage};
use super::shared::Shared;
use super::stats::add;
use super::table::Entry;
use super::{directory, sidecar, sys};
use crate::identity::Digest;

/// Up to this many objects are synced one by one: syncfs(2) also writes what others left dirty.
const FEW: usize = 8;

/// This many pending objects do not wait for the interval.
const MANY: usize = 1024;

/// With this many pending objects, whoever fills the next one syncs them himself.
const TOO_MANY: usize = 8192;

/// A round takes one part in this many of the budget: what is being synced cannot be evicted, and whoever
/// needs room must not have to wait for the disk while there is anything else to evict.
const ROUND_SHARE: u64 = 4;

/// Rounds at once: as many as the whole budget takes, and as many again for what arrives meanwhile.
const MOST_ROUNDS: u64 = 2 * ROUND_SHARE;

/// Marks written per batch.
const MARKS_PER_BATCH: usize = 4096;

/// An object on its way to the index.
pub(super) struct Candidate {
    pub(super) object: Arc<HotObject>,
    pub(super) file: Arc<DataFile>,
    pub(super) record: Record,
    sidecar: Option<Vec<u8>>,
}

impl Shared {
    /// Queues a filled object for the group sync.
    pub(super) fn queue_commit(self: &Arc<Self>, object: &Arc<HotObject>) {
        let (waiting, _dirty) = {
            let mut catalogue = self.catalogue();
            let dirty = catalogue.dirty.remove(&object.digest);
            // A discarded object is not resident any more.
            if catalogue.table.get(&object.digest).is_some() {
                catalogue.pending.insert(object.digest, Arc::clone(object));
            }
            (catalogue.pending.len(), dirty)
        };
        if waiting >= TOO_MANY {
            if let Err(error) = self.commit() {
                self.report(Some(&error));
            }
        } else if waiting >= MANY {
            self.signal.hurry();
        }
    }

    /// The body of the sync thread; ends with a last round when the tier is closed.
    pub(super) fn sync_loop(self: &Arc<Self>) {
        let mut checkpointed = Instant::now();
        loop {
            let stop = self.signal.wait(self.config.sync_interval);
            let mut clean = self.tell(self.adopt());
            clean &= self.tell(self.commit());
            if stop || checkpointed.elapsed() >= self.config.checkpoint_interval {
                checkpointed = Instant::now();
                clean &= self.tell(self.checkpoint());
                clean &= self.tell(self.write_marks());
                clean &= self.tell(self.write_links());
                clean &= self.finish_removals();
            }
            if stop {
                if clean && !self.health.state().eq(&super::DiskState::Down) {
                    let mut trust = self.trust;
                    trust.clean = true;
                    self.tell(self.index.apply(&[Change::Trust(trust)], true));
                }
                return;
            }
        }
    }

    fn tell(&self, result: Result<(), HotError>) -> bool {
        // A round without work is no sign of health, so only errors are told.
        if let Err(error) = &result {
            self.report(Some(error));
        }
        result.is_ok()
    }

    /// Syncs what is pending, on the calling thread: in rounds, of which each holds no more than a share
    /// of the budget.
    pub(super) fn commit(self: &Arc<Self>) -> Result<(), HotError> {
        for _ in 0..MOST_ROUNDS {
            let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
            let pending = self.take_pending();
            if pending.is_empty() {
                return Ok(());
            }
            let result = self.commit_these(pending);
            self.round_ended();
            result?;
        }
        Ok(())
    }

    /// Takes the objects of one round; they cannot be evicted until it has ended.
    fn take_pending(&self) -> HashMap<Digest, Arc<HotObject>> {
        let mut catalogue = self.catalogue();
        let Catalogue { pending, table, .. } = &mut *catalogue;
        let mut room = (self.config.limit_bytes / ROUND_SHARE).max(1);
        let taken = pending.extract_if(|digest, _| {
            let taken = room > 0;
            room = room.saturating_sub(table.get(digest).map_or(0, Entry::charged));
            taken
        });
        let round: HashMap<_, _> = taken.collect();
        catalogue.busy = round.keys().copied().collect();
        round
    }

    pub(super) fn round_ended(&self) {
        self.catalogue().busy.clear();
        self.left.notify_all();
    }

    fn commit_these(
        self: &Arc<Self>,
        pending: HashMap<Digest, Arc<HotObject>>,
    ) -> Result<(), HotError> {
        let candidates: Vec<Candidate> = pending
            .into_values()
            .filter_map(|object| candidate(self, object))
            .collect();
        if let Err(error) = self.sync_data(&candidates) {
            // A full disk may yet be helped; a failed sync is final.
            if error.kind != HotErrorKind::Full {
                add(&self.counters.failed_syncs, 1);
                for candidate in candidates {
                    candidate.object.discard(&candidate.file, "its sync failed");
                }
                return Err(error);
            }
            return self.postpone(candidates, error);
        }
        add(&self.counters.syncs, 1);
        let mut candidates = candidates;
        let mut changes = Vec::with_capacity(candidates.len());
        for candidate in &mut candidates {
            candidate.synced();
            changes.push(Change::Put(
                candidate.object.digest,
                candidate.record.clone(),
            ));
        }
        if let Err(error) = self.index.apply(&changes, true) {
            return self.postpone(candidates, error);
        }
        for candidate in candidates {
            self.completed(&candidate);
        }
        Ok(())
    }

    /// Puts objects back for the next round.
    fn postpone(&self, candidates: Vec<Candidate>, error: HotError) -> Result<(), HotError> {
        let mut catalogue = self.catalogue();
        for candidate in &candidates {
            let digest = candidate.object.digest;
            if catalogue.table.get(&digest).is_some() {
                catalogue
                    .pending
                    .insert(digest, Arc::clone(&candidate.object));
            }
        }
        drop(catalogue);
        Err(error)
    }

    fn completed(&self, candidate: &Candidate) {
        let object = &candidate.object;
        if !self.is_here(candidate) {
            // Left while it was being synced: the record must not outlive the file.
            self.unrecord(&object.digest, candidate.file.incarnation);
            return;
        }
        if std::mem::take(&mut object.state().uncached) {
            sys::drop_pages(&candidate.file.file);
        }
        if candidate.record.stage != Stage::Complete {
            return;
        }
        add(&self.counters.completed_objects, 1);
        let mut catalogue = self.catalogue();
        catalogue.set_charged(&object.digest, candidate.record.charged);
        if let Some(entry) = catalogue.table.get_mut(&object.digest) {
            entry.complete = true;
            entry.set_present(candidate.record.present);
            entry.verified_at = sys::now_seconds();
            entry.dirty = true;
            // Under the lock, so that an eviction comes after it. Without it the policy would count
            // less than the disk holds and promise space that is not there.
            let charged = entry.charged();
            let mut policy = self.policy();
            policy.inserted(&object.dataset, object.digest, charged);
        }
    }

    pub(super) fn is_here(&self, candidate: &Candidate) -> bool {
        let object = &candidate.object;
        object.state().is_current(&candidate.file) && self.catalogue().is_listed(object)
    }

    fn sync_data(&self, candidates: &[Candidate]) -> Result<(), HotError> {
        for candidate in candidates {
            self.write_sidecar(candidate)?;
        }
        if candidates.len() > FEW {
            return nix::unistd::syncfs(&self.directory.handle)
                .map_err(|e| HotError::io("sync file system", &self.directory.root, &e.into()));
        }
        for candidate in candidates {
            let path = &candidate.file.path;
            let synced = candidate.file.file.sync_data();
            synced.map_err(|e| HotError::io("sync object", path, &e))?;
            if candidate.sidecar.is_some() {
                let digest = &candidate.object.digest;
                let sidecar = self.directory.sidecar(digest, candidate.file.incarnation);
                sync_path(&sidecar)?;
            }
            sync_path(&self.directory.shard(candidate.object.digest.0[0]))?;
        }
        Ok(())
    }

    pub(super) fn write_sidecar(&self, candidate: &Candidate) -> Result<(), HotError> {
        let Some(bytes) = &candidate.sidecar else {
            return Ok(());
        };
        let path = self
            .directory
            .sidecar(&candidate.object.digest, candidate.file.incarnation);
        let _one_at_a_time = self.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
        let new = path.with_extension("map.new");
        directory::remove(&new)?;
        let file = directory::new_file().open(&new);
        file.and_then(|file| sys::write_all(&file, bytes, 0))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|e| HotError::io("write sidecar", &path, &e))
    }

    /// Writes down the state of partial objects, without any sync.
    pub(super) fn checkpoint(self: &Arc<Self>) -> Result<(), HotError> {
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = {
            let mut catalogue = self.catalogue();
            let dirty = std::mem::take(&mut catalogue.dirty);
            catalogue.busy = dirty.keys().copied().collect();
            dirty
        };
        let mut result = Ok(());
        for object in dirty.into_values() {
            let Some(candidate) = candidate(self, object) else {
                continue;
            };
            let put = Change::Put(candidate.object.digest, candidate.record.clone());
            let written = self
                .write_sidecar(&candidate)
                .and_then(|()| self.index.apply(&[put], false));
            if written.is_ok() && !self.is_here(&candidate) {
                self.unrecord(&candidate.object.digest, candidate.file.incarnation);
            }
            result = result.and(written);
        }
        result
    }

    /// Writes down when objects were last used and verified.
    pub(super) fn write_marks(&self) -> Result<(), HotError> {
        let mut left = usize::MAX;
        while left > 0 {
            let marks;
            (left, marks) = (self.catalogue().table).take_marks(left, MARKS_PER_BATCH);
            let changes: Vec<Change> = marks
                .into_iter()
                .map(|(digest, marks)| Change::Mark(digest, marks))
                .collect();
            self.index.apply(&changes, false)?;
        }
        Ok(())
    }

    /// Tries removals again that failed; `true` when none is left.
    fn finish_removals(&self) -> bool {
        let again = std::mem::take(
            &mut *self
                .unfinished
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for (digest, incarnation) in again {
            // The object may have come back meanwhile, with a record of its own.
            self.unrecord(&digest, incarnation);
        }
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

impl Candidate {
    /// Its data is synced. Takes the charge from what the file system allocated.
    fn synced(&mut self) {
        // Unless its file was touched meanwhile, so that it has to prove itself again.
        if self.record.stage == Stage::Filled {
            self.record.stage = Stage::Complete;
        }
        if let Ok(metadata) = self.file.file.metadata() {
            let sidecar = self.sidecar.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.record.charged = metadata.blocks() * 512 + sidecar;
        }
        // A link made meanwhile has moved it.
        self.record.fingerprint = self.file.fingerprint();
    }
}

/// What the index and the sidecar shall say about `object`; `None` when it has no file.
pub(super) fn candidate(shared: &Shared, object: Arc<HotObject>) -> Option<Candidate> {
    let charged = shared.catalogue().table.get(&object.digest)?.charged();
    let state = object.state();
    let file = Arc::clone(state.file()?);
    let blocks = state.blocks.clone();
    let stage = if state.filled {
        Stage::Filled
    } else {
        Stage::Partial
    };
    drop(state);
    let size = object.id.size();
    let sidecar = object
        .has_sidecar()
        .then(|| sidecar::encode(&object.digest, file.incarnation, size, &blocks));
    let record = Record {
        stage,
        epoch: shared.trust.epoch,
        incarnation: file.incarnation,
        size,
        fingerprint: file.fingerprint(),
        charged,
        present: blocks.present_bytes(),
        dataset: object.dataset.0.to_string(),
        table: (!object.has_sidecar()).then_some(blocks),
    };
    Some(Candidate {
        object,
        file,
        record,
        sidecar,
    })
}

fn sync_path(path: &Path) -> Result<(), HotError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| HotError::io("sync", path, &e))
}

/// How long closing the tier waits for the last round.
pub(super) const LAST_ROUND: Duration = Duration::from_secs(30);
