//! What goes over the wire, as JSON. Clients of this crate read the same types.
//!
//! Numbers of times are milliseconds since 1970; sizes are bytes. A page ends with `next`: the value
//! for `after` that continues it, absent on the last page. Readers ignore fields they do not know;
//! requests with unknown fields are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::discovery::RootSpec;

mod iceberg;
mod nodes;
mod number;
mod query;
mod sample;
mod save;
mod sql;
mod token;

pub use iceberg::{
    IcebergConfig, IcebergError, IcebergErrorDetail, IcebergNamespace, IcebergNamespaces,
    IcebergTable, IcebergTableName, IcebergTables,
};
pub use nodes::{
    HeatItem, HeatReport, HeatTiers, HoldItem, JobOrder, JobReport, MountReport, NewWarm, NodeItem,
    NodeList, NodeReport, ReportAnswer, TierItem, VersionReport, WarmJob, WarmList, WarmNode,
};
pub use query::{
    DatasetQuery, DiffQuery, DirectoryQuery, EventQuery, FileQuery, GcQuery, NameQuery,
    NamespaceQuery, RemoveQuery, ResolveQuery, RootQuery, SampleQuery, ScrubQuery, VersionQuery,
    WarmQuery,
};
pub use sample::Sample;
pub use save::{FinishSave, NewSave, RemovalPlan, SaveState, SaveStatus};
pub use sql::SqlDetail;
pub use token::{GrantText, IssuedToken, NewToken, TokenEntry, TokenList};

/// Every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Kind of error; does not change between versions.
    pub code: String,
    /// What failed, on what, and why.
    pub message: String,
    /// What to try.
    pub hint: String,
}

/// The server lives.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the program.
    pub version: String,
}

/// A dataset in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DatasetSummary {
    /// `namespace.table`.
    pub name: String,
    /// `dataset` or `model`.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Number of the latest version; absent before the first.
    pub latest: Option<u64>,
    /// When the latest version was committed.
    pub committed_ms: Option<i64>,
    /// Digest of the manifest of the latest version.
    pub manifest: Option<String>,
    /// Files of the latest version.
    pub files: u64,
    /// Bytes of the latest version.
    pub bytes: u64,
    /// When it may be removed; absent unless it is being removed.
    pub removing_not_before_ms: Option<i64>,
}

/// A page of datasets, in the order of their names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DatasetPage {
    /// The datasets.
    pub items: Vec<DatasetSummary>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// A page of names, in order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NamePage {
    /// The names.
    pub items: Vec<String>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// How far the removal of something is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// `marked`, `kept` or `removed`.
    pub state: String,
    /// When a second call may remove it.
    pub not_before_ms: Option<i64>,
}

/// A dataset with its descriptor and tags.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DatasetDetail {
    /// As in lists.
    #[serde(flatten)]
    pub summary: DatasetSummary,
    /// The descriptor, as it was registered, with defaults filled in.
    pub descriptor: Value,
    /// Tag -> number of the version it names.
    pub tags: BTreeMap<String, u64>,
}

/// A version in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionSummary {
    /// `namespace.table`.
    pub dataset: String,
    /// Its number, from 1.
    pub version: u64,
    /// The text that always means this version: `namespace.table@v12`.
    pub selector: String,
    /// When it was committed.
    pub committed_ms: i64,
    /// Digest of its manifest: equal digests are equal content.
    pub manifest: String,
    /// What made it.
    pub cause: String,
    /// `committed`, `degraded` (files have changed under it) or `removing`.
    pub state: String,
    /// Why it is degraded.
    pub reason: Option<String>,
    /// Number of partitions; 1 for a table without any.
    pub partitions: u64,
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Rows, where the format says.
    pub rows: Option<u64>,
}

/// A version, with what its manifest says about it as a whole.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionDetail {
    /// As in lists.
    #[serde(flatten)]
    pub summary: VersionSummary,
    /// Where its files are: the URL that paths of files are below.
    pub location: String,
    /// Format of the files.
    pub format: String,
    /// The schema, where there is one.
    pub schema: Option<Value>,
    /// Columns that partitions are made of, outermost first.
    pub partition_columns: Vec<Column>,
    /// What SQL engines see of it; told where one version is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlDetail>,
}

