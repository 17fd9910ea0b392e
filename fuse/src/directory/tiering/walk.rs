//! Every file of a directory tree, one after the other, in memory for its depth and not its size.
//!
//! Depth first, each directory read in pieces of the kernel's; an open directory and its piece for
//! each level is all that is held, so ten million files cost what ten do. Names are resolved as
//! everywhere in a volume: no link is followed, no mount point entered.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, fstatat};

use super::super::listing::Listing;
use super::super::lookup::component;
use super::super::{DirectoryFs, sys};

/// A regular file on the way.
pub(super) struct Seen<'a> {
    /// Where its name is.
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    /// From the root of the volume.
    pub(super) path: &'a [u8],
    /// As the file system below tells it.
    pub(super) stat: FileStat,
}

impl Seen<'_> {
    /// Opens it.
    pub(super) fn open(&self, flags: OFlag) -> Result<OwnedFd, Errno> {
        sys::open_child(self.directory, self.name, flags, 0)
    }
}

/// What is done on the way.
pub(super) trait Visitor {
    /// A directory that was opened; `false`: nothing below it is looked at.
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> bool;

    /// A regular file; a break ends the walk.
    fn file(&mut self, seen: &Seen<'_>) -> ControlFlow<()>;

    /// What could not be looked at; a break ends the walk. What is gone meanwhile is not told.
    fn failed(&mut self, path: &[u8], errno: Errno) -> ControlFlow<()>;
}

struct Level {
    listing: Listing,
    /// Length of the path of its directory.
    path: usize,
}

/// What was there and is not any more, or is no part of the volume.
fn is_gone(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::EXDEV | Errno::ELOOP | Errno::ENOTDIR
    )
}

impl DirectoryFs {
    /// Walks what is at `path` below the root: a tree, or one file. Blocks.
    ///
    /// Errors: of `path` itself; what fails further below is told to the visitor.
    pub(super) fn walk(&self, path: &[u8], visitor: &mut dyn Visitor) -> Result<(), Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut directory = sys::open_child(self.root.as_fd(), c".", flags, 0)?;
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty());
        let mut part = parts.next();
        while let Some(name) = part {
            part = parts.next();
            let child = component(name)?;
            directory = match sys::open_child(directory.as_fd(), &child, flags, 0) {
                Err(Errno::ENOTDIR) if part.is_none() => {
                    return file(directory.as_fd(), &child, path, visitor).map(drop);
                }
                other => other?,
            };
        }
        let mut path = path.to_vec();
        if !visitor.directory(directory.as_fd(), &path) {
            return Ok(());
        }
        let mut levels = vec![Level {
            listing: Listing::new(directory),
            path: path.len(),
        }];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path);
            match step(level, &mut path, visitor) {
                Ok(Next::Down(next)) => levels.push(next),
                Ok(Next::On) => {}
                Ok(Next::Up) => drop(levels.pop()),
                Ok(Next::End) => return Ok(()),
                Err(errno) => {
                    if visitor.failed(&path, errno).is_break() {
                        return Ok(());
                    }
                    levels.pop();
                }
            }
        }
        Ok(())
    }
}

enum Next {
    Down(Level),
    On,
    Up,
    End,
}

fn end_if(flow: ControlFlow<()>) -> Next {
    match flow {
        ControlFlow::Continue(()) => Next::On,
        ControlFlow::Break(()) => Next::End,
    }
}

/// One entry. Errors: of the directory itself.
fn step(level: &mut Level, path: &mut Vec<u8>, visitor: &mut dyn Visitor) -> Result<Next, Errno> {
    let Some(raw) = level.listing.peek()? else {
        return Ok(Next::Up);
    };
    level.listing.accept(raw.next)?;
    if raw.name == b"." || raw.name == b".." {
        return Ok(Next::On);
    }
    let name = component(&raw.name)?;
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(&raw.name);
    let directory = level.listing.directory.as_fd();
    let done = match raw.kind {
        libc::DT_DIR => down(directory, &name, path, visitor),
        libc::DT_REG => file(directory, &name, path, visitor),
        // Some file systems do not tell.
        libc::DT_UNKNOWN => match fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
        {
            Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => {
                down(directory, &name, path, visitor)
            }
            Ok(_) => file(directory, &name, path, visitor),
            Err(errno) => Err(errno),
        },
        _ => Ok(Next::On),
    };
    match done {
        Err(errno) if is_gone(errno) => Ok(Next::On),
        Err(errno) => Ok(end_if(visitor.failed(path, errno))),
        done => done,
    }
}

fn down(
    directory: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    visitor: &mut dyn Visitor,
) -> Result<Next, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let below = sys::open_child(directory, name, flags, 0)?;
    if !visitor.directory(below.as_fd(), path) {
        return Ok(Next::On);
    }
    Ok(Next::Down(Level {
        listing: Listing::new(below),
        path: path.len(),
    }))
}

fn file(
    directory: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    visitor: &mut dyn Visitor,
) -> Result<Next, Errno> {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(Next::On);
    }
    let seen = Seen {
        directory,
        name,
        path,
        stat,
    };
    Ok(end_if(visitor.file(&seen)))
}
