//! Objects that no file names any more: of files that were deleted, or written since.
//!
//! ```text
//! 1 mark    every record of the tree, and what copies of the volume name (`held.rs`) -> keys, sorted on disk
//! 2 sweep   every object of the volume: not marked, older than the grace period, not on its way,
//!           and not named by the file it was made of (which its key tells) -> removed
//! ```
//! It runs beside demotions of this node and of others. Why nothing is taken that a file names: an
//! object that is on its way here is known; one of another node is young; one whose record was
//! written after the walk had passed, or whose file was moved out of the tree, is found by its file's
//! handle. A record that cannot be believed, or a directory that cannot be read, ends the run before
//! anything is taken: what they name is not known.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};
use serde::Serialize;
use sha2::{Digest, Sha256};
use terrace_catalog::collect::{Marked, Marks};
use tokio::sync::mpsc;

use super::super::{DirectoryFs, sys};
use super::demote::{MOVER, time};
use super::record::{Record, State};
use super::walk::{Seen, Visitor};
use super::{TierError, Tiering, blocking, cold, held, lock};

/// What is wanted of a run.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// What is younger stays: longer than any upload takes, on any node.
    pub grace: Duration,
    /// Say what would be taken, and take nothing.
    pub dry_run: bool,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Records that were found in the tree.
    pub records: u64,
    /// Objects of the volume.
    pub objects: u64,
    /// Objects that no file names and that are too young.
    pub young: u64,
    /// Objects that only a file outside of the tree names; they stay.
    pub elsewhere: u64,
    /// Names that are none of ours; they stay.
    pub foreign: u64,
    /// Objects that were taken.
    pub taken: u64,
    /// Bytes of these.
    pub taken_bytes: u64,
}

/// Nanoseconds since the epoch.
fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos().cast_signed())
}

fn mark(key: &str) -> u128 {
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    u128::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

/// Marks what the records of a tree name.
struct Marking<'a> {
    fs: &'a DirectoryFs,
    tiering: &'a Tiering,
    /// Take records away that are of no use: their objects are orphans of the next run. Not of this
    /// one, as a demotion may have read the record before.
    forget: bool,
    marks: Marks,
    records: u64,
    failed: Option<TierError>,
}

impl Marking<'_> {
    fn mark(&mut self, seen: &Seen<'_>) -> Result<(), TierError> {
        let file = match seen.open(OFlag::O_PATH) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other.map_err(|errno| TierError::File("open it", errno))?,
        };
        let Some(record) = self.tiering.space.read(file.as_fd())? else {
            return Ok(());
        };
        self.records += 1;
        self.marks.add(mark(&record.key));
        if self.forget && is_stale(&record, &seen.stat) && !self.is_promised(seen) {
            self.forget(seen, &record)?;
        }
        Ok(())
    }

    /// Whether a call has promised to keep what the copy has until there is a newer one.
    fn is_promised(&self, seen: &Seen<'_>) -> bool {
        let path = String::from_utf8_lossy(seen.path);
        self.fs.durability.levels(Some(&path)).names_cold()
    }

    /// Takes away the record of a copy of what a file had before, if nobody uses the file.
    fn forget(&self, seen: &Seen<'_>, record: &Record) -> Result<(), TierError> {
        let Ok(file) = seen.open(MOVER).map(File::from) else {
            return Ok(());
        };
        let failed = |errno| TierError::File("look at it", errno);
        let number = self.fs.number(seen.stat.st_ino);
        let closed = self.tiering.gates.try_close(number);
        if closed.is_none() || !lock::take(&file).map_err(failed)? {
            return Ok(());
        }
        let now = fstat(&file).map_err(failed)?;
        let known = self.tiering.space.read(file.as_fd())?;
        if known.as_ref() == Some(record) && is_stale(record, &now) {
            self.tiering.space.clear(&file)?;
        }
        Ok(()) // the lock goes with the file
    }
}

/// Whether a record is of a copy of what its file does not have any more.
fn is_stale(record: &Record, stat: &FileStat) -> bool {
    let same = record.size == stat.st_size.unsigned_abs() && record.mtime == time(stat);
    record.state == State::Copy && !same
}

impl Visitor for Marking<'_> {
    fn directory(&mut self, _: BorrowedFd<'_>, _: &[u8]) -> bool {
        true
    }

    fn file(&mut self, seen: &Seen<'_>) -> ControlFlow<()> {
        match self.mark(seen) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                let path = String::from_utf8_lossy(seen.path);
                self.failed = Some(TierError::Record(format!("{path}: {error}")));
                ControlFlow::Break(())
            }
        }
    }

    fn failed(&mut self, _: &[u8], errno: Errno) -> ControlFlow<()> {
        self.failed = Some(TierError::File("read a directory of the volume", errno));
        ControlFlow::Break(())
    }
}