/// A column and its type.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the schema writes types.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A page of versions, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionPage {
    /// The versions.
    pub items: Vec<VersionSummary>,
    /// Continues behind this page.
    pub next: Option<u64>,
}

/// A file of a version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileItem {
    /// Path below the version's location.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When the store says it was written.
    pub mtime_ms: i64,
    /// What pins this version of the file in its store; means nothing elsewhere.
    pub token: String,
    /// Rows, where the format says.
    pub rows: Option<u64>,
}

/// A page of files, in the order of their paths' bytes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FilePage {
    /// Number of the version.
    pub version: u64,
    /// The files.
    pub items: Vec<FileItem>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// A directory of a version, without what is below its directories.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DirectoryPage {
    /// Number of the version.
    pub version: u64,
    /// Names of directories in it.
    pub directories: Vec<String>,
    /// Files in it, with their whole paths.
    pub files: Vec<FileItem>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// A partition of a version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PartitionItem {
    /// Its directory below the location; empty for a table without partitions.
    pub path: String,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, where the format says.
    pub rows: Option<u64>,
}

/// A page of partitions, in the order of their files' paths.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PartitionPage {
    /// Number of the version.
    pub version: u64,
    /// The partitions.
    pub items: Vec<PartitionItem>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// How a file differs between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only in the later one.
    Added,
    /// Only in the earlier one.
    Removed,
    /// In both, with other content.
    Changed,
}

/// A file that differs between two versions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffItem {
    /// Path below the location.
    pub path: String,
    /// How it differs.
    pub change: Change,
    /// Bytes in the earlier one.
    pub from_size: Option<u64>,
    /// Bytes in the later one.
    pub to_size: Option<u64>,
}

/// What differs between two versions, in the order of paths.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DiffPage {
    /// Number of the earlier version.
    pub from: u64,
    /// Number of the later version.
    pub to: u64,
    /// The files.
    pub items: Vec<DiffItem>,
    /// Continues behind this page.
    pub next: Option<String>,
}

/// Sets a tag.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TagRequest {
    /// The version that the tag names from now on.
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    #[serde(deserialize_with = "number::positive")]
    pub version: u64,
}

/// A tag and the version it names.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TagItem {
    /// The tag.
    pub tag: String,
    /// The version.
    pub version: u64,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventItem {
    /// Grows with every event; gaps mean nothing.
    pub seq: u64,
    /// When.
    pub at_ms: i64,
    /// `dataset_created`, `dataset_updated`, `dataset_removing`, `dataset_kept`, `dataset_removed`,
    /// `version_committed`, `version_degraded`, `version_removing`, `version_kept`, `version_removed`,
    /// `tagged` or `untagged`.
    pub kind: String,
    /// The dataset it happened to.
    pub dataset: String,
    /// The version it is about.
    pub version: Option<u64>,
    /// The tag it is about.
    pub tag: Option<String>,
}

/// A message of the stream of events. The first one has an id only: the stream begins behind it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventMessage {
    /// The sequence number: what `after` or `Last-Event-ID` takes.
    pub id: String,
    /// The kind, as in the data.
    pub event: Option<String>,
    /// An EventItem, as JSON.
    pub data: Option<String>,
}

/// A place that is to be watched for tables.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoot {
    /// `s3://bucket/prefix`, `hdfs://host:port/path` or `file:///dir`.
    #[schema(pattern = "^[a-z0-9]+://")]
    pub url: String,
    /// `namespace`, `layout` (hive, flat or descriptor), `completion` and others; each has a default.
    #[schema(value_type = Option<RootSpec>)]
    pub spec: Option<Value>,
}

/// The places that are watched.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RootList {
    /// In the order of their URLs: `url`, `spec`, `tables`, `refused`, `trouble`.
    pub items: Vec<Value>,
}

/// What a batch led to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// Number of the version.
    pub version: u64,
    /// The version.
    pub detail: VersionSummary,
}
