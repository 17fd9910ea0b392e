//! When to try again: exponential back-off with jitter, and one budget per store.
//!
//! Back-off alone does not stop a storm: thousands of readers that each retry politely are still a
//! storm. So retries of all operations draw tokens from one bucket; when it is empty they queue for
//! its refill, and fail when their turn would come after their deadline. The first attempt of an
//! operation needs no token.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::StoreConfig;

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Pauses and budget of one store.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    first_pause: Duration,
    burst: f64,
    per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    jitter: StdRng,
    tokens: f64,
    filled: Instant,
}

impl RetryPolicy {
    pub(super) fn new(config: &StoreConfig) -> Self {
        Self {
            first_pause: config.backoff.0,
            burst: f64::from(config.retry_burst),
            per_second: f64::from(config.retries_per_second),
            state: Mutex::new(State {
                jitter: match config.jitter_seed {
                    Some(seed) => StdRng::seed_from_u64(seed),
                    None => rand::make_rng(),
                },
                tokens: f64::from(config.retry_burst),
                filled: Instant::now(),
            }),
        }
    }

    /// Pause before attempt number `attempt` (1 is the first retry): half fixed, half random, so
    /// that readers that failed together do not come back together, and none comes back at once.
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self
            .first_pause
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let whole = doubled.min(MAX_PAUSE);
        let share: f64 = self.lock().jitter.random();
        whole.mul_f64(0.5 + share / 2.0)
    }

    /// Takes a token and tells how long to wait for it; `None` (nothing taken) when that would be
    /// longer than `limit`.
    pub(super) fn take(&self, limit: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let now = Instant::now();
        let gained = now.duration_since(state.filled).as_secs_f64() * self.per_second;
        let tokens = (state.tokens + gained).min(self.burst) - 1.0;
        let wait = Duration::from_secs_f64((-tokens / self.per_second).max(0.0));
        if wait > limit {
            return None;
        }
        state.tokens = tokens;
        state.filled = now;
        Some(wait)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is plain numbers: it is whole whatever panicked while it was held.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn policy(burst: u32, per_second: u32) -> RetryPolicy {
        RetryPolicy::new(&StoreConfig {
            retry_burst: burst,
            retries_per_second: per_second,
            jitter_seed: Some(7),
            ..StoreConfig::default()
        })
    }

    // Without it pauses could be zero (a storm) or differ between runs of one seed.
    #[test]
    fn pauses_grow_with_jitter_and_repeat_by_seed() {
        let pauses = |policy: &RetryPolicy| -> Vec<Duration> {
            (1..12).map(|attempt| policy.pause(attempt)).collect()
        };
        let first = pauses(&policy(1, 1));
        assert_eq!(first, pauses(&policy(1, 1)));
        for (attempt, pause) in first.iter().enumerate() {
            let whole = Duration::from_millis(100 << attempt).min(MAX_PAUSE);
            assert!(
                *pause >= whole / 2 && *pause <= whole,
                "{attempt}: {pause:?}"
            );
        }
    }

    // Without it an outage would be answered by as many retries as there are readers.
    #[tokio::test(start_paused = true)]
    async fn budget_bounds_retries() {
        let policy = policy(3, 2);
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(policy.take(second), Some(Duration::ZERO));
        }
        assert_eq!(policy.take(second), Some(second / 2));
        assert_eq!(policy.take(second), Some(second));
        assert_eq!(policy.take(second), None);
        tokio::time::advance(second).await;
        assert_eq!(policy.take(second).unwrap(), second / 2);
    }
}
