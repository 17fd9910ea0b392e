//! Names to nodes: what a name below a directory is, and what the kernel is told about it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::FileStat;

use super::sys::FileId;
use super::{DirectoryFs, ROOT};

/// Descriptors that name a file without opening it.
pub(super) const NAMED: OFlag = OFlag::O_PATH;

/// A name as the kernel is told about it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Node id.
    pub(crate) node: u64,
    /// Changes when the node id stands for another file.
    pub(crate) generation: u32,
    /// Attributes; the number in it is the node id.
    pub(crate) stat: FileStat,
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub(crate) enum Looked {
    /// A file.
    Entry(Entry),
    /// That there is no such name, which the kernel may believe for so long. It looks a name up anew all the same
    /// before it makes one that must be free.
    Absent(Duration),
}

#[cfg(test)]
impl Looked {
    /// The file, if there is one.
    pub(super) fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Absent(_) => None,
        }
    }
}

/// A file that was found under a name.
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) stat: FileStat,
    pub(super) id: FileId,
}

/// A name of the kernel as one component.
///
/// Errors: `EINVAL` for what is no component (the kernel sends none), `ENAMETOOLONG`.
pub(super) fn component(name: &[u8]) -> Result<CString, Errno> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    if name.len() > 255 {
        return Err(Errno::ENAMETOOLONG);
    }
    CString::new(name).map_err(|_| Errno::EINVAL)
}

impl DirectoryFs {
    /// What `name` in directory `parent` is.
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Looked, Errno> {
        let name = component(name)?;
        if self.is_shared && self.young.lacks(parent, name.to_bytes(), self.ttl) {
            self.absent.note(parent, name.to_bytes());
            return Ok(Looked::Absent(Duration::ZERO));
        }
        let asked = self.asking();
        match self.find(self.at(parent)?.fd(), &name) {
            Err(Errno::ENOENT) => {
                self.absent.note(parent, name.to_bytes());
                // A local directory answers at once, and others here may change it without the volume.
                Ok(Looked::Absent(match self.is_shared {
                    true => self.ttl,
                    false => Duration::ZERO,
                }))
            }
            found => {
                let found = found?;
                self.note_found(self.number(found.stat.st_ino), &found.stat, asked);
                self.entry(found, parent, &name).map(Looked::Entry)
            }
        }
    }

    /// Notes what is about to be answered.
    pub(super) fn entry(&self, found: Found, parent: u64, name: &CStr) -> Result<Entry, Errno> {
        self.young.has(parent, name.to_bytes());
        let generation = found.id.generation();
        let node = self.number(found.stat.st_ino);
        let way = self.way(&found, parent, name);
        self.nodes.answered(node, found.id, way)?;
        let stat = self.shown(self.tiered(found.fd.as_fd(), found.stat));
        self.keep(node, found.fd);
        Ok(Entry {
            node,
            generation,
            stat,
        })
    }

    /// Attributes under the number the kernel has.
    pub(super) fn shown(&self, mut stat: FileStat) -> FileStat {
        let number = self.number(stat.st_ino);
        self.note_shown(number, &stat);
        stat.st_ino = number;
        self.overlay(stat)
    }

    /// The kernel's number for one of the directory's file system: the root is 1 there, and what has
    /// the number 1 below gets the root's.
    pub(super) fn number(&self, below: u64) -> u64 {
        if below == self.root_number {
            ROOT
        } else if below == ROOT {
            self.root_number
        } else {
            below
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a name could lead out of its directory.
    #[test]
    fn only_one_component_is_a_name() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"../x", b"a\0b"] {
            assert!(component(bad).is_err(), "{bad:?}");
        }
        assert_eq!(component(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        assert_eq!(component(b"...").unwrap().as_bytes(), b"...");
    }
}
