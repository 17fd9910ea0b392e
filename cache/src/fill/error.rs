//! Why a read or a fill has no bytes to give.

use crate::store::{StoreError, StoreErrorKind};

/// Error of [`Object::read`](super::Object::read) and [`Object::fill`](super::Object::fill).
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The source could not give the bytes.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not or cannot be kept on this node, so it cannot be filled; its bytes can
    /// still be read. Only from `fill`.
    #[error("fill: not kept on this node: {0}")]
    NotKept(String),
    /// The fill was cancelled: its last waiter went away, or the cache shuts down.
    #[error("read: the cache is shutting down or the fill was cancelled")]
    Closed,
}

impl ReadError {
    /// Kind of the store's error, when it is one.
    pub fn store_kind(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Store(error) => Some(error.kind),
            Self::NotKept(_) | Self::Closed => None,
        }
    }
}
