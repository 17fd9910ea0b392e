//! Attributes of files, and extended ones.
//!
//! All are the directory's own. Of extended attributes `user.*`, `security.*`, `system.posix_acl_*`
//! and `trusted.*` are passed through; the kernel has judged who may. Only a list is judged here:
//! names of `trusted.*` are for root. Those that say where contents are ([`super::tiering`]), and how safe they
//! are, are not listed and not changed: a copy of them would say what is not true of the copy.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, fstat};
use nix::unistd::{Gid, Uid, fchownat, ftruncate};

use super::asker::Asker;
use super::intents::{Evidence, Intent};
use super::tiering::is_reserved;
use super::{DirectoryFs, sys};

/// ACL of access, whose support is asked for when a volume is opened.
pub(super) const ACL_ACCESS: &CStr = c"system.posix_acl_access";

/// Longest value or list of extended attributes (`XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// What a SETATTR asks for. Times are as utimensat(2) takes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) times: [libc::timespec; 2],
    pub(crate) fh: Option<u64>,
}

/// A time that utimensat(2) leaves as it is.
pub(crate) const OMIT: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: libc::UTIME_OMIT,
};

impl DirectoryFs {
    /// Attributes of a node, by its open handle when there is one.
    pub(crate) fn attributes(&self, node: u64, fh: Option<u64>) -> Result<FileStat, Errno> {
        let staged = self.staged(node);
        if staged.is_none()
            && let Some(file) = fh.and_then(|fh| self.opens.file(fh))
        {
            return Ok(self.shown(fstat(&*file)?));
        }
        let stat = self.at(node).and_then(|at| {
            let stat = fstat(at.fd())?;
            Ok(self.tiered(at.fd(), stat))
        });
        match stat {
            Ok(stat) => Ok(self.shown(stat)),
            // It has no name any more, and nothing below has kept it.
            Err(Errno::ESTALE) if staged.is_some() => {
                let orphan = staged.and_then(|(_, stage)| stage.orphan());
                orphan.ok_or(Errno::ESTALE)
            }
            Err(error) => Err(self.gone(node, error)),
        }
    }

    /// Asks for the attributes of a directory ahead of the kernel: once a name in it has changed it wants them
    /// before it looks at the next one. On a shared file system that is a round trip, which goes on while the
    /// program does something else.
    pub(crate) fn ask_ahead(&self, node: u64) {
        if self.is_shared
            && let Ok(at) = self.at(node)
        {
            fstat(at.fd()).ok();
        }
    }

    /// Attributes of a file below with what is known better elsewhere; its number is the kernel's.
    pub(super) fn overlay(&self, stat: FileStat) -> FileStat {
        self.staged_over(stat)
    }

