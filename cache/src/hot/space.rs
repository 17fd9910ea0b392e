//! Room: budget, watermarks, eviction, and how an object leaves.
//!
//! Budget = resident + zombie + reserved bytes. An object is charged when its file is created (as a
//! whole) or block by block when it is larger than a quarter of the budget; the charge becomes what
//! the file system really allocated once the object is complete. Eviction unlinks, and nothing
//! else: whoever has the file open goes on reading it, and its bytes stay in the budget as zombie
//! bytes until he lets go.
//!
//! While the file system is short of space, residents may take less than the budget. The policy is
//! told how much: by every reservation, and by the watch thread, because a policy that admits nobody
//! asks for no reservation.
//!
//! Leaving is: out of memory and of the policy (from then on it is a miss), files unlinked, record
//! removed from the index. Until the last step is done no new file of the same object is created. A
//! crash in between leaves a record without a file (found and dropped on load) or a file without a
//! record (swept).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::blocks::block_count;
use super::catalogue::{Catalogue, Removed};
use super::error::{HotError, HotErrorKind};
use super::index::Change;
use super::ledger::Reservation;
use super::record::EMBEDDED_BLOCKS;
use super::shared::Shared;
use super::stats::add;
use crate::identity::Digest;
use crate::policy::Policy;

/// How often victims are asked for before a reservation is refused.
const ROUNDS: usize = 8;

/// How long a reservation waits for the bytes of evicted objects. Who keeps idle backings lets go of
/// them at once, in a task of its own; who does not keeps them.
const LET_GO: Duration = Duration::from_millis(500);

/// Time between two looks at those bytes: they come free in destructors, which wake nobody.
const LET_GO_LOOK: Duration = Duration::from_millis(1);

/// The policy is told of the room again when it changed by one part in this many of the budget.
const ROOM_STEPS: u64 = 64;

/// Free bytes and inodes of the file system, as statvfs(2) tells them to unprivileged users.
struct Free {
    bytes: u64,
    /// `None` when the file system does not count inodes.
    inodes: Option<u64>,
}

impl Shared {
    fn free(&self) -> Result<Free, HotError> {
        let stat = nix::sys::statvfs::fstatvfs(&self.directory.handle)
            .map_err(|e| HotError::io("stat file system", &self.directory.root, &e.into()))?;
        Ok(Free {
            bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
            inodes: (stat.files() > 0).then(|| stat.files_available()),
        })
    }

    /// Bytes that have to go before `bytes` and `inodes` more fit.
    fn lack(&self, catalogue: &Catalogue, free: &Free, bytes: u64, inodes: u64) -> u64 {
        let used = catalogue.resident + self.ledger.zombie() + self.ledger.reserved();
        let over = (used + bytes).saturating_sub(self.config.limit_bytes);
        let short = (self.config.min_free_bytes + self.ledger.reserved() + bytes)
            .saturating_sub(free.bytes);
        let wanted = self.config.min_free_inodes + inodes;
        let no_inode = inodes > 0 && free.inodes.is_some_and(|free| free < wanted);
        // Any victim gives an inode back, so the smallest need asks for one object at least.
        over.max(short).max(u64::from(no_inode))
    }

    /// Tells the policy what residents may take, if that changed: the budget, or what they have and
    /// what the watermark leaves when that is less.
    fn tell_room(&self, resident: u64, free: &Free) {
        let limit = self.config.limit_bytes;
        let spare = free.bytes.saturating_sub(self.config.min_free_bytes);
        let room = limit.min(resident.saturating_add(spare));
        let told = self.room.load(Ordering::Acquire);
        let is_new = room.abs_diff(told) > limit / ROOM_STEPS || (room == limit && told != limit);
        if is_new {
            self.room.store(room, Ordering::Release);
            self.policy().set_capacity(room);
        }
    }

    /// Keeps to the watermark when others fill the disk, on a thread that may hang.
    pub(super) fn keep_watermark(self: &Arc<Self>) -> Result<(), HotError> {
        let free = self.free()?;
        let resident = self.catalogue().resident;
        self.tell_room(resident, &free);
        let short = self.config.min_free_bytes.saturating_sub(free.bytes);
        if short > 0 {
            self.evict_some(short.min(resident))?;
        }
        Ok(())
    }

