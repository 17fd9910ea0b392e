//! What a file is besides its contents: owner, mode, times and extended attributes, given to its copy.
//!
//! Labels of security modules belong to a place and not to a file, so those of the new place stay
//! (`security.*`, but for capabilities of programs). Flags of chattr(1) are not copied.
//!
//! Order: the owner first, which takes capabilities and bits of the mode away; then attributes, of which access
//! control lists change the mode; then the mode; last the times, which everything before changes.

use std::ffi::{CStr, CString};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

/// Longest list of names, and longest value, that Linux has.
const ATTRIBUTES_MAX: usize = 64 << 10;

/// Gives `to` what `from` is besides its contents, but for the attributes that are left out. Both may be open
/// for their place only (`O_PATH`), whatever they are.
pub(super) fn describe(
    from: impl AsFd,
    to: impl AsFd,
    metadata: &Metadata,
    omitted: &[&CStr],
) -> io::Result<()> {
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(&to, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    attributes(&from, &to, omitted)?;
    let path = path_of(&to);
    if !metadata.file_type().is_symlink() {
        let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
        std::fs::set_permissions(&path, mode)?;
    }
    let accessed = TimeSpec::new(metadata.atime(), metadata.atime_nsec());
    let modified = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    let follow = UtimensatFlags::FollowSymlink;
    utimensat(AT_FDCWD, &path, &accessed, &modified, follow)?;
    Ok(())
}

/// A path to exactly what is open, also to a link itself.
pub(super) fn path_of(file: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

fn attributes(from: &impl AsFd, to: &impl AsFd, omitted: &[&CStr]) -> io::Result<()> {
    let name_of = |file: PathBuf| CString::new(file.into_os_string().into_encoded_bytes());
    let (from, to) = (name_of(path_of(from))?, name_of(path_of(to))?);
    for name in names(&from)? {
        let bytes = name.to_bytes();
        let of_place = bytes.starts_with(b"security.") && bytes != b"security.capability";
        if of_place || omitted.contains(&name.as_c_str()) {
            continue;
        }
        // One that goes away meanwhile is not copied.
        if let Some(value) = value(&from, &name)? {
            set(&to, &name, &value)?;
        }
    }
    Ok(())
}

fn names(path: &CStr) -> io::Result<Vec<CString>> {
    let mut room = vec![0_u8; ATTRIBUTES_MAX];
    // SAFETY: the path ends with a zero, and the kernel writes at most as many bytes as there is room.
    let length = unsafe { libc::listxattr(path.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
    let length = match Errno::result(length) {
        Ok(length) => usize::try_from(length).map_err(io::Error::other)?,
        // A file system without attributes, or a kind of file that has none.
        Err(Errno::EOPNOTSUPP | Errno::EPERM) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let all = room[..length].split(|byte| *byte == 0);
    let named = all.filter(|name| !name.is_empty());
    named
        .map(|name| CString::new(name).map_err(io::Error::other))
        .collect()
}

fn value(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut room = vec![0_u8; ATTRIBUTES_MAX];
    let at = room.as_mut_ptr().cast();
    // SAFETY: both names end with a zero, and the kernel writes at most as many bytes as there is room.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), at, room.len()) };
    match Errno::result(length) {
        Ok(length) => {
            room.truncate(usize::try_from(length).map_err(io::Error::other)?);
            Ok(Some(room))
        }
        Err(Errno::ENODATA) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn set(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (path, name, at) = (path.as_ptr(), name.as_ptr(), value.as_ptr().cast());
    // SAFETY: both names end with a zero, and the kernel reads the bytes of the value.
    let set = unsafe { libc::setxattr(path, name, at, value.len(), 0) };
    Errno::result(set)?;
    Ok(())
}