    /// Changes attributes; returns them all.
    ///
    /// Errors: [`super::ELSEWHERE`] when contents have to be brought back first; nothing has changed.
    ///
    /// The owner goes before the mode: a change of owner takes set-ID bits away, and the kernel says
    /// in the same request which bits are to be left.
    pub(crate) fn change(&self, node: u64, change: &Change) -> Result<FileStat, Errno> {
        if let Some(size) = change.size {
            let signed = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
            match change.fh.and_then(|fh| self.opens.file(fh)) {
                _ if self.set_staged_length(node, signed)? => {}
                Some(file) => {
                    let cut = || ftruncate(&*file, signed);
                    self.resizing(node, &file, |_| Ok(size), cut)?;
                }
                None => {
                    let _entered = self.enter(node)?;
                    let access = self.access(OFlag::O_WRONLY);
                    let file = self.reopen(node, access | OFlag::O_NONBLOCK)?.into();
                    let cut = || self.truncate(&file, signed);
                    self.resizing(node, &file, |_| Ok(size), cut)?;
                }
            }
            self.copies.changes(node); // before the answer
        }
        let at = self.at(node)?;
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            fchownat(at.fd(), c"", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        if let Some(mode) = change.mode {
            sys::change_mode(at.fd(), mode)?;
        }
        if change
            .times
            .iter()
            .any(|time| time.tv_nsec != libc::UTIME_OMIT)
            && !self.set_staged_times(node, change.times)?
        {
            self.before_times(at.fd());
            sys::change_times(at.fd(), change.times)?;
        }
        Ok(self.shown(self.tiered(at.fd(), fstat(at.fd())?)))
    }

    /// Target of a symbolic link.
    pub(crate) fn read_link(&self, node: u64) -> Result<Vec<u8>, Errno> {
        use std::os::unix::ffi::OsStringExt;
        let target = nix::fcntl::readlinkat(self.at(node)?.fd(), c"")?;
        Ok(target.into_vec())
    }

    /// Value of an extended attribute.
    pub(crate) fn xattr(&self, node: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Some(known) = self.own_xattr(node, name) {
            return known;
        }
        let attribute = attribute(name)?;
        let at = self.at(node)?;
        let value = filled(|room| sys::get_xattr(at.fd(), &attribute, room));
        self.note_capability(node, name, value == Err(Errno::ENODATA));
        value
    }

    /// Names of the extended attributes, each with its NUL, as a caller of this user may see them.
    pub(crate) fn xattr_names(&self, node: u64, uid: u32) -> Result<Vec<u8>, Errno> {
        let at = self.at(node)?;
        let names = filled(|room| sys::list_xattrs(at.fd(), room))?;
        let shown = names.split_inclusive(|byte| *byte == 0).filter(|name| {
            let own = is_reserved(name.strip_suffix(b"\0").unwrap_or(name));
            !own && (uid == 0 || !name.starts_with(b"trusted."))
        });
        Ok(shown.flatten().copied().collect())
    }

    /// Sets an extended attribute. `flags` are those of setxattr(2).
    pub(crate) fn set_xattr(
        &self,
        (unique, asker): (u64, Asker),
        node: u64,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<Option<Intent>, Errno> {
        let set = self.set_value(unique, node, name, value, flags)?;
        if name == ACL_ACCESS.to_bytes() && !value.is_empty() {
            // Also when it was set by a dead worker, which may not have come here.
            self.drop_set_group(node, asker, |_| true)?;
        }
        Ok(set)
    }

    /// Takes the set-group-ID bit from a file that its group cannot execute, when somebody changes its contents
    /// who may not set it.
    pub(super) fn drop_lock_mark(&self, node: u64, asker: Asker) -> Result<(), Errno> {
        match self.drop_set_group(node, asker, |mode| mode & libc::S_IXGRP == 0) {
            Err(Errno::ESTALE) => Ok(()), // it has no name any more, and nothing below
            done => done,
        }
    }

    /// Takes the set-group-ID bit from a file of such a mode, unless the asker may set it.
    fn drop_set_group(
        &self,
        node: u64,
        asker: Asker,
        from: impl FnOnce(u32) -> bool,
    ) -> Result<(), Errno> {
        let at = self.at(node)?;
        let stat = fstat(at.fd())?;
        let has = stat.st_mode & libc::S_ISGID != 0 && from(stat.st_mode);
        if !has || asker.may_set_id(stat.st_gid) {
            return Ok(());
        }
        sys::change_mode(at.fd(), stat.st_mode & !libc::S_ISGID)?;
        // It has not asked for another mode, and would show the old one.
        self.opens.forget_attributes(node);
        Ok(())
    }

    fn set_value(
        &self,
        unique: u64,
        node: u64,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<Option<Intent>, Errno> {
        self.refuse_own(name)?;
        self.note_capability(node, name, false);
        let written = writable(name)?;
        let at = self.at(node)?;
        if flags & libc::XATTR_CREATE == 0 {
            sys::set_xattr(at.fd(), &written, value, flags)?;
            self.note_capability(node, name, false);
            return Ok(None);
        }
        // The only one of these that fails when it is done twice.
        let was_absent = self.evidence(unique) == Some(Evidence::Attribute(false));
        let there = !was_absent && exists(at.fd(), &written);
        let intent = self.intents.record(unique, &Evidence::Attribute(there));
        let set = sys::set_xattr(at.fd(), &written, value, flags);
        self.note_capability(node, name, false);
        match set {
            Err(Errno::EEXIST) if was_absent => {
                self.recognise();
                Ok(Some(intent))
            }
            other => other.map(|()| Some(intent)),
        }
    }

    /// Removes an extended attribute.
    pub(crate) fn remove_xattr(
        &self,
        unique: u64,
        node: u64,
        name: &[u8],
    ) -> Result<Intent, Errno> {
        self.refuse_own(name)?;
        let name = writable(name)?;
        let at = self.at(node)?;
        let was_there = self.evidence(unique) == Some(Evidence::Attribute(true));
        let there = was_there || exists(at.fd(), &name);
        let intent = self.intents.record(unique, &Evidence::Attribute(there));
        match sys::remove_xattr(at.fd(), &name) {
            Err(Errno::ENODATA) if was_there => {
                self.recognise();
                Ok(intent)
            }
            other => other.map(|()| intent),
        }
    }
}

fn exists(fd: std::os::fd::BorrowedFd<'_>, name: &CStr) -> bool {
    sys::get_xattr(fd, name, &mut []).is_ok()
}

fn attribute(name: &[u8]) -> Result<CString, Errno> {
    CString::new(name).map_err(|_| Errno::EINVAL)
}

/// As [`attribute`], of one that is to be changed: what says where contents are is nobody's to set.
fn writable(name: &[u8]) -> Result<CString, Errno> {
    match is_reserved(name) {
        true => Err(Errno::EPERM),
        false => attribute(name),
    }
}

/// The whole of what `read` fills its room with.
fn filled(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut room = vec![0; 256];
    loop {
        match read(&mut room) {
            Ok(length) => {
                room.truncate(length);
                return Ok(room);
            }
            Err(Errno::ERANGE) if room.len() < XATTR_MAX => room.resize(XATTR_MAX, 0),
            Err(error) => return Err(error),
        }
    }
}
