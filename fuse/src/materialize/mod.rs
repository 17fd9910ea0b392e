//! A complete snapshot as a native, read-only tree of hard links to hot objects.
//!
//! Files of the tree *are* the files of the hot tier: reading them costs what the disk costs, with
//! no daemon in the path, and no second copy. The tree keeps its objects from being evicted for as
//! long as it exists.
//!
//! ```text
//! DIR                               the tree; appears whole, by one rename
//! DIR.terrace-materialized/         mode 0700, kept as long as the tree
//!     journal                       what is going on, see `journal.rs`; locked while someone works
//!     snapshot                      the manifest: what the tree holds and which objects it keeps
//!     copies                        inode numbers (u64, little-endian) of files that are no links
//!     tree/                         the tree while it is built or removed
//! ```
//!
//! Order of steps, so that a crash at any point is recognised and cleaned up by the next run:
//! journal says `building` -> directories -> objects filled, linked and held, window by window ->
//! modes and times -> one syncfs -> journal says `complete` with device and inode of the tree ->
//! rename. Removing: journal says `removing` -> rename back -> objects let go -> tree deleted ->
//! neighbour deleted. Only a tree whose device and inode the journal names is ever removed, and no
//! symbolic link is ever followed on the way.
//!
//! A hard link shares mode and times with the file in the hot tier; they are set when the object is
//! linked first (the tier's directory is closed to others, so a readable file in it is no leak). A
//! path that needs other ones gets its own copy, by reflink where the file system can.

mod build;
mod journal;
mod plan;
mod remove;
mod spread;
mod sys;
mod work;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrace_cache::fill::{Cache, ReadError};
use terrace_cache::hot::HotError;
use terrace_cache::{DatasetKey, Source};

use crate::namespace::FsError;
use crate::snapshot::{Snapshot, SnapshotError};

pub use self::build::materialize;
pub use self::remove::remove;

/// Objects fetched at the same time; each fetches its own blocks in parallel.
const FILLS: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not zero");

/// How to build a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaterializeOptions {
    /// Objects fetched at the same time. Default: 32.
    pub fills: NonZeroUsize,
    /// Threads that look objects up and make links. Default: 4.
    pub threads: NonZeroUsize,
}

impl Default for MaterializeOptions {
    fn default() -> Self {
        let threads = NonZeroUsize::MIN.saturating_add(3);
        Self {
            fills: FILLS,
            threads,
        }
    }
}

/// Where the objects come from.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The cache whose hot tier holds them; its directory and the tree are on one file system.
    pub cache: Cache,
    /// Who has the bytes that are not there yet.
    pub source: Arc<dyn Source>,
    /// What they belong to.
    pub dataset: DatasetKey,
}

/// How far a tree is; told at most once per thousand files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files whose object is complete in the hot tier.
    pub filled: u64,
    /// Entries that are in the tree.
    pub linked: u64,
    /// Files in all.
    pub files: u64,
    /// Entries in all.
    pub entries: u64,
}

/// What was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that are hard links to hot objects.
    pub linked: u64,
    /// Files with a copy of their own, because mode or time differ between paths of one object.
    pub copied: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Sum of file sizes.
    pub bytes: u64,
    /// The tree was there already, complete and of the same snapshot; nothing was done.
    pub unchanged: bool,
}

/// Why a tree could not be built or removed.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// A system call on the tree.
    #[error("{operation} path={path:?}: {source}")]
    Io {
        /// Present-tense verb phrase.
        operation: &'static str,
        /// What it was done on.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Hard links cannot cross file systems.
    #[error(
        "hot tier and tree are on different file systems; choose a directory on the disk of the \
         hot tier path={0:?}"
    )]
    OtherFileSystem(PathBuf),
    /// Something we did not make is at the place of the tree.
    #[error("a file or directory that Terrace did not make is in the way path={0:?}")]
    InTheWay(PathBuf),
    /// A tree of another snapshot is there.
    #[error("another snapshot is materialized here; remove it first path={0:?}")]
    OtherSnapshot(PathBuf),
    /// Nothing of ours is there.
    #[error("not a materialized tree path={0:?}")]
    NotATree(PathBuf),
    /// Another process builds or removes the tree.
    #[error("the tree is being built or removed by another process path={0:?}")]
    Busy(PathBuf),
    /// The journal is not one this release can read.
    #[error("journal of the tree is not understood: {reason} path={path:?}")]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An object cannot be fetched.
    #[error("fetch object path={path:?}: {source}")]
    Fetch {
        /// Path in the snapshot.
        path: String,
        /// Why.
        source: ReadError,
    },
    /// The hot tier lost an object as fast as it was fetched.
    #[error(
        "object does not stay in the hot tier; it may be too small for this snapshot path={0:?}"
    )]
    Evicted(String),
    /// The hot tier.
    #[error(transparent)]
    Hot(#[from] HotError),
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An entry of the snapshot.
    #[error("read entry of the snapshot: {0}")]
    Entry(#[from] FsError),
    /// A thread of ours ended early.
    #[error("a thread of the build ended early")]
    Thread,
}

/// The directory beside `tree` that belongs to it.
pub fn neighbour(tree: &Path) -> PathBuf {
    let mut name = tree.as_os_str().to_owned();
    name.push(".terrace-materialized");
    PathBuf::from(name)
}

/// Opens the snapshot file that lies beside a tree.
fn kept_snapshot(tree: &Path) -> Result<Snapshot, MaterializeError> {
    let path = neighbour(tree).join("snapshot");
    Ok(Snapshot::open(
        &path,
        crate::ownership::Ownership::default(),
    )?)
}
