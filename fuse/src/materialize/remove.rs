//! Removing a tree, or what is left of one.
//!
//! The snapshot beside the tree says which object each file holds. A tree that was complete counts
//! once for each of its links, whatever became of them; one that was never finished only counts for
//! the links that are there. (A count that is too low lets an object be evicted early: the tree
//! keeps its bytes all the same.)

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use terrace_cache::Digest;
use terrace_cache::hot::{Found, HotTier, Linker};

use super::journal::{Journal, Line, State};
use super::spread::spread;
use super::sys::{self, io_error};
use super::{MaterializeError, MaterializeOptions, kept_snapshot};
use crate::namespace::Ino;
use crate::snapshot::{Digests, Snapshot};

/// Files whose objects are looked up at a time.
const LOOK: usize = 64 * 1024;
/// Files that a thread lets go at a time.
const PIECE: usize = 1024;

/// A file that may be a link, and what was found out about its object.
type Looked = (Ino, Digest, Found);

/// Removes the tree at `tree` and lets its objects go. Blocks on the disk.
///
/// Errors: `NotATree` when no tree of ours is or was there, `InTheWay` when the place was taken by
/// something else meanwhile (nothing of that is touched), `Busy`.
pub fn remove(hot: &HotTier, tree: &Path) -> Result<(), MaterializeError> {
    let not_a_tree = || MaterializeError::NotATree(tree.to_owned());
    let journal = Journal::open(tree, false)?.ok_or_else(not_a_tree)?;
    let Some(line) = journal.read()? else {
        // Its build ended before it began.
        return journal.delete();
    };
    let found = metadata(tree)?;
    match &found {
        Some(found) if line.names(found) => {
            journal.write(&line.now(State::Removing))?;
            take_back(&journal)?;
        }
        Some(_) if metadata(&journal.building())?.is_none_or(|inner| !line.names(&inner)) => {
            return Err(MaterializeError::InTheWay(tree.to_owned()));
        }
        _ => {}
    }
    scrap(&journal, hot, &line)?;
    journal.delete()
}

/// Moves a tree back into the directory beside it.
pub(super) fn take_back(journal: &Journal) -> Result<(), MaterializeError> {
    let move_back = || {
        // Who is not root must be able to write to a directory that gets another parent.
        sys::open_up(&sys::directory(&journal.tree)?)?;
        std::fs::rename(&journal.tree, journal.building())
    };
    move_back().map_err(io_error("rename tree", &journal.tree))?;
    journal.sync_parent()
}

/// Lets the objects of an inner tree go and deletes it; leaves journal and lock.
pub(super) fn scrap(journal: &Journal, hot: &HotTier, line: &Line) -> Result<(), MaterializeError> {
    let inner = journal.building();
    // Without its snapshot the build had not made a link.
    if let Ok(snapshot) = kept_snapshot(&journal.tree) {
        let copies = journal.copies()?;
        let linker = hot.linker();
        let root = match sys::directory(&inner) {
            Ok(root) => Some(root),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("open directory", &inner)(error)),
        };
        let scrap = Scrap {
            snapshot,
            linker,
            root,
            copies,
            whole: line.state != State::Building,
        };
        scrap.run()?;
        scrap.linker.finish()?;
    }
    remove_tree(&inner)
}

/// One removal under way.
struct Scrap {
    snapshot: Snapshot,
    linker: Linker,
    /// The inner tree, if there is one.
    root: Option<File>,
    /// Files that are no links, sorted.
    copies: Vec<u64>,
    /// The tree was complete once.
    whole: bool,
}

impl Scrap {
    fn run(&self) -> Result<(), MaterializeError> {
        let threads = MaterializeOptions::default().threads;
        let (mut next, mut names) = (Ino::ROOT.0, Digests::new(&self.snapshot));
        loop {
            let links = self.look(&mut next, &mut names, threads)?;
            if links.is_empty() {
                return Ok(());
            }
            let pieces: Vec<&[Looked]> = links.chunks(PIECE).collect();
            spread(&pieces, threads, |links| self.let_go_all(links))?;
        }
    }

