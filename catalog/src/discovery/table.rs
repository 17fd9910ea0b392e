//! What discovery remembers of one table between two looks, and how it explains it.
//!
//! Everything here is soft: after a restart the first look starts counting again, which can only delay
//! a version. Times are moments of this process's own clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::completeness::Missing;
use super::fingerprint::Fingerprint;
use super::follow_iceberg::IcebergLog;
use super::layout::Values;
use super::names::Refusal;
use super::scan::{Scan, Sketch};
use super::why::{PartitionWhy, SHOWN, State, Trouble, Why, words};
use crate::manifest::{Manifest, Partition};
use crate::schema::delta::DeltaLog;
use crate::upstream::UpFile;

/// Longest list of files that is remembered to count changes by.
const REMEMBERED: usize = 100_000;

/// Names of the notes that discovery keeps at a published partition.
pub(crate) const NOTE_FINGERPRINT: &str = "fingerprint";
pub(crate) const NOTE_MARKER: &str = "marker_ms";
pub(crate) const NOTE_PROOF: &str = "proof";
pub(crate) const NOTE_RANGES: &str = "ranges";

/// A published partition, as far as a look compares with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishedPartition {
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) marker_ms: Option<i64>,
}

/// The newest version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) version: Option<u64>,
    pub(crate) manifest: Option<Manifest>,
    pub(crate) partitions: BTreeMap<Arc<str>, PublishedPartition>,
}

/// A partition that is not published as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) fingerprint: Fingerprint,
    /// Since when every look has seen these files.
    unchanged_since: Instant,
    /// Since when it is not published as it is.
    since: Instant,
    /// Path and the rest of each file, of the look before.
    files: Vec<(Arc<str>, u64, i64, Arc<str>)>,
    state: State,
    reason: String,
    missing: Vec<Missing>,
}

/// What is remembered of a table.
#[derive(Debug, Default)]
pub(crate) struct TableState {
    pub(crate) published: Published,
    pub(crate) tracked: BTreeMap<Arc<str>, Tracked>,
    /// Published partitions that a whole look did not see, and since when.
    pub(crate) absent: BTreeMap<Arc<str>, Instant>,
    pub(crate) warnings: Vec<String>,
    pub(crate) delta: Option<DeltaLog>,
    /// What the newest metadata of an Iceberg table leads to.
    pub(crate) iceberg: Option<IcebergLog>,
    /// The version that was marked as degraded.
    pub(crate) degraded: Option<u64>,
    trouble: Option<(String, Instant)>,
    looked: Option<Instant>,
}

/// What a look has found out about one partition's changes since the look before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Movement {
    pub(crate) changing: u64,
    pub(crate) unchanged_for: Duration,
}

impl PublishedPartition {
    pub(crate) fn of(partition: &Partition) -> Self {
        let note = |wanted: &str| {
            let found = partition.notes.iter().find(|(name, _)| &**name == wanted);
            found.map(|(_, text)| &**text)
        };
        Self {
            fingerprint: note(NOTE_FINGERPRINT).and_then(Fingerprint::parse),
            marker_ms: note(NOTE_MARKER).and_then(|text| text.parse().ok()),
        }
    }
}

impl TableState {
    /// Notes what a look saw of a partition that is not published as it is.
    pub(crate) fn track(
        &mut self,
        partition: &Arc<str>,
        files: &[UpFile],
        now: Instant,
    ) -> Movement {
        let fingerprint = Fingerprint::of(files);
        let listed = || {
            let kept = files.iter().take(REMEMBERED);
            kept.map(|file| {
                (
                    Arc::clone(&file.path),
                    file.size,
                    file.mtime_ms,
                    Arc::clone(&file.token),
                )
            })
            .collect::<Vec<_>>()
        };
        let Some(known) = self.tracked.get_mut(partition) else {
            let tracked = Tracked {
                fingerprint,
                unchanged_since: now,
                since: now,
                files: listed(),
                state: State::Syncing,
                reason: String::new(),
                missing: Vec::new(),
            };
            self.tracked.insert(Arc::clone(partition), tracked);
            return Movement {
                changing: 0,
                unchanged_for: Duration::ZERO,
            };
        };
        if known.fingerprint == fingerprint {
            let unchanged_for = now.saturating_duration_since(known.unchanged_since);
            return Movement {
                changing: 0,
                unchanged_for,
            };
        }
        let new = listed();
        let changing = difference(&known.files, &new).max(1);
        known.fingerprint = fingerprint;
        known.unchanged_since = now;
        known.files = new;
        Movement {
            changing,
            unchanged_for: Duration::ZERO,
        }
    }

    /// Says what a partition waits for.
    pub(crate) fn syncing(&mut self, partition: &Arc<str>, missing: Vec<Missing>, now: Instant) {
        let reason = words(&missing);
        self.explain(partition, State::Syncing, reason, missing, now);
    }

    /// Says why a partition cannot be published.
    pub(crate) fn refuse(&mut self, partition: &Arc<str>, reason: String, now: Instant) {
        self.explain(partition, State::Refused, reason, Vec::new(), now);
    }

