//! How the file of a node is found again: by a handle that lasts, or by where it was seen.
//!
//! A local file system, and a network one whose client was made for it, gives every file a handle
//! that opens it for ever ([`Naming::Handles`]). A file system in user space does not: what
//! name_to_handle_at(2) says there is the kernel's node id, which stands for the file only while the
//! kernel knows it (a pointer in GlusterFS's client, used again for another file afterwards). There
//! a file is its inode number, and each number is kept with its [`Way`]: the number of the directory
//! it was last seen in and its name there ([`Naming::Places`]).
//!
//! ```text
//! number -> kept descriptor (O_PATH)                                 at most KEPT of them
//!        -> handle, when the kernel below still knows the file       it is open, or was used lately
//!        -> the directory's number -> ... -> the root, and its name  each step one component
//! ```
//!
//! Whatever the way, what was found is the file only when it has the number and the type. A rename
//! through this mount changes one way, also that of a directory: what is below it names its number.
//! What another node has moved is not found by its way; it is `ESTALE` until the kernel looks its new
//! name up, which it does by itself for a path. Numbers must be the files' own and stay: those of
//! GlusterFS are made of a random identity and never come again.
//!
//! Such a file is read past the pages of the file system below ([`sys::read_directly`]), which may be of an
//! older version. Its kernel drops them when it learns of a newer one, and a reader who comes in between
//! still finds them; and it learns of none by the answer to a change of mode, owner or times, which tells it
//! the times of that version. The pages of this volume are dropped at each open, before it is answered.
//!
//! Lock: one mutex over the kept descriptors, never held over a call below.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, renameat2};
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, FsType, fstatfs};

use super::lookup::{Found, NAMED};
use super::sys::{self, FileId};
use super::{At, DirectoryError, DirectoryFs, DirectoryParts, ROOT};
use crate::live::Bounded;

/// Descriptors kept open at most, each naming a file that the kernel knows.
const KEPT: usize = 16 << 10;

/// Directories between a file and the root at most, as for the longest path of the kernel.
const DEPTH: usize = 2048;

/// File systems whose handles do not last, or that have none and numbers that stay: FUSE, and
/// `V9FS_MAGIC`, `CIFS_SUPER_MAGIC` and `SMB2_SUPER_MAGIC` of linux/magic.h.
const WITHOUT_HANDLES: [FsType; 4] = [
    FUSE_SUPER_MAGIC,
    FsType(0x0102_1997),
    FsType(0xff53_4d42),
    FsType(0xfe53_4d42),
];

/// Kind of a [`FileId`] that is a number and a type; the kernel's kinds are not negative.
pub(super) const NUMBERED: i32 = -2;

/// Where a file was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Number of the directory.
    pub(super) parent: u64,
    /// Name in it.
    pub(super) name: Box<CStr>,
    /// What the kernel called it; believed only with the right number.
    pub(super) handle: Option<FileId>,
}

/// See the module text.
#[derive(Debug)]
pub(super) enum Naming {
    /// By the file system's own handles.
    Handles,
    /// By number and place.
    Places(Mutex<Bounded<u64, Arc<OwnedFd>>>),
}