impl DirectoryFs {
    /// Removes objects of the volume that no file names; tells each, with its length. One run at a
    /// time. Dropped, it stops between two objects; it ends when nobody listens.
    ///
    /// Errors: before anything is taken, what cannot be read in the tree; later, the store.
    pub async fn collect(
        self: &Arc<Self>,
        wanted: Collection,
        told: &mpsc::Sender<(String, u64)>,
    ) -> Result<Collected, TierError> {
        let tiering = Arc::clone(self.cold()?);
        let _alone = tiering.collecting.lock().await;
        let held = Arc::clone(&tiering);
        let _no_copies = blocking(move || match &held.held {
            Some(directory) => held::close(directory),
            None => Ok(None),
        })
        .await?;
        let begun = now();
        let fs = Arc::clone(self);
        let forget = !wanted.dry_run;
        let (marked, records) = blocking(move || fs.mark_all(forget)).await?;
        let marked = Arc::new(marked);
        let mut done = Collected {
            records,
            ..Collected::default()
        };
        let mut objects = tiering.cold.store.walk(&tiering.cold.prefix);
        while let Some(object) = objects.next().await {
            let object = match object {
                Err(error) if error.is_not_found() => break, // nothing was ever moved
                other => other?,
            };
            done.objects += 1;
            let (fs, key, marks) = (
                Arc::clone(self),
                Arc::clone(&object.key),
                Arc::clone(&marked),
            );
            let judged = blocking(move || fs.judge(&key, &marks)).await?;
            let age = begun - i128::from(object.version.mtime_ns);
            match judged {
                Judged::Named => {}
                Judged::Elsewhere => done.elsewhere += 1,
                Judged::Foreign => done.foreign += 1,
                Judged::Orphan if age < wanted.grace.as_nanos().cast_signed() => done.young += 1,
                Judged::Coming => done.young += 1,
                Judged::Orphan => {
                    let row = (object.key.to_string(), object.version.size);
                    if told.send(row).await.is_err() {
                        break;
                    }
                    if !wanted.dry_run {
                        tiering.cold.store.remove(&object).await?;
                    }
                    done.taken += 1;
                    done.taken_bytes += object.version.size;
                }
            }
        }
        Ok(done)
    }

    /// Every key that a record of the tree names. Blocks.
    fn mark_all(&self, forget: bool) -> Result<(Marked, u64), TierError> {
        let tiering = self.cold()?;
        std::fs::create_dir_all(&tiering.scratch).map_err(TierError::Marks)?;
        let mut marking = Marking {
            fs: self,
            tiering,
            forget,
            marks: Marks::new(&tiering.scratch),
            records: 0,
            failed: None,
        };
        self.walk(b"", &mut marking)
            .map_err(|errno| TierError::File("read the root of the volume", errno))?;
        if let Some(error) = marking.failed {
            return Err(error);
        }
        if let Some(held) = tiering.held.as_deref().filter(|held| held.exists()) {
            held::each(held, |key| marking.marks.add(mark(key)))?;
        }
        let marked = marking.marks.finish().map_err(TierError::Marks)?;
        Ok((marked, marking.records))
    }

    /// What an object is. Blocks.
    fn judge(&self, key: &str, marked: &Marked) -> Result<Judged, TierError> {
        let tiering = self.cold()?;
        // Before the record is asked: an object is on its way until its record is written.
        let coming = tiering.cold.is_coming(key);
        if marked.has(mark(key)).map_err(TierError::Marks)? {
            return Ok(Judged::Named);
        }
        let Some(id) = cold::file_of(key) else {
            return Ok(Judged::Foreign);
        };
        let file = match sys::open_id(self.mount.as_fd(), &id, OFlag::O_PATH) {
            Ok(file) => file,
            Err(Errno::ESTALE | Errno::ENOENT | Errno::EINVAL) => {
                return Ok(if coming {
                    Judged::Coming
                } else {
                    Judged::Orphan
                });
            }
            Err(errno) => return Err(TierError::File("look for the file of an object", errno)),
        };
        match tiering.space.read(file.as_fd()) {
            Ok(Some(record)) if record.key == key => Ok(Judged::Elsewhere),
            Err(TierError::Record(_)) => Ok(Judged::Elsewhere),
            Ok(_) if coming => Ok(Judged::Coming),
            Ok(_) => Ok(Judged::Orphan),
            Err(error) => Err(error),
        }
    }
}

/// What an object is to the volume.
enum Judged {
    /// A file of the tree names it.
    Named,
    /// A file that is not in the tree names it.
    Elsewhere,
    /// It is being written.
    Coming,
    /// It has no name of ours.
    Foreign,
    /// No file names it.
    Orphan,
}
