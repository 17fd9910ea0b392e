//! Puts the entries of a listing into one order while they come in.
//!
//! The order is that of the bytes of `name/`, for files and directories alike: S3 lists the prefix
//! `a/` after the key `a-1`, so a file `a` met first must wait for it to learn whether a directory
//! of the same name hides it. Stores list in order of keys or names, but within a page files and
//! directories may come as two runs; both cases are an entry that comes at most a page too late or
//! waits behind keys it is a prefix of. So a small heap sorts a listing of any length:
//!
//! ```text
//! stream -> heap of WINDOW entries -> smallest first -> equal names: directory wins
//! ```
//!
//! An entry smaller than one already handed out means that the store does not keep that order; the
//! caller then has to take the whole listing before it shows any.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::record::What;

/// Entries held back: one page of 1000 (the most S3 sends), and as many waiting prefixes as a name
/// has bytes.
const WINDOW: usize = 1000 + 256;

/// Compares names as if each ended with a slash.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let next = |name: &[u8]| name.get(common).copied().unwrap_or(b'/');
        // Equal only for equal names: no name holds a slash.
        next(a).cmp(&next(b))
    })
}

/// One entry on its way through the window.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) name: String,
    pub(super) what: What,
}

impl Arrival {
    fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory(_))
    }
}

impl Ord for Arrival {
    /// Reversed: the heap hands out the largest first. Directories before files of the same name.
    fn cmp(&self, other: &Self) -> Ordering {
        order(other.name.as_bytes(), self.name.as_bytes())
            .then(self.is_directory().cmp(&other.is_directory()))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Arrival {}

/// What comes out of the window.
#[derive(Debug)]
pub(super) enum Departure {
    /// The next entry in order.
    Entry(Arrival),
    /// A file that a directory of the same name hides, or an entry that came twice.
    Shadowed,
    /// The store broke the order: this entry should have come before one already handed out.
    OutOfOrder,
}

/// The heap; see the module text.
#[derive(Debug)]
pub(super) struct Window {
    heap: BinaryHeap<Arrival>,
    /// Entries held back; all of them when the store keeps no order.
    hold: usize,
    last: Option<String>,
}

impl Window {
    /// A window for a store that lists in order, or one that holds everything back.
    pub(super) fn new(ordered: bool) -> Self {
        let hold = if ordered { WINDOW } else { usize::MAX };
        Self {
            heap: BinaryHeap::new(),
            hold,
            last: None,
        }
    }

    /// Puts an entry in.
    pub(super) fn push(&mut self, arrival: Arrival) {
        self.heap.push(arrival);
    }

    /// The next entry, when it is certain; with `ended`, until the window is empty.
    pub(super) fn pop(&mut self, ended: bool) -> Option<Departure> {
        if !ended && self.heap.len() <= self.hold {
            return None;
        }
        let arrival = self.heap.pop()?;
        if let Some(last) = &self.last {
            match order(arrival.name.as_bytes(), last.as_bytes()) {
                Ordering::Less => return Some(Departure::OutOfOrder),
                Ordering::Equal => return Some(Departure::Shadowed),
                Ordering::Greater => {}
            }
        }
        self.last = Some(arrival.name.clone());
        Some(Departure::Entry(arrival))
    }
}
