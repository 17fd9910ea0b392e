//! A tree of files copied by reference (`FICLONE`): XFS, btrfs and others share the blocks of files until one
//! side writes.
//!
//! Copied is everything: directories, files with their holes, symbolic links, hard links among themselves,
//! pipes, sockets and devices, with owners, modes, times and extended attributes (access control lists are
//! such), see `describe.rs`. Every file is whole as of one moment; different files may be of different moments
//! when somebody writes meanwhile: stop writers before a copy that must be of one moment. What is removed
//! meanwhile may be missing, and nothing else.
//!
//! Users choose names, depths and links, also while they are copied. Everything is found by one name below an
//! open directory, without links and without crossing a mount. Directories that are open are [`OPEN_MAX`] pairs
//! at most: those above are opened again, from the top, when it is their turn.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{linkat, symlinkat, syncfs};

use super::describe::{describe, path_of};
use super::error::ScratchError;
use super::tree::{list, open_below};
use crate::contents::{Contents, ContentsError, Standing};

/// `FICLONE` of `linux/fs.h`.
const CLONE: u8 = 9;

nix::ioctl_write_int!(clone_file, 0x94, CLONE);

/// Pairs of directories that are open at a time.
const OPEN_MAX: usize = 48;

/// Directories one below the other: more are a mistake, or meant to keep somebody busy.
const DEPTH_MAX: usize = 4096;

/// Longest path that is opened at once: the kernel takes 4096 bytes.
const PATH_PART: usize = 3000;

/// What is copied, and what becomes of it.
pub(crate) struct Tree<'a> {
    /// The source, open for reading.
    pub(crate) from: BorrowedFd<'a>,
    /// An empty directory that nobody else enters.
    pub(crate) to: BorrowedFd<'a>,
    /// How refusals name the source.
    pub(crate) shown: &'a Path,
    /// Where contents are.
    pub(crate) contents: &'a dyn Contents,
    /// Told of each object of a cold store that the copy names.
    pub(crate) named: &'a mut dyn FnMut(&str) -> Result<(), ScratchError>,
}

/// A directory that is being copied.
struct Level {
    /// Both sides; none: to be opened again.
    open: Option<Rc<[OwnedFd; 2]>>,
    name: OsString,
    metadata: Metadata,
    rest: Vec<CString>,
}

/// A file that has several names, of which one was met.
struct Link {
    first: PathBuf,
    left: u64,
}

struct Copying<'a> {
    tree: Tree<'a>,
    levels: Vec<Level>,
    links: HashMap<(u64, u64), Link>,
}

/// Copies what is below a directory, and what it is itself, into an empty one. Durable when it returns.
///
/// Errors: `Unsupported` where files cannot share blocks, or a file is not to be copied; `Moving`; `Io`.
pub(crate) fn copy_tree(tree: Tree<'_>) -> Result<(), ScratchError> {
    let failed = |what| ScratchError::io(what, tree.shown);
    let top = |side: BorrowedFd<'_>| side.try_clone_to_owned().map_err(failed("open"));
    let sides = [top(tree.from)?, top(tree.to)?];
    let mut copying = Copying {
        levels: Vec::new(),
        links: HashMap::new(),
        tree,
    };
    copying.enter(OsString::new(), sides)?;
    while let Some(level) = copying.levels.last_mut() {
        match level.rest.pop() {
            Some(name) => copying.entry(OsStr::from_bytes(name.as_bytes()))?,
            None => copying.leave()?,
        }
    }
    syncfs(copying.tree.to).map_err(ScratchError::io("sync the copy of", copying.tree.shown))
}

/// As [`copy_tree`], of directories that have every content, by their paths.
pub(super) fn copy_directory(from: &Path, to: &Path) -> Result<(), ScratchError> {
    let open = |at: &Path| File::open(at).map_err(ScratchError::io("open", at));
    let (source, target) = (open(from)?, open(to)?);
    copy_tree(Tree {
        from: source.as_fd(),
        to: target.as_fd(),
        shown: from,
        contents: &crate::contents::AllHere,
        named: &mut |_| Ok(()),
    })
}

