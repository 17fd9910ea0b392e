//! What the rest of a directory volume asks: are the contents here, and what is to be shown.
//!
//! Costs without a cold store: nothing. With one: a look at the record of every file that is opened,
//! and of every *empty* regular file whose attributes are told, because a stub is empty below.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::ftruncate;

use super::super::lookup::component;
use super::super::{DirectoryFs, sys};
use super::demote::time;
use super::gates::{Entered, Shown};
use super::record::{Record, State};
use super::{TierError, TierPolicy, TierStatus, Tiering, lock};

/// What a request ends with inside when contents have to be brought back first. Nothing below a
/// volume ever says so, and no application is told.
pub(crate) const ELSEWHERE: Errno = Errno::ENOMEDIUM;

/// How often attributes are read again while files are being moved.
const LOOKS: usize = 8;

impl DirectoryFs {
    /// The cold store of the volume.
    pub(super) fn cold(&self) -> Result<&Arc<Tiering>, TierError> {
        self.tiering.as_ref().ok_or(TierError::NoStore)
    }

    /// Counters of the cold store, if the volume has one.
    pub fn tier_status(&self) -> Option<TierStatus> {
        self.tiering.as_ref().map(|tiering| tiering.status())
    }

    /// What moves without being asked, if anything.
    pub fn tier_policy(&self) -> Option<&TierPolicy> {
        self.tiering.as_ref()?.policy.as_ref()
    }

    /// Begins an open of a node, or another use of its contents: they are not moved before the result
    /// is dropped.
    ///
    /// Errors: [`ELSEWHERE`] while they are being moved.
    pub(in super::super) fn enter(&self, node: u64) -> Result<Option<Entered<'_>>, Errno> {
        match &self.tiering {
            None => Ok(None),
            Some(tiering) => tiering.gates.enter(node).map(Some).ok_or(ELSEWHERE),
        }
    }

    /// How a file is opened below, of what open(2) was asked: movers are kept away by a lock that needs
    /// the right to read, and what is to be truncated needs the right to write.
    pub(in super::super) fn access(&self, wanted: OFlag) -> OFlag {
        let truncates = wanted.contains(OFlag::O_TRUNC);
        let wanted = wanted & !OFlag::O_TRUNC;
        let reads = wanted & OFlag::O_ACCMODE == OFlag::O_RDONLY;
        if self.tiering.is_some() && (truncates || !reads) {
            return (wanted & !OFlag::O_ACCMODE) | OFlag::O_RDWR;
        }
        wanted
    }

    /// Keeps movers of other nodes away from a file for as long as this description of it is open,
    /// and sees that its contents are here. The caller has entered.
    ///
    /// Errors: [`ELSEWHERE`] when they have to be brought back; `EIO` when nobody can know.
    pub(in super::super) fn present(&self, file: &impl AsFd) -> Result<(), Errno> {
        let Some(tiering) = &self.tiering else {
            return Ok(());
        };
        if !lock::share(file)? {
            return Err(ELSEWHERE);
        }
        match tiering.is_away(file.as_fd()) {
            Ok(false) => Ok(()),
            Ok(true) => {
                lock::give_back(file);
                Err(ELSEWHERE)
            }
            Err(error) => {
                tracing::warn!(%error, "a file cannot be opened");
                Err(error.errno())
            }
        }
    }

    /// As [`DirectoryFs::present`], for an open with these flags of open(2): one that truncates wants
    /// nothing of what the file had. The truncation itself is left to the caller.
    pub(in super::super) fn ready(&self, file: &impl AsFd, flags: i32) -> Result<(), Errno> {
        let away = self.present(file);
        let (Err(ELSEWHERE), Some(tiering)) = (away, &self.tiering) else {
            return away;
        };
        if flags & libc::O_TRUNC == 0 || !lock::share(file)? {
            return away;
        }
        ftruncate(file, 0)?;
        tiering.space.clear(file).map_err(|error| error.errno())
    }

    /// Keeps movers of other nodes away from a file that was just made.
    pub(in super::super) fn keep_here(&self, file: &impl AsFd) {
        // Nobody moves what is empty; a mover that looks at it does not stay.
        if self.tiering.is_some()
            && let Err(error) = lock::share(file)
        {
            tracing::debug!(%error, "another node may move a file that is open here");
        }
    }

    /// Truncates a file by its name, which takes its contents only if some of them are to stay.
    ///
    /// Errors: [`ELSEWHERE`] when they have to be brought back first.
    pub(in super::super) fn truncate(&self, file: &File, size: i64) -> Result<(), Errno> {
        let Some(tiering) = &self.tiering else {
            return ftruncate(file, size);
        };
        if size > 0 {
            self.present(file)?;
            return ftruncate(file, size);
        }
        ftruncate(file, 0)?;
        // What it had is not wanted any more, wherever it is.
        match tiering.space.read(file.as_fd()) {
            Ok(None) => Ok(()),
            Ok(Some(record)) if record.state == State::Copy => Ok(()),
            Ok(Some(_)) | Err(TierError::Record(_)) => {
                tiering.space.clear(file).map_err(|error| error.errno())
            }
            Err(error) => Err(error.errno()),
        }
    }

    /// Attributes as applications see them: of a stub the length of its contents, and a block, as
    /// archivers take a file without any for one that was never written.
    pub(in super::super) fn tiered(&self, file: BorrowedFd<'_>, stat: FileStat) -> FileStat {
        let Some(tiering) = &self.tiering else {
            return stat;
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return stat;
        }
        let number = self.number(stat.st_ino);
        let mut told = stat;
        for _ in 0..LOOKS {
            let turn = tiering.gates.turn();
            // What was read may be of a file that was moved since.
            let fresh = tiering.gates.is_busy().then(|| fstat(file).ok());
            let now = fresh.flatten().unwrap_or(stat);
            told = tiering.shown(number, file, now);
            if tiering.gates.turn() == turn {
                break;
            }
        }
        told
    }

    /// Before times of a node are set: one that died while it was emptied gets its own back first.
    pub(in super::super) fn before_times(&self, file: BorrowedFd<'_>) {
        let Some(tiering) = &self.tiering else {
            return;
        };
        let empty = fstat(file)
            .is_ok_and(|stat| stat.st_size == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        if !empty {
            return;
        }
        if let Ok(Some(
            record @ Record {
                state: State::Demoting,
                ..
            },
        )) = tiering.space.read(file)
            && let Err(error) = tiering.space.write(file, &record.with(State::Stub))
        {
            tracing::debug!(%error, "the times of a stub stay those of its record");
        }
    }
}

