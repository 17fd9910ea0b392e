//! Listings: getdents64(2) of the directory, and where each open listing stands.
//!
//! The position after an entry is the directory's own (`d_off`), so a listing that a dead worker had
//! begun goes on from there in a newly opened directory. While the worker lives a listing keeps its
//! descriptor and what it has read ahead, so that one pass reads each block of entries once.
//!
//! Lock order: the map, then one listing; the map is not held while a directory is read.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::lookup::Entry;
use super::{DirectoryFs, ROOT, sys};

/// Bytes of entries that are read at once.
const BUFFER: usize = 32 << 10;

/// One entry of a listing.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Its name; also `.` and `..`.
    pub(crate) name: &'a [u8],
    /// The kernel's number for it.
    pub(crate) number: u64,
    /// `DT_*` of readdir(3).
    pub(crate) kind: u8,
    /// Where a listing goes on after it.
    pub(crate) next: i64,
    /// What a look-up of the name answers, where it was asked for.
    pub(crate) entry: Option<&'a Entry>,
}

/// A directory that is read from its beginning to its end, or from a position on.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) directory: OwnedFd,
    buffer: Vec<u8>,
    /// What of the buffer is still to be told.
    rest: std::ops::Range<usize>,
    /// Position before `rest`.
    position: i64,
}

/// Open listings.
#[derive(Debug)]
pub(super) struct Listings {
    open: Mutex<HashMap<u64, Arc<Mutex<Listing>>>>,
    next: AtomicU64,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            // Not where the worker before us began: its handles are still in use.
            next: AtomicU64::new(RandomState::new().hash_one(std::process::id()) | 1),
        }
    }
}

/// An entry as getdents64(2) returns it.
pub(super) struct Raw {
    below: u64,
    pub(super) next: i64,
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
}

impl Listing {
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self {
            directory,
            buffer: Vec::new(),
            rest: 0..0,
            position: 0,
        }
    }

    fn seek(&mut self, position: i64) -> Result<(), Errno> {
        if position != self.position {
            sys::seek(self.directory.as_fd(), position, libc::SEEK_SET)?;
            self.position = position;
            self.rest = 0..0;
        }
        Ok(())
    }

    /// The next entry, which stays the next until [`Listing::accept`].
    pub(super) fn peek(&mut self) -> Result<Option<Raw>, Errno> {
        if self.rest.is_empty() {
            self.buffer.resize(BUFFER, 0);
            let read = sys::read_entries(self.directory.as_fd(), &mut self.buffer)?;
            self.rest = 0..read;
            if read == 0 {
                return Ok(None);
            }
        }
        // d_ino u64, d_off i64, d_reclen u16, d_type u8, d_name with its NUL.
        let bytes = self.buffer.get(self.rest.clone()).ok_or(Errno::EIO)?;
        let word = |at: usize| -> Result<u64, Errno> {
            let word = bytes.get(at..at + 8).ok_or(Errno::EIO)?;
            Ok(u64::from_ne_bytes(word.try_into().map_err(|_| Errno::EIO)?))
        };
        let name = bytes.get(19..self.length()?).ok_or(Errno::EIO)?;
        let end = name.iter().position(|byte| *byte == 0);
        Ok(Some(Raw {
            below: word(0)?,
            next: word(8)?.cast_signed(),
            kind: bytes[18],
            name: name[..end.unwrap_or(name.len())].to_vec(),
        }))
    }

    fn length(&self) -> Result<usize, Errno> {
        let at = self.rest.start + 16;
        let length = self.buffer.get(at..at + 2).ok_or(Errno::EIO)?;
        Ok(usize::from(u16::from_ne_bytes([length[0], length[1]])))
    }

    pub(super) fn accept(&mut self, next: i64) -> Result<(), Errno> {
        self.rest.start += self.length()?;
        self.position = next;
        Ok(())
    }
}

impl DirectoryFs {
    /// Begins a listing.
    pub(crate) fn open_listing(&self, node: u64) -> Result<u64, Errno> {
        let listing = Listing::new(self.reopen(node, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?);
        let fh = self.listings.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.listings.open).insert(fh, Arc::new(Mutex::new(listing)));
        Ok(fh)
    }

    /// Ends a listing.
    pub(crate) fn close_listing(&self, fh: u64) {
        let listing = lock(&self.listings.open).remove(&fh);
        drop(listing);
    }

    /// Tells entries from `offset` on until there are no more or `tell` wants none (`false`: not
    /// even this one). `plus`: with what a look-up answers; the kernel then counts them as looked up.
    pub(crate) fn list(
        &self,
        (node, fh): (u64, u64),
        offset: i64,
        plus: bool,
        tell: &mut dyn FnMut(&Row<'_>) -> bool,
    ) -> Result<(), Errno> {
        let known = lock(&self.listings.open).get(&fh).map(Arc::clone);
        let listing = match known {
            Some(listing) => listing,
            // A dead worker's.
            None => {
                let directory = self.reopen(node, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                Arc::new(Mutex::new(Listing::new(directory)))
            }
        };
        let mut listing = lock(&listing);
        listing.seek(offset)?;
        while let Some(raw) = listing.peek()? {
            if self.tell_one(node, &listing, &raw, plus, tell)? {
                listing.accept(raw.next)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Whether the entry is done with.
    fn tell_one(
        &self,
        node: u64,
        listing: &Listing,
        raw: &Raw,
        plus: bool,
        tell: &mut dyn FnMut(&Row<'_>) -> bool,
    ) -> Result<bool, Errno> {
        let dots = raw.name == b"." || raw.name == b"..";
        let mut row = Row {
            name: &raw.name,
            // Above the root is nothing of this volume.
            number: if dots && node == ROOT {
                ROOT
            } else {
                self.number(raw.below)
            },
            kind: raw.kind,
            next: raw.next,
            entry: None,
        };
        if dots || !(plus || raw.kind == libc::DT_UNKNOWN) {
            return Ok(tell(&row));
        }
        let name = super::lookup::component(&raw.name)?;
        let found = match self.find(listing.directory.as_fd(), &name) {
            // Gone meanwhile, or a mount point, which is no part of the volume.
            Err(Errno::ENOENT | Errno::EXDEV) => return Ok(true),
            other => other?,
        };
        row.kind = ((found.stat.st_mode & libc::S_IFMT) >> 12) as u8;
        if !plus {
            return Ok(tell(&row));
        }
        let entry = self.entry(found, node, &name)?;
        row.number = entry.node;
        row.entry = Some(&entry);
        let told = tell(&row);
        if !told {
            self.nodes.forgotten(entry.node, 1);
        }
        Ok(told)
    }
}

/// A panic in between leaves a listing that starts anew at the next position asked for.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
