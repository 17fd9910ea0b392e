//! How the entries of a snapshot are cut into work.
//!
//! Inode numbers run breadth first, so a range of them is a range of siblings, then of the next
//! directory's children, and so on. A window is such a range: its objects are filled, then linked,
//! and from then on held; so the hot tier needs room for the tree, but never for more unheld
//! objects than one window. A window is cut into runs: siblings, for one thread with one open
//! directory.

use std::ops::Range;

use crate::namespace::{FsError, Ino, Kind, Namespace as _};
use crate::snapshot::Snapshot;

/// Files of the first window: few, so that what cannot work fails before much is fetched.
const FIRST: u64 = 64;
/// Files of a window.
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
pub(super) fn windows(snapshot: &Snapshot) -> impl Iterator<Item = Range<u64>> {
    let end = snapshot.entries() + 1;
    // What is damaged is told when the window is worked on.
    let is_file = |ino| snapshot.attr(ino).is_ok_and(|attr| attr.kind == Kind::File);
    let mut next = Ino::ROOT.0 + 1;
    let mut room = FIRST;
    std::iter::from_fn(move || {
        let start = next;
        while next < end && room > 0 {
            room -= u64::from(is_file(Ino(next)));
            next += 1;
        }
        room = WINDOW;
        (start < next).then_some(start..next)
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
