//! The tier itself: what is open, what is in flight, and the limits of both.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::WarmConfig;
use super::copy::Copy;
use super::disk::Disk;
use super::drive::drive;
use super::flight::Flight;
use super::layout::Layout;
use super::source::Supply;
use super::stats::{Cold, WarmStats, add};
use super::sweep;
use crate::hot::DiskState;
use crate::identity::{Digest, ObjectId};
use crate::source::Source;

/// Copies kept open: a read of an open copy needs no metadata operation.
const COPIES_MAX: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// Objects filled or followed at once; further reads wait for one to end, or go past the tier.
const FLIGHTS_MAX: usize = 256;

/// Unit of the in-flight limit. A small object counts at least one: it costs more than its bytes.
const PERMIT: u64 = 256 << 10;

/// What is being filled or followed; a reader joins under the map's lock.
type Flights = HashMap<Digest, Arc<Flight>>;

/// Why a warm tier could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// A setting is out of range.
    #[error("warm tier: {0}")]
    Config(String),
    /// Its threads could not be started.
    #[error("start the warm tier's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// A directory on a shared file system with copies of objects. Cheap to clone; fills and sweeps
/// end when the last clone (and the last [`super::WarmSource`]) is dropped.
#[derive(Clone, Debug)]
pub struct WarmTier {
    inner: Arc<Inner>,
    _guard: Arc<Guard>,
}

/// Stops the tier's tasks.
#[derive(Debug)]
struct Guard(CancellationToken);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What the tier's tasks share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: WarmConfig,
    pub(super) layout: Layout,
    pub(super) disk: Disk,
    pub(super) stop: CancellationToken,
    runtime: Handle,
    flights: Mutex<Flights>,
    /// One permit per flight.
    slots: Arc<Semaphore>,
    copies: Mutex<LruCache<Digest, Arc<Copy>>>,
    tasks: Mutex<JoinSet<()>>,
    permits: Arc<Semaphore>,
    /// When the next byte may be written under the bandwidth limit.
    next_write: Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WarmTier {
    /// Starts a tier. Does not touch the directory, which may be out of reach: that is found out,
    /// and mended, in the background.
    ///
    /// Errors: settings out of range, threads that cannot be started.
    pub fn new(config: WarmConfig, runtime: Handle) -> Result<Self, WarmError> {
        config.check().map_err(WarmError::Config)?;
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            layout: Layout::new(&config.dir),
            disk: Disk::start(config.io_threads, config.deadline.0)?,
            stop: stop.clone(),
            runtime: runtime.clone(),
            flights: Mutex::default(),
            slots: Arc::new(Semaphore::new(FLIGHTS_MAX)),
            copies: Mutex::new(LruCache::new(COPIES_MAX)),
            tasks: Mutex::new(JoinSet::new()),
            permits: Arc::new(Semaphore::new(permits(config.in_flight.0) as usize)),
            next_write: Mutex::new(Instant::now()),
            config,
        });
        lock(&inner.tasks).spawn_on(sweep::care(Arc::clone(&inner)), &runtime);
        Ok(Self {
            inner,
            _guard: Arc::new(Guard(stop)),
        })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &WarmConfig {
        &self.inner.config
    }

    /// Counters since start.
    pub fn stats(&self) -> WarmStats {
        self.inner
            .disk
            .counters
            .snapshot(self.inner.disk.health.state())
    }

    /// Which of these objects (digest and length) have a copy in the tier, by its files alone: their
    /// bytes are checked when they are read, as always. `None`: the directory does not answer.
    pub async fn copies(&self, objects: Vec<(Digest, u64)>) -> Option<Vec<bool>> {
        let layout = self.inner.layout.clone();
        let look = move || {
            Ok(objects
                .iter()
                .map(|(d, size)| layout.has(d, *size))
                .collect())
        };
        self.inner.disk.run(look).await.ok()
    }

    /// Whether fills of this daemon are under way.
    pub fn is_busy(&self) -> bool {
        !lock(&self.inner.flights).is_empty()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT).max(1)).unwrap_or(u32::MAX)
}

