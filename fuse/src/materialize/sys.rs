//! The system calls of a build, relative to directory descriptors and never through a symbolic
//! link.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;

use super::MaterializeError;
use crate::namespace::Attr;

/// Wraps an error of the system with what was done on what.
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> MaterializeError + use<> {
    let path = path.to_owned();
    move |source| MaterializeError::Io {
        operation,
        path,
        source,
    }
}

/// Opens a directory that is not a symbolic link.
pub(super) fn directory(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens a directory below `root` without leaving it and without following any link.
pub(super) fn directory_below(root: impl AsFd, path: &[u8]) -> io::Result<File> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(File::from(openat2(root, path, how)?))
}

/// Makes a directory only we can enter; its mode comes at the end.
pub(super) fn make_directory(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(mkdirat(parent, name, Mode::S_IRWXU)?)
}

/// Makes a symbolic link with its time.
pub(super) fn make_link(
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    mtime_ns: i64,
) -> io::Result<()> {
    nix::unistd::symlinkat(target, parent, name)?;
    let time = time(mtime_ns);
    Ok(utimensat(
        parent,
        name,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )?)
}

/// Gives an open file or directory of ours the owner, mode and times of an entry.
pub(super) fn finish(file: &File, attr: &Attr) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (attr.uid, attr.gid) {
        std::os::unix::fs::fchown(file, Some(attr.uid), Some(attr.gid))?;
    }
    fchmod(file, Mode::from_bits_truncate(u32::from(attr.mode & 0o777)))?;
    let time = time(attr.mtime_ns);
    Ok(futimens(file, &time, &time)?)
}

/// Lets us change a directory of a read-only tree.
pub(super) fn open_up(directory: &File) -> io::Result<()> {
    Ok(fchmod(directory, Mode::S_IRWXU)?)
}

/// Number of links of a file; `None`: it is not there, or no regular file.
pub(super) fn links(parent: BorrowedFd<'_>, name: &OsStr) -> Option<u64> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    (stat.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(stat.st_nlink as u64)
}

/// Whether a name is a directory, for file systems whose listings do not say.
pub(super) fn is_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Removes an empty directory.
pub(super) fn remove_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(
        parent,
        name,
        nix::unistd::UnlinkatFlags::RemoveDir,
    )?)
}

/// Removes a name of a file.
pub(super) fn unlink(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(
        parent,
        name,
        nix::unistd::UnlinkatFlags::NoRemoveDir,
    )?)
}

/// The new file `name`: empty, or a copy of `source` that shares its blocks where it can.
pub(super) fn copy(source: Option<&File>, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let new = nix::fcntl::openat(parent, name, flags | OFlag::O_CLOEXEC, Mode::S_IRUSR)?;
    let mut new = File::from(new);
    if let Some(source) = source {
        // `io::copy` between files asks the kernel to copy: copy_file_range(2) shares blocks on
        // file systems with reflinks. A descriptor of its own: the offset of `source` is shared.
        let path = format!("/proc/self/fd/{}", source.as_raw_fd());
        io::copy(&mut File::open(path)?, &mut new)?;
    }
    Ok(new)
}

/// Writes everything of the file system of `directory` to disk: one call for all files of a tree.
pub(super) fn sync_file_system(directory: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(directory)?)
}

/// A file name as the standard library wants it.
pub(super) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn time(mtime_ns: i64) -> TimeSpec {
    const SECOND: i64 = 1_000_000_000;
    TimeSpec::new(mtime_ns.div_euclid(SECOND), mtime_ns.rem_euclid(SECOND))
}
