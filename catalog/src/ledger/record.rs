//! What the ledger stores under its keys: JSON objects, each with `"format": 1`.
//!
//! These types are only read and written; the ledger computes with those of `version.rs`, `dataset.rs`
//! and `event.rs`. A field that is added later has a default; a change of meaning is a new format, and
//! a reader refuses a format it does not know. Golden files: `tests/golden/ledger-1.jsonl`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LedgerError;
use crate::kv::Versioned;

/// The format that is written.
pub(super) const FORMAT: u32 = 1;
/// How a record of it begins.
const CURRENT: &[u8] = b"{\"format\":1,";

/// A record that says which format it has.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// What it is, for messages.
    const WHAT: &'static str;
}

#[derive(Serialize)]
struct Out<'a, T> {
    format: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The bytes of a record.
pub(super) fn encode<T: Record>(record: &T) -> Result<Bytes, LedgerError> {
    let out = Out {
        format: FORMAT,
        record,
    };
    let bytes = serde_json::to_vec(&out);
    bytes
        .map(Bytes::from)
        .map_err(|error| LedgerError::Damaged(format!("{}: {error}", T::WHAT)))
}

/// Reads a record.
pub(super) fn decode<T: Record>(bytes: &[u8]) -> Result<T, LedgerError> {
    let damaged = |error: &dyn std::fmt::Display| {
        LedgerError::Damaged(format!("the record of {}: {error}", T::WHAT))
    };
    // As `encode` begins; files for people are indented.
    if !bytes.starts_with(CURRENT) {
        let format: Format = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if format.format != FORMAT {
            let text = format!(
                "its format is {}, and this program knows {FORMAT}",
                format.format
            );
            return Err(damaged(&text));
        }
    }
    serde_json::from_slice(bytes).map_err(|error| damaged(&error))
}

/// Reads a stored record, if there is one.
pub(super) fn stored<T: Record>(found: Option<&Versioned>) -> Result<Option<T>, LedgerError> {
    found.map(|found| decode(&found.value)).transpose()
}

/// Under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRecord {
    pub(super) id: u64,
    /// `dataset` or `model`: lists are filtered without a second look.
    pub(super) kind: String,
    /// What a search looks at besides the name.
    #[serde(default)]
    pub(super) text: String,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DatasetRecord {
    pub(super) name: String,
    pub(super) descriptor: serde_json::Value,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) state: DatasetStateRecord,
    /// Numbers of its columns; none before somebody asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) columns: Option<ColumnsRecord>,
}

/// Numbers of columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnsRecord {
    /// The greatest that was ever given.
    pub(super) last: u32,
    /// Path -> kinds and their numbers.
    pub(super) ids: BTreeMap<String, Vec<(String, u32)>>,
}

/// Whether it is being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum DatasetStateRecord {
    Active,
    Removing {
        not_before_ms: i64,
    },
    /// The name is free again; what belongs to the id is being deleted.
    Removed,
}

/// Where `latest`, a tag or a day points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefRecord {
    pub(super) version: u64,
    pub(super) manifest: String,
    pub(super) at_ms: i64,
    /// Root of the partitions' source sequences; in `latest` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequences: Option<String>,
    /// The greatest source sequence ever; in `latest` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequence_high: Option<u64>,
    /// Whether SQL engines can read its files as a table; in `latest` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<bool>,
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    pub(super) number: u64,
    pub(super) manifest: String,
    pub(super) created_ms: i64,
    pub(super) day: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<u64>,
    pub(super) partitions: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<String>,
    #[serde(default)]
    pub(super) cause: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) summary: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequences: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequence_high: Option<u64>,
    pub(super) state: VersionStateRecord,
}

/// What became of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum VersionStateRecord {
    Committed,
    Degraded { since_ms: i64, reason: String },
    Removing { not_before_ms: i64 },
}

/// What a batch led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchRecord {
    pub(super) version: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) at_ms: i64,
    pub(super) dataset: u64,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) what: EventKindRecord,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum EventKindRecord {
    DatasetCreated { kind: String, text: String },
    DatasetUpdated { kind: String, text: String },
    DatasetRemoving { not_before_ms: i64 },
    DatasetKept,
    DatasetRemoved,
    VersionCommitted { version: u64, manifest: String },
    VersionDegraded { version: u64, reason: String },
    VersionRemoving { version: u64, not_before_ms: i64 },
    VersionKept { version: u64 },
    VersionRemoved { version: u64 },
    Tagged { tag: String, version: u64 },
    Untagged { tag: String },
}

/// Why a version stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HoldRecord {
    pub(super) since_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until_ms: Option<i64>,
    #[serde(default)]
    pub(super) note: String,
}

/// A save that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SaveRecord {
    /// URL of the vault it is written to.
    pub(super) vault: String,
    /// Where in the vault: `vault::Place`.
    pub(super) place: String,
    pub(super) since_ms: i64,
    pub(super) until_ms: i64,
}

/// Up to where events were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrimRecord {
    pub(super) up_to: u64,
}

/// A mirror file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionMirror {
    pub(super) tenant: u32,
    pub(super) dataset: u64,
    /// The transaction after which it was written.
    pub(super) revision: u64,
    /// The dataset as it was then: a version's file is enough to restore both.
    pub(super) record: DatasetRecord,
    pub(super) version: VersionRecord,
}

/// A mirror file of a dataset, its tags and what else may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DatasetMirror {
    pub(super) tenant: u32,
    pub(super) dataset: u64,
    /// The transaction after which it was written.
    pub(super) revision: u64,
    pub(super) record: DatasetRecord,
    pub(super) tags: BTreeMap<String, u64>,
    /// The greatest version number that was ever given.
    #[serde(default)]
    pub(super) latest: u64,
    /// Batches that led to no version of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) batches: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequences: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sequence_high: Option<u64>,
}

