//! The data file of an object while it is open, and the fingerprint that says it was not touched.
//!
//! A [`DataFile`] outlives the eviction of its object for as long as somebody holds it: the name
//! is gone, the bytes are not. They then count as zombie bytes, until the last holder drops it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::closer::{Buried, Held};
use super::ledger::Ledger;

/// What identifies the content of a file within one epoch (see `record::Trust`): any write, link,
/// rename, truncation or change of attributes moves ctime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
}

impl Fingerprint {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

pub(super) fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// An open data file. Shared by the object and by every backing.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) file: Held,
    pub(super) path: PathBuf,
    pub(super) incarnation: u64,
    /// Backings that are in use; those marked idle do not count.
    pub(super) holders: Arc<AtomicU32>,
    /// Set once the file was filled, and so may be somebody's backing: never written to again.
    pub(super) sealed: AtomicBool,
    /// This process writes to it, so that its own writes move the fingerprint.
    pub(super) written: AtomicBool,
    fingerprint: Mutex<Fingerprint>,
    /// Bytes that stay in use although the name is gone, and whether that is for a moment only.
    zombie: AtomicU64,
    leaving: AtomicBool,
    /// The name is gone. Outlives the file, for whoever keeps a list of files to let go of.
    pub(super) buried: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
}

impl DataFile {
    pub(super) fn new(file: File, path: PathBuf, incarnation: u64, ledger: &Arc<Ledger>) -> Self {
        Self {
            file: Held::new(file),
            path,
            incarnation,
            holders: Arc::new(AtomicU32::new(0)),
            sealed: AtomicBool::new(false),
            written: AtomicBool::new(false),
            fingerprint: Mutex::new(Fingerprint::default()),
            zombie: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            buried: Arc::new(AtomicBool::new(false)),
            ledger: Arc::clone(ledger),
        }
    }

    /// The fingerprint taken when the content was last known to be right.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        *self
            .fingerprint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_fingerprint(&self, fingerprint: Fingerprint) {
        *self
            .fingerprint
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fingerprint;
    }

    /// The fingerprint the file has now. fstat(2) of an open file does not touch the disk.
    pub(super) fn current(&self) -> io::Result<Fingerprint> {
        Ok(Fingerprint::of(&self.file.metadata()?))
    }

    /// Whether nobody touched the file since [`DataFile::set_fingerprint`].
    pub(super) fn is_untouched(&self) -> bool {
        self.current().is_ok_and(|now| now == self.fingerprint())
    }

    /// The name is gone (or about to go): `bytes` stay in use until the last holder lets go, which
    /// is soon when the object was evicted.
    pub(super) fn bury(&self, bytes: u64, evicted: bool) {
        // An object leaves once, so this is the only call.
        if !self.buried.swap(true, Ordering::AcqRel) {
            self.zombie.store(bytes, Ordering::Release);
            self.leaving.store(evicted, Ordering::Release);
            self.ledger.add_zombie(bytes, evicted);
        }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether the object was evicted while this file was held.
    pub(super) fn is_buried(&self) -> bool {
        self.buried.load(Ordering::Acquire)
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if !self.is_buried() {
            return;
        }
        if let Some(file) = self.file.take() {
            self.ledger.closer.close(Buried {
                file: Held::new(file),
                bytes: *self.zombie.get_mut(),
                leaving: *self.leaving.get_mut(),
                counts: Arc::clone(&self.ledger.counts),
            });
        }
    }
}
