//! Reading a whole file back, and what its bytes are.
//!
//! A pace bounds how many bytes a second all readers that share it take together: a scrub must not be
//! noticed by those who train.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::upstream::{UpFile, Upstream, UpstreamError, UpstreamErrorKind};
use crate::vault::PIECE;

/// SHA-256 of some bytes.
pub(crate) type Sum = [u8; 32];

/// At most so many bytes a second, over all who share it.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    next: Mutex<Instant>,
}

impl Pace {
    /// 0 is no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes more may be read.
    pub(crate) async fn spend(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = (*next).max(now);
            *next = turn + cost;
            turn.saturating_duration_since(now)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// Reads all of a file, of exactly this version; the SHA-256 of its bytes. `read` is told how many
/// bytes came, again and again.
pub(crate) async fn digest_of(
    upstream: &dyn Upstream,
    file: &UpFile,
    pace: &Pace,
    read: impl Fn(u64) + Send + Sync,
) -> Result<Sum, UpstreamError> {
    let mut hash = Sha256::new();
    let mut from = 0;
    while from < file.size {
        let to = file.size.min(from + PIECE);
        pace.spend(to - from).await;
        let bytes = upstream.read(file, from..to).await?;
        if bytes.len() as u64 != to - from {
            let text = format!("{}: fewer bytes than asked for", file.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Corrupt, text));
        }
        hash.update(&bytes);
        read(to - from);
        from = to;
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a scrub would take all the bandwidth of the store that training reads from.
    #[tokio::test(start_paused = true)]
    async fn readers_together_keep_the_pace() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        futures::future::join_all((0..11).map(|_| pace.spend(500))).await;
        assert_eq!(begun.elapsed().as_millis(), 5000);
        Pace::new(0).spend(u64::MAX).await;
        assert_eq!(begun.elapsed().as_millis(), 5000);
    }
}
