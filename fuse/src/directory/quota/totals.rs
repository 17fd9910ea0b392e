//! What `df` shows of a volume: the directory's file system, or the limit where that is less.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::super::DirectoryFs;
use super::QuotaStatus;

/// An answer of statvfs(3). Blocks are of `fragment` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// All blocks, free ones, and those that users may have.
    pub(crate) blocks: u64,
    /// See `blocks`.
    pub(crate) blocks_free: u64,
    /// See `blocks`.
    pub(crate) blocks_available: u64,
    /// All files that there can be, and how many more; 0 and 0 where nobody counts.
    pub(crate) files: u64,
    /// See `files`.
    pub(crate) files_free: u64,
    /// Bytes of a transfer that is worth while.
    pub(crate) block_size: u32,
    /// Longest name.
    pub(crate) name_max: u32,
    /// Bytes of a block.
    pub(crate) fragment: u32,
}

impl Totals {
    /// Shows a limit as the size of the volume: never more free than there is below.
    fn within(mut self, quota: &QuotaStatus) -> Self {
        let used = quota.used;
        let fragment = u64::from(self.fragment.max(1));
        if let Some(limit) = quota.limits.bytes {
            let left = limit.saturating_sub(used.bytes) / fragment;
            let available = left.min(self.blocks_available);
            // Used = all - free is what the volume takes, also when the disk has less than the limit.
            self.blocks = used.bytes.div_ceil(fragment) + available;
            self.blocks_free = available;
            self.blocks_available = available;
        }
        if let Some(limit) = quota.limits.files {
            let left = limit.saturating_sub(used.files);
            // A file system that makes files as they are needed counts none.
            let free = match self.files {
                0 => left,
                _ => left.min(self.files_free),
            };
            self.files = used.files + free;
            self.files_free = free;
        }
        self
    }
}

impl DirectoryFs {
    /// statvfs(3) of the volume.
    pub(crate) fn totals(&self) -> Result<Totals, Errno> {
        // Of the root itself: where it is a project with a limit, its file system shows that.
        let below = fstatvfs(self.mount.as_fd())?;
        let small = |number: u64, otherwise| u32::try_from(number).unwrap_or(otherwise);
        let totals = Totals {
            blocks: below.blocks(),
            blocks_free: below.blocks_free(),
            blocks_available: below.blocks_available(),
            files: below.files(),
            files_free: below.files_free(),
            block_size: small(below.block_size(), 4096),
            name_max: small(below.name_max(), 255),
            fragment: small(below.fragment_size(), 4096),
        };
        let quota = self.quota.as_ref().map(|quota| quota.status());
        Ok(quota.map_or(totals, |quota| totals.within(&quota)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{QuotaLimits, QuotaUse};

    const BELOW: Totals = Totals {
        blocks: 1000,
        blocks_free: 500,
        blocks_available: 400,
        files: 100,
        files_free: 60,
        block_size: 4096,
        name_max: 255,
        fragment: 4096,
    };

    fn shown(bytes: u64, files: u64, used: QuotaUse) -> (u64, u64, u64, u64) {
        let totals = BELOW.within(&QuotaStatus {
            limits: QuotaLimits {
                bytes: Some(bytes),
                files: Some(files),
            },
            used,
            refused: 0,
            counts: 0,
            drift_bytes: 0,
        });
        let Totals {
            blocks,
            blocks_available,
            files,
            files_free,
            ..
        } = totals;
        (blocks, blocks_available, files, files_free)
    }

    // Without it a program that asks whether its output fits would be told of everybody's disk.
    #[test]
    fn the_limit_is_the_size() {
        let used = QuotaUse {
            bytes: 10 * 4096,
            files: 5,
        };
        assert_eq!(shown(100 * 4096, 20, used), (100, 90, 20, 15));
        assert_eq!(shown(10 * 4096, 5, used), (10, 0, 5, 0));
        assert_eq!(shown(0, 0, used), (10, 0, 5, 0), "the limit was lowered");
        let large = shown(9000 * 4096, 9000, used);
        assert_eq!(large, (410, 400, 65, 60), "the disk has less");
    }
}