impl Inner {
    /// What can serve `object`: an open copy, or a flight (begun now if there is none). Waits for
    /// one of the flights under way to end when there are too many, at most the configured time.
    pub(super) async fn supply(
        self: &Arc<Self>,
        object: &ObjectId,
        source: &Arc<dyn Source>,
    ) -> Result<Supply, Cold> {
        if object.size() == 0 || self.disk.health.state() == DiskState::Down {
            return Err(Cold::Down);
        }
        let digest = object.digest();
        if let Some(supply) = self.at_hand(&lock(&self.flights), &digest) {
            return Ok(supply);
        }
        let slot = Arc::clone(&self.slots).acquire_owned();
        let Ok(Ok(slot)) = timeout(self.config.wait.0, slot).await else {
            add(&self.disk.counters.skipped, 1);
            return Err(Cold::Crowded);
        };
        let mut flights = lock(&self.flights);
        // Somebody else may have begun it meanwhile.
        if let Some(supply) = self.at_hand(&flights, &digest) {
            return Ok(supply);
        }
        let flight = Arc::new(Flight::new(object.clone()));
        flights.insert(digest, Arc::clone(&flight));
        drop(flights);
        let drive = drive(Arc::clone(self), Arc::clone(&flight), Arc::clone(source));
        let task = async move {
            drive.await;
            drop(slot);
        };
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
        Ok(Supply::Flight(flight))
    }

    /// A flight under way, or an open copy.
    fn at_hand(&self, flights: &Flights, digest: &Digest) -> Option<Supply> {
        if let Some(flight) = flights.get(digest) {
            return Some(Supply::Flight(Arc::clone(flight)));
        }
        let copy = lock(&self.copies).get(digest).map(Arc::clone);
        copy.map(Supply::Copy)
    }

    pub(super) fn remember(&self, digest: Digest, copy: &Arc<Copy>) {
        lock(&self.copies).put(digest, Arc::clone(copy));
    }

    /// Closes an open copy that is of no use.
    pub(super) fn drop_copy(&self, digest: &Digest) {
        lock(&self.copies).pop(digest);
    }

    /// Takes a flight out of the map, unless another took its place.
    pub(super) fn forget(&self, flight: &Arc<Flight>) {
        let mut flights = lock(&self.flights);
        let known = flights.get(&flight.digest);
        if known.is_some_and(|known| Arc::ptr_eq(known, flight)) {
            flights.remove(&flight.digest);
        }
    }

    /// Takes a flight out of the map if nobody reads it; a later reader begins another one. Readers
    /// join under the same lock, so none is left with a flight that is given up.
    pub(super) fn forget_unread(&self, flight: &Arc<Flight>) -> bool {
        let mut flights = lock(&self.flights);
        let unread = self.readers(flight) == 0;
        if unread {
            flights.remove(&flight.digest);
        }
        unread
    }

    /// Readers of a flight besides the map and the task that drives it.
    pub(super) fn readers(&self, flight: &Arc<Flight>) -> usize {
        Arc::strong_count(flight).saturating_sub(2)
    }

    /// Puts a copy aside that failed its checksum.
    pub(super) async fn quarantine(&self, object: &ObjectId, copy: &Arc<Copy>) {
        let digest = object.digest();
        self.drop_copy(&digest);
        add(&self.disk.counters.quarantined, 1);
        tracing::warn!(%object, "put aside a damaged warm copy");
        let (layout, copy) = (self.layout.clone(), Arc::clone(copy));
        let _ = self
            .disk
            .run(move || copy.quarantine(&layout, &digest))
            .await;
    }

    /// Waits until `bytes` more may be on their way in.
    pub(super) async fn in_flight(&self, bytes: u64) -> OwnedSemaphorePermit {
        let count = permits(bytes).min(permits(self.config.in_flight.0));
        let permit = Arc::clone(&self.permits).acquire_many_owned(count).await;
        permit.expect("the semaphore is never closed")
    }

    /// Waits until `bytes` more fit into the bandwidth limit. Up to a second of unused bandwidth
    /// is kept for a burst.
    pub(super) async fn spend(&self, bytes: u64) {
        let rate = self.config.bandwidth.0;
        if rate == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let wait = {
            let mut next = lock(&self.next_write);
            let now = Instant::now();
            let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
            *next = (*next).max(earliest) + cost;
            next.saturating_duration_since(now)
        };
        sleep(wait).await;
    }

    /// Time between two renewals of a lease.
    pub(super) fn beat(&self) -> Duration {
        (self.config.lease_ttl.0 / 4).min(Duration::from_millis(500))
    }
}
