//! System calls that the library of the language does not have, each behind one safe function.
//!
//! Nothing here takes a path: a name is one component below an open directory, everything else is a
//! descriptor or a file handle (open_by_handle_at(2)). Extended attributes have no call for an
//! `O_PATH` descriptor; there the kernel's own link to it (`/proc/self/fd/N`) stands for it, whose
//! number nobody but this process chooses.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode};

use super::naming::NUMBERED;

/// Longest file handle of any file system (`MAX_HANDLE_SZ`).
pub(super) const HANDLE_MAX: usize = 128;

/// How often a look-up that lost a race with a rename is made again.
const RACES: usize = 16;

/// fchmodat2(2), Linux 6.6; the library has no name for it yet.
const SYS_FCHMODAT2: libc::c_long = 452;

/// The file system's own name of a file: the same for all its names, never used for another file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    /// Which of the file system's forms it has.
    pub(super) kind: i32,
    /// As name_to_handle_at(2) gave it, at most [`HANDLE_MAX`] bytes.
    pub(super) bytes: Box<[u8]>,
}

impl FileId {
    /// A file by its number and type, where handles do not last.
    pub(super) fn of_number(stat: &FileStat) -> Self {
        Self::numbered(stat.st_ino, stat.st_mode)
    }

    /// The same, of a number and a mode.
    pub(super) fn numbered(number: u64, mode: u32) -> Self {
        let kind = mode & libc::S_IFMT;
        let bytes = [&number.to_le_bytes()[..], &kind.to_le_bytes()].concat();
        Self {
            kind: NUMBERED,
            bytes: bytes.into(),
        }
    }

    /// A number that differs between two files which have the same inode number one after the other.
    /// The kernel compares 32 bits.
    pub(super) fn generation(&self) -> u32 {
        // FNV-1a: spread matters, secrecy does not.
        let start = 0x811c_9dc5 ^ self.kind.cast_unsigned();
        self.bytes.iter().fold(start, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
    }
}

/// `struct file_handle` with room for any.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; HANDLE_MAX],
}

/// Opens `name`, one component, below `dir`: no symbolic link is followed, no mount crossed.
///
/// Errors: `EXDEV` for a mount point, `ELOOP` for a symbolic link unless `O_PATH` is asked for.
pub(super) fn open_child(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlag,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let mut how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    if flags.contains(OFlag::O_CREAT) {
        how = how.mode(Mode::from_bits_truncate(mode));
    }
    for _ in 1..RACES {
        match openat2(dir, name, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    openat2(dir, name, how)
}

/// What the file system calls the file of a descriptor.
///
/// Errors: `EOPNOTSUPP` on a file system without file handles.
pub(super) fn file_id(fd: BorrowedFd<'_>) -> Result<FileId, Errno> {
    let mut raw = RawHandle {
        length: HANDLE_MAX as u32,
        kind: 0,
        bytes: [0; HANDLE_MAX],
    };
    let mut mount_id = 0;
    // SAFETY: `raw` has the layout of `struct file_handle` with as many bytes as it says, and both
    // pointers are valid for the call.
    let result = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(result)?;
    let length = (raw.length as usize).min(HANDLE_MAX);
    Ok(FileId {
        kind: raw.kind,
        bytes: raw.bytes[..length].into(),
    })
}

/// Opens the file that `id` names on the file system of `mount`.
///
/// Errors: `ESTALE` when it is gone, `EPERM` without CAP_DAC_READ_SEARCH.
pub(super) fn open_id(mount: BorrowedFd<'_>, id: &FileId, flags: OFlag) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle {
        length: id.bytes.len() as u32,
        kind: id.kind,
        bytes: [0; HANDLE_MAX],
    };
    let room = raw.bytes.get_mut(..id.bytes.len()).ok_or(Errno::ESTALE)?;
    room.copy_from_slice(&id.bytes);
    let flags = flags | OFlag::O_CLOEXEC;
    // SAFETY: `raw` has the layout of `struct file_handle` with at least as many bytes as it says.
    let fd =
        unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags.bits()) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the file that an `O_PATH` descriptor names: a directory, or what is no symbolic link.
pub(super) fn open_named(fd: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    if flags.contains(OFlag::O_DIRECTORY) {
        return open_child(fd, c".", flags, 0);
    }
    let flags = (flags | OFlag::O_CLOEXEC) - OFlag::O_NOFOLLOW;
    nix::fcntl::open(link_of(fd).as_c_str(), flags, Mode::empty())
}

/// Lets a descriptor of a FUSE file system read from its server: `O_DIRECT` for the kernel, which the server
/// is not told at open. What knows no such thing is read as it is.
pub(super) fn read_directly(fd: BorrowedFd<'_>) {
    set_direct(fd, true).ok();
}

/// Ends what [`read_directly`] has begun.
pub(super) fn read_pages(fd: BorrowedFd<'_>) {
    set_direct(fd, false).ok();
}

fn set_direct(fd: BorrowedFd<'_>, direct: bool) -> Result<(), Errno> {
    let old = OFlag::from_bits_retain(nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL)?);
    let mut new = old;
    new.set(OFlag::O_DIRECT, direct);
    if new != old {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(new))?;
    }
    Ok(())
}

