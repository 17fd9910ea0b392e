//! Whether the catalog can be asked, and what it costs when it cannot.
//!
//! A catalog that is down must not slow the mount down: after a failure it is left alone for a pause,
//! which doubles while it stays down, and questions within the pause get the last failure at once.
//! Whoever has an older answer uses it then. The log has one line when it begins and one when it ends.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use terrace_cache::store::{StoreError, StoreErrorKind};

use crate::live::Clock;

/// First pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A time without the catalog.
#[derive(Debug)]
struct Down {
    since: Duration,
    until: Duration,
    pause: Duration,
    error: StoreError,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Reach {
    clock: Arc<dyn Clock>,
    down: Mutex<Option<Down>>,
    stale: AtomicU64,
}

/// Whether an error says that the catalog could not answer, as opposed to its answer.
pub(super) fn is_down(error: &StoreError) -> bool {
    match error.kind {
        StoreErrorKind::Unreachable | StoreErrorKind::Throttled | StoreErrorKind::Corrupt => true,
        StoreErrorKind::NotFound
        | StoreErrorKind::Permission
        | StoreErrorKind::Changed
        | StoreErrorKind::Invalid => false,
    }
}

impl Reach {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            down: Mutex::new(None),
            stale: AtomicU64::new(0),
        }
    }

    /// Asks, unless the catalog is being left alone. With `patience`, an answer that takes longer
    /// counts as none: the caller has an older one.
    pub(super) async fn ask<T>(
        &self,
        patience: Option<Duration>,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if let Some(error) = self.pausing() {
            return Err(error);
        }
        let answer = match patience {
            None => question.await,
            Some(patience) => tokio::time::timeout(patience, question)
                .await
                .unwrap_or_else(|_| Err(no_answer(patience))),
        };
        match &answer {
            Err(error) if is_down(error) => self.failed(error),
            Ok(_) | Err(_) => self.answered(),
        }
        answer
    }

    /// Counts an older answer that was used.
    pub(super) fn used_older(&self) {
        self.stale.fetch_add(1, Relaxed);
    }

    /// Older answers used so far.
    pub(super) fn stale(&self) -> u64 {
        self.stale.load(Relaxed)
    }

    /// For how long the catalog has been down, and why.
    pub(super) fn down(&self) -> Option<(Duration, String)> {
        let down = self.lock();
        let down = down.as_ref()?;
        let since = self.clock.now().saturating_sub(down.since);
        Some((since, down.error.to_string()))
    }

    fn pausing(&self) -> Option<StoreError> {
        let now = self.clock.now();
        let down = self.lock();
        let down = down.as_ref().filter(|down| now < down.until)?;
        Some(down.error.clone())
    }

    fn failed(&self, error: &StoreError) {
        let now = self.clock.now();
        let mut down = self.lock();
        let (since, pause) = match &*down {
            None => {
                tracing::warn!(%error, "the catalog does not answer: last known versions are shown");
                (now, PAUSE)
            }
            Some(down) => (down.since, (down.pause * 2).min(PAUSE_MAX)),
        };
        *down = Some(Down {
            since,
            until: now + pause,
            pause,
            error: error.clone(),
        });
    }

    fn answered(&self) {
        if let Some(down) = self.lock().take() {
            let seconds = self.clock.now().saturating_sub(down.since).as_secs();
            tracing::info!(seconds, "the catalog answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Down>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_answer(patience: Duration) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unreachable,
        operation: "ask",
        target: "the catalog".to_owned(),
        reason: format!("no answer within {} ms", patience.as_millis()),
    }
}
