//! Bytes a second that stores may deliver together: one store's own limit, or one over all stores of a
//! tenant.
//!
//! Who spends more than there is waits until it has come together; first come, first served. The lock
//! is held for a few arithmetic operations, never across an await.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::units::ByteSize;

/// See the module text.
#[derive(Debug)]
pub struct Bandwidth {
    rate: u64,
    /// When everything that was spent will have come together.
    next: Mutex<Instant>,
}

impl Bandwidth {
    /// So many bytes a second; 0 is no limit.
    pub fn new(rate: ByteSize) -> Self {
        Self {
            rate: rate.0,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` more fit. Up to a second of what was not used is kept for a burst. What was
    /// spent stays spent when the caller gives up waiting.
    pub(super) async fn spend(&self, bytes: usize) {
        if self.rate == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
            *next = (*next).max(earliest) + cost;
            next.saturating_duration_since(now)
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::StoreConfig;
    use super::super::traffic::Traffic;
    use super::*;

    // Without it a tenant with many mounts would have a multiple of its bandwidth.
    #[tokio::test(start_paused = true)]
    async fn several_stores_share_one_limit() {
        let shared = Arc::new(Bandwidth::new(ByteSize(1 << 20)));
        let stores: Vec<_> = (0..2)
            .map(|_| {
                let traffic = Traffic::new(&StoreConfig::default());
                traffic.shared.set(Arc::clone(&shared)).ok();
                traffic
            })
            .collect();
        let start = Instant::now();
        let pieces = (0..8).map(|piece| stores[piece % 2].spend(1 << 20));
        futures::future::join_all(pieces).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((7.0..=8.1).contains(&seconds), "{seconds}");
    }
}