/// Whether a descriptor can only name its file.
pub(super) fn is_named_only(fd: BorrowedFd<'_>) -> bool {
    let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL);
    flags.is_ok_and(|flags| flags & libc::O_PATH != 0)
}

/// statx(2) of a descriptor; `whom`: AT_STATX_FORCE_SYNC (the file system's server) or AT_STATX_DONT_SYNC (what
/// its client remembers).
pub(super) fn stat_by(fd: BorrowedFd<'_>, whom: i32) -> Result<libc::statx, Errno> {
    // SAFETY: a zeroed statx is a whole valid one.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor, an empty terminated path and a structure that outlives the call.
    let failed = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | whom,
            libc::STATX_BASIC_STATS,
            &raw mut found,
        )
    };
    Errno::result(failed).map(|_| found)
}

/// chmod(2) of an `O_PATH` descriptor.
pub(super) fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    // SAFETY: a descriptor, an empty string and two numbers; the kernel keeps none of them.
    let result = unsafe {
        libc::syscall(
            SYS_FCHMODAT2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode & 0o7777,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// utimensat(2) of an `O_PATH` descriptor: access time, then modification time.
pub(super) fn change_times(fd: BorrowedFd<'_>, times: [libc::timespec; 2]) -> Result<(), Errno> {
    // SAFETY: `times` are two valid times, the path is empty and terminated.
    let result = unsafe {
        libc::utimensat(
            fd.as_raw_fd(),
            c"".as_ptr(),
            times.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Reads directory entries into `buffer`; 0 at the end (getdents64(2)).
pub(super) fn read_entries(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `len` bytes to the buffer.
    let read = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    Errno::result(read).map(|read| read.unsigned_abs() as usize)
}

/// The kernel's link to a descriptor of this process.
fn link_of(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// getxattr(2) into `room`; with no room the length.
pub(super) fn get_xattr(fd: BorrowedFd<'_>, name: &CStr, room: &mut [u8]) -> Result<usize, Errno> {
    let path = link_of(fd);
    // SAFETY: both strings are terminated and `room` is as long as said.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            room.as_mut_ptr().cast(),
            room.len(),
        )
    };
    Errno::result(length).map(isize::unsigned_abs)
}

/// listxattr(2) into `room`; with no room the length.
pub(super) fn list_xattrs(fd: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    let path = link_of(fd);
    // SAFETY: the string is terminated and `room` is as long as said.
    let length = unsafe { libc::listxattr(path.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
    Errno::result(length).map(isize::unsigned_abs)
}

/// setxattr(2).
pub(super) fn set_xattr(
    fd: BorrowedFd<'_>,
    name: &CStr,
    value: &[u8],
    flags: i32,
) -> Result<(), Errno> {
    let path = link_of(fd);
    // SAFETY: both strings are terminated and `value` is as long as said.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// removexattr(2).
pub(super) fn remove_xattr(fd: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let path = link_of(fd);
    // SAFETY: both strings are terminated.
    let result = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
    Errno::result(result).map(drop)
}

/// syncfs(2) of the file system a descriptor lies on.
pub(super) fn sync_file_system(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a descriptor and nothing else.
    Errno::result(unsafe { libc::syncfs(fd.as_raw_fd()) }).map(drop)
}

/// Where the next data or hole begins; `None` past the end. Moves the position of `fd`.
pub(super) fn seek(fd: BorrowedFd<'_>, from: i64, whence: i32) -> Result<i64, Errno> {
    // SAFETY: a descriptor and two numbers.
    Errno::result(unsafe { libc::lseek64(fd.as_raw_fd(), from, whence) })
}

/// copy_file_range(2) between two places; how much was copied.
pub(super) fn copy_range(
    (from, mut from_at): (BorrowedFd<'_>, i64),
    (to, mut to_at): (BorrowedFd<'_>, i64),
    length: usize,
) -> Result<usize, Errno> {
    // SAFETY: both offsets are valid for the call, which writes the new ones there.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut from_at,
            to.as_raw_fd(),
            &raw mut to_at,
            length,
            0,
        )
    };
    Errno::result(copied).map(isize::unsigned_abs)
}
