//! File operations on the shared directory: bounded, with a deadline, counted and judged.
//!
//! A missing or existing file is an answer, and so is one that another node unlinked meanwhile. A full directory pauses fills. Anything else that goes
//! wrong is reported to the health machine; while that says "down", operations are refused at once.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::copy::is_gone;
use super::stats::{Counters, add};
use crate::hot::health::{Health, Outcome};
use crate::hot::pool::{Failure, Pool, PoolThreads};

/// How long fills pause after the directory was found full.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// A sync waits for bytes and not only for an answer: it gets this many deadlines.
pub(super) const SYNC_DEADLINES: u32 = 12;

/// Why the directory was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Down, busy or too slow.
    #[error("the warm directory does not answer")]
    Unavailable,
    /// No space or no inodes.
    #[error("the warm directory is full")]
    Full,
    /// A file is damaged or not what its name says.
    #[error("a copy is damaged")]
    Corrupt,
    /// Any other error of an operation.
    #[error("{0}")]
    Io(io::Error),
}

/// See the module text. The threads end when the last clone is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    pool: Pool,
    _threads: PoolThreads,
    pub(super) health: Arc<Health>,
    pub(super) counters: Counters,
    deadline: Duration,
    full_until: Mutex<Option<Instant>>,
}

impl Disk {
    pub(super) fn start(threads: usize, deadline: Duration) -> io::Result<Self> {
        let (pool, threads) = Pool::start("warm-io", threads)?;
        Ok(Self {
            pool,
            _threads: threads,
            health: Arc::new(Health::new("warm")),
            counters: Counters::default(),
            deadline,
            full_until: Mutex::new(None),
        })
    }

    /// Runs one operation. Dropping the future does not stop it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        self.run_within(1, job).await
    }

    /// Like [`Disk::run`], with a multiple of the deadline.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        deadlines: u32,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        if !self.health.admits() {
            return Err(Fault::Unavailable);
        }
        self.attempt(deadlines, false, job).await
    }

    /// Runs an operation although the directory is down, to see whether it still is.
    pub(super) async fn probe<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) {
        let _ = self.attempt(1, true, job).await;
    }

    async fn attempt<T: Send + 'static>(
        &self,
        deadlines: u32,
        probe: bool,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let health = Arc::clone(&self.health);
        let work = move || {
            let _permit = health.enter();
            job()
        };
        let (outcome, result) = match self.pool.run_async(self.deadline * deadlines, work).await {
            Ok(Ok(value)) => (Outcome::Good, Ok(value)),
            Ok(Err(error)) => self.judge(error),
            Err(Failure::Overrun) => (Outcome::Overrun, Err(Fault::Unavailable)),
            Err(Failure::Busy | Failure::Gone) => return Err(Fault::Unavailable),
        };
        if outcome != Outcome::Good {
            add(&self.counters.faults, 1);
        }
        self.health.report(outcome, probe);
        result
    }

    fn judge<T>(&self, error: io::Error) -> (Outcome, Result<T, Fault>) {
        match error.kind() {
            io::ErrorKind::AlreadyExists => (Outcome::Good, Err(Fault::Io(error))),
            _ if is_gone(&error) => (Outcome::Good, Err(Fault::Io(error))),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let mut full = self
                    .full_until
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *full = Some(Instant::now() + FULL_PAUSE);
                (Outcome::Good, Err(Fault::Full))
            }
            io::ErrorKind::InvalidData => (Outcome::Good, Err(Fault::Corrupt)),
            _ => (Outcome::Error, Err(Fault::Io(error))),
        }
    }

    /// Whether the directory was found full a short while ago.
    pub(super) fn is_full(&self) -> bool {
        let full = self
            .full_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        full.is_some_and(|until| Instant::now() < until)
    }

    /// Room was made: fills may go on.
    pub(super) fn not_full(&self) {
        *self
            .full_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}
