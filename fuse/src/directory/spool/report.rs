//! What a spool tells about itself: for `terrace volume status`, the metrics and people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use super::stage::Stage;
use super::{Spool, TRIED};

/// Files that are listed one by one at most.
const LISTED: usize = 1000;

/// Counters that only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) staged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) copied: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) syncs: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// A spool at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolStatus {
    /// Where it lies.
    pub directory: String,
    /// Files that are not in the directory yet.
    pub files: u64,
    /// Of these, those that somebody has open.
    pub open: u64,
    /// Bytes of files that are not in the directory yet.
    pub bytes: u64,
    /// Bytes on the SSD, those set aside included.
    pub used_bytes: u64,
    /// Most of them; beyond it nothing is staged.
    pub limit_bytes: u64,
    /// Age of the oldest file that is not in the directory yet.
    pub oldest_seconds: u64,
    /// Files whose copy has failed again and again; they are tried on.
    pub dead_letters: u64,
    /// Files with a failure that nobody has acknowledged.
    pub errors: u64,
    /// Files in `lost+found`.
    pub set_aside: u64,
    /// Since this worker started: files staged.
    pub staged_total: u64,
    /// Likewise: files that were written through for want of room.
    pub refused_total: u64,
    /// Likewise: copies to the directory, verified.
    pub copied_total: u64,
    /// Likewise: bytes of them.
    pub copied_bytes_total: u64,
    /// Likewise: attempts that failed.
    pub failed_total: u64,
    /// Likewise: files that another node has changed meanwhile.
    pub conflicts_total: u64,
    /// Likewise: times that bytes were made durable on the SSD.
    pub syncs_total: u64,
    /// Some of the files, those in trouble first.
    pub list: Vec<StagedFile>,
}

/// One staged file.
#[derive(Clone, Debug, Serialize)]
pub struct StagedFile {
    /// The kernel's number for it.
    pub node: u64,
    /// Where it was when staging began.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// How safe it is now.
    pub level: &'static str,
    /// What fsync promises.
    pub fsync: &'static str,
    /// What close promises.
    pub close: &'static str,
    /// Handles on it.
    pub open: u64,
    /// Seconds since staging began.
    pub age_seconds: u64,
    /// Attempts to copy it that failed one after the other.
    pub attempts: u32,
    /// Whether they are so many that somebody should look.
    pub dead_letter: bool,
    /// The last failure, until it is acknowledged.
    pub error: Option<String>,
    /// How long ago that was.
    pub error_seconds: Option<u64>,
}

impl Stage {
    fn report(&self) -> StagedFile {
        let bytes = self.stat().map_or(0, |stat| stat.st_size.unsigned_abs());
        let level = self.reached();
        let state = self.lock();
        let passed = |at: SystemTime| at.elapsed().map_or(0, |passed| passed.as_secs());
        let problem = state.problem.as_ref();
        StagedFile {
            node: self.node,
            name: self.name.clone(),
            bytes,
            level: level.name(),
            fsync: state.levels.fsync.name(),
            close: state.levels.close.name(),
            open: state.handles.len() as u64,
            age_seconds: Self::clock().saturating_sub(self.since),
            attempts: state.attempts,
            dead_letter: state.attempts >= TRIED,
            error: problem.map(|problem| format!("{} ({})", problem.why, problem.errno)),
            error_seconds: problem.map(|problem| passed(problem.at)),
        }
    }
}

impl Spool {
    /// All of it now, or only the files with these numbers.
    pub(in super::super) fn status(&self, only: Option<&[u64]>) -> SpoolStatus {
        let mut files: Vec<StagedFile> = self
            .stages()
            .iter()
            .filter(|stage| only.is_none_or(|only| only.contains(&stage.node)))
            .map(|stage| stage.report())
            .collect();
        files.sort_by_key(|file| (file.error.is_none(), std::cmp::Reverse(file.age_seconds)));
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let total =
            |of: &dyn Fn(&StagedFile) -> bool| files.iter().filter(|f| of(f)).count() as u64;
        let waiting: Vec<&StagedFile> = files.iter().filter(|f| f.level != "shared").collect();
        SpoolStatus {
            directory: self.directory().display().to_string(),
            files: waiting.len() as u64,
            open: total(&|file| file.open > 0),
            bytes: waiting.iter().map(|file| file.bytes).sum(),
            used_bytes: self.room.used(),
            limit_bytes: self.room.limit(),
            oldest_seconds: waiting.iter().map(|f| f.age_seconds).max().unwrap_or(0),
            dead_letters: total(&|file| file.dead_letter),
            errors: total(&|file| file.error.is_some()),
            set_aside: self.aside.total().files,
            staged_total: number(&self.counters.staged),
            refused_total: number(&self.counters.refused),
            copied_total: number(&self.counters.copied),
            copied_bytes_total: number(&self.counters.copied_bytes),
            failed_total: number(&self.counters.failed),
            conflicts_total: number(&self.counters.conflicts),
            syncs_total: number(&self.counters.syncs),
            list: files.into_iter().take(LISTED).collect(),
        }
    }

    /// Forgets the failures of these files, or of all; returns how many there were.
    pub(in super::super) fn acknowledge(&self, only: Option<&[u64]>) -> u64 {
        let mut known = 0;
        for stage in self.stages() {
            if only.is_none_or(|only| only.contains(&stage.node)) {
                known += u64::from(stage.lock().problem.take().is_some());
            }
        }
        known
    }
}