    /// Reserves room on a thread that may hang, evicting what the policy names.
    pub(super) fn reserve_here(
        self: &Arc<Self>,
        bytes: u64,
        inodes: u64,
    ) -> Result<Reservation, HotError> {
        self.keep_caps()?;
        for _ in 0..ROUNDS {
            let free = self.free()?;
            let resident = self.catalogue().resident;
            self.tell_room(resident, &free);
            let lack = {
                let catalogue = self.catalogue();
                match self.lack(&catalogue, &free, bytes, inodes) {
                    0 => return Ok(self.ledger.hold(bytes)),
                    lack => lack,
                }
            };
            // What was evicted comes free in a moment: evicting more in its place would empty the tier.
            if self.ledger.leaving() > 0 && self.wait_until_let_go() {
                continue;
            }
            if self.evict_some(lack)? == 0 && !self.wait_for_round(None) {
                break;
            }
        }
        add(&self.counters.full, 1);
        let reason = format!("no room for {bytes} bytes and nothing left to evict");
        Err(HotError::new(
            HotErrorKind::Full,
            "reserve",
            &self.directory.root,
            reason,
        ))
    }

    /// Evicts although the budget says there is room, because the file system says there is not.
    pub(super) fn make_room_by_force(self: &Arc<Self>, bytes: u64) -> Result<(), HotError> {
        if self.evict_some(bytes.max(1))? > 0 {
            return Ok(());
        }
        add(&self.counters.full, 1);
        let reason = "the file system is full and nothing is left to evict";
        Err(HotError::new(
            HotErrorKind::Full,
            "reserve",
            &self.directory.root,
            reason,
        ))
    }

    /// Evicts what tenants have beyond their caps, room or not.
    fn keep_caps(self: &Arc<Self>) -> Result<(), HotError> {
        self.evict_chosen(|policy, evictable| policy.over_cap(evictable))
            .map(drop)
    }

    /// Evicts objects worth `need` bytes; returns how many went.
    fn evict_some(self: &Arc<Self>, need: u64) -> Result<usize, HotError> {
        self.evict_chosen(|policy, evictable| policy.victims(need, evictable))
    }

    fn evict_chosen(
        self: &Arc<Self>,
        choose: impl FnOnce(&mut dyn Policy, &dyn Fn(&Digest) -> bool) -> Vec<Digest>,
    ) -> Result<usize, HotError> {
        let victims = {
            let catalogue = self.catalogue();
            let evictable = |digest: &Digest| {
                catalogue.table.get(digest).is_some() && catalogue.is_evictable(digest)
            };
            choose(self.policy().as_mut(), &evictable)
        };
        let mut gone = 0;
        for digest in &victims {
            gone += usize::from(self.evict_here(digest)?);
        }
        Ok(gone)
    }

    /// Evicts one object unless it is pinned, linked or in use.
    pub(super) fn evict_here(self: &Arc<Self>, digest: &Digest) -> Result<bool, HotError> {
        self.wait_for_round(Some(digest));
        let removed = {
            let mut catalogue = self.catalogue();
            if !catalogue.is_evictable(digest) {
                return Ok(false);
            }
            catalogue.evict(digest)
        };
        let Some(removed) = removed else {
            return Ok(false);
        };
        add(&self.counters.evicted_objects, 1);
        add(&self.counters.evicted_bytes, removed.entry.charged());
        self.leave(digest, removed, None, true);
        Ok(true)
    }

    /// Drops an object that cannot be believed, in use or not.
    pub(super) fn forget(&self, digest: &Digest, incarnation: Option<u64>) {
        add(&self.counters.discarded_objects, 1);
        let removed = self.catalogue().remove(digest);
        if let Some(removed) = removed {
            self.leave(digest, removed, incarnation, false);
        }
    }

    /// Record and files of an object that is out of the catalogue. Errors are kept for later.
    fn leave(&self, digest: &Digest, removed: Removed, incarnation: Option<u64>, evicted: bool) {
        self.policy().removed(digest);
        let (incarnation, has_sidecar) = self.place_of(digest, &removed, incarnation);
        if let Some(file) = &removed.file {
            file.bury(removed.entry.charged(), evicted);
        }
        if let Some(incarnation) = incarnation {
            self.unlink(digest, incarnation, has_sidecar);
        }
        self.catalogue().leaving.remove(digest);
        self.left.notify_all();
        for listener in self
            .listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
        {
            listener(digest);
        }
        drop(removed);
    }

