//! How one store may be talked to: slots, bandwidth, deadlines and retries, shared by everyone.
//!
//! Data and metadata have separate slots, so that a `stat` does not wait behind bulk reads. A slot
//! is held for one attempt, body included, and never during a pause. No lock is held across an
//! await; both semaphores are first come, first served.
//!
//! [`Attempts`] is the memory of one operation: what it has waited for the store (time in which the
//! caller did not ask for more does not count) and how often it has tried without progress.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::bandwidth::Bandwidth;
use super::failure::{Failure, Retry};
use super::retry::RetryPolicy;
use super::stats::{Counters, Operation};
use super::{StoreConfig, StoreErrorKind};

/// Attempts that may end with a self-contradicting answer: a broken proxy does not heal by asking.
const CORRUPT_ATTEMPTS: u32 = 3;

/// Shared by all operations of one store.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) config: StoreConfig,
    pub(super) counters: Counters,
    retry: RetryPolicy,
    data: Arc<Semaphore>,
    metadata: Arc<Semaphore>,
    bandwidth: Bandwidth,
    /// A limit over several stores.
    pub(super) shared: OnceLock<Arc<Bandwidth>>,
}

/// Permission to have one request in flight; counted while it lives.
#[derive(Debug)]
pub(super) struct Slot {
    traffic: Arc<Traffic>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.traffic.counters.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Traffic {
    pub(super) fn new(config: &StoreConfig) -> Arc<Self> {
        Arc::new(Self {
            counters: Counters::default(),
            retry: RetryPolicy::new(config),
            data: Arc::new(Semaphore::new(config.concurrency as usize)),
            metadata: Arc::new(Semaphore::new(config.metadata_concurrency as usize)),
            bandwidth: Bandwidth::new(config.bandwidth),
            shared: OnceLock::new(),
            config: config.clone(),
        })
    }

    async fn slot(self: &Arc<Self>, operation: Operation) -> Slot {
        let semaphore = match operation {
            Operation::Read | Operation::Write => &self.data,
            Operation::Head | Operation::List | Operation::Remove => &self.metadata,
        };
        let permit = Arc::clone(semaphore).acquire_owned().await;
        self.counters.in_flight.fetch_add(1, Relaxed);
        Slot {
            traffic: Arc::clone(self),
            _permit: permit.expect("the semaphores are never closed"),
        }
    }

    /// Waits until `bytes` more fit into the store's bandwidth limit, and into the one that it shares
    /// with others.
    pub(super) async fn spend(&self, bytes: usize) {
        self.bandwidth.spend(bytes).await;
        if let Some(shared) = self.shared.get() {
            shared.spend(bytes).await;
        }
    }

    /// Runs one operation that gives a whole answer (head, one page of a listing) until it is
    /// answered or given up.
    pub(super) async fn run<T, F>(
        self: &Arc<Self>,
        operation: Operation,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.run_for(operation, Duration::ZERO, attempt).await
    }

    /// The same with more time, for each attempt and for all of them: it sends bytes first.
    pub(super) async fn run_for<T, F>(
        self: &Arc<Self>,
        operation: Operation,
        extra: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut attempts = Attempts::new(self, operation, extra);
        loop {
            let slot = attempts.slot().await?;
            let limit = self.config.attempt_timeout.0 + extra;
            let answer = attempts.wait(limit, attempt()).await;
            drop(slot);
            let failure = match answer.unwrap_or_else(Err) {
                Ok(answer) => {
                    self.counters.record(operation, Ok(()));
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            attempts.again(failure).await?;
        }
    }
}

/// One operation's account of time and tries.
#[derive(Debug)]
pub(super) struct Attempts {
    traffic: Arc<Traffic>,
    operation: Operation,
    left: Duration,
    failed: u32,
    corrupt: u32,
    renewed: bool,
}

impl Attempts {
    /// `extra` is added to the configured deadline.
    pub(super) fn new(traffic: &Arc<Traffic>, operation: Operation, extra: Duration) -> Self {
        Self {
            traffic: Arc::clone(traffic),
            operation,
            left: traffic.config.deadline.0 + extra,
            failed: 0,
            corrupt: 0,
            renewed: false,
        }
    }

    /// Waits for the store: at most `limit` and at most what is left of the deadline.
    pub(super) async fn wait<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let limit = limit.min(self.left);
        let start = Instant::now();
        let result = timeout(limit, work).await;
        self.left = self.left.saturating_sub(start.elapsed());
        result
            .map_err(|_| Failure::unreachable(format!("no answer within {} ms", limit.as_millis())))
    }

    /// A slot for one attempt; the time in the queue counts.
    pub(super) async fn slot(&mut self) -> Result<Slot, Failure> {
        let traffic = Arc::clone(&self.traffic);
        let (operation, limit) = (self.operation, self.left);
        let queued = self.wait(limit, traffic.slot(operation)).await;
        queued.map_err(|_| {
            let reason = "all request slots stayed busy until the deadline";
            Failure::last(StoreErrorKind::Unreachable, reason)
        })
    }

    /// New bytes came: what failed before is forgiven, except answers that contradict themselves.
    pub(super) fn progress(&mut self) {
        self.failed = 0;
        self.renewed = false;
    }

    /// After a failed attempt: returns when the next one may start, or gives the failure back when
    /// there must be none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        let traffic = Arc::clone(&self.traffic);
        traffic.counters.record(self.operation, Err(failure.kind));
        let pause = match failure.retry {
            Retry::Never => return Err(failure),
            Retry::Once if self.renewed => return Err(failure),
            Retry::Once => Duration::ZERO,
            Retry::Pause => traffic.retry.pause(self.failed + 1),
            Retry::After(asked) => asked.max(traffic.retry.pause(self.failed + 1)),
        };
        self.renewed |= failure.retry == Retry::Once;
        self.failed += 1;
        self.corrupt += u32::from(failure.kind == StoreErrorKind::Corrupt);
        if self.failed >= traffic.config.attempts
            || self.corrupt >= CORRUPT_ATTEMPTS
            || pause >= self.left
        {
            return Err(failure);
        }
        let Some(queue) = traffic.retry.take(self.left - pause) else {
            return Err(failure);
        };
        traffic.counters.retries.fetch_add(1, Relaxed);
        tracing::debug!(
            operation = self.operation.verb(),
            reason = %failure.reason,
            pause_ms = (pause + queue).as_millis() as u64,
            "try again"
        );
        sleep(pause + queue).await;
        self.left = self.left.saturating_sub(pause + queue);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::units::{ByteSize, Span};

    // Without it a hung store would hang its readers, or be asked without end.
    #[tokio::test(start_paused = true)]
    async fn a_hung_store_ends_by_the_deadline() {
        let traffic = Traffic::new(&StoreConfig {
            attempt_timeout: Span(Duration::from_secs(2)),
            deadline: Span(Duration::from_secs(7)),
            jitter_seed: Some(1),
            ..StoreConfig::default()
        });
        let start = Instant::now();
        let mut tries = 0;
        let hang = || {
            tries += 1;
            std::future::pending::<Result<(), Failure>>()
        };
        let failure = traffic.run(Operation::Head, hang).await.unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::Unreachable);
        assert!(
            start.elapsed() <= Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(tries, 4);
        assert_eq!(traffic.counters.snapshot().in_flight, 0);
    }

    // Without it the bandwidth limit would be a wish.
    #[tokio::test(start_paused = true)]
    async fn bandwidth_is_limited_over_all_readers() {
        let bandwidth = ByteSize(1 << 20);
        let traffic = Traffic::new(&StoreConfig {
            bandwidth,
            ..StoreConfig::default()
        });
        let start = Instant::now();
        futures::future::join_all((0..8).map(|_| traffic.spend(1 << 20))).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((7.0..=8.1).contains(&seconds), "{seconds}");
    }
}
