//! What all parts of an open tier share, and the gate to the disk.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::catalogue::Catalogue;
use super::config::HotConfig;
use super::directory::Directory;
use super::error::{HotError, HotErrorKind};
use super::health::{Health, Outcome};
use super::index::Index;
use super::ledger::Ledger;
use super::link::Links;
use super::pool::{Failure, Pool};
use super::record::Trust;
use super::stats::{Counters, add};
use super::sys::Uncached;
use crate::identity::Digest;
use crate::policy::Policy;

/// Called with the digest of every object that leaves the tier.
pub(super) type Listener = Box<dyn Fn(&Digest) + Send + Sync>;

/// The state of an open tier.
pub(super) struct Shared {
    pub(super) config: HotConfig,
    pub(super) directory: Directory,
    pub(super) index: Index,
    pub(super) trust: Trust,
    pub(super) ledger: Arc<Ledger>,
    pub(super) pool: Pool,
    pub(super) health: Health,
    pub(super) counters: Counters,
    pub(super) uncached: Uncached,
    pub(super) closed: AtomicBool,
    /// Woken when an object has left the directory.
    pub(super) left: Condvar,
    /// Wakes the sync thread.
    pub(super) signal: Signal,
    /// Wakes the watch thread, to end it.
    pub(super) quiet: Signal,
    /// Held during one round of the group sync.
    pub(super) round: Mutex<()>,
    /// Held while a sidecar is written; the last lock, after `round`.
    pub(super) sidecars: Mutex<()>,
    /// Objects that an earlier process filled and did not sync, until they are adopted.
    pub(super) orphans: Mutex<Vec<Digest>>,
    /// Failed group syncs that a caller of `sync` was told of.
    pub(super) told_failures: AtomicU64,
    /// Removals that the index refused; repeated until it takes them.
    pub(super) unfinished: Mutex<VecDeque<(Digest, u64)>>,
    pub(super) listeners: Mutex<Vec<Listener>>,
    pub(super) links: Links,
    catalogue: Mutex<Catalogue>,
    policy: Mutex<Box<dyn Policy>>,
    /// Bytes that residents may take, as the policy was told last.
    pub(super) room: AtomicU64,
    counter: AtomicU32,
}

/// Wakes a background thread.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    due: bool,
    stop: bool,
}

impl Signal {
    /// The thread should do its work now.
    pub(super) fn hurry(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .due = true;
        self.wake.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop = true;
        self.wake.notify_all();
    }

    /// Waits for the interval or a reason not to; `true` when the tier is being closed.
    pub(super) fn wait(&self, interval: std::time::Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .wake
            .wait_timeout_while(state, interval, |state| !state.due && !state.stop);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        state.stop
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.directory.root)
            .finish_non_exhaustive()
    }
}

/// The parts of [`Shared`] that recovery builds.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: HotConfig,
    pub(super) directory: Directory,
    pub(super) index: Index,
    pub(super) trust: Trust,
    pub(super) pool: Pool,
    pub(super) catalogue: Catalogue,
    pub(super) policy: Box<dyn Policy>,
    pub(super) orphans: Vec<Digest>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            room: AtomicU64::new(parts.config.limit_bytes),
            config: parts.config,
            directory: parts.directory,
            index: parts.index,
            trust: parts.trust,
            ledger: Arc::new(Ledger::start()),
            pool: parts.pool,
            health: Health::new("hot"),
            counters: Counters::default(),
            uncached: Uncached::new(),
            closed: AtomicBool::new(false),
            left: Condvar::new(),
            signal: Signal::default(),
            quiet: Signal::default(),
            round: Mutex::new(()),
            sidecars: Mutex::new(()),
            orphans: Mutex::new(parts.orphans),
            told_failures: AtomicU64::new(0),
            unfinished: Mutex::default(),
            listeners: Mutex::default(),
            links: Links::default(),
            catalogue: Mutex::new(parts.catalogue),
            policy: Mutex::new(parts.policy),
            counter: AtomicU32::new(0),
        }
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn policy(&self) -> MutexGuard<'_, Box<dyn Policy>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a new data file that no other file ever had.
    pub(super) fn next_incarnation(&self) -> u64 {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        u64::from(self.trust.starts) << 32 | u64::from(counter)
    }

    /// Whether `incarnation` was handed out by this process.
    pub(super) fn is_own(&self, incarnation: u64) -> bool {
        incarnation >> 32 == u64::from(self.trust.starts)
    }

    /// Refuses work when the tier is closed or its disk is not to be used.
    pub(super) fn admit(&self, operation: &'static str) -> Result<(), HotError> {
        let refuse = |reason| {
            let root = &self.directory.root;
            Err(HotError::new(HotErrorKind::Closed, operation, root, reason))
        };
        if self.closed.load(Ordering::Acquire) {
            return refuse("the hot tier is closed");
        }
        if !self.health.admits() {
            add(&self.counters.refused, 1);
            return refuse("the disk of the hot tier is not reliable now");
        }
        Ok(())
    }

    /// Runs `job` on a thread that may hang, and waits for it with a deadline.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        job: impl FnOnce(&Arc<Self>) -> Result<T, HotError> + Send + 'static,
    ) -> Result<T, HotError> {
        self.admit(operation)?;
        let shared = Arc::clone(self);
        let answer = self.pool.run(self.config.operation_timeout, move || {
            let _permit = shared.health.enter();
            job(&shared)
        });
        self.settle(operation, answer)
    }

    /// Like [`Shared::run`] without blocking the thread. Dropping the future does not stop the job.
    pub(super) async fn run_async<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        job: impl FnOnce(&Arc<Self>) -> Result<T, HotError> + Send + 'static,
    ) -> Result<T, HotError> {
        self.admit(operation)?;
        let shared = Arc::clone(self);
        let running = self.pool.run_async(self.config.operation_timeout, move || {
            let _permit = shared.health.enter();
            job(&shared)
        });
        let answer = running.await;
        self.settle(operation, answer)
    }

    fn settle<T>(
        &self,
        operation: &'static str,
        answer: Result<Result<T, HotError>, Failure>,
    ) -> Result<T, HotError> {
        let root: &Path = &self.directory.root;
        match answer {
            Ok(result) => {
                self.report(result.as_ref().err());
                result
            }
            Err(Failure::Overrun) => {
                add(&self.counters.timeouts, 1);
                self.health.report(Outcome::Overrun, false);
                let limit = self.config.operation_timeout;
                let reason = format!("the disk did not answer within {limit:?}");
                tracing::warn!(operation, %reason, "hot tier operation overran");
                Err(HotError::new(
                    HotErrorKind::Timeout,
                    operation,
                    root,
                    reason,
                ))
            }
            Err(Failure::Busy) => {
                add(&self.counters.refused, 1);
                let reason = "too many operations wait for the disk";
                Err(HotError::new(
                    HotErrorKind::Timeout,
                    operation,
                    root,
                    reason,
                ))
            }
            Err(Failure::Gone) => {
                let reason = "the hot tier is closed";
                Err(HotError::new(HotErrorKind::Closed, operation, root, reason))
            }
        }
    }

    /// Tells the state machine of the disk how an operation ended.
    pub(super) fn report(&self, error: Option<&HotError>) {
        match error {
            Some(error) if error.kind == HotErrorKind::Io => {
                add(&self.counters.disk_errors, 1);
                tracing::warn!(%error, "hot tier disk error");
                self.health.report(Outcome::Error, false);
            }
            _ => self.health.report(Outcome::Good, false),
        }
    }
}
