//! Who does what with a file's contents right now: opens, or one mover.
//!
//! An open of a file *enters* from before it looks whether the contents are there until its handle
//! is recorded. Moving them (the last steps of a demotion, a recall) needs the file for itself: a
//! mover *closes* it, which waits for those who have entered and refuses new ones, who wait in turn.
//! So no open sees a file that is emptied under it, and no file is emptied that is being opened.
//!
//! While a file is closed, the attributes that applications shall see may be told here.
//!
//! Lock order: the map, then the time of the last end; each held for a look-up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::record::Time;

/// No request takes longer between reading attributes and telling them.
const MOMENT: Duration = Duration::from_secs(10);

/// Length and time that are shown in place of a file's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) size: u64,
    pub(super) mtime: Time,
}

#[derive(Debug, Default)]
struct Gate {
    entered: u32,
    closed: bool,
    shown: Option<Shown>,
}

/// See the module text. Files are known by their inode numbers.
#[derive(Debug, Default)]
pub(super) struct Gates {
    files: Mutex<HashMap<u64, Gate>>,
    /// Closed files that are shown otherwise; spares a look into the map when there is none.
    shown: AtomicUsize,
    /// Changes when a file begins or ends to be shown otherwise.
    turn: AtomicU64,
    /// When one has ended last.
    ended: Mutex<Option<Instant>>,
    changed: Notify,
}

/// An open that is under way.
#[derive(Debug)]
pub(in super::super) struct Entered<'a> {
    gates: &'a Gates,
    number: u64,
}

/// A file that nobody opens.
#[derive(Debug)]
pub(super) struct Closed<'a> {
    gates: &'a Gates,
    number: u64,
}

impl Gates {
    /// Begins an open; `None` while the file is closed.
    pub(super) fn enter(&self, number: u64) -> Option<Entered<'_>> {
        let mut files = self.lock();
        let gate = files.entry(number).or_default();
        if gate.closed {
            return None;
        }
        gate.entered += 1;
        Some(Entered {
            gates: self,
            number,
        })
    }

    /// Takes a file for itself; `None` while somebody else has it or opens it.
    pub(super) fn try_close(&self, number: u64) -> Option<Closed<'_>> {
        let mut files = self.lock();
        let gate = files.entry(number).or_default();
        if gate.closed || gate.entered > 0 {
            return None;
        }
        gate.closed = true;
        Some(Closed {
            gates: self,
            number,
        })
    }

    /// Takes a file for itself when it is free. Cancelled by dropping.
    pub(super) async fn close(&self, number: u64) -> Closed<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change in between is missed.
            changed.as_mut().enable();
            if let Some(closed) = self.try_close(number) {
                return closed;
            }
            changed.await;
        }
    }

    /// What is shown in place of a file's own attributes.
    pub(super) fn shown(&self, number: u64) -> Option<Shown> {
        if self.shown.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().get(&number)?.shown
    }

    /// Changes when the attributes of any file begin or end to be others than its own: what was
    /// looked at while it was the same belongs together.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Whether attributes that were read a moment ago may be of a file that was being moved.
    pub(super) fn is_busy(&self) -> bool {
        if self.turn.load(Ordering::Acquire) == 0 {
            return false;
        }
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        self.shown.load(Ordering::Acquire) > 0
            || ended.is_some_and(|ended| ended.elapsed() < MOMENT)
    }

    fn leave(&self, number: u64, change: impl FnOnce(&mut Gate)) {
        let mut files = self.lock();
        if let Entry::Occupied(mut gate) = files.entry(number) {
            change(gate.get_mut());
            let gate_now = gate.get();
            if gate_now.entered == 0 && !gate_now.closed {
                gate.remove();
            }
        }
        drop(files);
        self.changed.notify_waiters();
    }

    /// Nothing under this lock is left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Gate>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Closed<'_> {
    /// Shows these attributes until the file is open to all again.
    pub(super) fn show(&self, shown: Shown) {
        let mut files = self.gates.lock();
        if let Some(gate) = files.get_mut(&self.number)
            && gate.shown.replace(shown).is_none()
        {
            self.gates.shown.fetch_add(1, Ordering::AcqRel);
            self.gates.turn.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.gates.leave(self.number, |gate| gate.entered -= 1);
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let gates = self.gates;
        gates.leave(self.number, |gate| {
            gate.closed = false;
            if gate.shown.take().is_some() {
                let mut ended = gates.ended.lock().unwrap_or_else(PoisonError::into_inner);
                *ended = Some(Instant::now());
                drop(ended);
                gates.turn.fetch_add(1, Ordering::AcqRel);
                gates.shown.fetch_sub(1, Ordering::AcqRel);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a file could be emptied while somebody opens it, or never be opened again.
    #[tokio::test]
    async fn opens_and_movers_exclude_each_other() {
        let gates = Gates::default();
        let (one, two) = (gates.enter(7).unwrap(), gates.enter(7).unwrap());
        assert!(gates.try_close(7).is_none());
        drop(one);
        let waiting = gates.close(7);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(two);
        let closed = waiting.await;
        assert!(gates.enter(7).is_none() && gates.try_close(7).is_none());
        assert!(gates.enter(8).is_some());
        let shown = Shown {
            size: 9,
            mtime: Time {
                seconds: 1,
                nanoseconds: 2,
            },
        };
        assert!(!gates.is_busy());
        let turn = gates.turn();
        closed.show(shown);
        assert_eq!((gates.shown(7), gates.shown(8)), (Some(shown), None));
        assert!(gates.is_busy() && gates.turn() != turn);
        let turn = gates.turn();
        drop(closed);
        assert_eq!(gates.shown(7), None);
        assert!(gates.is_busy() && gates.turn() != turn);
        assert!(gates.enter(7).is_some());
        assert!(gates.lock().is_empty(), "nothing is kept of files at rest");
    }
}
