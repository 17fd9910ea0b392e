//! Counting what a volume takes, while it is used.
//!
//! A tree that changes has no one moment at which it was counted: what grew may have been seen before or
//! after. So growth and shrinkage during the count are summed up apart, and the truth lies between
//! "what was counted less all that went" and "what was counted and all that came". A sum within these
//! bounds is left as it is, another is moved to the nearer one. In a tree that nobody changed meanwhile
//! the bounds are equal and the count is exact.
//!
//! Directories are opened one below the other by descriptor (openat2(2), no links, no mounts): no name
//! leads out of the volume. Memory: one descriptor for each level, and one number for each file with
//! several names, at most [`LINKED_MAX`] of them.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::super::{DirectoryFs, sys};
use super::staged::{Staged, bytes_of};
use super::{Moved, Quota, QuotaUse, Sum, length, length_of};

/// Files with several names that are told apart. Of more, each name counts.
const LINKED_MAX: usize = 1 << 20;

/// Directories one below the other; those further down are not counted.
const DEPTH_MAX: usize = 1024;

/// How a directory is opened to be counted.
const WALKED: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// What a count found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What is there.
    pub found: QuotaUse,
    /// What the sum was moved by.
    pub bytes_off: i64,
    /// Likewise, files.
    pub files_off: i64,
}

/// A directory being counted: its names are read, its descriptor stays for those below.
struct Level {
    directory: OwnedFd,
    below: Vec<CString>,
}

/// A walk that counts.
struct Walk<'a> {
    stop: &'a dyn Fn() -> bool,
    device: u64,
    linked: HashSet<u64>,
    /// Files whose bytes are counted where they are.
    staged: &'a Staged,
    found: QuotaUse,
}

impl Walk<'_> {
    /// Counts the entries of a directory; the directories among them are still to be walked.
    fn level(&mut self, directory: OwnedFd) -> Result<Level, Errno> {
        let copy = directory.try_clone().map_err(|_| Errno::EMFILE)?;
        let mut listing = Dir::from_fd(copy)?;
        let mut below = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // Gone meanwhile: not there.
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            let Ok(stat) = fstatat(&directory, name, flags) else {
                continue;
            };
            if self.counts(&stat) && stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                below.push(name.to_owned());
            }
        }
        Ok(Level { directory, below })
    }

    /// Counts one entry; whether it belongs to the volume.
    fn counts(&mut self, stat: &FileStat) -> bool {
        if stat.st_dev != self.device {
            return false;
        }
        let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if !directory && stat.st_nlink > 1 {
            let known = self.linked.contains(&stat.st_ino);
            if known {
                return true;
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert(stat.st_ino);
            }
        }
        self.found.files += 1;
        if !self.staged.contains_key(&stat.st_ino) {
            self.found.bytes = self.found.bytes.saturating_add(length(stat));
        }
        true
    }

    /// `None` when it was stopped.
    fn run(&mut self, root: OwnedFd) -> Result<Option<()>, Errno> {
        let mut levels = vec![self.level(root)?];
        while let Some(level) = levels.last_mut() {
            if (self.stop)() {
                return Ok(None);
            }
            let Some(name) = level.below.pop() else {
                levels.pop();
                continue;
            };
            let opened = sys::open_child(level.directory.as_fd(), &name, WALKED, 0);
            match opened {
                Ok(directory) if levels.len() < DEPTH_MAX => levels.push(self.level(directory)?),
                // Gone, exchanged for something else, a mount point, or absurdly deep.
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(()))
    }
}

impl Quota {
    pub(super) fn begin_count(&self) -> Result<(), Errno> {
        let mut state = self.state();
        if state.moved.is_some() {
            return Err(Errno::EALREADY);
        }
        state.moved = Some(Moved::default());
        Ok(())
    }

    /// Adds what has no name any more and is still open.
    fn with_kept(&self, mut found: QuotaUse) -> QuotaUse {
        let kept: Vec<Arc<OwnedFd>> = self.state().kept.values().map(Arc::clone).collect();
        for fd in kept {
            let bytes = length_of(fd.as_fd()).unwrap_or(0);
            found.bytes = found.bytes.saturating_add(bytes);
            found.files += 1;
        }
        found
    }

    /// Ends a count; `None` when it did not get to its end.
    pub(super) fn end_count(&self, found: Option<QuotaUse>) -> Counted {
        let found = found.map(|found| self.with_kept(found));
        let mut state = self.state();
        let moved = state.moved.take().unwrap_or_default();
        let Some(found) = found else {
            return Counted::default();
        };
        let counted = Sum::of(found);
        let (least, most) = (counted.plus(moved.down), counted.plus(moved.up));
        let right = Sum {
            bytes: state.used.bytes.clamp(least.bytes, most.bytes),
            files: state.used.files.clamp(least.files, most.files),
        };
        let off = Counted {
            found,
            bytes_off: right.bytes.saturating_sub(state.used.bytes),
            files_off: right.files.saturating_sub(state.used.files),
        };
        state.used = right;
        state.ledger.write(right);
        state.counted = Some(Instant::now());
        state.counts += 1;
        state.drift = off.bytes_off.unsigned_abs();
        off
    }
}

impl DirectoryFs {
    /// Counts what the volume takes and puts the sum right; `None` without a limit of our own, and
    /// when `stop` said so. Blocks for as long as it takes to look at every file.
    ///
    /// Errors: `EALREADY` while another count runs; those of reading a directory, which leave the sum as
    /// it was.
    pub fn count_quota(&self, stop: &dyn Fn() -> bool) -> Result<Option<Counted>, Errno> {
        let Some(quota) = &self.quota else {
            return Ok(None);
        };
        quota.begin_count()?;
        let staged = self.staged_now();
        let walked = sys::open_child(self.root.as_fd(), c".", WALKED, 0)
            .and_then(|root| count(root, &staged, stop));
        let whole = walked.as_ref().ok().copied().flatten();
        let whole = whole.map(|found| QuotaUse {
            bytes: found.bytes.saturating_add(bytes_of(&staged)),
            ..found
        });
        let counted = quota.end_count(whole);
        Ok(walked?.map(|_| counted))
    }
}

/// What a directory takes, by the rules of a volume's limit; `None` when `stop` said so. The directory
/// itself does not count.
///
/// Errors: those of reading a directory.
pub fn count_tree(root: &Path, stop: &dyn Fn() -> bool) -> Result<Option<QuotaUse>, Errno> {
    let flags = WALKED | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let root = nix::fcntl::open(root, flags, Mode::empty())?;
    count(root, &Staged::new(), stop)
}

fn count(
    root: OwnedFd,
    staged: &Staged,
    stop: &dyn Fn() -> bool,
) -> Result<Option<QuotaUse>, Errno> {
    let mut walk = Walk {
        stop,
        device: fstat(&root)?.st_dev,
        linked: HashSet::new(),
        staged,
        found: QuotaUse::default(),
    };
    Ok(walk.run(root)?.map(|()| walk.found))
}
