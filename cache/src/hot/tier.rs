//! The handle on an open hot tier, and the threads behind it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::commit::LAST_ROUND;
use super::config::HotConfig;
use super::data::DataFile;
use super::error::{HotError, HotErrorKind};
use super::index::Change;
use super::ledger::Reservation;
use super::object::{Data, HotObject, State};
use super::pool::PoolThreads;
use super::record::Pins;
use super::recover;
use super::scrub::ScrubReport;
use super::shared::Shared;
use super::stats::{HotStats, HotUsage, Residency};
use super::sys::now_seconds;
use crate::identity::{DatasetKey, Digest, ObjectId};
use crate::policy::{Access, Admission, Policy, TenantUse};

/// An open hot tier. Clones share it; the last one to go closes it: what is pending is synced, the
/// index is marked clean, the lock is given up. Objects that live longer answer `Closed`.
#[derive(Clone, Debug)]
pub struct HotTier {
    pub(super) shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// Ends the threads, in the order that leaves a clean directory.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    pool: Option<PoolThreads>,
    threads: Vec<JoinHandle<()>>,
}

impl HotTier {
    /// Opens or creates the tier in `config.directory`; `policy` chooses what goes when room is
    /// needed, and learns of everything that is there.
    ///
    /// Errors: `Locked` when another daemon uses the directory (its pid is in the text), `Corrupt`
    /// when the format is unknown, `Io`. A damaged index is set aside and the tier starts empty.
    pub fn open(config: HotConfig, policy: Box<dyn Policy>) -> Result<Self, HotError> {
        let begun = Instant::now();
        let (shared, pool, sweep) = recover::open(config, policy)?;
        let objects = shared.catalogue().table.len();
        tracing::info!(objects, elapsed = ?begun.elapsed(), "hot tier open");
        let mut owner = Owner {
            shared: Arc::clone(&shared),
            pool: Some(pool),
            threads: Vec::new(),
        };
        let fail =
            |e: std::io::Error| HotError::io("start threads", &owner.shared.directory.root, &e);
        let syncing = Arc::clone(&shared);
        let sync = spawn("hot-sync", move || syncing.sync_loop()).map_err(fail)?;
        let sweeping = Arc::clone(&shared);
        let sweep = spawn("hot-sweep", move || {
            if sweep && !sweeping.quiet.wait(sweeping.config.sweep_after) {
                sweeping.sweep();
            }
        });
        let sweep = sweep.map_err(fail)?;
        let watching = Arc::clone(&shared);
        let watch = spawn("hot-watch", move || watching.watch_loop()).map_err(fail)?;
        owner.threads = vec![watch, sweep, sync];
        Ok(Self {
            shared,
            _owner: Arc::new(owner),
        })
    }

    /// The object, one instance per digest while anybody holds it; it is not evicted meanwhile.
    /// What is on disk of it is looked up if the tier has any; otherwise no I/O happens.
    pub fn object(&self, id: &ObjectId, dataset: &DatasetKey) -> Result<Arc<HotObject>, HotError> {
        let digest = id.digest();
        let (resident, held) = {
            let catalogue = self.shared.catalogue();
            if let Some(object) = catalogue.object(&digest) {
                return Ok(object);
            }
            (
                catalogue.table.get(&digest).is_some(),
                catalogue.file(&digest),
            )
        };
        let size = id.size();
        let state = if resident {
            self.shared.run("load object", move |shared| {
                shared.load(&digest, size, held)
            })?
        } else {
            self.shared.admit("open object")?;
            State::empty(size)
        };
        let object = HotObject::new(&self.shared, id, digest, dataset, state);
        Ok(self.publish(Arc::new(object)))
    }

    /// Makes `object` the one instance of its digest, unless another one was faster.
    fn publish(&self, object: Arc<HotObject>) -> Arc<HotObject> {
        let file: Option<Arc<DataFile>> = object.state().file().map(Arc::clone);
        let mut catalogue = self.shared.catalogue();
        if let Some(other) = catalogue.object(&object.digest) {
            drop(catalogue);
            return other;
        }
        let evicted = catalogue.table.get(&object.digest).is_none();
        catalogue.set_object(object.digest, &object);
        if let Some(file) = file.as_ref().filter(|_| !evicted) {
            catalogue.set_file(object.digest, file);
        }
        drop(catalogue);
        if evicted && file.is_some() {
            // Evicted between the look at its record and now.
            let before = std::mem::replace(&mut *object.state(), State::empty(object.id.size()));
            debug_assert!(matches!(before.data, Data::Open(_)));
        }
        object
    }

    /// Counts one open with the policy, which says whether an object that is not resident shall
    /// become so.
    pub fn opened(&self, digest: &Digest, size: u64, dataset: &DatasetKey) -> Admission {
        let resident = {
            let mut catalogue = self.shared.catalogue();
            match catalogue.table.get_mut(digest) {
                Some(entry) => {
                    entry.used_at = now_seconds();
                    entry.dirty = true;
                    true
                }
                None => false,
            }
        };
        self.shared.policy().open(&Access {
            dataset,
            digest,
            size,
            resident,
        })
    }

    /// What tenants have, as the policy counts it.
    pub fn tenants(&self) -> Vec<TenantUse> {
        self.shared.policy().tenants()
    }

    /// What is there of `digest`, from memory alone.
    pub fn peek(&self, digest: &Digest) -> Option<Residency> {
        let catalogue = self.shared.catalogue();
        let entry = catalogue.table.get(digest)?;
        Some(if entry.complete {
            Residency::Complete
        } else {
            Residency::Partial {
                present_bytes: entry.present(),
            }
        })
    }

