//! Why the Kubernetes API server did not do what it was asked, with what to try.

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KubeError {
    /// No answer.
    #[error(
        "the Kubernetes API server does not answer: {what}: {why}; check the address and that it runs"
    )]
    Unreachable {
        /// What was asked.
        what: String,
        /// What went wrong.
        why: String,
    },
    /// It answered, and did not do it.
    #[error("the Kubernetes API server refuses: {what}: {status} {reason}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Status of HTTP.
        status: u16,
        /// The reason of its Status object; empty when the answer was none.
        reason: String,
        /// Its words, on one line.
        message: String,
    },
    /// An answer that is no answer of an API server.
    #[error("what answers is no Kubernetes API server: {what}: {why}")]
    Strange {
        /// What was asked.
        what: String,
        /// What was wrong with it.
        why: String,
    },
    /// The file with the own token cannot be read.
    #[error("read the token of the service account: {0}; mount one, or name it")]
    Token(String),
    /// More objects of a kind than are kept.
    #[error("there are more than {limit} {plural}; none of them is looked at")]
    TooMany {
        /// The kind.
        plural: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl KubeError {
    fn status(&self) -> Option<(u16, &str)> {
        match self {
            Self::Refused { status, reason, .. } => Some((*status, reason)),
            _ => None,
        }
    }

    /// There is no such object.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.status(), Some((404, _)))
    }

    /// There is an object of that name already.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.status(), Some((409, "AlreadyExists")))
    }

    /// Somebody changed the object in between.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.status(), Some((409, reason)) if reason != "AlreadyExists")
    }

    /// The version that was named is no longer known: list again.
    pub(crate) fn is_expired(&self) -> bool {
        matches!(self.status(), Some((410, _)))
    }
}
