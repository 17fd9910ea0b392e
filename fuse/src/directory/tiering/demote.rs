//! Contents to the store: a verified copy first, and then an empty file in their place.
//!
//! ```text
//! demote   a copy (copy.rs), then with the file for itself (gate, lock between nodes, lease):
//!          unchanged? -> explanation -> record demoting, synced -> unchanged? -> truncate
//!          -> times -> record stub, synced
//! ```
//! What is open, or is opened meanwhile, is left as it is: the copy serves the next attempt.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::FileStat;

use super::super::{DirectoryFs, sys};
use super::copy::{Copied, How, stat};
use super::gates::Shown;
use super::lock::{self, Lease};
use super::record::{Record, State, Time};
use super::{Step, TierError, Tiering, attribute, blocking};

/// How a file is opened to be moved. Reading it is no access of anybody.
pub(super) const MOVER: OFlag = OFlag::O_RDWR
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOATIME)
    .union(OFlag::O_NOFOLLOW);

/// A file to be moved, open as [`MOVER`] says.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) file: Arc<File>,
    /// The kernel's number for it.
    pub(super) number: u64,
    /// What it is called now, for people.
    pub(super) path: Vec<u8>,
}

/// Why a file's contents stayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// Somebody has it open, here or elsewhere, or moves it.
    Open,
    /// It was written meanwhile.
    Changed,
    /// It has none, or they are away already.
    Empty,
    /// It is pinned.
    Pinned,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is a stub now, of so many bytes.
    Away(u64),
    /// It is as it was.
    Kept(Kept),
}

