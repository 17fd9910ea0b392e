//! Directories that were just made here, and the names in them.
//!
//! The kernel looks every name up before it makes it. Who unpacks a tree makes a directory and then what is in
//! it, so most of those look-ups are for names that nobody can have made. On a shared file system each would
//! be a round trip.
//!
//! ```text
//! mkdir ----> empty, at a moment before it was made
//! make, link, rename to, find ----> the name may be there: ask
//! any other name, within `ttl` of that moment ----> there is none
//! ```
//!
//! Another node may have made a name there meanwhile; that there was none is believed for as long as any
//! other answer about a name. When a name that is to be made turns out to be taken, others work there, too, and
//! the directory is asked about from then on; so the kernel is not told to remember such an answer.
//!
//! Lock: one mutex over the map, never held over a call.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::live::Bounded;

/// Directories remembered at most: those that are being filled.
const DIRECTORIES: usize = 64;

/// Names in each, about 100 bytes each; a directory with more is asked about.
const NAMES: usize = 4 << 10;

#[derive(Debug)]
struct Made {
    at: Instant,
    names: HashSet<Box<[u8]>>,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Young {
    directories: Mutex<Bounded<u64, Made>>,
}

impl Default for Young {
    fn default() -> Self {
        Self {
            directories: Mutex::new(Bounded::new(DIRECTORIES)),
        }
    }
}

impl Young {
    /// A directory was made, not before this moment.
    pub(super) fn made(&self, directory: u64, at: Instant) {
        let names = HashSet::new();
        self.lock().insert(directory, Made { at, names });
    }

    /// A directory has this name, or may have. Before the answer that says so.
    pub(super) fn has(&self, directory: u64, name: &[u8]) {
        let mut directories = self.lock();
        if let Some(made) = directories.get(&directory) {
            if made.names.len() == NAMES {
                directories.remove(&directory);
            } else {
                made.names.insert(name.into());
            }
        }
    }

    /// A directory is gone, or is others' as well.
    pub(super) fn forget(&self, directory: u64) {
        self.lock().remove(&directory);
    }

    /// Whether it may still be believed that there is no such name, where answers are believed for `ttl`.
    pub(super) fn lacks(&self, directory: u64, name: &[u8], ttl: Duration) -> bool {
        let mut directories = self.lock();
        let made = directories.get(&directory);
        made.is_some_and(|made| made.at.elapsed() < ttl && !made.names.contains(name))
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<u64, Made>> {
        // A panic in between leaves a directory without a name, or with one that it has not.
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a name that was just made would not be found, or an old directory would stay empty for ever.
    #[test]
    fn only_a_young_directory_is_known_to_lack_names() {
        let (young, now, ttl) = (Young::default(), Instant::now(), Duration::from_secs(600));
        young.made(7, now);
        assert!(young.lacks(7, b"a", ttl));
        assert!(!young.lacks(8, b"a", ttl), "another directory");
        assert!(!young.lacks(7, b"a", Duration::ZERO), "an old answer");
        young.has(7, b"a");
        assert!(!young.lacks(7, b"a", ttl), "a name that it has");
        assert!(young.lacks(7, b"b", ttl));
        young.forget(7);
        assert!(!young.lacks(7, b"b", ttl), "one that others use");
        young.made(9, now);
        for number in 0..=NAMES {
            young.has(9, number.to_string().as_bytes());
        }
        assert!(!young.lacks(9, b"other", ttl), "one with many names");
    }
}
