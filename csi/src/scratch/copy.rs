//! A tree of files copied by reference (`FICLONE`): XFS and btrfs share the blocks until one side
//! writes.
//!
//! Copied are directories, regular files, symbolic links, hard links among themselves, owners, modes
//! and times; extended attributes are those of the new place. Sockets, pipes and devices belong to
//! running programs and are left out. Every file is whole as of one moment, different files may be of
//! different moments when somebody writes meanwhile: stop writers, or sync and freeze, before a copy
//! that must be of one moment.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown,
    symlink,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::error::ScratchError;

/// `FICLONE` of `linux/fs.h`.
const CLONE: u8 = 9;

nix::ioctl_write_int!(clone_file, 0x94, CLONE);

/// Copies what is below `from` into the directory `to`, which exists and is empty.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), ScratchError> {
    let mut links = HashMap::new();
    let mut open = vec![PathBuf::new()];
    let mut directories = Vec::new();
    while let Some(below) = open.pop() {
        let listing = from.join(&below);
        let entries = std::fs::read_dir(&listing).map_err(ScratchError::io("list", &listing))?;
        for entry in entries {
            let entry = entry.map_err(ScratchError::io("list", &listing))?;
            let below = below.join(entry.file_name());
            let (source, target) = (entry.path(), to.join(&below));
            let metadata = entry.metadata();
            let metadata = metadata.map_err(ScratchError::io("look at", &source))?;
            if metadata.is_dir() {
                let made = std::fs::DirBuilder::new().mode(0o700).create(&target);
                made.map_err(ScratchError::io("make", &target))?;
                open.push(below);
                directories.push((target, metadata));
            } else {
                copy_entry(&source, &target, &metadata, &mut links)?;
            }
        }
    }
    let top = std::fs::metadata(from).map_err(ScratchError::io("look at", from))?;
    directories.push((to.to_owned(), top));
    // Children first: a time that is set before a child is made does not stay.
    for (path, metadata) in directories.iter().rev() {
        let directory = File::open(path).map_err(ScratchError::io("open", path))?;
        describe(&directory, metadata).map_err(ScratchError::io("set the mode of", path))?;
    }
    Ok(())
}

/// Whether the file system shares blocks between files.
pub(super) fn reflinks(base: &Path) -> Result<bool, ScratchError> {
    let one = unnamed(base)?;
    let other = unnamed(base)?;
    nix::unistd::write(&one, b"block").map_err(ScratchError::io("write into", base))?;
    match clone_into(&one, &other) {
        Ok(()) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS | Errno::EXDEV) => {
            Ok(false)
        }
        Err(errno) => Err(ScratchError::io("share blocks on", base)(errno)),
    }
}

fn copy_entry(
    source: &Path,
    target: &Path,
    metadata: &Metadata,
    links: &mut HashMap<u64, PathBuf>,
) -> Result<(), ScratchError> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let text = std::fs::read_link(source).map_err(ScratchError::io("read", source))?;
        symlink(text, target).map_err(ScratchError::io("link", target))?;
        let owned = lchown(target, Some(metadata.uid()), Some(metadata.gid()));
        return owned.map_err(ScratchError::io("own", target));
    }
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    if metadata.nlink() > 1 {
        if let Some(first) = links.get(&metadata.ino()) {
            let linked = std::fs::hard_link(first, target);
            return linked.map_err(ScratchError::io("link", target));
        }
        links.insert(metadata.ino(), target.to_owned());
    }
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let source_file = options
        .open(source)
        .map_err(ScratchError::io("open", source))?;
    let file = File::create_new(target).map_err(ScratchError::io("make", target))?;
    clone_into(&source_file, &file).map_err(ScratchError::io("share the blocks of", source))?;
    describe(&file, metadata).map_err(ScratchError::io("set the mode of", target))
}

/// Gives a file the owner, mode and times of another one.
fn describe(file: &File, metadata: &Metadata) -> std::io::Result<()> {
    fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    file.set_modified(metadata.modified()?)
}

fn clone_into(source: &File, target: &File) -> Result<(), Errno> {
    let number = libc::c_ulong::try_from(source.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    // SAFETY: both descriptors are open; the argument is a descriptor's number, not a pointer.
    unsafe { clone_file(target.as_raw_fd(), number) }.map(drop)
}

/// A file without a name, gone when it is closed.
fn unnamed(base: &Path) -> Result<File, ScratchError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE);
    options
        .open(base)
        .map_err(ScratchError::io("make a file in", base))
}