impl Naming {
    /// What the file system of `root` allows; `mount` is another descriptor of it, not `O_PATH`.
    ///
    /// Errors: `EOPNOTSUPP` for a local file system without handles, `EPERM` when handles may not be
    /// opened.
    pub(super) fn of(root: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<Self, Errno> {
        if WITHOUT_HANDLES.contains(&fstatfs(mount)?.filesystem_type()) {
            return Ok(Self::Places(Mutex::new(Bounded::new(KEPT))));
        }
        let id = sys::file_id(root)?;
        sys::open_id(mount, &id, OFlag::O_PATH)?;
        Ok(Self::Handles)
    }

    /// Refuses what names files for longer than the kernel knows them, where no [`FileId`] does.
    pub(super) fn serves(&self, parts: &DirectoryParts<'_>) -> Result<(), DirectoryError> {
        let wanted = [
            (
                parts.durability.stages(),
                "staged (--durability with level local)",
            ),
            (parts.cold.is_some(), "moved to a cold store (--cold)"),
            (
                parts.quota.is_some(),
                "counted against limits (volume:NAME)",
            ),
        ];
        match (self, wanted.into_iter().find(|(wanted, _)| *wanted)) {
            (Self::Handles, _) | (_, None) => Ok(()),
            (Self::Places(_), Some((_, what))) => {
                Err(DirectoryError::NotLasting(parts.root.to_owned(), what))
            }
        }
    }

    /// Whether handles do not last.
    pub(super) fn is_by_place(&self) -> bool {
        matches!(self, Self::Places(_))
    }

    /// Forgets the descriptor of a number.
    pub(super) fn forget(&self, number: u64) {
        if let Self::Places(kept) = self {
            let gone = lock(kept).remove(&number);
            drop(gone);
        }
    }

    fn keep(&self, number: u64, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        if let Self::Places(kept) = self {
            let gone = lock(kept).insert(number, Arc::clone(&fd));
            drop(gone);
        }
        fd
    }

    fn kept(&self, number: u64) -> Option<Arc<OwnedFd>> {
        match self {
            Self::Handles => None,
            Self::Places(kept) => lock(kept).get(&number).map(|fd| Arc::clone(fd)),
        }
    }
}

impl DirectoryFs {
    /// What tells a file from any other one.
    pub(super) fn identify(&self, fd: BorrowedFd<'_>, stat: &FileStat) -> Result<FileId, Errno> {
        match self.naming {
            Naming::Handles => sys::file_id(fd),
            Naming::Places(_) => Ok(FileId::of_number(stat)),
        }
    }

