//! Types of this crate as those of the kernel library.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory,
    ReplyDirectoryPlus, ReplyOpen, ReplyXattr,
};

use crate::fs::{Entry, FileSystem, Item, Listing, Opened, Operation};
use crate::handles::Mode;
use crate::namespace::{Attr, FsError, Ino, Kind};

/// Block size that stat(2) and statfs(2) show.
pub(super) const BLOCK_SIZE: u32 = 4096;

/// Counts and logs a failed request.
pub(super) fn errno(fs: &FileSystem, operation: Operation, node: u64, error: &FsError) -> Errno {
    Errno::from_i32(fs.failed(operation, node, error))
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
    }
}

/// Attributes under the number `ino`.
pub(super) fn file_attr(attr: &Attr, ino: u64) -> FileAttr {
    let time = time(attr.mtime_ns);
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// An entry that says "no such name" for as long as its TTL: inode number 0.
pub(super) fn absent() -> FileAttr {
    let nothing = Attr {
        ino: Ino(0),
        kind: Kind::File,
        size: 0,
        mtime_ns: 0,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
    };
    file_attr(&nothing, 0)
}

/// A READDIR reply that fills.
pub(super) struct Names(pub(super) ReplyDirectory);

impl Listing for Names {
    fn push(&mut self, item: &Item<'_>) -> bool {
        let name = OsStr::from_bytes(item.name);
        !self
            .0
            .add(INodeNo(item.ino), item.next, file_type(item.kind), name)
    }
}

/// A READDIRPLUS reply that fills.
pub(super) struct NamesPlus(pub(super) ReplyDirectoryPlus);

impl Listing for NamesPlus {
    fn push(&mut self, item: &Item<'_>) -> bool {
        let name = OsStr::from_bytes(item.name);
        let (attr, ttl) = match item.entry {
            Some(Entry {
                node,
                attr,
                entry_ttl,
                attr_ttl,
            }) => {
                // One time for both: the shorter.
                (file_attr(attr, *node), (*entry_ttl).min(*attr_ttl))
            }
            None => {
                let dot = Attr {
                    kind: Kind::Directory,
                    ..plain(item)
                };
                (file_attr(&dot, item.ino), Duration::ZERO)
            }
        };
        !self
            .0
            .add(attr.ino, item.next, name, &ttl, &attr, Generation(0))
    }
}

/// Attributes of `.` and `..` in a listing: the kernel takes name and kind only.
fn plain(item: &Item<'_>) -> Attr {
    Attr {
        ino: Ino(item.ino),
        kind: item.kind,
        size: 0,
        mtime_ns: 0,
        mode: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
    }
}

/// Answers OPEN. Nothing is written through a handle, so none is ever flushed.
pub(super) fn reply_opened(
    fs: &FileSystem,
    node: u64,
    opened: Result<Opened, FsError>,
    reply: ReplyOpen,
) {
    let (fh, mode) = match opened {
        Ok(Opened::Handle { fh, mode }) => (FileHandle(fh), mode),
        Ok(Opened::Stateless) => return reply.error(Errno::ENOSYS),
        Err(error) => return reply.error(errno(fs, Operation::Open, node, &error)),
    };
    match mode {
        Mode::Cached => {
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
            reply.opened(fh, flags);
        }
        Mode::Passthrough(id) => {
            // SAFETY: the file system keeps `id` registered while a handle uses it, and the wrapper
            // is taken apart below instead of closing it.
            let backing = unsafe { reply.wrap_backing(id) };
            reply.opened_passthrough(fh, FopenFlags::FOPEN_NOFLUSH, &backing);
            backing.into_raw();
        }
    }
}

/// `size` 0 asks for the length; a value that does not fit is ERANGE (getxattr(2)).
pub(super) fn reply_xattr(
    fs: &FileSystem,
    node: u64,
    size: u32,
    value: Result<Vec<u8>, FsError>,
    reply: ReplyXattr,
) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(error) => reply.error(errno(fs, Operation::Xattr, node, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it files older than 1970, or with damaged times, would take the worker down.
    #[test]
    fn times_of_any_age_are_shown() {
        assert_eq!(
            time(1_500_000_000),
            UNIX_EPOCH + Duration::from_millis(1500)
        );
        assert_eq!(
            time(-1_500_000_000),
            UNIX_EPOCH - Duration::from_millis(1500)
        );
        for extreme in [i64::MIN, i64::MAX] {
            assert_ne!(time(extreme), UNIX_EPOCH);
        }
    }
}
