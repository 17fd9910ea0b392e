//! Who owns the entries of a read mount and which permission bits they show.
//!
//! Stores have no POSIX ownership, so a mount shows one owner for everything. The bits are what
//! stat(2) shows; whether the kernel enforces them is the mount's `default_permissions`.

use serde::{Deserialize, Serialize};

use crate::namespace::{Attr, Ino, Kind};

/// Owner and permission bits that a namespace gives to entries without their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ownership {
    /// Owner of every entry. Default: 0.
    pub uid: u32,
    /// Group of every entry. Default: 0.
    pub gid: u32,
    /// Permission bits of files, 0o7777 at most. Default: 0o444.
    pub file_mode: u16,
    /// Permission bits of directories, 0o7777 at most. Default: 0o555.
    pub directory_mode: u16,
}

/// Link count of a directory whose number of sub-directories is not known: tools that use the count
/// to skip stat(2) calls take 1 as "cannot tell".
pub(crate) const NLINK_UNKNOWN: u32 = 1;

impl Default for Ownership {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            directory_mode: 0o555,
        }
    }
}

impl Ownership {
    /// Permission bits for an entry that has none of its own.
    pub fn mode(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Directory => self.directory_mode & 0o7777,
            Kind::File => self.file_mode & 0o7777,
            Kind::Symlink => 0o777,
        }
    }

    /// Attributes of an entry with this owner and the default bits.
    pub fn attr(&self, ino: Ino, kind: Kind, size: u64, mtime_ns: i64) -> Attr {
        let nlink = if kind == Kind::Directory {
            NLINK_UNKNOWN
        } else {
            1
        };
        let mode = self.mode(kind);
        Attr {
            ino,
            kind,
            size,
            mtime_ns,
            mode,
            nlink,
            uid: self.uid,
            gid: self.gid,
        }
    }
}