    fn let_go_all(&self, links: &[Looked]) -> Result<(), MaterializeError> {
        let mut open: (Option<Ino>, Option<File>) = (None, None);
        for (ino, digest, found) in links {
            let node = self.snapshot.node(*ino)?;
            if open.0 != Some(node.parent) {
                open = (Some(node.parent), self.directory(node.parent)?);
            }
            self.let_go(digest, *found, open.1.as_ref(), sys::name(&node.name))?;
        }
        Ok(())
    }

    /// Looks up the objects of the next files that may be links; none when there are no more.
    fn look(
        &self,
        next: &mut u64,
        names: &mut Digests<'_>,
        threads: NonZeroUsize,
    ) -> Result<Vec<Looked>, MaterializeError> {
        let (mut files, mut digests) = (Vec::new(), Vec::new());
        while *next <= self.snapshot.entries() && files.len() < LOOK {
            let ino = Ino(*next);
            *next += 1;
            let object = names.entry(ino)?.object;
            let is_link = |_: &Digest| self.copies.binary_search(&ino.0).is_err();
            if let Some(digest) = object.filter(is_link) {
                files.push(ino);
                digests.push(digest);
            }
        }
        let found = self.linker.find(&digests, threads)?;
        let looked = files.into_iter().zip(digests).zip(found);
        Ok(looked
            .map(|((ino, digest), found)| (ino, digest, found))
            .collect())
    }

    /// The directory in the inner tree; `None` when it is not there (any more).
    fn directory(&self, ino: Ino) -> Result<Option<File>, MaterializeError> {
        let Some(root) = &self.root else {
            return Ok(None);
        };
        let path = self.snapshot.path(ino)?;
        match sys::directory_below(root, &path) {
            Ok(directory) => {
                let opened = sys::open_up(&directory);
                opened.map_err(io_error("set attributes", sys::name(&path).as_ref()))?;
                Ok(Some(directory))
            }
            Err(_) => Ok(None),
        }
    }

    fn let_go(
        &self,
        digest: &Digest,
        found: Found,
        directory: Option<&File>,
        name: &OsStr,
    ) -> Result<(), MaterializeError> {
        let links = || directory.and_then(|directory| sys::links(directory.as_fd(), name));
        // Alone: a copy of a build that did not get to write its list.
        let ours = self.whole || links().is_some_and(|links| links > 1);
        if !ours {
            return Ok(());
        }
        match directory {
            Some(directory) => {
                let directory = directory.as_fd();
                self.linker.unlink(digest, directory, name, found)?;
            }
            None => self.linker.release(digest)?,
        }
        Ok(())
    }
}

/// Metadata of what is at `path` itself; `None`: nothing is.
pub(super) fn metadata(path: &Path) -> Result<Option<Metadata>, MaterializeError> {
    match path.symlink_metadata() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("stat", path)(error)),
    }
}

/// Deletes a directory and all below it, on its own file system, without following a link; nothing
/// there is fine.
pub(super) fn remove_tree(path: &Path) -> Result<(), MaterializeError> {
    let remove = || match sys::directory(path) {
        Ok(directory) => {
            let device = directory.metadata()?.dev();
            empty(&directory, device)?;
            std::fs::remove_dir(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    remove().map_err(io_error("remove directory", path))
}

/// Deletes what is in a directory. Depth is bounded by the path length of a snapshot; directories
/// are read to the end first, so that each level holds its names and one descriptor.
fn empty(directory: &File, device: u64) -> io::Result<()> {
    if directory.metadata()?.dev() != device {
        return Err(io::Error::from(ErrorKind::CrossesDevices));
    }
    sys::open_up(directory)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directories: Vec<OsString> = Vec::new();
    let mut reader = Dir::openat(directory, ".", flags, Mode::empty())?;
    for entry in reader.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => sys::is_directory(directory.as_fd(), name)?,
        };
        if is_directory {
            directories.push(OsString::from_vec(name.as_bytes().to_vec()));
        } else {
            sys::unlink(directory.as_fd(), name.as_bytes())?;
        }
    }
    drop(reader);
    for name in directories {
        let child = sys::directory_below(directory, name.as_bytes())?;
        empty(&child, device)?;
        drop(child);
        sys::remove_directory(directory.as_fd(), &name)?;
    }
    Ok(())
}