impl Copying<'_> {
    /// The path of something in the directory that is copied now, below the top.
    fn below(&self, name: &OsStr) -> PathBuf {
        let mut below: PathBuf = self.levels.iter().map(|level| &level.name).collect();
        below.push(name);
        below
    }

    fn failed<'s, E: Into<std::io::Error>>(
        &'s self,
        what: &'static str,
        name: &'s OsStr,
    ) -> impl FnOnce(E) -> ScratchError + 's {
        move |error| {
            let shown = self.tree.shown.join(self.below(name));
            ScratchError::io(what, &shown)(error)
        }
    }

    fn refused(&self, what: &'static str, name: &OsStr, why: String) -> ScratchError {
        let base = self.tree.shown.join(self.below(name));
        ScratchError::Unsupported { what, base, why }
    }

    fn enter(&mut self, name: OsString, sides: [OwnedFd; 2]) -> Result<(), ScratchError> {
        if self.levels.len() >= DEPTH_MAX {
            let why = format!("more than {DEPTH_MAX} directories lie one below the other");
            return Err(self.refused("a copy", &name, why));
        }
        let looked = sides[0].try_clone().map(File::from);
        let metadata = looked.and_then(|directory| directory.metadata());
        let metadata = metadata.map_err(self.failed("look at", &name))?;
        let entries = list(&sides[0]).map_err(self.failed("list", &name))?;
        if let Some(above) = self.levels.len().checked_sub(OPEN_MAX) {
            self.levels[above].open = None;
        }
        self.levels.push(Level {
            open: Some(Rc::new(sides)),
            name,
            metadata,
            rest: entries.into_iter().map(|(name, _)| name).collect(),
        });
        Ok(())
    }

    /// Both sides of the directory that is copied now.
    fn sides(&mut self) -> Result<Rc<[OwnedFd; 2]>, ScratchError> {
        let nothing = OsStr::new("");
        if let Some(open) = self.levels.last().and_then(|level| level.open.as_ref()) {
            return Ok(Rc::clone(open));
        }
        let below = self.below(nothing);
        let again = |top| open_path(top, &below).map_err(self.failed("go on copying", nothing));
        let sides = Rc::new([again(self.tree.from)?, again(self.tree.to)?]);
        let found = nix::sys::stat::fstat(&sides[0]).map_err(self.failed("look at", nothing))?;
        let is_it = self.levels.last().is_some_and(|level| {
            (found.st_dev, found.st_ino) == (level.metadata.dev(), level.metadata.ino())
        });
        if !is_it {
            // It was moved away meanwhile.
            return Err(self.failed("go on copying", nothing)(Errno::ESTALE));
        }
        if let Some(level) = self.levels.last_mut() {
            level.open = Some(Rc::clone(&sides));
        }
        Ok(sides)
    }

    /// Ends a directory: its times would not have stayed before.
    fn leave(&mut self) -> Result<(), ScratchError> {
        let sides = self.sides()?;
        let omitted = match self.levels.len() {
            1 => self.tree.contents.of_tops(),
            _ => &[],
        };
        if let Some(level) = self.levels.last() {
            let described = describe(&sides[0], &sides[1], &level.metadata, omitted);
            described.map_err(self.failed("describe the copy of", OsStr::new("")))?;
        }
        self.levels.pop();
        Ok(())
    }

    /// Copies one entry. One that is gone is no error.
    fn entry(&mut self, name: &OsStr) -> Result<(), ScratchError> {
        let sides = self.sides()?;
        let found = match look_up(&sides[0], name) {
            Ok(found) => File::from(found),
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(self.failed("open", name)(errno)),
        };
        let metadata = found.metadata().map_err(self.failed("look at", name))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(&sides, name, &found);
        }
        let number = (metadata.dev(), metadata.ino());
        if let Some(link) = self.links.get_mut(&number) {
            link.left = link.left.saturating_sub(1);
            let (first, last) = (link.first.clone(), link.left == 0);
            if last {
                self.links.remove(&number);
            }
            return self.link(&sides[1], name, &first);
        }
        if kind.is_file() {
            self.file(&sides[1], name, &found)?;
        } else {
            self.special(&sides[1], name, &found, &metadata)?;
        }
        if metadata.nlink() > 1 {
            let link = Link {
                first: self.below(name),
                left: metadata.nlink() - 1,
            };
            self.links.insert(number, link);
        }
        Ok(())
    }

    fn directory(
        &mut self,
        sides: &[OwnedFd; 2],
        name: &OsStr,
        found: &File,
    ) -> Result<(), ScratchError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let source = openat(found, ".", flags, Mode::empty());
        let made = mkdirat(&sides[1], name, Mode::S_IRWXU);
        let target = made.and_then(|()| open_below(&sides[1], name));
        let source = source.map_err(self.failed("open", name))?;
        let target = target.map_err(self.failed("make the copy of", name))?;
        self.enter(name.to_owned(), [source, target])
    }

    fn file(&mut self, to: &OwnedFd, name: &OsStr, found: &File) -> Result<(), ScratchError> {
        let source = File::open(path_of(found)).map_err(self.failed("open", name))?;
        let Standing { object, omitted } =
            self.tree
                .contents
                .look(&source)
                .map_err(|error| match error {
                    ContentsError::Moving => ScratchError::Moving {
                        path: self.tree.shown.join(self.below(name)),
                    },
                    ContentsError::Refused(why) => self.refused("a copy", name, why),
                })?;
        if let Some(key) = object {
            (self.tree.named)(&key)?;
        }
        // Before the contents: a time that is younger than they are would hide a change from who compares.
        let metadata = source.metadata().map_err(self.failed("look at", name))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let target = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let target = File::from(target.map_err(self.failed("make the copy of", name))?);
        match clone_into(&source, &target) {
            Ok(()) => {}
            Err(errno) if cannot(errno) => {
                let why = format!(
                    "files cannot share blocks there ({errno}); use XFS with reflink=1 or btrfs, on one file \
                     system, or copy the files"
                );
                return Err(self.refused("a copy by reference", name, why));
            }
            Err(errno) => return Err(self.failed("share the blocks of", name)(errno)),
        }
        let described = describe(&source, &target, &metadata, omitted);
        described.map_err(self.failed("describe the copy of", name))
    }

    /// A link, pipe, socket or device.
    fn special(
        &self,
        to: &OwnedFd,
        name: &OsStr,
        found: &File,
        metadata: &Metadata,
    ) -> Result<(), ScratchError> {
        let kind = metadata.file_type();
        let node = |kind| mknodat(to, name, kind, Mode::S_IRUSR, metadata.rdev());
        let made = if kind.is_symlink() {
            readlinkat(found, "").and_then(|text| symlinkat(text.as_os_str(), to, name))
        } else if kind.is_fifo() {
            node(SFlag::S_IFIFO)
        } else if kind.is_socket() {
            node(SFlag::S_IFSOCK)
        } else if kind.is_char_device() {
            node(SFlag::S_IFCHR)
        } else {
            node(SFlag::S_IFBLK)
        };
        made.map_err(self.failed("make the copy of", name))?;
        let target = look_up(to, name).map_err(self.failed("make the copy of", name))?;
        let described = describe(found, &target, metadata, &[]);
        described.map_err(self.failed("describe the copy of", name))
    }

    fn link(&self, to: &OwnedFd, name: &OsStr, first: &Path) -> Result<(), ScratchError> {
        let above = first.parent().unwrap_or(Path::new(""));
        let linked = open_path(self.tree.to, above).and_then(|above| {
            let first = first.file_name().unwrap_or_default();
            linkat(&above, first, to, name, AtFlags::empty())
        });
        linked.map_err(self.failed("link the copy of", name))
    }
}

