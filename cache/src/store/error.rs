//! What can go wrong with a store, by what the caller has to do about it.

use std::fmt;

/// Kind of a [`StoreError`]; each maps to one errno at the FUSE border and one hint to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The store answered that nothing is there. ENOENT.
    NotFound,
    /// The store refused the caller. EACCES.
    Permission,
    /// The store asked to slow down until the retry budget was used up. EAGAIN is not an answer to
    /// read(2), so EIO with a log line.
    Throttled,
    /// No answer within the deadline. Never means "deleted". ETIMEDOUT.
    Unreachable,
    /// The pinned version is gone. ESTALE for the handle; a fresh open sees the new version.
    Changed,
    /// The answer contradicts itself or its checksum. EIO.
    Corrupt,
    /// The request itself is wrong (bad URL, unsupported). EINVAL.
    Invalid,
}

/// An error of a store: what failed, on what, why, and what to try.
#[derive(Clone, Debug)]
pub struct StoreError {
    /// What the caller has to do about it.
    pub kind: StoreErrorKind,
    /// Present-tense verb phrase: `read range`, `list`, `head`.
    pub operation: &'static str,
    /// URL of the thing, without credentials.
    pub target: String,
    /// Why, in one line, without credentials.
    pub reason: String,
}

impl StoreErrorKind {
    /// What a user can try, in one sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NotFound => "check the name; the store answered that it does not exist",
            Self::Permission => "check the credentials and the permissions of this key",
            Self::Throttled => "lower the store's concurrency limit or ask for a higher quota",
            Self::Unreachable => "check the endpoint, the network and the store's health",
            Self::Changed => "open the file again to read its new version",
            Self::Corrupt => "check proxies between here and the store; run `terrace doctor`",
            Self::Invalid => "check the URL and the configuration",
        }
    }
}

impl StoreError {
    /// True when the store answered that nothing is there.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}; {}",
            self.operation,
            self.target,
            self.reason,
            self.kind.hint()
        )
    }
}

impl std::error::Error for StoreError {}
