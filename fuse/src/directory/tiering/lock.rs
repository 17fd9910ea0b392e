//! Who else has a file open: other nodes by a lock on the file below, other programs by a lease.
//!
//! Every open of a volume that has a cold store holds a *shared* lock on one byte far behind any
//! contents, for as long as its handle lives (an open file description's lock, fcntl(2)); whoever
//! moves contents needs the same byte *exclusively*. A file system that carries such locks between
//! nodes so keeps one node from emptying what another one reads. The lock of a handle that the kernel
//! passes through outlives the worker, as its open file does.
//!
//! A program that opens the file below without Terrace takes no such lock. On this node a lease
//! (`F_SETLEASE`) tells: it is not given while anybody has the file open, and an open that comes waits
//! until it is given back. File systems without leases are used without them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The byte that is locked: nobody's contents reach so far.
const BYTE: libc::off_t = libc::off_t::MAX - 1;

/// `F_SETSIG` of fcntl(2); the library has no name for it.
const SET_SIGNAL: libc::c_int = 10;

fn attempt(file: impl AsFd, kind: libc::c_int) -> Result<bool, Errno> {
    // SAFETY: a zeroed `flock` is a whole valid one.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = BYTE;
    lock.l_len = 1;
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        // No locks here, or none that outlive a process: nobody else can hold one either.
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Locks a file that is open for reading for one more handle; `false` while its contents are moved.
pub(super) fn share(file: impl AsFd) -> Result<bool, Errno> {
    attempt(file, libc::F_RDLCK)
}

/// Locks a file that is open for writing for a mover; `false` while somebody has it open.
pub(super) fn take(file: impl AsFd) -> Result<bool, Errno> {
    attempt(file, libc::F_WRLCK)
}

/// Gives either back.
pub(super) fn give_back(file: impl AsFd) {
    if let Err(error) = attempt(file, libc::F_UNLCK) {
        tracing::debug!(%error, "a lock ends with its descriptor");
    }
}

/// Nobody else on this node has the file open while it lives.
#[derive(Debug)]
pub(super) struct Lease<'a>(Option<&'a File>);

impl<'a> Lease<'a> {
    /// Takes the lease; `None` when somebody has the file open.
    pub(super) fn take(file: &'a File) -> Option<Self> {
        // The usual signal to a holder whose lease is wanted would end this process; this one is
        // ignored. What is done under the lease is short, and ends by itself.
        // SAFETY: a descriptor and two numbers.
        let signal = unsafe { libc::fcntl(file.as_raw_fd(), SET_SIGNAL, libc::SIGURG) };
        if signal != 0 {
            return Some(Self(None));
        }
        // SAFETY: as above.
        let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        match Errno::result(taken) {
            Ok(_) => Some(Self(Some(file))),
            Err(Errno::EAGAIN) if on_leases(file) => None,
            Err(_) => Some(Self(None)),
        }
    }
}

/// Whether the file system gives leases at all: network file systems answer as if it was taken.
fn on_leases(file: &File) -> bool {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC};
    let known = [
        EXT4_SUPER_MAGIC,
        XFS_SUPER_MAGIC,
        BTRFS_SUPER_MAGIC,
        TMPFS_MAGIC,
    ];
    nix::sys::statfs::fstatfs(file).is_ok_and(|stat| known.contains(&stat.filesystem_type()))
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            // SAFETY: a descriptor and two numbers.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn open(path: &std::path::Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    // Without it a file could be emptied while another node or program reads it.
    #[test]
    fn who_has_a_file_open_keeps_movers_away() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let (one, two) = (open(&path), open(&path));
        assert!(share(&one).unwrap() && share(&two).unwrap());
        let mover = open(&path);
        assert!(!take(&mover).unwrap());
        drop(one);
        give_back(&two);
        assert!(take(&mover).unwrap());
        assert!(!share(&two).unwrap());
        if !on_leases(&mover) {
            return;
        }
        assert!(Lease::take(&mover).is_none(), "it is open twice");
        drop(two);
        let lease = Lease::take(&mover).unwrap();
        assert!(lease.0.is_some());
    }
}
