//! How the entries of a snapshot are cut into work.
//!
//! Inode numbers run breadth first, so a range of them is a range of siblings, then of the next
//! directory's children, and so on. A window is such a range: its objects are filled, then linked,
//! and from then on held; so the hot tier needs room for the tree, but never for more unheld
//! objects than a window may lack. A window in which nothing lacks is larger: what the hot tier knows
//! of its objects is read in one go. A window is cut into runs: siblings, for one thread with one
//! open directory.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use terrace_cache::Digest;
use terrace_cache::hot::HotTier;

use super::MaterializeError;
use crate::namespace::{FsError, Ino, Kind, Namespace as _};
use crate::snapshot::{Digests, Placed, Snapshot};

/// Files of the first window: few, so that what cannot work fails before much is fetched.
const FIRST: u64 = 64;
/// Files of a window that have to be fetched.
const COLD: u64 = 16 * 1024;
/// Files of a window: some 20 MB of digests and what is known of them.
const MOST: u64 = 8 * COLD;
/// Entries of a run: a large directory is work for several threads.
const RUN: u64 = 1024;

/// Siblings next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The directory they are in.
    pub(super) parent: Ino,
    /// Their inode numbers.
    pub(super) entries: Range<u64>,
    /// Those of them that have an object, and its digest.
    pub(super) objects: Vec<(Ino, Digest)>,
}

/// The work of a window.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) runs: Vec<Run>,
    /// Files whose object is not complete.
    pub(super) cold: Vec<Ino>,
}

/// The windows of a snapshot, one after the other; the root is in none.
#[derive(Debug)]
pub(super) struct Windows {
    snapshot: Arc<Snapshot>,
    next: u64,
    files: u64,
}

impl Run {
    /// One entry.
    pub(super) fn of(snapshot: &Snapshot, ino: Ino) -> Result<Self, FsError> {
        Ok(Self::begin(ino, Digests::new(snapshot).entry(ino)?))
    }

    fn begin(ino: Ino, placed: Placed) -> Self {
        let mut run = Self {
            parent: placed.parent,
            entries: ino.0..ino.0,
            objects: Vec::new(),
        };
        run.push(ino, placed);
        run
    }

    /// Takes the next entry.
    fn push(&mut self, ino: Ino, placed: Placed) {
        self.entries.end = ino.0 + 1;
        let object = placed.object.map(|digest| (ino, digest));
        self.objects.extend(object);
    }

    fn takes(&self, parent: Ino) -> bool {
        self.parent == parent && self.entries.end - self.entries.start < RUN
    }
}

impl Windows {
    pub(super) fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            snapshot: Arc::clone(snapshot),
            next: Ino::ROOT.0 + 1,
            files: FIRST,
        }
    }

    /// The next window; `None` after the last one. Blocks.
    pub(super) fn next(
        &mut self,
        hot: &HotTier,
        threads: NonZeroUsize,
    ) -> Result<Option<Plan>, MaterializeError> {
        let window = self.range();
        if window.is_empty() {
            return Ok(None);
        }
        self.next = window.end;
        let mut plan = Plan::of(&self.snapshot, hot, window, threads)?;
        if let Some(first) = plan.cold.get(COLD as usize) {
            self.next = first.0;
            plan.cut(self.next);
        }
        self.files = match plan.cold.is_empty() {
            true => (self.files * 8).clamp(COLD, MOST),
            false => COLD,
        };
        Ok(Some(plan))
    }

    /// As many entries as have so many files.
    fn range(&self) -> Range<u64> {
        let end = self.snapshot.entries() + 1;
        // What is damaged is told when the window is planned.
        let is_file = |ino| {
            let attr = self.snapshot.attr(ino);
            attr.is_ok_and(|attr| attr.kind == Kind::File)
        };
        let (mut next, mut room) = (self.next, self.files);
        while next < end && room > 0 {
            room -= u64::from(is_file(Ino(next)));
            next += 1;
        }
        self.next..next
    }
}

