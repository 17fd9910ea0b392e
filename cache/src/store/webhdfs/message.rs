//! JSON answers of WebHDFS, as far as a store needs them.
//!
//! Source: Hadoop's "WebHDFS REST API", section "JSON Schemas". Unknown fields are ignored.

use serde::Deserialize;

use crate::identity::{Token, Version};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) length: u64,
    pub(super) modification_time: i64,
    pub(super) path_suffix: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Absent from some HttpFS versions.
    #[serde(default)]
    pub(super) file_id: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StatusAnswer {
    pub(super) file_status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Statuses {
    pub(super) file_status: Vec<Status>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Partial {
    #[serde(rename = "FileStatuses")]
    pub(super) statuses: Statuses,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    pub(super) partial_listing: Partial,
    pub(super) remaining_entries: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListingAnswer {
    pub(super) directory_listing: Listing,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Remote {
    pub(super) exception: String,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct RemoteAnswer {
    pub(super) remote_exception: Remote,
}

impl Status {
    /// The pin; milliseconds are what HDFS keeps.
    pub(super) fn version(&self) -> Version {
        Version {
            token: Token::Hdfs {
                file_id: self.file_id,
            },
            size: self.length,
            mtime_ns: self.modification_time.saturating_mul(1_000_000),
        }
    }
}
