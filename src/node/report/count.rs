//! How much of each version is near, without counting all the time.
//!
//! A count asks the hot tier about every file ([`residency`]): nothing for a thousand files, and seconds
//! for ten million. So a version is counted again only when the tier has changed since, when the pause
//! since its last count is [`SHARE`] times what that took, and when the counts of this report have not
//! taken [`ROUND`] yet; the ones that were counted longest ago come first. Copies in the warm tier are
//! counted by looking for their files, which others' disks have to answer: one version at a time, beside
//! the reports, each every [`WARM_AGE`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use terrace_cache::Digest;
use terrace_cache::warm::WarmTier;
use terrace_fuse::namespace::{Ino, Namespace as _};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::Snapshot;
use terrace_fuse::tables::ManifestId;
use tokio_util::task::AbortOnDropHandle;

use super::held::Local;
use crate::node::assembly::Node;
use crate::node::residency;

/// At most one part in so many of the time is spent on counting one version.
const SHARE: u32 = 50;
/// Time after which no further count is begun for one report.
const ROUND: Duration = Duration::from_millis(200);
/// How old a count of the warm tier may be.
const WARM_AGE: Duration = Duration::from_secs(600);
/// Files asked for at once in the warm tier.
const WARM_AT_ONCE: usize = 256;

/// What changes when the contents of the hot tier do.
type Mark = [u64; 4];

/// What was counted of a version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) total_bytes: u64,
    pub(super) hot_bytes: u64,
    pub(super) warm_bytes: Option<u64>,
    at: Instant,
    took: Duration,
    mark: Mark,
    warm_at: Option<Instant>,
}

/// A count of the warm tier under way.
type WarmCount = (ManifestId, AbortOnDropHandle<Option<u64>>);

/// See the module text.
#[derive(Default)]
pub(super) struct Counter {
    known: HashMap<ManifestId, Counted>,
    warm: Option<WarmCount>,
}

impl Counter {
    /// What was counted last.
    pub(super) fn get(&self, manifest: &ManifestId) -> Option<&Counted> {
        self.known.get(manifest)
    }

    /// Counts what is due of these versions, and forgets all others.
    pub(super) async fn refresh(&mut self, node: &Arc<Node>, versions: &[Local]) {
        let mark = mark(node);
        let wanted: HashMap<ManifestId, &Local> =
            versions.iter().map(|v| (v.manifest, v)).collect();
        self.known
            .retain(|manifest, _| wanted.contains_key(manifest));
        let mut due: Vec<(Option<Instant>, Local)> = wanted
            .values()
            .filter_map(|version| match self.known.get(&version.manifest) {
                None => Some((None, (*version).clone())),
                Some(known) => is_due(known, mark).then(|| (Some(known.at), (*version).clone())),
            })
            .collect();
        // None, never counted, is less than any moment.
        due.sort_by_key(|(at, _)| *at);
        let counting = Arc::clone(node);
        let counts = tokio::task::spawn_blocking(move || count_some(&counting, due, mark));
        for (manifest, mut counted) in counts.await.unwrap_or_default() {
            if let Some(before) = self.known.get(&manifest) {
                (counted.warm_bytes, counted.warm_at) = (before.warm_bytes, before.warm_at);
            }
            self.known.insert(manifest, counted);
        }
        self.refresh_warm(node, versions).await;
    }

    /// Counts copies in the warm tier anew, one version after the other: many may have come.
    pub(super) fn expire_warm(&mut self) {
        // One that is under way has begun before they came.
        self.warm = None;
        for known in self.known.values_mut() {
            known.warm_at = None;
        }
    }

    async fn refresh_warm(&mut self, node: &Arc<Node>, versions: &[Local]) {
        if let Some((manifest, counting)) = self.warm.take() {
            if !counting.is_finished() {
                self.warm = Some((manifest, counting));
                return;
            }
            if let Some(known) = self.known.get_mut(&manifest) {
                known.warm_at = Some(Instant::now());
                known.warm_bytes = counting.await.ok().flatten();
            }
        }
        let due = versions.iter().find_map(|version| {
            let known = self.known.get(&version.manifest)?;
            let due = known.warm_at.is_none_or(|at| at.elapsed() > WARM_AGE);
            let tier = version.warm.clone()?;
            due.then(|| (version.clone(), tier))
        });
        if let Some((version, tier)) = due {
            let counting = warm_bytes(version.snapshot, tier);
            let counting = node.sources().runtime().spawn(counting);
            self.warm = Some((version.manifest, AbortOnDropHandle::new(counting)));
        }
    }
}

fn mark(node: &Node) -> Mark {
    let stats = node.cache().hot().stats();
    [
        stats.written_bytes,
        stats.evicted_bytes,
        stats.discarded_objects,
        stats.completed_objects,
    ]
}

fn is_due(known: &Counted, mark: Mark) -> bool {
    known.mark != mark && known.at.elapsed() >= known.took * SHARE
}

/// Blocking.
fn count_some(
    node: &Node,
    due: Vec<(Option<Instant>, Local)>,
    mark: Mark,
) -> Vec<(ManifestId, Counted)> {
    let began = Instant::now();
    let mut counts = Vec::new();
    for (_, version) in due {
        if began.elapsed() > ROUND {
            break;
        }
        // One that cannot be opened was removed, or is replaced by its mount.
        let Ok(snapshot) = Snapshot::open(&version.snapshot, Ownership::default()) else {
            continue;
        };
        let at = Instant::now();
        let present = residency::count(&snapshot, node.cache().hot());
        let counted = Counted {
            total_bytes: snapshot.file_bytes(),
            hot_bytes: present.present_bytes,
            warm_bytes: None,
            at,
            took: at.elapsed(),
            mark,
            warm_at: None,
        };
        counts.push((version.manifest, counted));
    }
    counts
}

/// Bytes of a version that have copies in the warm tier; none when its directory does not answer, or
/// the version is gone.
pub(super) async fn warm_bytes(path: std::path::PathBuf, tier: WarmTier) -> Option<u64> {
    let opening = move || Snapshot::open(&path, Ownership::default()).ok();
    let snapshot = Arc::new(tokio::task::spawn_blocking(opening).await.ok()??);
    let (mut bytes, mut next) = (0, 1);
    while next <= snapshot.entries() {
        let end = (next + WARM_AT_ONCE as u64).min(snapshot.entries() + 1);
        let objects: Vec<(Digest, u64)> = (next..end)
            .filter_map(|ino| snapshot.object(Ino(ino)).ok())
            .map(|object| (object.digest(), object.size()))
            .collect();
        next = end;
        let sizes: Vec<u64> = objects.iter().map(|(_, size)| *size).collect();
        let there = tier.copies(objects).await?;
        let there = there.iter().zip(sizes).filter(|(there, _)| **there);
        bytes += there.map(|(_, size)| size).sum::<u64>();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a version of ten million files would be counted with every report, or never again.
    #[test]
    fn a_version_is_counted_when_something_changed_and_it_is_cheap() {
        let now = Instant::now();
        let counted = |took, age: u64, mark| Counted {
            total_bytes: 1,
            hot_bytes: 1,
            warm_bytes: None,
            at: now.checked_sub(Duration::from_secs(age)).unwrap_or(now),
            took,
            mark,
            warm_at: None,
        };
        let (old, new) = ([0; 4], [0, 0, 0, 1]);
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(3600));
        assert!(!is_due(&counted(quick, 1, new), new));
        assert!(is_due(&counted(quick, 1, old), new));
        assert!(!is_due(&counted(slow, 1, old), new));
    }
}