impl Plan {
    /// Each thread plans a part of the window.
    fn of(
        snapshot: &Snapshot,
        hot: &HotTier,
        window: Range<u64>,
        threads: NonZeroUsize,
    ) -> Result<Self, MaterializeError> {
        let length = window.end - window.start;
        let share = length.div_ceil(threads.get() as u64).max(RUN) as usize;
        std::thread::scope(|scope| {
            let starts = window.clone().step_by(share);
            let parts: Vec<_> = starts
                .map(|start| start..window.end.min(start + share as u64))
                .map(|part| scope.spawn(|| Self::part(snapshot, hot, part)))
                .collect();
            let mut plan = Self::default();
            for part in parts {
                let part = part.join().map_err(|_| MaterializeError::Thread)??;
                plan.runs.extend(part.runs);
                plan.cold.extend(part.cold);
            }
            Ok(plan)
        })
    }

    fn part(snapshot: &Snapshot, hot: &HotTier, part: Range<u64>) -> Result<Self, FsError> {
        let (mut plan, mut digests) = (Self::default(), Digests::new(snapshot));
        for ino in part.map(Ino) {
            let placed = digests.entry(ino)?;
            match plan.runs.last_mut().filter(|run| run.takes(placed.parent)) {
                Some(run) => run.push(ino, placed),
                None => plan.runs.push(Run::begin(ino, placed)),
            }
        }
        for run in &plan.runs {
            let complete = hot.are_complete(run.objects.iter().map(|(_, digest)| digest));
            let lacking = run.objects.iter().zip(complete);
            let lacking = lacking.filter(|(_, complete)| !complete);
            plan.cold.extend(lacking.map(|((ino, _), _)| *ino));
        }
        Ok(plan)
    }

    /// Ends before the entry `end`.
    fn cut(&mut self, end: u64) {
        self.cold.retain(|ino| ino.0 < end);
        self.runs.retain(|run| run.entries.start < end);
        for run in &mut self.runs {
            run.entries.end = run.entries.end.min(end);
            run.objects.retain(|(ino, _)| ino.0 < end);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use terrace_cache::hot::HotConfig;
    use terrace_cache::policy::Lru;
    use terrace_cache::{Token, Version};

    use super::*;
    use crate::ownership::Ownership;
    use crate::snapshot::{Builder, Entry, EntryKind, Surplus};

    /// Directories of 1,500 files, every tenth empty.
    fn snapshot(directory: &std::path::Path, files: u64) -> Arc<Snapshot> {
        let mut builder = Builder::new("s3://bucket", "train", Surplus::Refuse);
        for number in 0..files {
            let version = Version {
                token: Token::ETag {
                    etag: number.to_string().into(),
                    version_id: None,
                },
                size: number % 10,
                mtime_ns: 0,
            };
            let path = format!("d{:03}/f{number:06}", number / 1500);
            let (mode, kind) = (None, EntryKind::File(&version));
            let path = &path;
            builder.push(&Entry { path, mode, kind }).unwrap();
        }
        let file = directory.join("snapshot");
        builder.finish(&file).unwrap();
        Arc::new(Snapshot::open(&file, Ownership::default()).unwrap())
    }

    // Without this, a tree could lack the entries on either side of where a window was cut short, or
    // a window could fetch more than the hot tier has room for.
    #[test]
    fn windows_hold_every_entry_once_and_never_lack_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = snapshot(directory.path(), 40_000);
        let config = HotConfig::new(directory.path().join("hot"));
        let hot = HotTier::open(config, Box::new(Lru::new())).unwrap();
        let mut windows = Windows::new(&snapshot);
        let threads = NonZeroUsize::MIN.saturating_add(2);
        let (mut next, mut objects, mut lacks) = (Ino::ROOT.0 + 1, 0, Vec::new());
        while let Some(plan) = windows.next(&hot, threads).unwrap() {
            for run in &plan.runs {
                assert_eq!(run.entries.start, next);
                next = run.entries.end;
                assert!(next - run.entries.start <= RUN);
                for ino in run.entries.clone() {
                    assert_eq!(snapshot.parent(Ino(ino)).unwrap(), run.parent);
                }
                for (ino, digest) in &run.objects {
                    assert!(run.entries.contains(&ino.0));
                    assert_eq!(*digest, snapshot.object(*ino).unwrap().digest());
                }
                objects += run.objects.len();
            }
            lacks.push(plan.cold.len() as u64);
            // As if nothing had lacked, so that the next window is too large and is cut.
            windows.files = MOST;
        }
        assert_eq!((next, objects), (snapshot.entries() + 1, 36_000));
        assert_eq!(lacks.iter().sum::<u64>(), 36_000);
        assert_eq!(lacks[1..3], [COLD, COLD]);
        assert!(lacks[0] <= FIRST);
    }
}
