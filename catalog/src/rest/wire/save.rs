//! Saving a model and removing things, as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::VersionSummary;

/// Begins a save, or goes on with one.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSave {
    /// The caller's name of it: the same one again is the same save. 1 to 190 letters, digits and
    /// `._:=-`.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._:=-]{0,189}$", max_length = 190)]
    pub save: String,
    /// Which of the catalog's places for models it is written to, as its URL; absent: the first.
    pub url: Option<String>,
}

/// Says that everything is written.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishSave {
    /// SHA-256 of the list beside the files, 64 hexadecimal digits.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub list: String,
}

/// How far a save is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SaveState {
    /// Files may be written.
    Writing,
    /// They are being read back.
    Checking,
    /// It is a version, which nothing changes any more.
    Ready,
}

/// A save.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SaveStatus {
    /// How far it is.
    pub state: SaveState,
    /// The URL to write files below; absent when it is ready.
    pub location: Option<String>,
    /// Name of the list that is written beside the files: one `{"path","size","sha256"}` a line, in
    /// the order of the paths.
    pub list_name: String,
    /// Until when nobody takes its files away; every call renews it.
    pub until_ms: Option<i64>,
    /// Bytes read back so far.
    pub checked_bytes: Option<u64>,
    /// Bytes to read back.
    pub total_bytes: Option<u64>,
    /// The version, when it is ready.
    pub version: Option<VersionSummary>,
}

/// A removal that was asked for, and what it takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RemovalPlan {
    /// `marked`, `kept` or `removed`.
    pub state: String,
    /// When it may be confirmed.
    pub not_before_ms: Option<i64>,
    /// What the second call has to bring as `confirm`.
    pub confirm: Option<String>,
    /// Versions that go.
    pub versions: u64,
    /// Files of them. Those that the catalog does not own stay where they are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
