//! Contents from a file of the spool into the file below, in place and verified.
//!
//! In place keeps what a rename over it would lose: the number, owner, hard links, attributes and the
//! handles of others. Others see the version before until a copy begins, then a beginning of the new
//! one that grows; its end is written last, and its time is set after that.
//!
//! The contents' checksum is a crc32c over the ranges that have data: for each block read of such a
//! range its offset (8 bytes, little-endian) and its bytes. Holes are left as holes, and are no part
//! of it. Nothing below is changed unless the file is what it was when staging began, or, after a copy
//! that did not end, has nothing but parts of these very contents: a power cut leaves zeros where the
//! file system below had not written yet.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;

use super::super::sys::{self, FileId};
use super::record::Stamp;
use super::stage::stamp;

/// Bytes that are read and written at once.
const BLOCK: usize = 1 << 20;

/// What a file system writes or does not write before a power cut.
const PAGE: usize = 4096;

/// Why a copy was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CopyError {
    /// Another node has written to the file below.
    #[error("the file was changed by another node")]
    Conflict,
    /// The file below has gone.
    #[error("the file was deleted by another node")]
    Gone,
    /// The bytes in the spool are not those that were sealed.
    #[error("its bytes on this node's SSD have changed by themselves")]
    Rotten,
    /// Somebody has written or truncated it meanwhile, so what was read is of two versions.
    #[error("the file was changed while it was copied")]
    Changed,
    /// What was read back is not what was written.
    #[error("the directory gave other bytes back than were written")]
    Unverified,
    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
    /// The SSD.
    #[error("read this node's SSD: {0}")]
    Spool(Errno),
    /// The directory.
    #[error("{0} the directory: {1}")]
    Below(&'static str, Errno),
}

/// What is copied.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a File,
    /// Any descriptor of the file system below.
    pub(super) mount: BorrowedFd<'a>,
    pub(super) below: &'a FileId,
    pub(super) base: Stamp,
    /// The file below may have parts of this one.
    pub(super) copying: bool,
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn spool(error: io::Error) -> CopyError {
    CopyError::Spool(errno(error))
}

fn below(doing: &'static str) -> impl Fn(io::Error) -> CopyError {
    move |error| CopyError::Below(doing, errno(error))
}

/// What is done with a block at an offset.
type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<(), CopyError> + 'a;

/// Calls `each` with every block of data of a file of this size, in order.
fn blocks(file: &File, size: u64, each: &mut Each<'_>) -> Result<(), CopyError> {
    let mut room = vec![0; BLOCK];
    let mut at = 0;
    while at < size {
        let from = i64::try_from(at).map_err(|_| CopyError::Spool(Errno::EFBIG))?;
        let data = match sys::seek(file.as_fd(), from, libc::SEEK_DATA) {
            Err(Errno::ENXIO) => break, // a hole up to the end
            other => other.map_err(CopyError::Spool)?,
        };
        let hole = sys::seek(file.as_fd(), data, libc::SEEK_HOLE).map_err(CopyError::Spool)?;
        at = data.unsigned_abs();
        let end = hole.unsigned_abs().min(size);
        while at < end {
            let length = (end - at).min(BLOCK as u64) as usize;
            match file.read_exact_at(&mut room[..length], at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(CopyError::Changed);
                }
                other => other.map_err(spool)?,
            }
            each(at, &room[..length])?;
            at += length as u64;
        }
    }
    Ok(())
}

fn add(crc: u32, at: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &at.to_le_bytes()), bytes)
}

/// Syncs a file of the spool and returns what it is then, with the checksum of its contents.
pub(super) fn seal(file: &File, stop: &dyn Fn() -> bool) -> Result<(Stamp, u32), CopyError> {
    // Written back, its pages are write-protected: a change from now on has another time.
    file.sync_all().map_err(spool)?;
    let sealed = stamp(&fstat(file).map_err(CopyError::Spool)?);
    let mut crc = 0;
    blocks(file, sealed.size, &mut |at, bytes| {
        if stop() {
            return Err(CopyError::Stopped);
        }
        crc = add(crc, at, bytes);
        Ok(())
    })?;
    Ok((sealed, crc))
}