    /// What has a name now.
    pub(super) fn find(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<Found, Errno> {
        match self.find_once(dir, name) {
            // The name was another file's, which is gone.
            Err(Errno::ESTALE) => {
                ask_again(dir, name);
                self.find_once(dir, name)
            }
            found => found,
        }
    }

    /// The identity and the number below of what has a name: as [`DirectoryFs::find`], but where these two are
    /// all that is known of a file the server is not asked for times that a write has changed.
    pub(super) fn find_number(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(FileId, u64), Errno> {
        if !self.naming.is_by_place() {
            return self
                .find(dir, name)
                .map(|found| (found.id, found.stat.st_ino));
        }
        let fd = sys::open_child(dir, name, NAMED, 0)?;
        let known = sys::stat_by(fd.as_fd(), libc::AT_STATX_DONT_SYNC)?;
        let id = FileId::numbered(known.stx_ino, u32::from(known.stx_mode));
        Ok((id, known.stx_ino))
    }

    fn find_once(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<Found, Errno> {
        let fd = sys::open_child(dir, name, NAMED, 0)?;
        let stat = fstat(&fd).map_err(|error| match error {
            Errno::ENOENT => Errno::ESTALE, // it has the name, says the client below
            other => other,
        })?;
        let id = self.identify(fd.as_fd(), &stat)?;
        Ok(Found { fd, stat, id })
    }

    /// A descriptor of a node that serves to name it and what lies below it.
    ///
    /// Errors: `ESTALE` when it is gone or is not known.
    pub(super) fn at(&self, node: u64) -> Result<At<'_>, Errno> {
        if node == ROOT {
            return Ok(At::Root(self.root.as_fd()));
        }
        match self.naming {
            Naming::Handles => self
                .reopen(node, OFlag::O_PATH | OFlag::O_NOFOLLOW)
                .map(At::Node),
            Naming::Places(_) => self.place_of(node).map(At::Kept),
        }
    }

    /// Opens a node: a directory, or what is no symbolic link.
    ///
    /// Errors: as [`DirectoryFs::at`], and those of open(2).
    pub(super) fn reopen(&self, node: u64, flags: OFlag) -> Result<OwnedFd, Errno> {
        if node == ROOT {
            let how = flags | OFlag::O_DIRECTORY;
            return sys::open_child(self.root.as_fd(), c".", how, 0);
        }
        match self.naming {
            Naming::Handles => sys::open_id(self.mount.as_fd(), &*self.nodes.id(node)?, flags),
            Naming::Places(_) => {
                let fd = sys::open_named(self.place_of(node)?.as_fd(), flags)?;
                if flags & OFlag::O_ACCMODE != OFlag::O_WRONLY {
                    sys::read_directly(fd.as_fd());
                }
                Ok(fd)
            }
        }
    }

    /// What to say when a node was not found by what is known of it. Its name is looked up anew, so
    /// that the look-up that follows an `ESTALE` finds what has the name now.
    pub(super) fn gone(&self, node: u64, error: Errno) -> Errno {
        if !matches!(error, Errno::ESTALE | Errno::ENOENT) {
            return error;
        }
        if let Ok((_, way)) = self.nodes.way(node)
            && let Ok(dir) = self.at(way.parent)
        {
            ask_again(dir.fd(), &way.name);
        }
        self.naming.forget(node);
        Errno::ESTALE
    }

    /// Whether the server still finds a node by its place. A file system in user space may say of every
    /// file that it has no name.
    pub(super) fn is_where_it_was(&self, node: u64) -> bool {
        let Ok((id, way)) = self.nodes.way(node) else {
            return false; // those with handles count names
        };
        let Ok(dir) = self.at(way.parent) else {
            return false;
        };
        ask_again(dir.fd(), &way.name);
        let found = self.find(dir.fd(), &way.name);
        found.is_ok_and(|found| found.id == *id)
    }

    /// Opens what was found, for its contents.
    pub(super) fn open_found(&self, found: &Found, flags: OFlag) -> Result<OwnedFd, Errno> {
        match self.naming {
            Naming::Handles => sys::open_id(self.mount.as_fd(), &found.id, flags),
            Naming::Places(_) => sys::open_named(found.fd.as_fd(), flags),
        }
    }

    /// What is to be kept with the number of a file that was found there.
    pub(super) fn way(&self, found: &Found, parent: u64, name: &CStr) -> Option<Way> {
        match self.naming {
            Naming::Handles => None,
            Naming::Places(_) => Some(Way {
                parent,
                name: name.into(),
                handle: sys::file_id(found.fd.as_fd()).ok(),
            }),
        }
    }

    /// Keeps the descriptor of a number that is about to be answered, when it is one that only names.
    pub(super) fn keep(&self, number: u64, fd: OwnedFd) {
        if self.naming.is_by_place() && sys::is_named_only(fd.as_fd()) {
            self.naming.keep(number, fd);
        }
    }

    /// Notes that a file has another name now.
    pub(super) fn moved(&self, below: u64, parent: u64, name: &CStr) {
        if self.naming.is_by_place() {
            self.nodes.moved(self.number(below), parent, name);
        }
    }

    /// The descriptor of a number, by the ways of the module text.
    fn place_of(&self, number: u64) -> Result<Arc<OwnedFd>, Errno> {
        let mut steps = Vec::new();
        let mut at = number;
        let mut base = loop {
            if at == ROOT {
                break None;
            }
            if let Some(fd) = self.naming.kept(at) {
                break Some(fd);
            }
            let (id, way) = self.nodes.way(at)?;
            if let Some(fd) = self.by_handle(&id, way.handle.as_ref()) {
                break Some(self.naming.keep(at, fd));
            }
            if steps.len() == DEPTH {
                return Err(Errno::ESTALE);
            }
            let parent = way.parent;
            steps.push((at, id, way.name));
            at = parent;
        };
        for (number, id, name) in steps.into_iter().rev() {
            let dir = base.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
            let found = self.find(dir, &name).map_err(|error| match error {
                Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV => Errno::ESTALE,
                other => other,
            })?;
            if found.id != *id {
                return Err(Errno::ESTALE);
            }
            base = Some(self.naming.keep(number, found.fd));
        }
        base.ok_or(Errno::ESTALE)
    }

    /// The file that the kernel calls so, if it still is this one.
    fn by_handle(&self, id: &FileId, handle: Option<&FileId>) -> Option<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let fd = sys::open_id(self.mount.as_fd(), handle?, flags).ok()?;
        let stat = fstat(&fd).ok()?;
        (FileId::of_number(&stat) == *id).then_some(fd)
    }
}

/// Looks a name up at the server, whatever the client of the file system below believes: a rename to a
/// name that must be free does. It changes nothing, as the name is taken, or there is nothing to move.
fn ask_again(dir: BorrowedFd<'_>, name: &CStr) {
    renameat2(dir, name, dir, name, RenameFlags::RENAME_NOREPLACE).ok();
}

/// The map is whole after each of its calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
