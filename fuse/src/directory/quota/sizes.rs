//! Operations that change how long a file is, under a limit.
//!
//! ```text
//! lock the node -> length before -> take the growth -> do it -> length after -> settle the difference
//! ```
//! The lock makes "before" and "after" belong together: two writers that both make a file longer would
//! each pay for the same bytes. Without a limit these are the operations themselves.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::FallocateFlags;

use super::super::DirectoryFs;
use super::{length_of, signed};

/// What fallocate(2) makes of a length.
pub(in crate::directory) fn allocated(
    before: u64,
    mode: FallocateFlags,
    offset: u64,
    length: u64,
) -> Result<u64, Errno> {
    let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
    let keeps = mode.contains(FallocateFlags::FALLOC_FL_KEEP_SIZE);
    if mode.contains(FallocateFlags::FALLOC_FL_INSERT_RANGE) {
        return before.checked_add(length).ok_or(Errno::EFBIG);
    }
    let frees = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_COLLAPSE_RANGE;
    if mode.intersects(frees) {
        return Ok(before);
    }
    // Space behind the end would belong to the volume and count nowhere. Programs that ask for it do
    // so for speed, and go on without.
    if keeps && end > before {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(if keeps { before } else { before.max(end) })
}

impl DirectoryFs {
    /// Whether handles that write must send what they write here.
    pub(crate) fn counts_writes(&self) -> bool {
        self.quota.is_some()
    }

    /// Runs `work`, which makes `file` as long as `wanted` says of its length now.
    ///
    /// Errors: `EDQUOT`, and `work` has not run; those of `wanted` and `work`.
    pub(in crate::directory) fn resizing<T>(
        &self,
        node: u64,
        file: &File,
        wanted: impl FnOnce(u64) -> Result<u64, Errno>,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some(quota) = &self.quota else {
            return work();
        };
        let _one = quota.one_length(node);
        let before = length_of(file.as_fd())?;
        let after = wanted(before)?;
        let taken = after.saturating_sub(before);
        quota.take(taken, 0)?;
        let done = work();
        // A length that nobody can say was changed as it should, or not at all.
        let assumed = if done.is_ok() { after } else { before };
        let after = length_of(file.as_fd()).unwrap_or(assumed);
        quota.settle(signed(after) - signed(before) - signed(taken), 0);
        done
    }

    /// Runs `work`, which writes at most so many bytes at `offset` of `file` as it is given.
    ///
    /// Errors: `EDQUOT` when not one byte fits, and `work` has not run; those of `work`.
    pub(in crate::directory) fn growing<T>(
        &self,
        node: u64,
        file: &File,
        offset: u64,
        length: usize,
        work: impl FnOnce(usize) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some(quota) = &self.quota else {
            return work(length);
        };
        let _one = quota.one_length(node);
        let before = length_of(file.as_fd())?;
        let end = offset.checked_add(length as u64).ok_or(Errno::EFBIG)?;
        let growth = end.saturating_sub(before);
        let taken = quota.take_some(growth);
        // Up to here it may be written: what lies within the file, and what was granted behind it.
        let fits = if growth == 0 { end } else { before + taken };
        if length > 0 && fits <= offset {
            quota.settle(-signed(taken), 0);
            return Err(quota.refuse());
        }
        let done = work(fits.saturating_sub(offset) as usize);
        let after = length_of(file.as_fd()).unwrap_or(before + taken);
        quota.settle(signed(after) - signed(before) - signed(taken), 0);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it space could be had that no limit sees, or a hole be paid for.
    #[test]
    fn allocation_counts_by_what_it_makes_of_the_length() {
        let none = FallocateFlags::empty();
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let cases = [
            (none, 0, 10, Ok(100)),
            (none, 95, 10, Ok(105)),
            (keep, 0, 100, Ok(100)),
            (keep, 0, 101, Err(Errno::EOPNOTSUPP)),
            (keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE, 90, 50, Ok(100)),
            (FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, 0, 50, Ok(100)),
            (FallocateFlags::FALLOC_FL_INSERT_RANGE, 0, 50, Ok(150)),
            (FallocateFlags::FALLOC_FL_ZERO_RANGE, 90, 50, Ok(140)),
            (none, u64::MAX, 2, Err(Errno::EFBIG)),
        ];
        for (mode, offset, length, expected) in cases {
            assert_eq!(allocated(100, mode, offset, length), expected, "{mode:?}");
        }
    }
}