    /// Incarnation of an object's file, and whether it may have a sidecar.
    fn place_of(
        &self,
        digest: &Digest,
        removed: &Removed,
        incarnation: Option<u64>,
    ) -> (Option<u64>, bool) {
        if let Some(incarnation) = incarnation {
            return (Some(incarnation), true);
        }
        if let Some(file) = &removed.file {
            return (Some(file.incarnation), true);
        }
        match self.index.get(digest) {
            Ok(Some(record)) => (
                Some(record.incarnation),
                block_count(record.size) > EMBEDDED_BLOCKS,
            ),
            // Its file, if there is one, is left to the next sweep.
            _ => (None, false),
        }
    }

    /// Removes record and files; what fails is repeated by the sync thread.
    pub(super) fn unlink(&self, digest: &Digest, incarnation: u64, has_sidecar: bool) {
        // The files first: on a full disk the index may only take the change once they are gone.
        let unlinked = self.directory.unlink(digest, incarnation, has_sidecar);
        let removed = unlinked.and(self.index.apply(&[Change::Remove(*digest)], false));
        if let Err(error) = removed {
            self.report(Some(&error));
            let mut unfinished = self
                .unfinished
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            unfinished.push_back((*digest, incarnation));
            // Beyond this many the next start's sweep and fingerprints have to do.
            unfinished.truncate(65_536);
        }
    }

    /// Undoes a record that was written for an object that has left meanwhile, and only that one.
    /// Called by the thread that writes records.
    pub(super) fn unrecord(&self, digest: &Digest, incarnation: u64) {
        match self.index.get(digest) {
            Ok(Some(record)) if record.incarnation != incarnation => {
                let _ = self.directory.unlink(digest, incarnation, true);
            }
            _ => self.unlink(digest, incarnation, true),
        }
    }

    /// Waits until the sync thread has let go of `digest`, or of everything: what it holds cannot
    /// be evicted. `false` when it holds nothing, or holds it for too long.
    fn wait_for_round(&self, digest: Option<&Digest>) -> bool {
        let catalogue = self.catalogue();
        let holds = |busy: &HashSet<Digest>| match digest {
            Some(digest) => busy.contains(digest),
            None => !busy.is_empty(),
        };
        if !holds(&catalogue.busy) {
            return false;
        }
        let limit = self.config.operation_timeout / 2;
        let waited = self
            .left
            .wait_timeout_while(catalogue, limit, |catalogue| holds(&catalogue.busy));
        !waited
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .1
            .timed_out()
    }

    /// Waits until nobody holds the files of evicted objects; `false` when somebody goes on.
    fn wait_until_let_go(&self) -> bool {
        let begun = Instant::now();
        let mut catalogue = self.catalogue();
        while self.ledger.leaving() > 0 {
            if begun.elapsed() >= LET_GO {
                return false;
            }
            let waited = self.left.wait_timeout(catalogue, LET_GO_LOOK);
            catalogue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Waits until files of an earlier incarnation are gone.
    pub(super) fn wait_until_left(&self, digest: &Digest) -> Result<(), HotError> {
        let limit = self.config.operation_timeout;
        let begun = Instant::now();
        let mut catalogue = self.catalogue();
        while catalogue.leaving.contains(digest) {
            let Some(rest) = limit.checked_sub(begun.elapsed()) else {
                let reason = "the object is still being evicted";
                let kind = HotErrorKind::Timeout;
                let root = &self.directory.root;
                return Err(HotError::new(kind, "create object", root, reason));
            };
            let waited = self.left.wait_timeout(catalogue, rest);
            catalogue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Keeps the bytes of a bad block for whoever looks into it; at most 16 of them.
    pub(super) fn keep_evidence(&self, digest: &Digest, incarnation: u64, block: u32, data: &[u8]) {
        let slot = self.counters.quarantined_blocks.load(Ordering::Relaxed);
        if slot > 16 {
            return;
        }
        let name = format!("{digest}.{incarnation:016x}.{block}");
        let path = self.directory.quarantine().join(name);
        let _ = super::directory::remove(&path);
        let file = super::directory::new_file().open(&path);
        let kept = file.and_then(|file| super::sys::write_all(&file, data, 0));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "bad block was not kept");
        }
    }
}
