//! A version as the ledger computes with it.

use std::collections::BTreeMap;

use super::record::{VersionRecord, VersionStateRecord};
use super::{BatchId, DatasetId, LedgerError};
use crate::blobs::BlobId;
use crate::calendar::date;
use crate::manifest::Totals;
use crate::name::DatasetName;

/// A committed state of a dataset. Immutable but for its [`VersionState`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Whose version.
    pub dataset: DatasetName,
    /// The same, whatever the name is.
    pub id: DatasetId,
    /// 1, 2, 3 ..
    pub number: u64,
    /// Its files.
    pub manifest: BlobId,
    /// The version before it.
    pub parent: Option<u64>,
    /// When it was committed: milliseconds since 1970.
    pub created_ms: i64,
    /// The day of that, in UTC: `2026-11-20`.
    pub day: String,
    /// Sums over its files.
    pub totals: Totals,
    /// The batch that led to it.
    pub batch: Option<BatchId>,
    /// Why it was made, for people.
    pub cause: String,
    /// What changed, for people, by what is counted.
    pub summary: BTreeMap<String, String>,
    /// What became of it.
    pub state: VersionState,
    /// Root of the partitions' source sequences.
    pub(super) sequences: Option<BlobId>,
    pub(super) sequence_high: Option<u64>,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Nothing: it can be read.
    Committed,
    /// Some of its files are not what they were.
    Degraded {
        /// Since when: milliseconds since 1970.
        since_ms: i64,
        /// What was found.
        reason: String,
    },
    /// It is removed when nobody holds it and this time has come.
    Removing {
        /// Milliseconds since 1970.
        not_before_ms: i64,
    },
}

impl Version {
    pub(super) fn from_record(
        dataset: &DatasetName,
        id: DatasetId,
        record: VersionRecord,
    ) -> Result<Self, LedgerError> {
        let batch = record.batch.map(|batch| batch.parse());
        let bad = |error: crate::NameError| LedgerError::Damaged(error.to_string());
        Ok(Self {
            dataset: dataset.clone(),
            id,
            number: record.number,
            manifest: record.manifest.parse()?,
            parent: record.parent,
            created_ms: record.created_ms,
            day: record.day,
            totals: Totals {
                partitions: record.partitions,
                files: record.files,
                bytes: record.bytes,
                rows: record.rows,
            },
            batch: batch.transpose().map_err(bad)?,
            cause: record.cause,
            summary: record.summary,
            state: match record.state {
                VersionStateRecord::Committed => VersionState::Committed,
                VersionStateRecord::Degraded { since_ms, reason } => {
                    VersionState::Degraded { since_ms, reason }
                }
                VersionStateRecord::Removing { not_before_ms } => {
                    VersionState::Removing { not_before_ms }
                }
            },
            sequences: record.sequences.map(|root| root.parse()).transpose()?,
            sequence_high: record.sequence_high,
        })
    }

    pub(super) fn to_record(&self) -> VersionRecord {
        VersionRecord {
            number: self.number,
            manifest: self.manifest.to_string(),
            created_ms: self.created_ms,
            day: self.day.clone(),
            parent: self.parent,
            partitions: self.totals.partitions,
            files: self.totals.files,
            bytes: self.totals.bytes,
            rows: self.totals.rows,
            batch: self.batch.as_ref().map(ToString::to_string),
            cause: self.cause.clone(),
            summary: self.summary.clone(),
            sequences: self.sequences.map(|root| root.to_string()),
            sequence_high: self.sequence_high,
            state: match &self.state {
                VersionState::Committed => VersionStateRecord::Committed,
                VersionState::Degraded { since_ms, reason } => VersionStateRecord::Degraded {
                    since_ms: *since_ms,
                    reason: reason.clone(),
                },
                VersionState::Removing { not_before_ms } => VersionStateRecord::Removing {
                    not_before_ms: *not_before_ms,
                },
            },
        }
    }
}

/// The day of a moment (milliseconds since 1970), in UTC, as selectors spell it: `2026-11-20`.
pub fn day_of(ms: i64) -> String {
    date(ms.div_euclid(86_400_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A day that is computed wrong makes `@2026-11-20` another day's data.
    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, day) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_799_999, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_763_596_800_000, "2025-11-20"),
            (4_107_542_400_000, "2100-03-01"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(day_of(ms), day);
        }
    }
}
