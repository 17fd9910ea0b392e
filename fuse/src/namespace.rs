//! The seam between names and bytes: what exists below a mount.
//!
//! Three implementations: a live prefix of a store ([`crate::live`]), the snapshot of an immutable
//! manifest ([`crate::snapshot`]), and the tables of a catalog, each a snapshot
//! ([`crate::tables`]). A [`Namespace`] never reads file bytes; it answers which
//! immutable object an inode is, and the cache reads that.
//!
//! Inode rule: an inode number stands for one path *and one version of what is there*. When a path
//! gets a new version it gets a new inode number; the old number keeps its old meaning for as long
//! as the kernel may use it, also across a restart of the worker. So attributes of a file inode
//! never change, and only the binding name -> inode has a time to live.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use terrace_cache::{DatasetKey, ObjectId};

/// Inode number. 1 is the root. The top four bits are reserved for the open-mode machine
/// (re-incarnation, see [`crate::fs`]): a namespace never returns a number of 2^60 or more, nor 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// Root of every mount.
    pub const ROOT: Self = Self(1);
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
}

/// Attributes as stat(2) shows them; ownership and mode bits already as configured for the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, also `st_ino`.
    pub ino: Ino,
    /// Kind.
    pub kind: Kind,
    /// Length in bytes (directories: 0).
    pub size: u64,
    /// Modification time, nanoseconds since the epoch; also shown as change time.
    pub mtime_ns: i64,
    /// Permission bits, 0o7777.
    pub mode: u16,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How long the kernel may believe an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// Name -> inode.
    pub entry: Duration,
    /// Attributes of files and directories.
    pub attr: Duration,
    /// "No such name"; zero: not cached.
    pub negative: Duration,
    /// The kernel may keep directory listings (FOPEN_CACHE_DIR) and skip OPENDIR.
    pub cache_directories: bool,
}

/// One entry of a directory listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Cookie of the *next* entry: pass it to [`Namespace::read_directory`] to continue after this
    /// one. Stable across processes and for as long as the listing does not change. Never 0.
    pub next: u64,
    /// File name, without slash.
    pub name: Vec<u8>,
    /// Attributes, as lookup would give them (no extra cost to the store).
    pub attr: Attr,
}

/// Why a file-system operation failed; one errno each.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FsError {
    /// ENOENT.
    #[error("no such file or directory")]
    NotFound,
    /// ENOTDIR.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("is a directory")]
    IsDirectory,
    /// ENAMETOOLONG.
    #[error("name too long")]
    NameTooLong,
    /// EROFS.
    #[error("read-only file system")]
    ReadOnly,
    /// ENODATA.
    #[error("no such attribute")]
    NoAttribute,
    /// ESTALE: the inode number is unknown, or its version is gone.
    #[error("stale handle")]
    Stale,
    /// EINVAL.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// Errno as in [`terrace_cache::store::StoreErrorKind`]'s documentation.
    #[error(transparent)]
    Store(#[from] terrace_cache::store::StoreError),
    /// EIO: something local failed (cache directory, table full).
    #[error("{0}")]
    Local(String),
}

/// A page of a listing: as many entries as the sink took.
pub trait DirSink: Send {
    /// Offers the next entry; `false`: the buffer is full, stop (this entry was not taken).
    fn push(&mut self, entry: DirEntry) -> bool;
}

/// What names exist and which objects they are. All methods may be called from any thread.
#[async_trait]
pub trait Namespace: Send + Sync + Debug + 'static {
    /// How long the kernel may believe answers of this namespace.
    fn ttl(&self) -> Ttl;

    /// The same for names in `directory` and for its own attributes, where that differs.
    fn ttl_in(&self, directory: Ino) -> Ttl {
        let _ = directory;
        self.ttl()
    }

    /// Answers from memory, or `None` when it takes I/O; then [`Namespace::lookup`] is called.
    fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>>;

    /// Finds `name` in `parent`. The returned inode number is recorded durably enough to survive
    /// `kill -9` before this returns.
    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError>;

    /// Attributes of an inode number that was returned before, maybe by a worker now dead.
    /// Local: never asks the store.
    fn attr(&self, ino: Ino) -> Result<Attr, FsError>;

    /// Offers entries of `directory` after the cookie `after` (0: from the start) until the sink is
    /// full or the listing ends. `.` and `..` are not included.
    async fn read_directory(
        &self,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError>;

    /// The immutable object that a file inode stands for. Local.
    fn object(&self, ino: Ino) -> Result<ObjectId, FsError>;

    /// What the bytes of an inode belong to, for eviction; `None`: to the mount. Local.
    fn dataset(&self, ino: Ino) -> Option<DatasetKey> {
        let _ = ino;
        None
    }

    /// Target of a symbolic link.
    fn link_target(&self, ino: Ino) -> Result<Vec<u8>, FsError>;

    /// Extended attributes the namespace knows (version, digest); tiers are added by the caller.
    fn attributes(&self, ino: Ino) -> Result<Vec<(String, Vec<u8>)>, FsError>;

    /// Totals for statfs: (bytes, files), when known without asking the store.
    fn totals(&self) -> (u64, u64);
}
