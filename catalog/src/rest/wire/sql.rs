//! What SQL engines see of a version.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What SQL engines see of a version; by its path all of it can be read.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SqlDetail {
    /// Why it is no table; nothing: it is one.
    pub reason: Option<String>,
    /// Partitions that the table does not have, because their files cannot be read as its columns.
    pub partitions_left_out: u64,
    /// Their files.
    pub files_left_out: u64,
    /// One of them, and why.
    pub example: Option<String>,
}
