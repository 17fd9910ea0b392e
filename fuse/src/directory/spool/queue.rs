//! Which file is to be copied when. One entry for each time a file becomes due; what an entry finds when
//! its time comes decides what is done, so an entry too many costs a look.
//!
//! Bound: files of the spool, times the attempts that are under way with each, which is one.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::lock;

/// First pause after an attempt that failed, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Debug, Default)]
struct Inner {
    due: BTreeSet<(Instant, u64)>,
    stopped: bool,
}

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What a thread is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Copy this file.
    File(u64),
    /// Nothing became due in time.
    Nothing,
    /// End.
    Stop,
}

impl Queue {
    pub(super) fn add(&self, node: u64, due: Instant) {
        lock(&self.inner).due.insert((due, node));
        self.changed.notify_one();
    }

    /// The next file, which is taken off; waits for at most `patience`.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let mut inner = lock(&self.inner);
        let end = Instant::now() + patience;
        loop {
            if inner.stopped {
                return Next::Stop;
            }
            let now = Instant::now();
            let until = match inner.due.first().copied() {
                Some((due, node)) if due <= now => {
                    inner.due.pop_first();
                    return Next::File(node);
                }
                Some((due, _)) => due.min(end),
                None => end,
            };
            if now >= end {
                return Next::Nothing;
            }
            let waited = self.changed.wait_timeout(inner, until - now);
            inner = match waited {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Every thread ends after what it does now.
    pub(super) fn stop(&self) {
        lock(&self.inner).stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.inner).stopped
    }
}

/// How long to wait after so many failures: doubled each time, and spread, so that a directory that
/// comes back is not met by everybody at once.
pub(in super::super) fn pause(attempts: u32) -> Duration {
    let doubled = PAUSE
        .0
        .saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let longest = doubled.min(PAUSE.1);
    // A hasher of its own is seeded by the system.
    let part = RandomState::new().hash_one(attempts) % 1000;
    longest / 2 + longest.mul_f64(part as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a directory that is down for long would be asked at every moment, or never again.
    #[test]
    fn pauses_grow_and_end() {
        for attempts in [1, 2, 7, 40, u32::MAX] {
            let pause = pause(attempts);
            assert!(
                pause >= PAUSE.0 / 2 && pause <= PAUSE.1,
                "{attempts}: {pause:?}"
            );
        }
        assert!(pause(12) >= PAUSE.1 / 2);
    }

    // Without it a file would be copied before its time, or a thread not end.
    #[test]
    fn files_come_in_the_order_of_their_times() {
        let queue = Queue::default();
        let now = Instant::now();
        queue.add(1, now + Duration::from_secs(600));
        queue.add(2, now);
        assert_eq!(queue.next(Duration::ZERO), Next::File(2));
        assert_eq!(queue.next(Duration::ZERO), Next::Nothing);
        queue.stop();
        assert_eq!(queue.next(Duration::from_secs(600)), Next::Stop);
    }
}
