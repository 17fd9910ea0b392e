//! The path of a directory volume, as a StorageClass or a PersistentVolume names it.
//!
//! ```text
//! home/alice                         below the one directory that the driver may serve
//! file:///mnt/pfs/home/alice         whole; below one of the directories that the driver may serve
//! ```
//!
//! Both consist of clean segments: none empty, none `.` or `..`, and of a relative path none hidden. Which
//! directories those are that the driver may serve, and that nothing below them is hidden, is judged where
//! they are known: [`crate::data::directory::Bases`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{AttributeError, value_error};

/// Longest path of a directory, in bytes.
const PATH_MAX: usize = 512;

/// Longest segment of it, in bytes.
const SEGMENT_MAX: usize = 128;

/// What a whole path begins with.
const SCHEME: &str = "file://";

/// The path of a directory volume. Valid by construction, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPath(Arc<str>);

impl DirectoryPath {
    /// The text, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The absolute path of `file:///...`; `None` for a relative one.
    pub fn absolute(&self) -> Option<&str> {
        self.0.strip_prefix(SCHEME)
    }
}

impl FromStr for DirectoryPath {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let refused = || {
            value_error(
                "directory",
                "a relative path, or file:// and an absolute one, of letters, digits, '_', '.' and '-', \
                 without hidden, empty or .. parts",
            )
        };
        let (below, hidden) = match text.strip_prefix(SCHEME) {
            Some(absolute) => (absolute.strip_prefix('/').ok_or_else(refused)?, true),
            None => (text, false),
        };
        let clean = |part: &str| is_clean(part) && (hidden || !part.starts_with('.'));
        if text.len() <= PATH_MAX && below.split('/').all(clean) {
            return Ok(Self(Arc::from(text)));
        }
        Err(refused())
    }
}

/// Whether a segment names one entry of a directory and nothing else.
fn is_clean(segment: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !matches!(segment, "" | "." | "..")
        && segment.len() <= SEGMENT_MAX
        && segment.bytes().all(inner)
}

impl fmt::Display for DirectoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
