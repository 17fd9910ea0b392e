//! Locks between processes, one per volume and one for what they share, all in one file.
//!
//! ```text
//! <base>/LOCK   byte 0                     capacity and numbers: held while they are given out
//!               byte 1 + hash mod 2^62     the volume or snapshot with that hash
//! ```
//!
//! They are byte-range locks of open file descriptions (`F_OFD_SETLK`, fcntl(2)): they exclude threads
//! and processes alike, and end with whoever holds them, however it dies. Lock order: a volume's
//! before byte 0; two volumes (a copy) are never waited for, only tried.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::error::ScratchError;

/// The lock file of a base directory.
#[derive(Debug)]
pub(crate) struct Locks {
    path: PathBuf,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    offset: i64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing alone is not enough: a program that another thread is just starting has a copy of
        // the descriptor until it begins.
        let region = region(libc::F_UNLCK, self.offset);
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&region));
    }
}

impl Locks {
    pub(crate) fn new(base: &Path) -> Self {
        Self {
            path: base.join("LOCK"),
        }
    }

    /// The lock of one volume or snapshot; `None` when another operation has it.
    pub(crate) fn try_hold(&self, hash: &str) -> Result<Option<Guard>, ScratchError> {
        let number = hash
            .get(..16)
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        let offset = 1 + (number.unwrap_or_default() >> 2).cast_signed();
        let file = open(&self.path)?;
        let region = region(libc::F_WRLCK, offset);
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&region)) {
            Ok(_) => Ok(Some(Guard { file, offset })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(ScratchError::io("lock", &self.path)(errno)),
        }
    }

    /// The lock of what all volumes share; waited for, because it is held for a few system calls.
    pub(crate) fn hold_shared(&self) -> Result<Guard, ScratchError> {
        let file = open(&self.path)?;
        let offset = 0;
        let region = region(libc::F_WRLCK, offset);
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&region)) {
                Ok(_) => return Ok(Guard { file, offset }),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ScratchError::io("lock", &self.path)(errno)),
            }
        }
    }
}

/// Locks one byte of a file, made when absent, beside others who do the same; `None` while somebody has it alone.
pub(crate) fn share(path: &Path, offset: i64) -> Result<Option<Guard>, ScratchError> {
    let file = open(path)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&region(libc::F_RDLCK, offset))) {
        Ok(_) => Ok(Some(Guard { file, offset })),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(errno) => Err(ScratchError::io("lock", path)(errno)),
    }
}

fn open(path: &Path) -> Result<File, ScratchError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    let opened = options.mode(0o600).open(path);
    opened.map_err(ScratchError::io("open", path))
}

/// One byte, to be locked or let go.
fn region(kind: libc::c_int, offset: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    }
}
