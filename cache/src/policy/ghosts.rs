//! Objects that left a recency window without a second open.
//!
//! Where recency rules, a newcomer proves itself in the window. One that is opened a little too late
//! for that proves itself by being known here: it goes to the long-time residents at once. The
//! memory is as long as there are long-time residents, which is what they compete with.

use std::collections::{HashSet, VecDeque};

/// Fewest objects remembered.
const LEAST: usize = 64;

/// See the module text. Objects are known by the first eight bytes of their digest.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Ghosts {
    /// Remembers an object, and the last `most` in all.
    pub(super) fn remember(&mut self, key: u64, most: usize) {
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > most.max(LEAST) {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether an object is known; it is not any more afterwards.
    pub(super) fn recall(&mut self, key: u64) -> bool {
        self.known.remove(&key)
    }
}
