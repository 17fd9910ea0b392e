//! The name space of an immutable snapshot: every question is answered from one mapped file.
//!
//! A snapshot says, for a fixed set of paths, which version of which object each one is. It is
//! built once ([`Builder`], [`walk`]), written under a temporary name, synced and renamed; its
//! SHA-256 names it. The file format is specified in `snapshot/format.rs`.
//!
//! Invariants: an inode number is the row of the entry + 1, so nothing has to be remembered between
//! workers; a listing cookie is the place among the siblings + 1; nothing ever changes, so the
//! kernel may believe answers for a day. Damage is found by page checksums and told as EIO; no
//! content of the file can cause a panic or an endless walk.

mod build;
mod digests;
mod format;
mod pages;
mod walk;
mod write;

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use terrace_cache::identity::TokenRef;
use terrace_cache::{Digest, ObjectId, Version};

pub use self::build::{BuildError, Builder, Entry, EntryKind, Surplus};
pub use self::digests::{Digests, Placed};
pub use self::format::HeaderError;
pub use self::walk::{WalkError, Walked, from_store};
pub use self::write::Built;

use self::format::{Row, decode_origin};
use self::pages::Pages;
use crate::names::NAME_MAX;
use crate::namespace::{Attr, DirEntry, DirSink, FsError, Ino, Kind, Namespace, Ttl};
use crate::ownership::{NLINK_UNKNOWN, Ownership};
use crate::{token, xattr};

