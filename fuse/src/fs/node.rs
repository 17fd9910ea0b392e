//! Node ids: what the kernel calls an inode of this mount.
//!
//! ```text
//! bit 63      60 59                                                          0
//!     +---------+------------------------------------------------------------+
//!     | incarn. | inode number of the name space                             |
//!     +---------+------------------------------------------------------------+
//! ```
//!
//! A file whose bytes became complete while it was open in cached mode goes on under the next
//! incarnation: to the kernel it is another inode, so its first open may be passthrough. The inode
//! number stays: it is what stat(2) shows, and an incarnation other than 0 exists only while handles
//! of an earlier one are open. Directories and links have incarnation 0 always.

use crate::namespace::Ino;

const SHIFT: u32 = 60;

/// Incarnations an inode can have at once.
pub(crate) const INCARNATIONS: u8 = 16;

/// A node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node(pub(crate) u64);

impl Node {
    /// Largest inode number a name space may use.
    pub(crate) const MAX_INO: u64 = (1 << SHIFT) - 1;

    /// Incarnation `incarnation` of `ino`.
    pub(crate) fn new(ino: Ino, incarnation: u8) -> Self {
        Self(ino.0 & Self::MAX_INO | u64::from(incarnation) << SHIFT)
    }

    /// The inode number, the same for all incarnations.
    pub(crate) fn ino(self) -> Ino {
        Ino(self.0 & Self::MAX_INO)
    }

    /// Which incarnation; below [`INCARNATIONS`].
    pub(crate) fn incarnation(self) -> u8 {
        (self.0 >> SHIFT) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it st_ino would change when a file is re-incarnated.
    #[test]
    fn all_incarnations_have_the_inode_number() {
        for incarnation in 0..INCARNATIONS {
            let node = Node::new(Ino(Node::MAX_INO - 7), incarnation);
            assert_eq!(node.ino(), Ino(Node::MAX_INO - 7));
            assert_eq!(node.incarnation(), incarnation);
        }
        assert_eq!(Node::new(Ino::ROOT, 0), Node(1));
    }
}
