//! Giving a file to its caller, where the file system below judges the caller again.
//!
//! The kernel has allowed the operation with the caller's whole identity. A network file system asks
//! its server, which knows the caller's user and group and not the other groups, and may refuse what
//! was allowed. Then the file is made as this process and given to the caller before the answer.
//!
//! Invariant: what is answered belongs to the caller. A worker that dies between the two steps leaves
//! a file of root; the request, sent again, finds it ([`may_be`]) and gives it away.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::identity::{Caller, as_caller};
use super::lookup::Found;
use super::{DirectoryFs, sys};

/// Set-user-ID and set-group-ID, which a change of owner takes away.
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Whether a file that was just made can be this caller's: it is, or is still to be given to it.
pub(super) fn may_be(stat: &FileStat, caller: Caller) -> bool {
    stat.st_uid == caller.uid || stat.st_uid == 0
}

impl DirectoryFs {
    /// Makes a name as this process and gives it to the caller. What is returned by `make` stays
    /// open; it is the same file.
    pub(super) fn make_and_give(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        caller: Caller,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<Option<OwnedFd>, Errno>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let root = Caller {
            uid: 0,
            gid: 0,
            umask: caller.umask,
        };
        let made = as_caller(root, || make(dir, name))??;
        let found = self.find(dir, name)?;
        self.given(dir, name, found, caller)?;
        Ok(made)
    }

    /// A file of root becomes the caller's; its group is the directory's where that is inherited.
    pub(super) fn given(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        found: Found,
        caller: Caller,
    ) -> Result<Found, Errno> {
        if found.stat.st_uid == caller.uid {
            return Ok(found);
        }
        let inherits = fstat(dir)?.st_mode & libc::S_ISGID != 0;
        let group = (!inherits).then(|| Gid::from_raw(caller.gid));
        let user = Some(Uid::from_raw(caller.uid));
        fchownat(found.fd.as_fd(), c"", user, group, AtFlags::AT_EMPTY_PATH)?;
        if found.stat.st_mode & SET_ID != 0 && found.stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
            sys::change_mode(found.fd.as_fd(), found.stat.st_mode)?;
        }
        self.find(dir, name)
    }
}
