//! How much a spool may hold, and how much it holds.
//!
//! The kernel writes to staged files without asking, so room is looked at before a file is staged: when
//! the budget is used, or the disk is nearly full, the file is written through instead, which is at
//! least as durable. A file that is being written when the budget is reached goes on; what the disk
//! does not have, write(2) itself is refused by the file system, which sets room aside for each write it
//! accepts. So no fsync fails for want of room.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::statvfs::fstatvfs;

use super::stage::Stage;

/// Free space that is left to others on the same disk: this, or a part of a small disk.
const KEEP_FREE: u64 = 1 << 30;

/// Part of a small disk that stays free.
const KEEP_PART: u64 = 20;

/// See the module text.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    staged: AtomicU64,
    aside: AtomicU64,
    disk: File,
}

impl Room {
    /// Room on the disk of `disk`; without a limit half of what is free now.
    pub(super) fn new(disk: File, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or_else(|| {
            let free =
                fstatvfs(&disk).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
            free / 2
        });
        Self {
            limit,
            staged: AtomicU64::new(0),
            aside: AtomicU64::new(0),
            disk,
        }
    }

    /// Bytes on the SSD.
    pub(super) fn used(&self) -> u64 {
        self.staged.load(Ordering::Relaxed) + self.aside.load(Ordering::Relaxed)
    }

    /// Most of them.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether one more file may be staged.
    pub(super) fn has_some(&self) -> bool {
        if self.used() >= self.limit {
            return false;
        }
        fstatvfs(&self.disk).is_ok_and(|stat| {
            let block = stat.fragment_size();
            let keep = KEEP_FREE.min(stat.blocks() * block / KEEP_PART);
            stat.blocks_available() * block > keep && stat.files_available() != 0
                || stat.files() == 0
        })
    }

    /// Looks again at what a file takes.
    pub(super) fn look_at(&self, stage: &Stage) {
        let Ok(stat) = stage.stat() else { return };
        self.note(stage, stat.st_blocks.unsigned_abs() * 512);
    }

    /// A file is gone.
    pub(super) fn give_back(&self, stage: &Stage) {
        self.note(stage, 0);
    }

    /// What `lost+found` takes.
    pub(super) fn set_aside(&self, bytes: u64) {
        self.aside.store(bytes, Ordering::Relaxed);
    }

    fn note(&self, stage: &Stage, bytes: u64) {
        // Under the file's lock, so that two looks at once do not count a difference twice.
        let mut state = stage.lock();
        self.staged.fetch_add(bytes, Ordering::Relaxed);
        self.staged.fetch_sub(state.bytes, Ordering::Relaxed);
        state.bytes = bytes;
    }
}