/// Opens the file below for writing and looks whether these contents may replace its own.
pub(super) fn admit(source: &Source<'_>) -> Result<File, CopyError> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
    let file = match sys::open_id(source.mount, source.below, flags) {
        Err(Errno::ESTALE) => return Err(CopyError::Gone),
        other => File::from(other.map_err(|errno| CopyError::Below("open a file of", errno))?),
    };
    let stat = fstat(&file).map_err(|errno| CopyError::Below("look at a file of", errno))?;
    if stat.st_nlink == 0 {
        return Err(CopyError::Gone);
    }
    let now = stamp(&stat);
    if now == source.base || (source.copying && is_part(source.file, &file, now.size)?) {
        Ok(file)
    } else {
        Err(CopyError::Conflict)
    }
}

/// Whether the file below has nothing but parts of the staged one, each in its place.
fn is_part(staged: &File, file: &File, size: u64) -> Result<bool, CopyError> {
    let (mut ours, mut theirs) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < size {
        let length = (size - at).min(BLOCK as u64) as usize;
        match staged.read_exact_at(&mut ours[..length], at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other.map_err(spool)?,
        }
        file.read_exact_at(&mut theirs[..length], at)
            .map_err(below("read a file of"))?;
        let pages = ours[..length]
            .chunks(PAGE)
            .zip(theirs[..length].chunks(PAGE));
        for (ours, theirs) in pages {
            if ours != theirs && theirs.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        at += length as u64;
    }
    Ok(true)
}

/// Copies, syncs, and reads back; returns what the file below is then. Without a checksum the contents
/// may be changing meanwhile, and those are copied that are met.
pub(super) fn copy(
    source: &Source<'_>,
    target: &File,
    (now, crc): (Stamp, Option<u32>),
    stop: &dyn Fn() -> bool,
) -> Result<Stamp, CopyError> {
    target.set_len(0).map_err(below("truncate a file of"))?;
    let (mut found, mut ranges) = (0, Vec::new());
    blocks(source.file, now.size, &mut |at, bytes| {
        if stop() {
            return Err(CopyError::Stopped);
        }
        found = add(found, at, bytes);
        ranges.push((at, bytes.len()));
        target.write_all_at(bytes, at).map_err(below("write to"))
    })?;
    target.set_len(now.size).map_err(below("write to"))?;
    let stat = fstat(source.file).map_err(CopyError::Spool)?;
    if crc.is_some_and(|crc| crc != found) {
        // A truncation is in the file before anybody can have counted it as a version.
        let still = stamp(&stat) == now;
        return Err(if still {
            CopyError::Rotten
        } else {
            CopyError::Changed
        });
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(now.seconds, now.nanoseconds);
    futimens(target, &accessed, &modified)
        .map_err(|errno| CopyError::Below("set the time of a file of", errno))?;
    target.sync_all().map_err(below("sync a file of"))?;
    verify(target, now.size, &ranges, found)?;
    let stat = fstat(target).map_err(|errno| CopyError::Below("look at a file of", errno))?;
    Ok(stamp(&stat))
}

/// Reads the ranges that were written back, not from this node's memory.
fn verify(target: &File, size: u64, ranges: &[(u64, usize)], crc: u32) -> Result<(), CopyError> {
    posix_fadvise(target, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).ok();
    let length = target.metadata().map_err(below("look at a file of"))?.len();
    if length != size {
        return Err(CopyError::Unverified);
    }
    let (mut found, mut room) = (0, vec![0; BLOCK]);
    for (at, length) in ranges {
        let room = &mut room[..*length];
        target
            .read_exact_at(room, *at)
            .map_err(below("read a file of"))?;
        found = add(found, *at, room);
    }
    if found == crc {
        Ok(())
    } else {
        Err(CopyError::Unverified)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    struct Pair {
        place: tempfile::TempDir,
        staged: File,
        below: File,
    }

    impl Pair {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let file = |name| {
                let mut options = File::options();
                options.read(true).write(true).create_new(true);
                options.open(place.path().join(name)).unwrap()
            };
            let (staged, below) = (file("staged"), file("below"));
            Self {
                place,
                staged,
                below,
            }
        }

        /// One attempt from `base`.
        fn copy(&self, base: Stamp, copying: bool) -> Result<Stamp, CopyError> {
            let mount = File::open(self.place.path()).unwrap();
            let id = sys::file_id(self.below.as_fd()).unwrap();
            let source = Source {
                file: &self.staged,
                mount: mount.as_fd(),
                below: &id,
                base,
                copying,
            };
            let sealed = seal(&self.staged, &|| false)?;
            let target = admit(&source)?;
            copy(&source, &target, (sealed.0, Some(sealed.1)), &|| false)
        }

        fn base(&self) -> Stamp {
            stamp(&fstat(&self.below).unwrap())
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.place.path().join("below")).unwrap()
        }
    }

    fn can_open_by_handle() -> bool {
        nix::unistd::geteuid().is_root()
    }

    // Without it a sparse file would come up full, a longer old version would shine through, or the
    // time a program has set would be lost.
    #[test]
    fn contents_holes_and_time_arrive() {
        if !can_open_by_handle() {
            println!("SKIP contents_holes_and_time_arrive: needs root");
            return;
        }
        let pair = Pair::new();
        pair.below.write_all_at(&[9; 9_000_000], 0).unwrap();
        pair.staged.write_all_at(b"start", 0).unwrap();
        pair.staged.write_all_at(b"end", 5 << 20).unwrap();
        pair.staged.set_len(8 << 20).unwrap();
        let time = TimeSpec::new(1_700_000_000, 123_456_789);
        futimens(&pair.staged, &time, &time).unwrap();
        let now = pair.copy(pair.base(), false).unwrap();
        assert_eq!((now.seconds, now.nanoseconds), (1_700_000_000, 123_456_789));
        assert_eq!(now, pair.base());
        let mut expected = vec![0; 8 << 20];
        expected[..5].copy_from_slice(b"start");
        expected[5 << 20..][..3].copy_from_slice(b"end");
        assert!(pair.bytes() == expected);
    }

    // Without it one node would write over what another one has written.
    #[test]
    fn a_change_by_another_node_is_never_overwritten() {
        if !can_open_by_handle() {
            println!("SKIP a_change_by_another_node_is_never_overwritten: needs root");
            return;
        }
        let pair = Pair::new();
        let base = pair.base();
        pair.staged.write_all_at(b"ours and more", 0).unwrap();
        pair.below.write_all_at(b"theirs", 0).unwrap();
        assert_eq!(pair.copy(base, false), Err(CopyError::Conflict));
        assert_eq!(pair.copy(base, true), Err(CopyError::Conflict));
        assert!(pair.bytes() == b"theirs");
        // What a copy that was cut short has left is no change of others.
        pair.below.set_len(0).unwrap();
        pair.below.write_all_at(b"ours an", 0).unwrap();
        assert_eq!(pair.copy(base, false), Err(CopyError::Conflict));
        pair.copy(base, true).unwrap();
        assert!(pair.bytes() == b"ours and more");
        // Nor is what a power cut has left: the second page written, and not the first.
        pair.staged.write_all_at(&[7; 9000], 0).unwrap();
        pair.below.set_len(0).unwrap();
        pair.below.write_all_at(&[7; 4096], 4096).unwrap();
        pair.copy(base, true).unwrap();
        assert!(pair.bytes() == [7; 9000]);
        std::fs::remove_file(pair.place.path().join("below")).unwrap();
        assert_eq!(pair.copy(base, true), Err(CopyError::Gone));
    }

    // Without it bytes that rotted on the SSD would go up as good ones, or those of a file that is being
    // saved again would be taken for rotten.
    #[test]
    fn rotten_bytes_do_not_pass() {
        if !can_open_by_handle() {
            println!("SKIP rotten_bytes_do_not_pass: needs root");
            return;
        }
        let pair = Pair::new();
        pair.staged.write_all_at(b"good", 0).unwrap();
        let (mount, id) = (
            File::open(pair.place.path()).unwrap(),
            sys::file_id(pair.below.as_fd()).unwrap(),
        );
        let source = Source {
            file: &pair.staged,
            mount: mount.as_fd(),
            below: &id,
            base: pair.base(),
            copying: false,
        };
        let (sealed, crc) = seal(&pair.staged, &|| false).unwrap();
        let target = admit(&source).unwrap();
        let again = || copy(&source, &target, (sealed, Some(crc)), &|| false);
        // A program truncates a file before anybody can know of it.
        pair.staged.set_len(0).unwrap();
        assert_eq!(again(), Err(CopyError::Changed));
        pair.staged.write_all_at(b"gobd", 0).unwrap();
        assert_eq!(again(), Err(CopyError::Changed));
        let time = TimeSpec::new(sealed.seconds, sealed.nanoseconds);
        futimens(&pair.staged, &time, &time).unwrap();
        assert_eq!(again(), Err(CopyError::Rotten));
    }
}