impl DirectoryFs {
    /// What is at a path below the root, component by component.
    pub(super) fn find_path(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut found = sys::open_child(self.root.as_fd(), c".", OFlag::O_PATH, 0)?;
        for name in path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
        {
            found = sys::open_child(found.as_fd(), &component(name)?, OFlag::O_PATH, 0)?;
        }
        Ok(found)
    }
}

fn show(stat: &mut FileStat, shown: Shown) {
    stat.st_size = i64::try_from(shown.size).unwrap_or(i64::MAX);
    stat.st_blocks = stat.st_blocks.max(1);
    stat.st_mtime = shown.mtime.seconds;
    stat.st_mtime_nsec = i64::from(shown.mtime.nanoseconds);
}

impl Tiering {
    /// What a file of these attributes is shown as.
    fn shown(&self, number: u64, file: BorrowedFd<'_>, mut stat: FileStat) -> FileStat {
        if let Some(shown) = self.gates.shown(number) {
            show(&mut stat, shown);
            return stat;
        }
        if stat.st_size > 0 {
            return stat;
        }
        let record = match self.space.read(file) {
            Ok(Some(record)) => record,
            Ok(None) => return stat,
            Err(error) => {
                tracing::warn!(number, %error, "the length of a file is not known");
                return stat;
            }
        };
        // Another node may have brought it back between the two looks.
        let now = fstat(file).unwrap_or(stat);
        let back = now.st_size > 0 && record.state != State::Recalling;
        if record.state == State::Copy || back {
            return now;
        }
        let own = time(&stat);
        show(
            &mut stat,
            Shown {
                size: record.size,
                mtime: match record.state {
                    State::Stub => own,
                    _ => record.mtime,
                },
            },
        );
        stat
    }

    /// Whether a file's contents have to be brought back. What somebody wrote without Terrace wins.
    pub(super) fn is_away(&self, file: BorrowedFd<'_>) -> Result<bool, TierError> {
        let Some(record) = self.space.read(file)? else {
            return Ok(false);
        };
        let stat = fstat(file).map_err(|errno| TierError::File("look at it", errno))?;
        match (record.state, stat.st_size) {
            (State::Copy, _) => Ok(false),
            (State::Recalling, _) | (State::Demoting | State::Stub, 0) => Ok(true),
            (State::Demoting | State::Stub, _) => {
                self.space.clear(file)?;
                Ok(false)
            }
        }
    }
}