/// How long the kernel may believe what can never change. Not for ever: memory of the kernel that
/// nobody uses should come back within a day.
const IMMUTABLE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Why a snapshot file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The header is not one this release can read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A page does not match its checksum.
    #[error("snapshot page {0} does not match its checksum")]
    Page(u64),
    /// Checksums hold, but the content contradicts the format.
    #[error("snapshot is malformed: {0}")]
    Corrupt(&'static str),
    /// The file cannot be opened, measured or mapped.
    #[error("read snapshot: {0}")]
    Io(#[from] io::Error),
}

impl From<SnapshotError> for FsError {
    fn from(error: SnapshotError) -> Self {
        Self::Local(error.to_string())
    }
}

/// An opened snapshot. All answers are local and take no lock.
#[derive(Debug)]
pub struct Snapshot {
    pages: Pages,
    ownership: Ownership,
    store: Arc<str>,
    prefix: Box<str>,
    /// What `user.terrace.version` says of every file, when not the store's token.
    version: Option<Box<str>>,
}

/// An entry with its place in the tree; see [`Snapshot::node`].
#[derive(Clone, Debug)]
pub struct Node {
    /// Inode number; numbers of a snapshot are contiguous from 1.
    pub ino: Ino,
    /// Inode number of the directory it is in (root: itself).
    pub parent: Ino,
    /// File name; empty for the root.
    pub name: Vec<u8>,
    /// Attributes.
    pub attr: Attr,
}

impl Snapshot {
    /// Opens a snapshot file. Takes milliseconds whatever its size: pages are checked when first
    /// used ([`Snapshot::verify`] checks all of them now).
    pub fn open(path: &Path, ownership: Ownership) -> Result<Self, SnapshotError> {
        Self::new(Pages::open(&File::open(path)?)?, ownership)
    }

    /// The same over bytes in memory.
    pub fn from_bytes(bytes: Vec<u8>, ownership: Ownership) -> Result<Self, SnapshotError> {
        Self::new(Pages::from_vec(bytes)?, ownership)
    }

    fn new(pages: Pages, ownership: Ownership) -> Result<Self, SnapshotError> {
        let (store, prefix) = decode_origin(pages.origin()?)
            .ok_or(SnapshotError::Corrupt("the origin does not decode"))?;
        let (store, prefix) = (store.into(), prefix.into());
        if pages.row(0)?.kind != Kind::Directory {
            return Err(SnapshotError::Corrupt("the root is not a directory"));
        }
        Ok(Self {
            pages,
            ownership,
            store,
            prefix,
            version: None,
        })
    }

    /// Lets every file tell that it belongs to this version of a dataset (`v12`).
    #[must_use]
    pub fn of_version(mut self, version: &str) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Canonical URL of the store that holds the objects.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Key prefix of all paths, without slashes at the ends.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Number of entries, the root included: inode numbers are `1 ..= entries`.
    pub fn entries(&self) -> u64 {
        self.pages.header().entries
    }

    /// Sum of the sizes of all regular files.
    pub fn file_bytes(&self) -> u64 {
        self.pages.header().bytes
    }

    /// Number of regular files.
    pub fn files(&self) -> u64 {
        self.pages.header().files
    }

    /// The bytes of the snapshot file.
    pub fn bytes(&self) -> &[u8] {
        self.pages.all()
    }

    /// The directory an entry is in; the root is in itself.
    pub fn parent(&self, ino: Ino) -> Result<Ino, FsError> {
        Ok(Ino(u64::from(self.row(ino)?.1.parent) + 1))
    }

    /// SHA-256 of the file: the snapshot's name. Reads all of it.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.pages.all()).into())
    }

    /// Checks every page now. Reads the whole file.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        self.pages.check_all()
    }

    /// The entry behind an inode number with its name and parent, for whoever walks all of them:
    /// parents come before their children, children of a directory together.
    pub fn node(&self, ino: Ino) -> Result<Node, FsError> {
        let (index, row) = self.row(ino)?;
        let name = self.pages.name(&row)?.to_vec();
        let parent = Ino(u64::from(row.parent) + 1);
        Ok(Node {
            ino,
            parent,
            name,
            attr: self.row_attr(index, &row),
        })
    }

    /// Path of an entry below the root, without slash at the ends; the root's is empty.
    pub fn path(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let (mut index, mut row) = self.row(ino)?;
        let mut segments = Vec::new();
        while index != 0 {
            segments.push(self.pages.name(&row)?);
            if row.parent >= index {
                return Err(SnapshotError::Corrupt("a parent comes after its child").into());
            }
            index = row.parent;
            row = self.pages.row(index)?;
        }
        segments.reverse();
        Ok(segments.join(&b'/'))
    }

    /// The version that a file is pinned at.
    pub fn pinned(&self, ino: Ino) -> Result<Version, FsError> {
        match self.row(ino)?.1 {
            row if row.kind == Kind::File => self.version(&row),
            _ => Err(FsError::Invalid("only files have versions")),
        }
    }

    fn row(&self, ino: Ino) -> Result<(u32, Row), FsError> {
        let index = ino.0.checked_sub(1).filter(|index| *index < self.entries());
        let index = index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or(FsError::Stale)?;
        Ok((index, self.pages.row(index)?))
    }

    fn row_attr(&self, index: u32, row: &Row) -> Attr {
        let ino = Ino(u64::from(index) + 1);
        let size = if row.kind == Kind::Directory {
            0
        } else {
            row.size
        };
        let mut attr = self.ownership.attr(ino, row.kind, size, row.mtime_ns);
        attr.mode = row.mode.unwrap_or(attr.mode);
        if row.kind == Kind::Directory {
            let (_, _, directories) = row.children();
            attr.nlink = directories.checked_add(2).unwrap_or(NLINK_UNKNOWN);
        }
        attr
    }

    /// Rows of the children of a directory, checked to be after it and inside the file.
    fn children(&self, ino: Ino) -> Result<(u32, u32), FsError> {
        let (index, row) = self.row(ino)?;
        if row.kind != Kind::Directory {
            return Err(FsError::NotDirectory);
        }
        let (first, count, _) = row.children();
        let end = u64::from(first) + u64::from(count);
        if count > 0 && (first <= index || end > self.entries()) {
            return Err(SnapshotError::Corrupt("children are out of range").into());
        }
        Ok((first, count))
    }

    fn find(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let (first, count) = self.children(parent)?;
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.pages.row(first + middle)?;
            match self.pages.name(&row)?.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(self.row_attr(first + middle, &row)),
            }
        }
        Err(FsError::NotFound)
    }

    fn list(&self, directory: Ino, after: u64, sink: &mut dyn DirSink) -> Result<(), FsError> {
        let (first, count) = self.children(directory)?;
        let start = u32::try_from(after).unwrap_or(u32::MAX);
        for place in start..count {
            let row = self.pages.row(first + place)?;
            let name = self.pages.name(&row)?.to_vec();
            let attr = self.row_attr(first + place, &row);
            if !sink.push(DirEntry {
                next: u64::from(place) + 1,
                name,
                attr,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn version(&self, row: &Row) -> Result<Version, FsError> {
        let mut text = String::new();
        Ok(Version {
            token: self.token(row, &mut text)?.to_token(),
            size: row.size,
            mtime_ns: row.mtime_ns,
        })
    }

    /// The token of a file; `text` is room for it.
    fn token<'a>(&'a self, row: &Row, text: &'a mut String) -> Result<TokenRef<'a>, FsError> {
        let record = self.pages.reference(row, token::RECORD_MAX)?;
        let (token, _) = token::borrow(record, text)
            .ok_or(SnapshotError::Corrupt("a version token does not decode"))?;
        Ok(token)
    }
}

#[async_trait]
impl Namespace for Snapshot {
    fn ttl(&self) -> Ttl {
        Ttl {
            entry: IMMUTABLE_TTL,
            attr: IMMUTABLE_TTL,
            negative: IMMUTABLE_TTL,
            cache_directories: true,
        }
    }

    fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr, FsError>> {
        Some(self.find(parent, name))
    }

    async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.find(parent, name)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        let (index, row) = self.row(ino)?;
        Ok(self.row_attr(index, &row))
    }

    async fn read_directory(
        &self,
        directory: Ino,
        after: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), FsError> {
        self.list(directory, after, sink)
    }

    fn object(&self, ino: Ino) -> Result<ObjectId, FsError> {
        let (_, row) = self.row(ino)?;
        match row.kind {
            Kind::Directory => return Err(FsError::IsDirectory),
            Kind::Symlink => return Err(FsError::Invalid("a symbolic link has no object")),
            Kind::File => {}
        }
        let path = String::from_utf8(self.path(ino)?)
            .map_err(|_| SnapshotError::Corrupt("a path is not UTF-8"))?;
        let key = if self.prefix.is_empty() {
            path
        } else {
            format!("{}/{path}", self.prefix)
        };
        Ok(ObjectId {
            store: Arc::clone(&self.store),
            key: key.into(),
            version: self.version(&row)?,
        })
    }

    fn link_target(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let (_, row) = self.row(ino)?;
        if row.kind != Kind::Symlink {
            return Err(FsError::Invalid("not a symbolic link"));
        }
        let target = self.pages.reference(&row, row.size)?;
        if target.len() as u64 != row.size {
            return Err(SnapshotError::Corrupt("a link target is out of range").into());
        }
        Ok(target.to_vec())
    }

    fn attributes(&self, ino: Ino) -> Result<Vec<(String, Vec<u8>)>, FsError> {
        if self.row(ino)?.1.kind != Kind::File {
            return Ok(Vec::new());
        }
        let mut all = xattr::of_object(&self.object(ino)?);
        if let Some(version) = &self.version {
            all.retain(|(name, _)| name != xattr::VERSION);
            all.push((xattr::VERSION.to_owned(), version.as_bytes().to_vec()));
        }
        Ok(all)
    }

    fn totals(&self) -> (u64, u64) {
        (self.pages.header().bytes, self.entries())
    }
}