macro_rules! records {
    ($($record:ty = $what:literal),* $(,)?) => {
        $(impl Record for $record {
            const WHAT: &'static str = $what;
        })*
    };
}

records! {
    NameRecord = "a name",
    DatasetRecord = "a dataset",
    RefRecord = "a tag",
    VersionRecord = "a version",
    BatchRecord = "a batch",
    EventRecord = "an event",
    HoldRecord = "a hold",
    SaveRecord = "a save",
    TrimRecord = "removed events",
    VersionMirror = "a mirrored version",
    DatasetMirror = "a mirrored dataset",
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn version() -> VersionRecord {
        VersionRecord {
            number: 12,
            manifest: "ab".repeat(32),
            created_ms: 1_795_176_000_000,
            day: "2026-11-20".into(),
            parent: Some(11),
            partitions: 2,
            files: 128,
            bytes: 17_179_869_184,
            rows: Some(91_234_567),
            batch: Some("20261120001".into()),
            cause: "_SUCCESS".into(),
            summary: BTreeMap::from([("added".into(), "1".into())]),
            sequences: Some("cd".repeat(32)),
            sequence_high: Some(7),
            state: VersionStateRecord::Committed,
        }
    }

    fn dataset() -> DatasetRecord {
        DatasetRecord {
            name: "ads.clicks".into(),
            descriptor: serde_json::json!({"kind": "Dataset"}),
            created_ms: 1,
            updated_ms: 2,
            state: DatasetStateRecord::Removing { not_before_ms: 3 },
            columns: None,
        }
    }

    fn save() -> SaveRecord {
        SaveRecord {
            vault: "s3://cold/models".into(),
            place: "0000000000000007/019f8a5d1c00-00000000000000ff".into(),
            since_ms: 1,
            until_ms: 2,
        }
    }

    fn reference() -> RefRecord {
        RefRecord {
            version: 12,
            manifest: "ab".repeat(32),
            at_ms: 1,
            sequences: None,
            sequence_high: None,
            table: None,
        }
    }

    /// One of each, as they are stored.
    fn all() -> Vec<Bytes> {
        let event = |what| EventRecord {
            at_ms: 1,
            dataset: 7,
            name: "ads.clicks".into(),
            what,
        };
        let mut degraded = version();
        degraded.state = VersionStateRecord::Degraded {
            since_ms: 4,
            reason: "overwritten".into(),
        };
        let committed = EventKindRecord::VersionCommitted {
            version: 12,
            manifest: "ab".repeat(32),
        };
        let tagged = EventKindRecord::Tagged {
            tag: "prod".into(),
            version: 12,
        };
        let hold = HoldRecord {
            since_ms: 1,
            until_ms: Some(2),
            note: String::new(),
        };
        let name = NameRecord {
            id: 7,
            kind: "dataset".into(),
            text: "clicks".into(),
        };
        let version_mirror = VersionMirror {
            tenant: 0,
            dataset: 7,
            revision: 9,
            record: dataset(),
            version: version(),
        };
        let dataset_mirror = DatasetMirror {
            tenant: 0,
            dataset: 7,
            revision: 9,
            record: dataset(),
            tags: BTreeMap::from([("prod".into(), 12)]),
            latest: 12,
            batches: BTreeMap::new(),
            sequences: None,
            sequence_high: None,
        };
        vec![
            encode(&name).unwrap(),
            encode(&dataset()).unwrap(),
            encode(&reference()).unwrap(),
            encode(&version()).unwrap(),
            encode(&degraded).unwrap(),
            encode(&BatchRecord { version: 12 }).unwrap(),
            encode(&event(committed)).unwrap(),
            encode(&event(tagged)).unwrap(),
            encode(&event(EventKindRecord::DatasetKept)).unwrap(),
            encode(&hold).unwrap(),
            encode(&TrimRecord { up_to: 5 }).unwrap(),
            encode(&version_mirror).unwrap(),
            encode(&dataset_mirror).unwrap(),
            encode(&save()).unwrap(),
        ]
    }

    // What is written today is read by every later program: a field that is renamed loses a catalog.
    #[test]
    fn records_are_the_golden_ones() {
        let golden = include_str!("../../tests/golden/ledger-1.jsonl");
        let written: String = all()
            .iter()
            .map(|record| format!("{}\n", String::from_utf8_lossy(record)))
            .collect();
        assert_eq!(golden, written, "{written}");
        let line = |at: usize| golden.lines().nth(at).unwrap().as_bytes();
        assert_eq!(decode::<VersionRecord>(line(3)).unwrap(), version());
        assert_eq!(decode::<DatasetRecord>(line(1)).unwrap(), dataset());
        assert_eq!(
            decode::<VersionMirror>(line(11)).unwrap().version,
            version()
        );
    }

    // A record of a later format, read as one of this one, is read wrong.
    #[test]
    fn other_formats_are_refused() {
        let later = br#"{"format":2,"version":12}"#;
        let error = decode::<BatchRecord>(later).unwrap_err();
        assert!(error.to_string().contains("its format is 2"), "{error}");
        assert!(decode::<BatchRecord>(br#"{"version":12}"#).is_err());
    }

    proptest! {
        // Bytes from a disk may be anything.
        #[test]
        fn any_bytes_are_answered(at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let records = all();
            let mut record = records[at.index(records.len())].to_vec();
            let place = cut.index(record.len());
            let _ = decode::<VersionMirror>(&record[..place]);
            record[place] = byte;
            let _ = decode::<VersionRecord>(&record);
            let _ = decode::<EventRecord>(&record);
            let _ = decode::<DatasetMirror>(&record);
        }
    }
}
