//! Inode numbers of a tree of tables: a slot and a place in it.
//!
//! ```text
//! bit 59          33 32                                   0
//!     +-------------+--------------------------------------+
//!     | slot        | place                                |
//!     +-------------+--------------------------------------+
//!
//! slot 0           1 root, 2 `.hf`
//! a version        1 ..= 2^32 - 1: inode number in its snapshot (1: its root),
//!                  2^32: `.terrace`, 2^32 + 1: `.terrace/manifest`, 2^32 + 2: `.iceberg`
//! a repository     1 itself, 2 `refs`, 3 `snapshots`
//! any other slot   1 itself
//! ```
//!
//! A snapshot's numbers have 32 bits (its format), so 33 bits leave room for what is made up, and
//! 27 bits are left for slots: 134 million versions over the life of one mount.

use crate::namespace::Ino;

const PLACE_BITS: u32 = 33;

/// Slots are below this number.
pub(super) const SLOTS_END: u32 = 1 << (60 - PLACE_BITS);

/// The place of what a slot is about.
pub(super) const ITSELF: u64 = 1;
/// Slot 0: the Hugging Face tree.
pub(super) const HUB: u64 = 2;
/// A repository's directory of revisions.
pub(super) const REFS: u64 = 2;
/// A repository's directory of versions.
pub(super) const SNAPSHOTS: u64 = 3;
/// A version's directory of what is known about it.
pub(super) const ABOUT: u64 = 1 << 32;
/// The list of its files in there.
pub(super) const FILE_LIST: u64 = ABOUT + 1;
/// A version's directory of what SQL engines read beside its files.
pub(super) const SQL: u64 = ABOUT + 2;

/// An inode number, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u32,
    pub(super) place: u64,
}

impl Place {
    /// What a slot is about.
    pub(super) fn of(slot: u32) -> Self {
        let place = ITSELF;
        Self { slot, place }
    }

    /// Another place in the same slot.
    pub(super) fn with(self, place: u64) -> Self {
        Self { place, ..self }
    }

    /// The number.
    pub(super) fn ino(self) -> Ino {
        Ino(u64::from(self.slot) << PLACE_BITS | self.place)
    }
}

impl From<Ino> for Place {
    fn from(ino: Ino) -> Self {
        Self {
            // At most 31 bits are left, since the top bit of 64 is shifted to 30.
            slot: (ino.0 >> PLACE_BITS) as u32,
            place: ino.0 & ((1 << PLACE_BITS) - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it the numbers of two versions could overlap, or leave the range a mount may use.
    #[test]
    fn numbers_are_apart_and_in_range() {
        assert_eq!(Place::of(0).ino(), Ino::ROOT);
        let last = Place {
            slot: SLOTS_END - 1,
            place: (1 << PLACE_BITS) - 1,
        };
        assert_eq!(last.ino(), Ino((1 << 60) - 1));
        assert_eq!(Place::from(last.ino()), last);
        assert!(FILE_LIST < 1 << PLACE_BITS && ABOUT > u64::from(u32::MAX));
    }
}
