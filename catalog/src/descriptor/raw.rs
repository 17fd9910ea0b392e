//! The resource file as it is read and written. Field names are what users type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDescriptor {
    pub(super) api_version: String,
    pub(super) kind: RawKind,
    pub(super) metadata: RawMetadata,
    #[serde(default)]
    pub(super) spec: RawSpec,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum RawKind {
    Dataset,
    Model,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawMetadata {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<RawFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layout: Option<RawLayout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sync: Option<RawSync>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) storage: Option<RawStorage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) versions: Option<RawVersions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<RawAccess>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) serve: Option<RawServe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) warm: Option<RawWarm>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawFormat {
    Auto,
    Parquet,
    Orc,
    Arrow,
    Csv,
    Jsonl,
    Tfrecord,
    Webdataset,
    Images,
    Audio,
    Iceberg,
    Delta,
    Files,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawLayout {
    Hive,
    Flat,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawCompletion {
    SuccessFile,
    PartitionMarker,
    Call,
    Quiescence,
    Manifest,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawStorage {
    Reference,
    Managed,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawTier {
    None,
    Metadata,
    Full,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSync {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) completion: Option<RawCompletion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) marker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quiet_for: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) interval: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawVersions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keep: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keep_for: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawAccess {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) publish: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawServe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sql: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) huggingface: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawWarm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tier: Option<RawTier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<bool>,
}

/// Which keys each object of the file has, by its path. `*`: any.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("", &["apiVersion", "kind", "metadata", "spec"]),
    ("metadata", &["name", "description", "labels"]),
    ("metadata.labels", &["*"]),
    (
        "spec",
        &[
            "source", "format", "layout", "sync", "storage", "versions", "access", "serve", "warm",
        ],
    ),
    (
        "spec.sync",
        &["completion", "marker", "quietFor", "interval"],
    ),
    ("spec.versions", &["keep", "keepFor"]),
    ("spec.access", &["read", "publish"]),
    ("spec.serve", &["sql", "huggingface"]),
    ("spec.warm", &["tier", "pin"]),
];
