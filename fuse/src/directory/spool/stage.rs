//! One staged file: whose contents it is, who has it open, and how far it has come.
//!
//! ```text
//!            open for writing                last name gone, nobody has it open
//! (nothing) ------------------> staged ------------------------------------------> (dropped)
//!                                 |  ^
//!             nobody writes: copy |  | opened for writing
//!                                 v  |
//!                               copied ---- nobody has it open ----> (nothing: the file below is it)
//! staged -- the file below was changed by another node, or the SSD has failed --> set aside
//! ```
//! `version` counts what may have changed the contents: an open for writing, its close, a change of
//! size. While somebody has it open for writing no version is final, since the kernel writes without
//! asking; so a copy counts only when nobody did from its beginning to its end.
//!
//! Errors: a failure is told to the call that met it, once to every other handle that was open then
//! ([`State::told`]), and in the file's status until it is acknowledged.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};

use super::super::durability::{Level, Levels};
use super::super::sys::FileId;
use super::lock;
use super::record::{Owner, Stamp};

/// Size and time of the last change of contents.
pub(super) fn stamp(stat: &FileStat) -> Stamp {
    Stamp {
        size: stat.st_size.unsigned_abs(),
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec,
    }
}

/// Why a file is not what it should be, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) errno: Errno,
    pub(super) why: String,
    pub(super) at: SystemTime,
}

/// What is left to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// To be copied, and to be copied again when it changes.
    Live,
    /// Its bytes are in `lost+found`; every fsync and close fails from now on.
    Aside(Errno),
}

/// See the module text.
#[derive(Debug)]
pub(in super::super) struct Stage {
    pub(super) id: u64,
    /// The kernel's number.
    pub(super) node: u64,
    /// The file below.
    pub(super) file_id: FileId,
    /// Where it was when staging began, for people.
    pub(super) name: String,
    /// In seconds since 1970.
    pub(super) since: u64,
    /// Its bytes.
    pub(super) file: Arc<File>,
    pub(super) state: Mutex<State>,
    /// An attempt to copy it has ended.
    pub(super) settled: Condvar,
    /// The file below has no capabilities, as far as this mount knows.
    pub(super) plain: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) levels: Levels,
    pub(super) base: Stamp,
    /// Open handles, and whether each may write.
    pub(super) handles: HashMap<u64, bool>,
    pub(super) version: u64,
    /// The version that the file below has.
    pub(super) copied: Option<u64>,
    /// The file below may be a part of this one.
    pub(super) copying: bool,
    /// Somebody copies it now.
    pub(super) busy: bool,
    /// Checksum of the contents of a version.
    pub(super) sealed: Option<(Stamp, u32)>,
    /// What was synced last.
    pub(super) synced: Option<Stamp>,
    /// The journal, its own name and the name below are durable.
    pub(super) anchored: bool,
    pub(super) removing: Option<Owner>,
    /// It has no name any more.
    pub(super) unlinked: bool,
    /// The directory that had its last name.
    pub(super) grave: Option<File>,
    /// That it has no name is durable.
    pub(super) buried: bool,
    pub(super) fate: Fate,
    /// Handles that have not been told of the last failure.
    pub(super) untold: HashMap<u64, Errno>,
    pub(super) problem: Option<Problem>,
    pub(super) attempts: u32,
    /// Not to be tried before.
    pub(super) due: Instant,
    /// Bytes on the SSD when it was last looked at.
    pub(super) bytes: u64,
}

impl State {
    pub(super) fn new(levels: Levels, base: Stamp) -> Self {
        Self {
            levels,
            base,
            handles: HashMap::new(),
            version: 1,
            copied: None,
            copying: false,
            busy: false,
            sealed: None,
            synced: None,
            anchored: false,
            removing: None,
            unlinked: false,
            grave: None,
            buried: false,
            fate: Fate::Live,
            untold: HashMap::new(),
            problem: None,
            attempts: 0,
            due: Instant::now(),
            bytes: 0,
        }
    }

    /// Whether somebody may be changing the contents.
    pub(super) fn is_written(&self) -> bool {
        self.handles.values().any(|writes| *writes)
    }

    /// Whether the file below has these contents.
    pub(super) fn is_copied(&self) -> bool {
        self.copied == Some(self.version) && !self.is_written()
    }

    /// Whether its bytes are wanted by nobody, not even after a power cut: one that had promised them
    /// may bring the name back.
    pub(super) fn is_gone(&self) -> bool {
        self.unlinked && (self.buried || !self.anchored)
    }

