//! Trees of files that users made: removed and counted without ever leaving the tree.
//!
//! Users choose names, depths, links and nested mounts. Directories are opened one name at a time by
//! `openat2(2)`, without links and without crossing a mount, so a bind mount that somebody left
//! inside stops the removal instead of being emptied. A directory deeper than [`DEPTH_MAX`] is moved
//! up before it is entered: depth costs no stack and no descriptors.

use std::ffi::{CString, OsStr};
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat2, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::ScratchError;

/// Directories that are open one below the other.
const DEPTH_MAX: usize = 48;

/// Makes a directory with exactly that mode. One that is there already is an error.
pub(crate) fn make_directory(at: &Path, mode: u32) -> Result<(), ScratchError> {
    let made = DirBuilder::new().mode(0o700).create(at);
    made.map_err(ScratchError::io("make", at))?;
    set_mode(at, mode)
}

/// Sets a mode, whatever the process's mask says.
pub(super) fn set_mode(at: &Path, mode: u32) -> Result<(), ScratchError> {
    let set = std::fs::set_permissions(at, std::fs::Permissions::from_mode(mode));
    set.map_err(ScratchError::io("set the mode of", at))
}

/// Removes a directory with everything below. One that is gone is no error.
///
/// Errors: EBUSY or EXDEV when something is mounted inside; what can be removed is.
pub(crate) fn remove_tree(at: &Path) -> Result<(), ScratchError> {
    let parent = at.parent().unwrap_or(Path::new("/"));
    let name = at.file_name().unwrap_or_default();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let removed = open(parent, flags, Mode::empty()).and_then(|parent| remove_below(&parent, name));
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(ScratchError::io("remove", at)(errno)),
    }
}

/// Removes the directory `name` of `parent` with everything below, as [`remove_tree`] does; ENOENT when
/// there is none.
fn remove_below(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let mut removal = Removal {
        top: parent,
        name,
        moved: 0,
    };
    removal.remove(parent, name, 0)?;
    // What was moved up lies beside the tree under names of its own.
    while let Some(number) = removal.moved.checked_sub(1) {
        removal.moved = number;
        let name = removal.moved_name(number);
        removal.remove(parent, &name, 0)?;
    }
    Ok(())
}

/// Bytes and entries below a directory, the directory itself included.
pub(super) fn count(at: &Path) -> Result<(u64, u64), ScratchError> {
    let failed = || ScratchError::io("count", at);
    let metadata = std::fs::symlink_metadata(at).map_err(failed())?;
    let device = metadata.dev();
    let (mut bytes, mut entries) = (metadata.blocks() * 512, 1);
    let mut open = vec![at.to_owned()];
    while let Some(directory) = open.pop() {
        // What goes away while it is counted is not counted.
        let Ok(listing) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in listing.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.dev() != device {
                continue;
            }
            bytes += metadata.blocks() * 512;
            entries += 1;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok((bytes, entries))
}

/// Opens a directory by one name, without links and without crossing a mount.
pub(crate) fn open_below(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(parent.as_fd(), name, how)
}

/// One removal under way.
struct Removal<'a> {
    top: &'a OwnedFd,
    name: &'a OsStr,
    moved: u64,
}

impl Removal<'_> {
    /// Removes one directory of a parent, its entries first.
    fn remove(&mut self, parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<(), Errno> {
        let directory = open_below(parent, name)?;
        let entries = list(&directory)?;
        for (name, kind) in entries {
            let name = OsStr::from_bytes(name.as_bytes());
            let unlinked = match kind {
                Some(Type::Directory) => Err(Errno::EISDIR),
                _ => unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir),
            };
            match unlinked {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) if depth < DEPTH_MAX => {
                    match self.remove(&directory, name, depth + 1) {
                        Ok(()) | Err(Errno::ENOENT) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                Err(Errno::EISDIR) => self.move_up(&directory, name)?,
                Err(errno) => return Err(errno),
            }
        }
        unlinkat(parent, name, UnlinkatFlags::RemoveDir)
    }

    fn move_up(&mut self, directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        loop {
            let up = self.moved_name(self.moved);
            self.moved += 1;
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(directory, name, self.top, up.as_os_str(), flags) {
                // Left by a removal that was killed; it is removed with the others.
                Err(Errno::EEXIST) => {}
                done => return done,
            }
        }
    }

    fn moved_name(&self, number: u64) -> std::ffi::OsString {
        let mut name = self.name.to_owned();
        name.push(format!(".deep{number}"));
        name
    }
}

/// The entries of a directory but `.` and `..`, with their types where the file system says.
pub(super) fn list(directory: &OwnedFd) -> Result<Vec<(CString, Option<Type>)>, Errno> {
    let copy = directory.try_clone().map_err(|_| Errno::EMFILE)?;
    let mut listing = Dir::from_fd(copy)?;
    let mut found = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// Renames without replacing, then syncs both directories.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), ScratchError> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
        .map_err(ScratchError::io("rename", from))?;
    for path in [from, to] {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let synced = std::fs::File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(ScratchError::io("sync", parent))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::unix::fs::symlink;

    use super::*;

    // A removal that follows a link deletes files of the node; one that recurses by depth is ended
    // by the stack of the driver.
    #[test]
    fn removal_stays_inside_and_bears_depth() {
        let base = tempfile::tempdir().unwrap();
        let (tree, outside) = (base.path().join("tree"), base.path().join("outside"));
        std::fs::create_dir_all(outside.join("kept")).unwrap();
        std::fs::write(outside.join("kept/file"), "untouched").unwrap();
        make_directory(&tree, 0o700).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        std::fs::create_dir(tree.join("closed")).unwrap();
        let mut at = open(&tree, OFlag::O_PATH, Mode::empty()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&at, "deeper", Mode::S_IRWXU).unwrap();
            at = nix::fcntl::openat(&at, "deeper", OFlag::O_PATH, Mode::empty()).unwrap();
        }
        let (bytes, entries) = count(&tree.join("closed")).unwrap();
        assert!(entries == 1 && bytes < 1 << 20);
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(
            std::fs::read(outside.join("kept/file")).unwrap(),
            b"untouched"
        );
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
    }
}
