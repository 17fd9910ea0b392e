//! Why a space is refused, by what a caller does about it.

use std::path::PathBuf;

use super::name::SpaceName;
use crate::RecordError;
use crate::scratch::ScratchError;

/// A refusal of a space.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// There is none of that name.
    #[error("there is no volume {0}; terrace volume list shows those that there are")]
    NotFound(SpaceName),
    /// The name is taken.
    #[error("{name} exists {what}")]
    Exists {
        /// The name.
        name: SpaceName,
        /// By what, and what to do.
        what: String,
    },
    /// Another operation on it is under way.
    #[error("another operation on {0} is under way; ask again")]
    Busy(SpaceName),
    /// Objects of a cold store are being collected: what a copy names now might be taken for an orphan.
    #[error(
        "objects of the cold store are being collected (terrace volume collect), and a copy waits until that \
         is done; ask again"
    )]
    Collecting,
    /// What lies in its place is not what was made.
    #[error("{path:?} is not the directory that was made for {name}: {why}")]
    Exchanged {
        /// The space.
        name: SpaceName,
        /// Where it should be.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// The base directory is not one.
    #[error("{base:?} is refused as a place of volumes: {why}")]
    Base {
        /// The base directory.
        base: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Numbers, locks, the disk or the kernel refused.
    #[error(transparent)]
    Files(#[from] ScratchError),
}
