//! Names that were just found to be free.
//!
//! The kernel looks a name up before it makes it, so most requests that make a name follow a look-up
//! that was answered "there is none". Making it needs the same answer once more, as evidence
//! (`intents.rs`), and on a shared file system that is one more round trip. So an answer is remembered
//! until the name is made, or for [`BELIEVED`].
//!
//! This is no cache of absence: every look-up asks the directory. Nor does it decide whether a name is
//! made: the directory does, exclusively. It says only what was there before, which matters when a worker
//! is killed within the operation, and then only if another node made the same name within that time.
//!
//! Lock: one mutex over the map, never held over a call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::live::Bounded;

/// Names remembered at most, about 150 bytes each.
const NAMES: usize = 4 << 10;

/// A program that looks a name up makes it at once; after longer somebody else may have.
const BELIEVED: Duration = Duration::from_millis(500);

/// Number of a directory and a name in it.
type Name = (u64, Box<[u8]>);

/// See the module text.
#[derive(Debug)]
pub(super) struct Absent {
    names: Mutex<Bounded<Name, Instant>>,
}

impl Default for Absent {
    fn default() -> Self {
        Self {
            names: Mutex::new(Bounded::new(NAMES)),
        }
    }
}

impl Absent {
    /// A look-up is answered: there is no such name.
    pub(super) fn note(&self, parent: u64, name: &[u8]) {
        self.lock().insert((parent, name.into()), Instant::now());
    }

    /// Whether the name was just found to be free; not asked twice.
    pub(super) fn take(&self, parent: u64, name: &[u8]) -> bool {
        let found = self.lock().remove(&(parent, name.into()));
        found.is_some_and(|at| at.elapsed() < BELIEVED)
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<Name, Instant>> {
        // The map is whole after each of its calls.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a name that was made would be taken for free when it is made again.
    #[test]
    fn an_answer_serves_once() {
        let absent = Absent::default();
        absent.note(1, b"a");
        assert!(!absent.take(2, b"a"));
        assert!(!absent.take(1, b"b"));
        assert!(absent.take(1, b"a"));
        assert!(!absent.take(1, b"a"));
    }
}
