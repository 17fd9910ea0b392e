//! Why a directory volume is refused, by what a caller does about it.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use tonic::Status;

use crate::DirectoryPath;
use crate::scratch::ScratchError;
use crate::spaces::SpaceError;

/// A refusal of a directory volume.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The driver serves no directories.
    #[error(
        "directory {0}: this driver serves no directories; name those that it may serve with \
         --directories DIR"
    )]
    Off(DirectoryPath),
    /// A directory that the driver was told to serve is no clean absolute path.
    #[error("{0:?} cannot be served: write an absolute path without . and .., and not /")]
    Base(PathBuf),
    /// The path is not below what the driver may serve.
    #[error(
        "directory {0}: it lies below none of the directories that the driver may serve (--directories)"
    )]
    Outside(DirectoryPath),
    /// A relative path, and more than one directory that it may lie below.
    #[error(
        "directory {0}: the driver serves several directories, so write the whole path, as \
         file:///mnt/pfs/{0}"
    )]
    Ambiguous(DirectoryPath),
    /// There is no such directory.
    #[error(
        "{what} {path:?}: there is no such directory; make it, or mount its file system on this node"
    )]
    Absent {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
    },
    /// A link, or something that is no directory, is in the way.
    #[error("{what} {path:?}: it is no directory, or reached through a link; write its real path")]
    Link {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
    },
    /// The driver may not.
    #[error("{what} {path:?}: {errno}; let the driver's user write there")]
    Denied {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The file system has no room, or not for this user.
    #[error("{what} {path:?}: {errno}; make room, or ask for another directory")]
    Full {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A volume with a limit was refused by its record, its limit or its files.
    #[error("{what} below {path:?}: {why}")]
    Space {
        /// What was tried, as a verb and its object.
        what: &'static str,
        /// Below which directory.
        path: PathBuf,
        /// In one line.
        why: String,
        /// What a caller does about it.
        refusal: SpaceRefusal,
    },
    /// The file system does not answer as it should; it may later.
    #[error("{what} {path:?}: {errno}; see whether its file system is healthy")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// Whose turn it is after a volume with a limit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceRefusal {
    /// Another operation on it is under way: ask again.
    Busy,
    /// There is no such volume, or none that has a limit.
    NotFound,
    /// Somebody has to change something first.
    Precondition,
    /// There is no room for it.
    Full,
    /// It may succeed later.
    Later,
}

impl DirectoryError {
    /// Adds what was tried, and on what, to a refusal of the volumes below a class. `held`: how the refusal
    /// names the directory that is `path`.
    pub(super) fn of_space(
        what: &'static str,
        path: &Path,
        held: &Path,
        error: &SpaceError,
    ) -> Self {
        let (held, shown) = (held.to_string_lossy(), path.to_string_lossy());
        let mut why = error.to_string().replace(&*held, &shown);
        let refusal = match error {
            SpaceError::Busy(_)
            | SpaceError::Collecting
            | SpaceError::Files(ScratchError::Moving { .. }) => SpaceRefusal::Busy,
            SpaceError::NotFound(_) => SpaceRefusal::NotFound,
            SpaceError::Exists { .. }
            | SpaceError::Exchanged { .. }
            | SpaceError::Base { .. }
            | SpaceError::Files(ScratchError::Unsupported { .. }) => SpaceRefusal::Precondition,
            SpaceError::Files(ScratchError::Io { source, .. }) => {
                match source.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::ENOSPC | Errno::EDQUOT) => SpaceRefusal::Full,
                    Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => SpaceRefusal::Precondition,
                    Some(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
                        why.push_str("; volumes with limits need a file system with fcntl locks");
                        SpaceRefusal::Precondition
                    }
                    _ => SpaceRefusal::Later,
                }
            }
            SpaceError::Files(_) | SpaceError::Record(_) => SpaceRefusal::Later,
        };
        Self::Space {
            what,
            path: path.to_owned(),
            why,
            refusal,
        }
    }

    /// Adds what was tried, and on what, to the kernel's answer.
    pub(super) fn of(what: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOENT => Self::Absent { what, path },
            Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV => Self::Link { what, path },
            Errno::EACCES | Errno::EPERM | Errno::EROFS => Self::Denied { what, path, errno },
            Errno::ENOSPC | Errno::EDQUOT => Self::Full { what, path, errno },
            errno => Self::Io { what, path, errno },
        }
    }
}

impl From<DirectoryError> for Status {
    fn from(error: DirectoryError) -> Self {
        let text = error.to_string();
        match error {
            DirectoryError::Outside(_) | DirectoryError::Ambiguous(_) => {
                Self::invalid_argument(text)
            }
            // Somebody has to change something first; asking again does not help.
            DirectoryError::Off(_)
            | DirectoryError::Base(_)
            | DirectoryError::Absent { .. }
            | DirectoryError::Link { .. }
            | DirectoryError::Denied { .. } => Self::failed_precondition(text),
            DirectoryError::Full { .. } => Self::resource_exhausted(text),
            DirectoryError::Io { .. } => Self::unavailable(text),
            DirectoryError::Space { refusal, .. } => match refusal {
                SpaceRefusal::Busy => Self::aborted(text),
                SpaceRefusal::NotFound | SpaceRefusal::Precondition => {
                    Self::failed_precondition(text)
                }
                SpaceRefusal::Full => Self::resource_exhausted(text),
                SpaceRefusal::Later => Self::unavailable(text),
            },
        }
    }
}
