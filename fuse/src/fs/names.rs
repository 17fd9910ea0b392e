//! LOOKUP, GETATTR, READLINK and directories.
//!
//! Directory positions: 0 is the start, 1 after `.`, 2 after `..`, and a name space's cookie plus 2
//! after each of its entries. Directories have no handles: a position says all.

use std::time::Duration;

use super::FileSystem;
use super::node::Node;
use super::opens::shutting_down;
use crate::namespace::{Attr, DirEntry, DirSink, FsError, Ino, Kind};

/// Longest file name in bytes.
const NAME_MAX: usize = 255;

/// Positions before the first entry of the name space.
const DOTS: u64 = 2;

/// `d_ino` of `..`: "unknown", as libfuse says it. No tool takes it from there.
const UNKNOWN_INO: u64 = 0xffff_ffff;

/// An inode as the kernel gets to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Node id.
    pub node: u64,
    /// Attributes, with the inode number that stat(2) shows.
    pub attr: Attr,
    /// How long name -> node may be believed.
    pub entry_ttl: Duration,
    /// How long the attributes may be believed. Zero when `node` is not the inode number: the
    /// kernel library sends one number for both, so stat(2) must ask again to show the right one.
    pub attr_ttl: Duration,
}

/// Answer to LOOKUP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It exists.
    Entry(Entry),
    /// It does not, and the kernel may believe that for so long.
    Absent(Duration),
}

/// Answer to OPENDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryOpened {
    /// Listings of the whole mount may be cached and OPENDIR need not be sent again (ENOSYS).
    Cached,
    /// The listing of this directory may be cached.
    Kept,
    /// Ask every time.
    Fresh,
}

/// One entry of a listing.
#[derive(Debug)]
pub struct Item<'a> {
    /// Position after it.
    pub next: u64,
    /// Name.
    pub name: &'a [u8],
    /// `None` for `.` and `..`: nothing to remember.
    pub entry: Option<&'a Entry>,
    /// Kind.
    pub kind: Kind,
    /// Inode number.
    pub ino: u64,
}

/// Takes the entries of a listing.
pub trait Listing: Send {
    /// Offers an entry; `false`: full, and this one was not taken.
    fn push(&mut self, item: &Item<'_>) -> bool;
}

impl FileSystem {
    /// Finds `name` in directory `parent`.
    ///
    /// Errors: those of the name space; absence is no error. Cancelled by dropping.
    pub async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Found, FsError> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        let directory = Node(parent).ino();
        let found = match self.namespace.try_lookup(directory, name) {
            Some(found) => found,
            None => {
                let _turn = self
                    .waiting_names
                    .acquire()
                    .await
                    .map_err(|_| shutting_down())?;
                self.namespace.lookup(directory, name).await
            }
        };
        match found {
            Ok(attr) => Ok(Found::Entry(self.entry(parent, name, attr)?)),
            Err(FsError::NotFound) => Ok(Found::Absent(self.namespace.ttl_in(directory).negative)),
            Err(error) => Err(error),
        }
    }

    /// Attributes of a node, and how long they may be believed.
    pub fn attr(&self, node: u64) -> Result<(Attr, Duration), FsError> {
        let ino = Node(node).ino();
        let attr = self.namespace.attr(ino)?;
        Ok((attr, self.namespace.ttl_in(ino).attr))
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, node: u64) -> Result<Vec<u8>, FsError> {
        self.namespace.link_target(Node(node).ino())
    }

    /// How listings of a directory may be kept.
    pub fn open_directory(&self, node: u64) -> DirectoryOpened {
        if self.namespace.ttl().cache_directories {
            DirectoryOpened::Cached
        } else if self.namespace.ttl_in(Node(node).ino()).cache_directories {
            DirectoryOpened::Kept
        } else {
            DirectoryOpened::Fresh
        }
    }

    /// Offers the entries of a directory after position `offset`, `.` and `..` first.
    ///
    /// Errors: those of the name space; entries offered before do not count then.
    pub async fn read_directory(
        &self,
        node: u64,
        offset: u64,
        listing: &mut dyn Listing,
    ) -> Result<(), FsError> {
        let directory = Node(node).ino();
        let dots = [(".", directory.0), ("..", UNKNOWN_INO)];
        for (position, (name, ino)) in (1u64..).zip(dots) {
            let item = Item {
                next: position,
                name: name.as_bytes(),
                entry: None,
                kind: Kind::Directory,
                ino,
            };
            if offset < position && !listing.push(&item) {
                return Ok(());
            }
        }
        let mut sink = Sink {
            fs: self,
            directory: node,
            listing,
            error: None,
        };
        let after = offset.saturating_sub(DOTS);
        self.namespace
            .read_directory(directory, after, &mut sink)
            .await?;
        sink.error.map_or(Ok(()), Err)
    }

    fn entry(&self, parent: u64, name: &[u8], attr: Attr) -> Result<Entry, FsError> {
        let ttl = self.namespace.ttl_in(Node(parent).ino());
        let incarnation = self.incarnation_of(parent, name, &attr)?;
        Ok(Entry {
            node: Node::new(attr.ino, incarnation).0,
            entry_ttl: ttl.entry,
            attr_ttl: if incarnation == 0 {
                ttl.attr
            } else {
                Duration::ZERO
            },
            attr,
        })
    }

    /// Which incarnation of a file the kernel should use from now on.
    fn incarnation_of(&self, parent: u64, name: &[u8], attr: &Attr) -> Result<u8, FsError> {
        if attr.ino.0 > Node::MAX_INO || attr.ino == Ino(0) {
            return Err(FsError::Local(format!(
                "inode number {} is out of range",
                attr.ino.0
            )));
        }
        if attr.kind != Kind::File || !self.is_active() {
            return Ok(0);
        }
        if attr.size > self.config.fill_on_open {
            self.places.note(attr.ino, parent, name);
        }
        Ok(self.current_incarnation(attr.ino))
    }
}

/// Turns entries of the name space into those of a listing.
struct Sink<'a> {
    fs: &'a FileSystem,
    directory: u64,
    listing: &'a mut dyn Listing,
    error: Option<FsError>,
}

impl DirSink for Sink<'_> {
    fn push(&mut self, entry: DirEntry) -> bool {
        let DirEntry { next, name, attr } = entry;
        let (kind, ino) = (attr.kind, attr.ino.0);
        match self.fs.entry(self.directory, &name, attr) {
            Ok(entry) => {
                let next = next.saturating_add(DOTS);
                self.listing.push(&Item {
                    next,
                    name: &name,
                    entry: Some(&entry),
                    kind,
                    ino,
                })
            }
            Err(error) => {
                self.error = Some(error);
                false
            }
        }
    }
}
