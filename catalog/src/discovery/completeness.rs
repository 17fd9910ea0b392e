//! Is a partition complete? A pure function of what was seen, and the heart of discovery.
//!
//! The first rule that applies decides, and the ones behind it are not asked:
//!
//! ```text
//! 1 manifest file      every file it lists is there with its size, and no other          exact
//! 2 expectation        of the call that announced the batch: files, bytes, rows          exact
//! 3 partition marker   in the partition's directory, not older than any of its files
//! 4 table marker       `_SUCCESS` of the table, not older than any file of the partition
//! 5 quiescence         opt-in: unchanged for a while by *our* clock, over several listings
//! ```
//!
//! Rules 3 to 5 also want that no staging is left. Times of the store are compared with times of the
//! store, and times of ours with times of ours: a skewed clock decides nothing. A marker of the very
//! millisecond or second of the newest file does not prove the order (S3 tells whole seconds), so
//! such a partition must also be seen unchanged for [`TIE_SETTLES`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long files that are exactly as old as their marker must be seen unchanged: longer than the
/// coarsest resolution of a store's times.
pub const TIE_SETTLES: Duration = Duration::from_secs(2);

/// What a sync promised about a partition or batch; absent parts promise nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = BatchExpectation)]
pub struct Expect {
    /// Number of data files.
    pub files: Option<u64>,
    /// Their length together, in bytes.
    pub bytes: Option<u64>,
    /// Rows, by the files' own statistics.
    pub rows: Option<u64>,
}

/// Which signals count for a dataset. Manifest files and expectations always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Markers in partition directories.
    pub partition_markers: bool,
    /// The marker in the table's directory.
    pub table_marker: bool,
    /// Take a partition as complete when it was seen unchanged for so long and has no marker, or an older
    /// one. For sources whose writers leave no signal. Whole seconds.
    pub quiet_seconds: Option<u64>,
}

impl Default for Rule {
    /// Both markers, no quiescence.
    fn default() -> Self {
        Self {
            partition_markers: true,
            table_marker: true,
            quiet_seconds: None,
        }
    }
}

/// What one pass saw of a partition. All `_ms` are times of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Data files.
    pub files: u64,
    /// Their length together.
    pub bytes: u64,
    /// Modification time of the newest data file; none without files.
    pub newest_ms: Option<i64>,
    /// What the manifest file says about the listing, when there is a manifest file.
    pub manifest: Option<ManifestMatch>,
    /// Modification time of the marker in the partition's own directory.
    pub partition_marker_ms: Option<i64>,
    /// Modification time of the table's marker.
    pub table_marker_ms: Option<i64>,
    /// Entries of writers at work in the partition, or in the table where they may belong to any.
    pub staging: u64,
    /// Files that differ from the pass before; 0 at the first pass.
    pub changing: u64,
    /// For how long, by our clock, the passes have seen exactly these files; zero at the first pass.
    pub unchanged_for: Duration,
}

/// A listing held against a manifest file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestMatch {
    /// Files it lists that are not there.
    pub missing: u64,
    /// Files with another size (or checksum) than it lists.
    pub different: u64,
    /// Files it does not list.
    pub extra: u64,
    /// The manifest file cannot be read as one.
    pub broken: bool,
}

/// What proved a partition complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A table format's log (Iceberg, Delta).
    TableLog,
    /// A manifest file.
    Manifest,
    /// The expectation of a call.
    Expectation,
    /// A call without an expectation: whoever calls says that it is finished.
    Call,
    /// The marker in the partition.
    PartitionMarker,
    /// The marker of the table.
    TableMarker,
    /// Quiescence.
    Quiet,
}

