//! Answers of a directory volume as the kernel library's types.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus,
    TimeOrNow,
};
use nix::sys::stat::FileStat;

use crate::directory::{OMIT, Row};
use crate::handles::Mode;

/// Descriptors that have run out are this process's: the kernel has counted the caller's before it asks.
pub(super) fn error(errno: nix::errno::Errno) -> fuser::Errno {
    match errno {
        nix::errno::Errno::EMFILE => fuser::Errno::ENFILE,
        errno => fuser::Errno::from_i32(errno as i32),
    }
}

/// A time as two parts of stat(2); nanoseconds count upwards before 1970, too.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let part = Duration::from_nanos(nanoseconds.unsigned_abs());
    time.and_then(|time| time.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// As utimensat(2) takes it.
pub(super) fn timespec(time: Option<TimeOrNow>) -> libc::timespec {
    let time = match time {
        None => return OMIT,
        Some(TimeOrNow::Now) => {
            return libc::timespec {
                tv_sec: 0,
                tv_nsec: libc::UTIME_NOW,
            };
        }
        Some(TimeOrNow::SpecificTime(time)) => time,
    };
    let parts = |length: Duration| {
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        (seconds, i64::from(length.subsec_nanos()))
    };
    let (tv_sec, tv_nsec) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => parts(after),
        Err(before) => match parts(before.duration()) {
            (seconds, 0) => (-seconds, 0),
            (seconds, part) => (-seconds - 1, 1_000_000_000 - part),
        },
    };
    libc::timespec { tv_sec, tv_nsec }
}

/// The type in the mode of stat(2), or of `DT_*` shifted there.
fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn file_attr(stat: &FileStat) -> FileAttr {
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH, // not part of the protocol on Linux
        kind: file_type(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32, // the kernel's 32-bit form is its low half
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

/// `true`: the reply is full and does not have the row.
pub(super) fn add(reply: &mut ReplyDirectory, row: &Row<'_>) -> bool {
    let kind = file_type(u32::from(row.kind) << 12);
    let next = row.next.cast_unsigned();
    reply.add(INodeNo(row.number), next, kind, OsStr::from_bytes(row.name))
}

/// As [`add`], with what a look-up answers. Of `.` and `..` the kernel takes name and type only.
pub(super) fn add_plus(reply: &mut ReplyDirectoryPlus, row: &Row<'_>, ttl: Duration) -> bool {
    let name = OsStr::from_bytes(row.name);
    let next = row.next.cast_unsigned();
    let (attr, ttl, generation) = match row.entry {
        Some(entry) => (file_attr(&entry.stat), ttl, u64::from(entry.generation)),
        None => {
            let mut attr = nothing();
            attr.ino = INodeNo(row.number);
            attr.kind = file_type(u32::from(row.kind) << 12);
            (attr, Duration::ZERO, 0)
        }
    };
    reply.add(attr.ino, next, name, &ttl, &attr, Generation(generation))
}

/// Attributes of no file; as an entry, with a time to live: there is no such name.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// How a handle is opened. `keeps`: the pages that the kernel has are known to be of the version that
/// is opened; otherwise another node may have written since.
///
/// `counted`: what is written comes here. `FOPEN_DIRECT_IO` overrides passthrough for read(2) and
/// write(2) of this handle, and leaves its mappings passed through (`fuse_file_write_iter` and
/// `fuse_file_mmap` of the kernel).
pub(super) fn open_flags(flush: bool, keeps: bool, counted: bool, mode: Mode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_NOFLUSH, !flush);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, keeps);
    let passed = matches!(mode, Mode::Passthrough(_));
    flags.set(FopenFlags::FOPEN_DIRECT_IO, counted && passed);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a program would close files of its own, or give up its own limit, for what the node is short of.
    #[test]
    fn descriptors_that_run_out_are_not_the_callers() {
        use nix::errno::Errno;
        assert_eq!(error(Errno::EMFILE), fuser::Errno::ENFILE);
        assert_eq!(error(Errno::ENOENT), fuser::Errno::ENOENT);
    }

    // Without it a time before 1970 would come back as another one.
    #[test]
    fn times_go_there_and_back() {
        for (seconds, part) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-7, 1)] {
            let there = timespec(Some(TimeOrNow::SpecificTime(time(seconds, part))));
            assert_eq!((there.tv_sec, there.tv_nsec), (seconds, part));
        }
        assert_eq!(timespec(None).tv_nsec, libc::UTIME_OMIT);
        assert_eq!(timespec(Some(TimeOrNow::Now)).tv_nsec, libc::UTIME_NOW);
    }
}
