//! How the entries of a snapshot are cut into work.
//!
//! Inode numbers run breadth first, so a range of them is a range of siblings, then of the next
//! directory's children, and so on. A window is such a range: its objects are filled, then linked,
//! and from then on held; so the hot tier needs room for the tree, but never for more unheld
//! objects than one window. A window is cut into runs: siblings, for one thread with one open
//! directory.

use std::ops::Range;

use crate::namespace::{FsError, Ino};
use crate::snapshot::Snapshot;

/// Entries of the first window: small, so that what cannot work fails before much is fetched.
const FIRST: u64 = 64;
/// Entries of a window.
const WINDOW: u64 = 16 * 1024;
/// Entries of a run: a large directory is work for several threads.
const RUN: u64 = 1024;

/// Siblings next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The directory they are in.
    pub(super) parent: Ino,
    /// Their inode numbers.
    pub(super) entries: Range<u64>,
}

/// The windows of a snapshot; the root is in none.
pub(super) fn windows(snapshot: &Snapshot) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = snapshot.entries() + 1;
    let mut next = Ino::ROOT.0 + 1;
    let mut size = FIRST;
    std::iter::from_fn(move || {
        let window = next..(next + size).min(end);
        (next, size) = (window.end, WINDOW);
        (!window.is_empty()).then_some(window)
    })
}

/// Cuts a window into runs.
pub(super) fn runs(snapshot: &Snapshot, window: Range<u64>) -> Result<Vec<Run>, FsError> {
    let mut runs: Vec<Run> = Vec::new();
    for number in window {
        let parent = snapshot.parent(Ino(number))?;
        match runs.last_mut() {
            Some(run) if run.parent == parent && run.entries.end - run.entries.start < RUN => {
                run.entries.end = number + 1;
            }
            _ => runs.push(Run {
                parent,
                entries: number..number + 1,
            }),
        }
    }
    Ok(runs)
}
