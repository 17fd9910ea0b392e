//! What the files of a dataset are: format, columns, statistics, and how they may change.
//!
//! ```text
//! types      columns and their types: the language of this module, and its text in a manifest
//! parquet/   footers, read lazily                text       JSON lines and CSV, from a sample
//! tfrecord   framing and feature names           archive    WebDataset tars
//! media      image and audio folders             delta      Delta's log: which files, which columns
//! iceberg/   Iceberg's metadata and manifests: which files, which columns
//! infer      the ladder: the first rung that holds decides, with how sure it is
//! evolution  what a new version may change, by policy     history   what its older partitions have
//! rows       the first rows of a file, for people
//! ```
//!
//! Files are read through [`crate::upstream`] by small ranges and are never trusted: a damaged file is a
//! [`Problem`] of that file, whatever its bytes.

mod archive;
pub(crate) mod delta;
pub mod evolution;
pub(crate) mod history;
pub(crate) mod iceberg;
mod infer;
mod media;
mod parquet;
mod rows;
mod sniff;
mod text;
mod tfrecord;
mod types;

pub use infer::{Inferred, infer};
pub use parquet::{Footer, read_footer};
pub use rows::{CELL_MAX, Rows, first_rows};
pub use types::{ColumnRange, Confidence, Field, FileFormat, Scalar, Schema, Type};

use crate::upstream::UpstreamError;

/// Why a file could not be looked into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not what it should be. Shown by `why` with the file's name.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Problem {
    pub(crate) fn damaged(path: &str, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
