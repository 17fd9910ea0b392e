//! What the files of a dataset are: format, columns, statistics, and how they may change.
//!
//! ```text
//! types      columns and their types: the language of this module, and its text in a manifest
//! parquet/   footers, read lazily                text       JSON lines and CSV, from a sample
//! orc        footers too (protobuf)              unpack     what footers are compressed with
//! tfrecord   framing and feature names           archive    WebDataset tars
//! media      image and audio folders             delta/     Delta's log: which files, which columns
//! iceberg/   Iceberg's metadata and manifests: which files, which columns
//! infer      the ladder: the first rung that holds decides, with how sure it is
//! evolution  what a new version may change, by policy     history   what its older partitions have
//! told       what one file says about its columns, as manifests keep it
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
mod orc;
mod parquet;
mod protobuf;
mod rows;
mod sniff;
mod text;
mod tfrecord;
mod told;
mod types;
mod unpack;

pub use infer::{Inferred, infer};
pub use parquet::Footer;
pub use rows::{CELL_MAX, Rows, first_rows};
pub(crate) use told::Names;
pub use types::{ColumnRange, Confidence, Field, FileFormat, Scalar, Schema, Type};

use crate::upstream::{UpFile, Upstream, UpstreamError};

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

/// Reads what a file of a format says at its end; for formats that [`FileFormat::has_footer`].
/// `Damaged` for whatever is not a complete file of it.
pub async fn read_footer(
    upstream: &dyn Upstream,
    file: &UpFile,
    format: FileFormat,
) -> Result<Footer, Problem> {
    match format {
        FileFormat::Orc => orc::read_footer(upstream, file).await,
        _ => parquet::read_footer(upstream, file).await,
    }
}
