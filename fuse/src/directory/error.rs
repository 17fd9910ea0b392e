//! Why a directory cannot be shown: each is told to whoever mounts it, in one line.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::durability::RuleError;
use super::spool::SpoolError;
use crate::live::TableError;

/// Why a directory cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory itself.
    #[error("open the directory {0}: {1}")]
    Root(PathBuf, Errno),
    /// Its file system cannot name files for ever.
    #[error("{0} lies on a file system without file handles ({1})")]
    NoHandles(PathBuf, Errno),
    /// What is kept of its files here could be taken for another file's later.
    #[error(
        "files of {0} cannot be {1}: its file system is not one of the kernel's own (FUSE, 9p or SMB), and its \
         file handles do not last"
    )]
    NotLasting(PathBuf, &'static str),
    /// The process may not act for others.
    #[error("act as the callers: {0}; needs root, or CAP_SETUID, CAP_SETGID and CAP_SETPCAP")]
    Identity(Errno),
    /// The node table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The file of intents.
    #[error("open {0}: {1}")]
    Intents(PathBuf, io::Error),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Records of contents in a cold store.
    #[error(
        "{0} lies on a file system that cannot keep records of contents in a cold store ({1}); \
         it needs extended attributes trusted.* or user.*"
    )]
    NoRecords(PathBuf, Errno),
    /// Rules of durability that this volume cannot keep.
    #[error(transparent)]
    Rules(#[from] RuleError),
    /// The file of what a volume takes.
    #[error("open {0}: {1}")]
    Quota(PathBuf, io::Error),
}
