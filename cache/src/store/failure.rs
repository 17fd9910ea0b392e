//! Why one attempt failed, and whether another one could do better.
//!
//! Backends speak in failures; the store turns the last one into a [`StoreError`] that names the
//! operation and the object.

use std::error::Error;
use std::time::Duration;

use super::{StoreError, StoreErrorKind};

/// What may be done after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The answer is final.
    Never,
    /// Once more, at once: something of our own was stale (a token, a cached reader).
    Once,
    /// After a pause of the usual length.
    Pause,
    /// After at least this pause, which the store asked for.
    After(Duration),
}

/// One failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    pub(super) reason: String,
    pub(super) retry: Retry,
}

impl Failure {
    /// A final answer.
    pub(super) fn last(kind: StoreErrorKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            retry: Retry::Never,
        }
    }

    /// A failure that may pass.
    pub(super) fn passing(kind: StoreErrorKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            retry: Retry::Pause,
        }
    }

    /// No answer, or a cut one.
    pub(super) fn unreachable(reason: impl Into<String>) -> Self {
        Self::passing(StoreErrorKind::Unreachable, reason)
    }

    /// An answer that contradicts itself or the pin; another attempt may meet a healthy server.
    pub(super) fn corrupt(reason: impl Into<String>) -> Self {
        Self::passing(StoreErrorKind::Corrupt, reason)
    }

    /// The pinned version is gone.
    pub(super) fn changed(reason: impl Into<String>) -> Self {
        Self::last(StoreErrorKind::Changed, reason)
    }

    /// On a pinned read "nothing is there" means that the version read so far was deleted.
    pub(super) fn pinned(self) -> Self {
        match self.kind {
            StoreErrorKind::NotFound => {
                Self::changed(format!("the object was deleted: {}", self.reason))
            }
            _ => self,
        }
    }

    /// Names the operation and the object.
    pub(super) fn into_error(self, operation: &'static str, target: String) -> StoreError {
        StoreError {
            kind: self.kind,
            operation,
            target,
            reason: self.reason,
        }
    }
}

/// An error and its causes on one line; causes that the text before already contains are left out.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
