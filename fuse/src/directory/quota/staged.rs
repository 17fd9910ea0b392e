//! Files whose bytes are in the spool, under a limit.
//!
//! ```text
//! begins to be staged    what it had below is given back: it is empty for everybody on this node
//! written, truncated     as every file: by the length of its bytes, which are in the spool (sizes.rs)
//! copied, done with      nothing: the file below has the length that was paid
//! last name gone         given back by the length in the spool, when the kernel has let it go
//! counted                by the length in the spool, whatever a copy has brought below by then
//! ```
//! So a staged file is paid when it is written, and a copy is never refused. What the directory has of a file
//! that was set aside is seen by the next count.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::super::DirectoryFs;
use super::super::lookup::Found;
use super::{Kept, length_of};

/// Staged files when a count began, by their numbers in the file system below.
pub(super) type Staged = HashMap<u64, Arc<File>>;

impl DirectoryFs {
    /// A file is staged from now on, empty, and had `length` bytes below.
    pub(in crate::directory) fn staged_anew(&self, length: i64) {
        if let Some(quota) = &self.quota {
            quota.settle(-length, 0);
        }
    }

    /// Runs `work`, which makes the staged bytes of a file so long.
    ///
    /// Errors: `EDQUOT`, and `work` has not run; those of `work`.
    pub(in crate::directory) fn resizing_staged(
        &self,
        node: u64,
        contents: &File,
        length: i64,
        work: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let wanted = |_| u64::try_from(length).map_err(|_| Errno::EINVAL);
        self.resizing(node, contents, wanted, work)
    }

    /// Keeps a node whose last name has just gone, with the bytes that count.
    pub(in crate::directory) fn kept(&self, number: u64, found: Found) -> Kept {
        let spool = self.spool.as_ref().filter(|_| self.quota.is_some());
        let stage = spool.and_then(|spool| spool.stage(number, &found.id));
        let before = match &stage {
            Some(stage) => stage.over(found.stat),
            None => found.stat,
        };
        let contents = stage.and_then(|stage| stage.contents().try_clone().ok());
        let contents = contents.map(OwnedFd::from);
        Kept::new(found.fd, contents, before, self.quota.as_ref())
    }

    /// What a count has to take from the spool.
    pub(super) fn staged_now(&self) -> Staged {
        let Some(spool) = &self.spool else {
            return Staged::new();
        };
        let named = spool.named();
        named
            .into_iter()
            .map(|(node, file)| (self.number(node), file))
            .collect()
    }
}

/// Bytes of the files that were staged when a count began.
pub(super) fn bytes_of(staged: &Staged) -> u64 {
    let lengths = staged.values().map(|file| length_of(file.as_fd()));
    lengths.fold(0, |sum, length| sum.saturating_add(length.unwrap_or(0)))
}