/// Finds one name of a directory, whatever it is.
fn look_up(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(parent.as_fd(), name, how)
}

/// Opens a directory by its path below another one, without links and without crossing a mount, however long
/// the path is.
fn open_path(top: BorrowedFd<'_>, below: &Path) -> Result<OwnedFd, Errno> {
    let mut at = top.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let mut part = PathBuf::new();
    for name in below.iter() {
        part.push(name);
        if part.as_os_str().len() > PATH_PART {
            at = open_below(&at, part.as_os_str())?;
            part = PathBuf::new();
        }
    }
    match part.as_os_str().is_empty() {
        true => Ok(at),
        false => open_below(&at, part.as_os_str()),
    }
}

/// Whether files of the file system below `base` share blocks, by trying it on two small ones.
pub(crate) fn reflinks(base: &Path) -> Result<bool, ScratchError> {
    let one = unnamed(base)?;
    let other = unnamed(base)?;
    nix::unistd::write(&one, b"block").map_err(ScratchError::io("write into", base))?;
    match clone_into(&one, &other) {
        Ok(()) => Ok(true),
        Err(errno) if cannot(errno) => Ok(false),
        Err(errno) => Err(ScratchError::io("share blocks on", base)(errno)),
    }
}

/// Whether an answer to `FICLONE` says that it is not possible there.
fn cannot(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS | Errno::EXDEV
    )
}

/// Makes a file have the blocks of another one.
pub(super) fn clone_into(source: &File, target: &File) -> Result<(), Errno> {
    let number = libc::c_ulong::try_from(source.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    // SAFETY: both descriptors are open; the argument is a descriptor's number, not a pointer.
    unsafe { clone_file(target.as_raw_fd(), number) }.map(drop)
}

/// A file without a name, gone when it is closed; where there are none (NFS), one that has lost its name.
fn unnamed(base: &Path) -> Result<File, ScratchError> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let made = match nix::fcntl::open(base, flags | OFlag::O_TMPFILE, mode) {
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
            let name = format!(".terrace-probe-{:016x}", rand::random::<u64>());
            let at = base.join(OsString::from_vec(name.into_bytes()));
            let made = nix::fcntl::open(&at, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode);
            made.and_then(|file| nix::unistd::unlink(&at).map(|()| file))
        }
        made => made,
    };
    made.map(File::from)
        .map_err(ScratchError::io("make a file in", base))
}