    /// Of each, whether all of it is there, from memory alone.
    pub fn are_complete<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Vec<bool> {
        let catalogue = self.shared.catalogue();
        let complete = |digest| {
            catalogue
                .table
                .get(digest)
                .is_some_and(|entry| entry.complete)
        };
        digests.into_iter().map(complete).collect()
    }

    /// Exempts objects from eviction, or no longer. Durable when this returns, with one write for all
    /// of them; also for objects not resident yet. Dropping the future does not stop the write.
    pub async fn pin_all(&self, digests: Vec<Digest>, pinned: bool) -> Result<(), HotError> {
        let pin = move |shared: &Arc<Shared>| {
            let _unchanged = shared.links.lock();
            let changed: Vec<(Digest, Pins)> = {
                let catalogue = shared.catalogue();
                let pins = |digest| catalogue.pins.get(digest).copied().unwrap_or_default();
                let changed = digests.iter().map(|digest| {
                    let owners = pins(digest).owners;
                    (*digest, Pins { pinned, owners })
                });
                changed.collect()
            };
            let changes: Vec<Change> = changed
                .iter()
                .map(|(digest, pins)| Change::Pin(*digest, *pins))
                .collect();
            shared.index.apply(&changes, true)?;
            let mut catalogue = shared.catalogue();
            for (digest, pins) in changed {
                if pins.is_held() {
                    catalogue.pins.insert(digest, pins);
                } else {
                    catalogue.pins.remove(&digest);
                }
            }
            Ok(())
        };
        self.shared.run_async("pin objects", pin).await
    }

    /// Whether `digest` is exempt from eviction by a pin or a materialized tree, from memory alone.
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.shared.catalogue().pins.contains_key(digest)
    }

    /// Unlinks the object. `false` when it is not resident, pinned, linked or in use.
    pub fn evict(&self, digest: &Digest) -> Result<bool, HotError> {
        let digest = *digest;
        self.shared
            .run("evict object", move |shared| shared.evict_here(&digest))
    }

    /// Keeps `bytes` of the budget free until the reservation is dropped, evicting through the
    /// policy. Objects reserve for themselves (`HotObject::prepare`, `HotObject::write`): this is
    /// for a caller that must know beforehand, and who gives back as he writes.
    ///
    /// Errors: `Full` when pins, users and the watermark leave no room.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, HotError> {
        self.shared
            .run("reserve", move |shared| shared.reserve_here(bytes, 0))
    }

    /// Calls `listener` with the digest of each object that left the tier, so that a cache of idle
    /// backings lets go of the file. Called without locks, on any thread; it must not wait.
    pub fn on_evict(&self, listener: impl Fn(&Digest) + Send + Sync + 'static) {
        let mut listeners = self
            .shared
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// Completes what is filled now: waits for the disk, without a deadline.
    ///
    /// Errors: also when an earlier group sync failed since the last call, as with fsync(2): its
    /// objects were forgotten.
    pub fn sync(&self) -> Result<(), HotError> {
        let shared = &self.shared;
        shared.admit("sync")?;
        let result = shared
            .adopt()
            .and_then(|()| shared.commit())
            .and_then(|()| shared.checkpoint())
            .and_then(|()| shared.write_marks());
        shared.report(result.as_ref().err());
        let failed = shared.counters.failed_syncs.load(Ordering::Acquire);
        if shared.told_failures.swap(failed, Ordering::AcqRel) != failed {
            let reason = "a group sync failed and its objects were forgotten";
            let root = &shared.directory.root;
            return result.and(Err(HotError::new(HotErrorKind::Io, "sync", root, reason)));
        }
        result
    }

    /// Reads complete objects again, the longest unverified first, until `limit` bytes or 512
    /// objects were read. The background scrub does the same at its rate.
    pub fn scrub(&self, limit: u64) -> Result<ScrubReport, HotError> {
        let mut total = ScrubReport::default();
        for digest in self.shared.oldest_verified(u32::MAX) {
            if total.bytes >= limit {
                break;
            }
            let report = self.shared.scrub_object(&digest)?;
            total.objects += report.objects;
            total.bytes += report.bytes;
            total.bad += report.bad;
        }
        Ok(total)
    }

    /// Backings that are kept and not in use: each is a descriptor of this process.
    pub fn idle_backings(&self) -> u64 {
        self.shared.ledger.idle()
    }

    /// How the space is used now.
    pub fn usage(&self) -> HotUsage {
        let shared = &self.shared;
        let (zombie, reserved) = (shared.ledger.zombie(), shared.ledger.reserved());
        let catalogue = shared.catalogue();
        HotUsage {
            used_bytes: catalogue.resident + zombie + reserved,
            limit_bytes: shared.config.limit_bytes,
            zombie_bytes: zombie,
            reserved_bytes: reserved,
            objects: catalogue.table.len() as u64,
            pinned: catalogue.pins.len() as u64,
            pending: catalogue.pending.len() as u64,
            quarantined: shared.counters.quarantined_blocks.load(Ordering::Relaxed),
            disk: shared.health.state(),
        }
    }

    /// What happened since the tier was opened.
    pub fn stats(&self) -> HotStats {
        self.shared.counters.snapshot()
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // First the writers, so that the last round sees all they wrote.
        drop(self.pool.take());
        self.shared.quiet.stop();
        self.shared.signal.stop();
        let patience = Instant::now() + LAST_ROUND;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < patience {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                tracing::error!("the disk of the hot tier does not answer, closing without it");
                return;
            }
            let _ = thread.join();
        }
        self.shared.index.close();
        self.shared.directory.unlock();
    }
}
