//! The first rows of a version on the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Column;

/// The first rows of one file of a version; for formats without rows, its files.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Number of the version.
    pub version: u64,
    /// The columns, those of the partition last.
    pub columns: Vec<Column>,
    /// A value for each column, null where there is none. Integers above 2^53 and decimals are texts.
    pub rows: Vec<Vec<Value>>,
    /// The file that was read, below the version's location.
    pub file: Option<String>,
    /// What is not shown, and why.
    pub note: Option<String>,
}
