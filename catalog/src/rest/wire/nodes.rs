//! Nodes, heat and warm-up jobs on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a tier of a node is used.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TierItem {
    /// `hot` or `warm`.
    pub name: String,
    /// Bytes in use; null where nobody counts them.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(default, deserialize_with = "super::number::some_bytes")]
    pub used_bytes: Option<u64>,
    /// Budget; null without one.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(default, deserialize_with = "super::number::some_bytes")]
    pub limit_bytes: Option<u64>,
}

/// A node, as it said last.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeItem {
    /// Its name.
    pub node: String,
    /// When it spoke.
    pub seen_ms: i64,
    /// Whether that was a moment ago.
    pub fresh: bool,
    /// Version of its program.
    pub version: String,
    /// Its tiers, the fastest first.
    pub tiers: Vec<TierItem>,
    /// Mount points of this catalog's tables, as far as the caller may list what they show.
    pub mounts: Vec<String>,
    /// Datasets of which it has something near, as far as the caller may list them.
    pub datasets: u64,
}

/// The nodes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// In the order of their names.
    pub items: Vec<NodeItem>,
}

/// Bytes of a version in each tier of a node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeatTiers {
    /// On the node's own disk.
    pub hot: u64,
    /// In the shared copy; null where it is not counted.
    pub warm: Option<u64>,
}

/// How much of a version a node has near.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeatItem {
    /// The node.
    pub node: String,
    /// Number of the version.
    pub version: u64,
    /// Bytes of the version.
    pub total_bytes: u64,
    /// How many of them are near.
    pub tiers: HeatTiers,
    /// When the node said so.
    pub seen_ms: i64,
    /// Whether that was a moment ago.
    pub fresh: bool,
}

/// Why a version stays.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HoldItem {
    /// Who holds it: `mount:n1`.
    pub holder: String,
    /// `mount`, `pin`, `model`, `receipt` or `job`.
    pub kind: String,
    /// Number of the version.
    pub version: u64,
    /// Since when.
    pub since_ms: i64,
}

/// Who has what of a dataset, and who holds it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeatReport {
    /// `namespace.table`.
    pub dataset: String,
    /// In the order of nodes and versions.
    pub items: Vec<HeatItem>,
    /// In the order of versions and holders.
    pub holds: Vec<HoldItem>,
}

/// Asks for a version to be brought near.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWarm {
    /// `namespace.table`, with `@v12`, `@tag` or a day behind it; resolved once.
    #[schema(
        pattern = r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}(@(latest|v[1-9][0-9]{0,17}|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(?!v[0-9]+$)[a-z]([a-z0-9_.-]{0,62}[a-z0-9_-])?))?$"
    )]
    pub selector: String,
    /// Names of nodes; null for every node that is there and mounts this catalog.
    #[serde(default)]
    pub nodes: Option<Vec<String>>,
    /// `hot` (the node's disk, the default), `warm` (the shared copy) or `metadata` (lists of files).
    #[serde(default)]
    #[schema(pattern = "^(hot|warm|metadata)$")]
    pub tier: Option<String>,
    /// Whether the bytes stay there; the tier must be `hot`, and the token must grant publish.
    #[serde(default)]
    pub pin: bool,
}

/// What one node does for a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WarmNode {
    /// The node.
    pub node: String,
    /// `waiting`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// Bytes that are in the tier, checked.
    pub done_bytes: u64,
    /// Bytes that are to be there.
    pub total_bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// A warm-up job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WarmJob {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub selector: String,
    /// `namespace.table`.
    pub dataset: String,
    /// The version that the selector meant.
    pub version: u64,
    /// `hot`, `warm` or `metadata`.
    pub tier: String,
    /// Whether the bytes stay there.
    pub pin: bool,
    /// `waiting`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// Bytes that are to be there, over all nodes.
    pub total_bytes: u64,
    /// Bytes that are there, checked, over all nodes.
    pub done_bytes: u64,
    /// The same in percent, rounded down; 100 when and only when the state is `done`.
    pub percent: f64,
    /// In the order of their names.
    pub nodes: Vec<WarmNode>,
    /// When it was made.
    pub created_ms: i64,
    /// Who asked for it.
    pub by: String,
}

/// Warm-up jobs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WarmList {
    /// The newest first.
    pub items: Vec<WarmJob>,
}

/// A mount of this catalog on a node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountReport {
    /// The directory.
    pub mountpoint: String,
    /// The one dataset it shows; absent for the tree of all tables.
    pub dataset: Option<String>,
    /// The one version it shows.
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    #[serde(default, deserialize_with = "super::number::some_positive")]
    pub version: Option<u64>,
}

/// How much of a version a node has.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionReport {
    /// `namespace.table`.
    pub dataset: String,
    /// Number of the version.
    #[schema(minimum = 1, maximum = 9007199254740991_i64)]
    #[serde(deserialize_with = "super::number::positive")]
    pub version: u64,
    /// Bytes of the version.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(deserialize_with = "super::number::bytes")]
    pub total_bytes: u64,
    /// How many of them are on the node's own disk.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(deserialize_with = "super::number::bytes")]
    pub hot_bytes: u64,
    /// How many of them are in the shared copy, if that was counted.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(default, deserialize_with = "super::number::some_bytes")]
    pub warm_bytes: Option<u64>,
    /// Whether somebody reads it there, or has it mounted.
    pub open: bool,
}

/// How far a node is with a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobReport {
    /// The job.
    pub id: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Bytes that are in the tier, checked.
    #[schema(maximum = 9223372036854775807_i64)]
    #[serde(deserialize_with = "super::number::bytes")]
    pub done_bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a node says every few seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// Version of its program.
    pub version: String,
    /// Stays with the node's disk: tells it from another node that was given the same name.
    pub instance: String,
    /// Its tiers.
    pub tiers: Vec<TierItem>,
    /// Its mounts of this catalog.
    pub mounts: Vec<MountReport>,
    /// What it has near, at most 1024 versions.
    pub datasets: Vec<VersionReport>,
    /// How far it is with the jobs it was told of.
    pub jobs: Vec<JobReport>,
}

/// A job for a node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobOrder {
    /// The job.
    pub id: String,
    /// `namespace.table`.
    pub dataset: String,
    /// Number of the version.
    pub version: u64,
    /// `hot`, `warm` or `metadata`.
    pub tier: String,
    /// Whether the bytes stay there.
    pub pin: bool,
    /// Whether pins of older versions end when this one is near.
    pub unpin_older: bool,
    /// Bytes that are to be there.
    pub total_bytes: u64,
}

/// The answer to a report.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ReportAnswer {
    /// What the node shall work on, the oldest first; work on anything else ends.
    pub jobs: Vec<JobOrder>,
}
