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
    let format: Format = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if format.format != FORMAT {
        let text = format!(
            "its format is {}, and this program knows {FORMAT}",
            format.format
        );
        return Err(damaged(&text));
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

/// A mirror file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionMirror {
    pub(super) tenant: u32,
    pub(super) dataset: u64,
    pub(super) name: String,
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
    VersionMirror = "a mirrored version",
    DatasetMirror = "a mirrored dataset",
}