/// What is missing, in the order in which a person wants to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "missing")]
pub enum Missing {
    /// No data file at all.
    Files,
    /// Files changed since the pass before.
    StillChanging {
        /// How many.
        files: u64,
    },
    /// Entries of writers at work.
    Staging {
        /// How many.
        entries: u64,
    },
    /// No marker anywhere.
    Marker,
    /// Only a call or a manifest file counts, and there was none.
    Announcement,
    /// Files of the published version are gone, and no new marker says that this is meant; it must
    /// stay so for a while.
    Vanished {
        /// How many.
        files: u64,
    },
    /// A marker, but files are newer.
    OldMarker {
        /// By how much the newest file is newer, milliseconds of the store's clock.
        behind_ms: i64,
    },
    /// The marker is as old as the newest file; seen unchanged not long enough.
    Tie,
    /// Complete by itself; another partition under the same marker of the table is not proven yet.
    Siblings,
    /// Quiescence is asked for and has not lasted long enough.
    Quiet {
        /// Seconds that it has lasted.
        seconds: u64,
        /// Seconds that it must last.
        wanted: u64,
    },
    /// The manifest file and the listing differ.
    Manifest(ManifestMatch),
    /// The expectation of the call is not met.
    Expected {
        /// `files`, `bytes` or `rows`.
        what: String,
        /// As promised.
        wanted: u64,
        /// As found.
        found: Option<u64>,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May be published.
    Complete(Proof),
    /// May not; what is missing.
    Syncing(Vec<Missing>),
}

/// Decides for one partition. `expect` is that of the call, when one announced it.
pub fn judge(seen: &Seen, rule: &Rule, expect: Option<&Expect>) -> Verdict {
    if let Some(found) = seen.manifest {
        return if found == ManifestMatch::default() {
            Verdict::Complete(Proof::Manifest)
        } else {
            Verdict::Syncing(vec![Missing::Manifest(found)])
        };
    }
    if let Some(expect) = expect {
        return judge_expectation(seen, expect);
    }
    let mut missing = Vec::new();
    let Some(newest) = seen.newest_ms else {
        return Verdict::Syncing(vec![Missing::Files]);
    };
    if seen.changing > 0 {
        missing.push(Missing::StillChanging {
            files: seen.changing,
        });
    }
    if seen.staging > 0 {
        missing.push(Missing::Staging {
            entries: seen.staging,
        });
    }
    let partition_marker = seen.partition_marker_ms.filter(|_| rule.partition_markers);
    let table_marker = seen.table_marker_ms.filter(|_| rule.table_marker);
    let proof = match (partition_marker, table_marker) {
        (Some(marker), _) => judge_marker(marker, newest, seen, Proof::PartitionMarker),
        (None, Some(marker)) => judge_marker(marker, newest, seen, Proof::TableMarker),
        (None, None) if rule.partition_markers || rule.table_marker => Err(Missing::Marker),
        (None, None) => Err(Missing::Announcement),
    };
    // An old marker does not say that another one will come: Spark's dynamic overwrite writes none, and
    // leaves that of the job before.
    let proof = match (proof, rule.quiet_seconds) {
        (Err(Missing::Marker | Missing::OldMarker { .. }), Some(wanted)) => {
            judge_quiet(seen.unchanged_for, wanted)
        }
        (proof, _) => proof,
    };
    match proof {
        Ok(proof) if missing.is_empty() => Verdict::Complete(proof),
        Ok(_) => Verdict::Syncing(missing),
        Err(why) => {
            missing.push(why);
            Verdict::Syncing(missing)
        }
    }
}

fn judge_marker(marker: i64, newest: i64, seen: &Seen, proof: Proof) -> Result<Proof, Missing> {
    match marker.cmp(&newest) {
        std::cmp::Ordering::Greater => Ok(proof),
        std::cmp::Ordering::Equal if seen.unchanged_for >= TIE_SETTLES => Ok(proof),
        std::cmp::Ordering::Equal => Err(Missing::Tie),
        std::cmp::Ordering::Less => Err(Missing::OldMarker {
            behind_ms: newest.saturating_sub(marker),
        }),
    }
}

fn judge_quiet(unchanged_for: Duration, wanted: u64) -> Result<Proof, Missing> {
    let seconds = unchanged_for.as_secs();
    if seconds >= wanted {
        Ok(Proof::Quiet)
    } else {
        Err(Missing::Quiet { seconds, wanted })
    }
}

/// Files and bytes only: rows are compared by [`rows_missing`] once the files have been looked into.
fn judge_expectation(seen: &Seen, expect: &Expect) -> Verdict {
    let compare = |what: &str, wanted: Option<u64>, found: u64| {
        wanted
            .filter(|wanted| *wanted != found)
            .map(|wanted| Missing::Expected {
                what: what.to_owned(),
                wanted,
                found: Some(found),
            })
    };
    let missing: Vec<Missing> = [
        compare("files", expect.files, seen.files),
        compare("bytes", expect.bytes, seen.bytes),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !missing.is_empty() {
        Verdict::Syncing(missing)
    } else if *expect == Expect::default() {
        Verdict::Complete(Proof::Call)
    } else {
        Verdict::Complete(Proof::Expectation)
    }
}

/// Whether promised rows are missing. Rows that no file tells cannot be checked, and so are not met.
pub fn rows_missing(expect: &Expect, found: Option<u64>) -> Option<Missing> {
    let wanted = expect.rows?;
    (found != Some(wanted)).then(|| Missing::Expected {
        what: "rows".to_owned(),
        wanted,
        found,
    })
}

#[cfg(test)]
mod tests;
