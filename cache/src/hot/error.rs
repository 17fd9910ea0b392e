//! What can go wrong in the hot tier, by what the caller does about it.
//!
//! Every kind is a miss for the caller: the store still has the bytes. The kind only says whether
//! trying to write here again makes sense, and which counter it belongs to.

use std::io;
use std::path::{Path, PathBuf};

/// Kind of a [`HotError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HotErrorKind {
    /// No room within the budget and the watermark, and nothing left to evict.
    Full,
    /// The file system or the index answered with an error.
    Io,
    /// An operation overran its deadline; it may still be running.
    Timeout,
    /// Another daemon holds the directory.
    Locked,
    /// What was found on disk contradicts its checksum or its description.
    Corrupt,
    /// The tier was shut down, or refuses work because its disk is down.
    Closed,
}

/// An error of the hot tier: what failed, on what, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {}: {reason}", path.display())]
pub struct HotError {
    /// What the caller has to do about it.
    pub kind: HotErrorKind,
    /// Present-tense verb phrase: `write block`, `open index`.
    pub operation: &'static str,
    /// The file or directory it happened on.
    pub path: PathBuf,
    /// Why, in one line.
    pub reason: String,
}

impl HotError {
    pub(super) fn new(
        kind: HotErrorKind,
        operation: &'static str,
        path: &Path,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// No space, quota and inodes are [`HotErrorKind::Full`]; the rest is [`HotErrorKind::Io`].
    pub(super) fn io(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HotErrorKind::Full,
            _ => HotErrorKind::Io,
        };
        Self::new(kind, operation, path, error.to_string())
    }

    pub(super) fn corrupt(operation: &'static str, path: &Path, reason: impl Into<String>) -> Self {
        Self::new(HotErrorKind::Corrupt, operation, path, reason)
    }
}
