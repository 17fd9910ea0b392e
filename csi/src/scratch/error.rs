//! Why scratch storage refuses, by what a caller does about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::{MountError, RecordError, VolumeId};

/// A refusal of scratch storage.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// No such volume or snapshot.
    #[error("{0} is not known on this node; check the id and the node")]
    NotFound(VolumeId),
    /// The name is taken by something that was asked for with other arguments.
    #[error("{id} exists with another {what}; take another name")]
    Exists {
        /// What has the name.
        id: VolumeId,
        /// In what it differs.
        what: &'static str,
    },
    /// Another operation on it is under way, or its removal is.
    #[error("an operation on {0} is under way; ask again")]
    Busy(VolumeId),
    /// It is mounted.
    #[error("{id} is in use at {path:?}; unmount it first")]
    InUse {
        /// The volume.
        id: VolumeId,
        /// Where it is mounted.
        path: PathBuf,
    },
    /// No room for that many bytes.
    #[error("{asked} bytes do not fit: {free} can be promised on {base:?}; ask for less")]
    Full {
        /// Bytes that were asked for.
        asked: u64,
        /// Bytes that can still be promised.
        free: u64,
        /// Where.
        base: PathBuf,
    },
    /// A size that cannot be given.
    #[error("a size of {asked} bytes is out of range: {why}")]
    Size {
        /// Bytes that were asked for.
        asked: u64,
        /// What can be asked for.
        why: &'static str,
    },
    /// The file system or the kernel of this node cannot do it.
    #[error("{what} is not possible on {base:?}: {why}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Where.
        base: PathBuf,
        /// What is missing, and what to do.
        why: String,
    },
    /// The base directory is not where it should be, or not what it was.
    #[error("{base:?} is refused as scratch storage: {why}")]
    Base {
        /// The base directory.
        base: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// What a file has is on its way to a cold store, or back.
    #[error("{path:?}: its contents are being moved; ask again")]
    Moving {
        /// The file.
        path: PathBuf,
    },
    /// A record could not be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A mount was refused.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The disk or the kernel refused.
    #[error("{what} {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ScratchError {
    /// Adds what was tried, and on what, to the kernel's answer.
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}