    fn explain(
        &mut self,
        partition: &Arc<str>,
        state: State,
        reason: String,
        missing: Vec<Missing>,
        now: Instant,
    ) {
        let tracked = self
            .tracked
            .entry(Arc::clone(partition))
            .or_insert_with(|| Tracked {
                fingerprint: Fingerprint::default(),
                unchanged_since: now,
                since: now,
                files: Vec::new(),
                state,
                reason: String::new(),
                missing: Vec::new(),
            });
        (tracked.state, tracked.reason, tracked.missing) = (state, reason, missing);
    }

    /// Keeps what holds for the whole table; its age goes on while the reason stays the same.
    pub(crate) fn trouble(&mut self, reason: Option<String>, now: Instant) {
        self.trouble = reason.map(|reason| match self.trouble.take() {
            Some((known, since)) if known == reason => (known, since),
            _ => (reason, now),
        });
    }

    /// Ends a look that got an answer: forgets partitions that are published or gone.
    pub(crate) fn looked(&mut self, scan: &Scan, now: Instant) {
        self.looked = Some(now);
        let published = &self.published.partitions;
        self.tracked.retain(|partition, tracked| {
            let seen = scan.partitions.get(partition);
            let same = published
                .get(partition)
                .is_some_and(|known| known.fingerprint == seen.map(|sketch| sketch.fingerprint));
            let held = self.absent.contains_key(partition);
            (seen.is_some() && (!same || tracked.state == State::Refused)) || held
        });
        let refused = scan.refused.iter().map(Refusal::to_string);
        self.warnings
            .retain(|warning| !warning.starts_with(LEFT_OUT));
        if scan.refused_count > 0 {
            let shown: Vec<String> = refused.take(3).collect();
            self.warnings.push(format!(
                "{LEFT_OUT} {}: {}",
                scan.refused_count,
                shown.join("; ")
            ));
        }
    }

    /// After a batch: what is published is read again, and nothing is tracked that may be published now.
    pub(crate) fn forget_published(&mut self) {
        self.published = Published::default();
        self.tracked.clear();
        self.absent.clear();
    }

    /// Whether somebody is writing: then the table is looked at again soon.
    pub(crate) fn is_active(&self) -> bool {
        let syncing = self
            .tracked
            .values()
            .any(|tracked| tracked.state == State::Syncing);
        syncing || !self.absent.is_empty()
    }

    /// The answer to "why".
    pub(crate) fn why(&self, dataset: &str, location: &str, now: Instant) -> Why {
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        let count = |state: State| {
            self.tracked
                .values()
                .filter(|tracked| tracked.state == state)
                .count() as u64
        };
        let published = self.published.partitions.keys();
        let partitions = self
            .tracked
            .iter()
            .take(SHOWN)
            .map(|(partition, tracked)| PartitionWhy {
                partition: partition.to_string(),
                state: tracked.state,
                reason: tracked.reason.clone(),
                missing: tracked.missing.clone(),
                since_seconds: age(tracked.since),
            });
        Why {
            dataset: dataset.to_owned(),
            location: location.to_owned(),
            version: self.published.version,
            trouble: self.trouble.as_ref().map(|(reason, since)| Trouble {
                reason: reason.clone(),
                since_seconds: age(*since),
            }),
            warnings: self.warnings.clone(),
            complete: published
                .filter(|partition| !self.tracked.contains_key(*partition))
                .count() as u64,
            syncing: count(State::Syncing),
            refused: count(State::Refused),
            partitions: partitions.collect(),
            looked_seconds_ago: self.looked.map(age),
        }
    }
}

/// How the warning about paths outside every partition begins.
const LEFT_OUT: &str = "files left out:";

/// Entries that are in one sorted list and not in the other, or differ.
fn difference<T: Ord>(one: &[(Arc<str>, u64, i64, T)], other: &[(Arc<str>, u64, i64, T)]) -> u64 {
    let key = |entry: &(Arc<str>, u64, i64, T)| Arc::clone(&entry.0);
    let old: BTreeMap<Arc<str>, &(Arc<str>, u64, i64, T)> =
        one.iter().map(|entry| (key(entry), entry)).collect();
    let mut count = 0;
    let mut matched = 0;
    for entry in other {
        match old.get(&entry.0) {
            Some(known) if *known == entry => matched += 1,
            Some(_) => {
                matched += 1;
                count += 1;
            }
            None => count += 1,
        }
    }
    count + (old.len() - matched) as u64
}

/// A partition that may be published: what the second listing found.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) partition: Arc<str>,
    pub(crate) values: Values,
    /// Sorted; paths below the table.
    pub(crate) files: Vec<UpFile>,
    pub(crate) proof: super::completeness::Proof,
    pub(crate) marker_ms: Option<i64>,
    pub(crate) unchanged_for: Duration,
}

impl Sketch {
    /// Whether this is what is published.
    pub(crate) fn is_published(&self, published: Option<&PublishedPartition>) -> bool {
        published.is_some_and(|known| known.fingerprint == Some(self.fingerprint))
    }
}