pub(super) fn time(stat: &FileStat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

/// Whether nobody has written between two looks.
pub(super) fn same(one: &FileStat, other: &FileStat) -> bool {
    one.st_size == other.st_size && time(one) == time(other)
}

/// Whether nobody has changed anything.
pub(super) fn untouched(one: &FileStat, other: &FileStat) -> bool {
    let changed = |stat: &FileStat| (stat.st_ctime, stat.st_ctime_nsec);
    same(one, other) && changed(one) == changed(other)
}

/// Gives a file its time of modification, and what it has as the time of access.
pub(super) fn date(file: &File, mtime: Time, accessed: libc::timespec) -> Result<(), TierError> {
    let modified = libc::timespec {
        tv_sec: mtime.seconds,
        tv_nsec: i64::from(mtime.nanoseconds),
    };
    sys::change_times(file.as_fd(), [accessed, modified])
        .map_err(|errno| TierError::File("give it its times", errno))
}

pub(super) fn sync(file: &File) -> Result<(), TierError> {
    nix::unistd::fsync(file).map_err(|errno| TierError::File("sync it", errno))
}

pub(super) fn truncate(file: &File) -> Result<(), TierError> {
    nix::unistd::ftruncate(file, 0).map_err(|errno| TierError::File("empty it", errno))
}

impl DirectoryFs {
    /// Whether a file is open here, or has bytes that are on their way into it.
    fn is_used(&self, number: u64) -> bool {
        self.opens.is_open(number) || self.staged(number).is_some()
    }

    /// Opens a node to be moved.
    pub(super) async fn target(self: &Arc<Self>, node: u64) -> Result<Target, TierError> {
        let fs = Arc::clone(self);
        blocking(move || {
            let opened = fs.reopen(node, MOVER & !OFlag::O_NOFOLLOW);
            let file = File::from(opened.map_err(|errno| TierError::File("open it", errno))?);
            let path = fs.path_of(file.as_fd());
            Ok(Target {
                file: Arc::new(file),
                number: node,
                path: path.map(String::into_bytes).unwrap_or_default(),
            })
        })
        .await
    }

    /// Moves a file's contents to the cold store.
    pub(super) async fn demote(self: &Arc<Self>, target: &Target) -> Result<Moved, TierError> {
        let tiering = Arc::clone(self.cold()?);
        if self.is_used(target.number) {
            return Ok(Moved::Kept(Kept::Open));
        }
        let file = Arc::clone(&target.file);
        if blocking(move || Ok(attribute::is_pinned(file.as_fd()))).await? {
            return Ok(Moved::Kept(Kept::Pinned));
        }
        let copied = match tiering.copy(target, How::Exact).await? {
            Ok(copied) => copied,
            Err(kept) => return Ok(Moved::Kept(kept)),
        };
        let (fs, target) = (Arc::clone(self), target.clone());
        let moved = blocking(move || {
            let tiering = Arc::clone(fs.cold()?);
            match tiering.gates.try_close(target.number) {
                Some(closed) if !fs.is_used(target.number) => {
                    if !lock::take(&target.file).map_err(|e| TierError::File("lock it", e))? {
                        return Ok(Moved::Kept(Kept::Open));
                    }
                    let moved = tiering.empty(&target, &copied, &closed);
                    lock::give_back(&target.file);
                    moved
                }
                _ => Ok(Moved::Kept(Kept::Open)),
            }
        });
        let moved = moved.await?;
        if let Moved::Away(bytes) = moved {
            let tiering = self.cold()?;
            tiering.demoted_files.fetch_add(1, Ordering::Relaxed);
            tiering.demoted_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(moved)
    }
}

impl Tiering {
    /// Makes a copied file a stub. The caller has the file for itself on all nodes. Blocks.
    fn empty(
        &self,
        target: &Target,
        copied: &Copied,
        closed: &super::gates::Closed<'_>,
    ) -> Result<Moved, TierError> {
        let (file, record) = (&*target.file, &copied.record);
        let Some(lease) = Lease::take(file) else {
            return Ok(Moved::Kept(Kept::Open));
        };
        let now = stat(file)?;
        if now.st_nlink == 0 || !untouched(&copied.stat, &now) {
            return Ok(Moved::Kept(Kept::Changed));
        }
        closed.show(Shown {
            size: record.size,
            mtime: record.mtime,
        });
        match self.prepare(file, record) {
            Ok(()) if same(&copied.stat, &stat(file)?) => {}
            Ok(()) => {
                self.undo(file, record);
                return Ok(Moved::Kept(Kept::Changed));
            }
            Err(error) => {
                if !matches!(error, TierError::Stopped) {
                    self.undo(file, record);
                }
                return Err(error);
            }
        }
        truncate(file)?;
        self.step(Step::Emptied)?;
        self.finish(file, record)?;
        drop(lease);
        Ok(Moved::Away(record.size))
    }

    fn prepare(&self, file: &File, record: &Record) -> Result<(), TierError> {
        attribute::explain(file.as_fd(), record)
            .map_err(|errno| TierError::File("explain where its contents are", errno))?;
        self.step(Step::Explained)?;
        self.space.write(file, &record.with(State::Demoting))?;
        sync(file)?;
        self.step(Step::Demoting)
    }

    /// The file has its contents: it says so again.
    fn undo(&self, file: &File, record: &Record) {
        let undone = self.space.clear(file).and_then(|()| {
            let copy = record.with(State::Copy);
            self.space.write(file, &copy)
        });
        if let Err(error) = undone {
            tracing::debug!(%error, "the file wins over a record that says otherwise");
        }
    }

    /// Gives a file that was emptied its times, and the name of a stub. Blocks.
    pub(super) fn finish(&self, file: &File, record: &Record) -> Result<(), TierError> {
        let as_it_is = libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        };
        date(file, record.mtime, as_it_is)?;
        self.step(Step::Dated)?;
        self.space.write(file, &record.with(State::Stub))?;
        sync(file)?;
        self.step(Step::Stubbed)
    }
}

impl From<Errno> for Kept {
    /// Why a file could not be opened to be moved.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ETXTBSY | Errno::EWOULDBLOCK => Self::Open,
            _ => Self::Changed,
        }
    }
}