    /// Notes a failure for every handle but the one whose call tells it.
    pub(super) fn fail(&mut self, errno: Errno, why: String, teller: Option<u64>) {
        let others: HashSet<u64> = self.handles.keys().copied().collect();
        for fh in others.into_iter().filter(|fh| Some(*fh) != teller) {
            self.untold.insert(fh, errno);
        }
        self.problem = Some(Problem {
            errno,
            why,
            at: SystemTime::now(),
        });
    }

    /// The failure that a handle has not been told yet, or that stays.
    pub(super) fn told(&mut self, fh: u64) -> Result<(), Errno> {
        if let Some(errno) = self.untold.remove(&fh) {
            return Err(errno);
        }
        match self.fate {
            Fate::Live => Ok(()),
            Fate::Aside(errno) => Err(errno),
        }
    }
}

impl Stage {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Its bytes.
    pub(in super::super) fn contents(&self) -> &Arc<File> {
        &self.file
    }

    /// Attributes of its bytes.
    pub(super) fn stat(&self) -> Result<FileStat, Errno> {
        fstat(&*self.file)
    }

    /// Attributes of the file below with what is known better here.
    pub(in super::super) fn over(&self, mut below: FileStat) -> FileStat {
        let Ok(here) = self.stat() else {
            return below;
        };
        below.st_size = here.st_size;
        below.st_blocks = here.st_blocks;
        below.st_atime = here.st_atime;
        below.st_atime_nsec = here.st_atime_nsec;
        below.st_mtime = here.st_mtime;
        below.st_mtime_nsec = here.st_mtime_nsec;
        if (here.st_ctime, here.st_ctime_nsec) > (below.st_ctime, below.st_ctime_nsec) {
            below.st_ctime = here.st_ctime;
            below.st_ctime_nsec = here.st_ctime_nsec;
        }
        below
    }

    /// Attributes of a file that has lost its names, and perhaps its inode below.
    pub(in super::super) fn orphan(&self) -> Option<FileStat> {
        let owner = self.lock().removing?;
        let mut stat = self.stat().ok()?;
        stat.st_ino = self.node;
        stat.st_mode = owner.mode;
        stat.st_uid = owner.uid;
        stat.st_gid = owner.gid;
        stat.st_nlink = 0;
        Some(stat)
    }

    /// What is promised of it.
    pub(in super::super) fn levels(&self) -> Levels {
        self.lock().levels
    }

    /// Whether the file is known to have no capabilities.
    pub(in super::super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// Takes note of it.
    pub(in super::super) fn set_plain(&self, plain: bool) {
        self.plain.store(plain, Ordering::Relaxed);
    }

    /// How safe the bytes are now, and how many are on this node only.
    pub(in super::super) fn safety(&self) -> (Level, u64) {
        let level = self.reached();
        let bytes = self.stat().map_or(0, |stat| stat.st_size.unsigned_abs());
        (level, if level < Level::Shared { bytes } else { 0 })
    }

    /// How safe the bytes are now.
    pub(super) fn reached(&self) -> Level {
        let now = self.stat().ok().map(|stat| stamp(&stat));
        let state = self.lock();
        if state.is_copied() {
            Level::Shared
        } else if state.anchored && state.synced.is_some() && state.synced == now {
            Level::Local
        } else {
            Level::Accepted
        }
    }

    /// Seconds since 1970.
    pub(super) fn clock() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |passed| passed.as_secs())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a program that shares a file with one whose fsync failed would never learn of it, or
    // learn of it for ever.
    #[test]
    fn a_failure_is_told_once_to_every_handle_that_was_open() {
        let mut state = State::new(Levels::UNRULED, Stamp::default());
        state.handles = HashMap::from([(1, true), (2, true)]);
        state.fail(Errno::EIO, "the disk".to_owned(), Some(1));
        state.handles.insert(3, true);
        assert_eq!(state.told(1), Ok(()));
        assert_eq!(state.told(3), Ok(()));
        assert_eq!(state.told(2), Err(Errno::EIO));
        assert_eq!(state.told(2), Ok(()));
        assert_eq!(state.problem.as_ref().unwrap().errno, Errno::EIO);
        state.fate = Fate::Aside(Errno::ESTALE);
        assert_eq!(state.told(2), Err(Errno::ESTALE));
        assert_eq!(state.told(2), Err(Errno::ESTALE));
    }

    // Without it a copy that was made while somebody wrote would be taken for the whole.
    #[test]
    fn no_version_is_final_while_somebody_writes() {
        let mut state = State::new(Levels::UNRULED, Stamp::default());
        state.copied = Some(state.version);
        assert!(state.is_copied());
        state.handles.insert(1, false);
        assert!(state.is_copied());
        state.handles.insert(2, true);
        assert!(!state.is_copied());
        state.handles.remove(&2);
        state.version += 1;
        assert!(!state.is_copied());
    }
}
