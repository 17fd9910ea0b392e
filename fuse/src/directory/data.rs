//! Contents of files: what the kernel does not read and write by itself, and everything about making
//! them durable, which it never does by itself.
//!
//! A descriptor of a handle is the dead worker's when there is none here: the file is opened again by
//! its number. Reads first take what is in memory (`RWF_NOWAIT`); the caller takes what has to wait to
//! another thread.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};

use super::asker::Asker;
use super::durability::Level;
use super::names::KEPT;
use super::opens::Opened;
use super::quota::allocated;
use super::staging::Call;
use super::{DirectoryFs, sys};

/// Most bytes of one copy_file_range(2); the answer has 32 bits.
const COPY_MAX: u64 = 1 << 30;

/// Whether the file system of `fd` may be another node's, too. Those that are known to be local are
/// not. On others close(2) may send what was kept back, and attributes may be older than the file.
pub(super) fn is_shared(fd: BorrowedFd<'_>) -> bool {
    let local = [
        EXT4_SUPER_MAGIC,
        XFS_SUPER_MAGIC,
        BTRFS_SUPER_MAGIC,
        TMPFS_MAGIC,
    ];
    fstatfs(fd).map_or(true, |stat| !local.contains(&stat.filesystem_type()))
}

/// An open handle of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandleOf {
    /// Node id.
    pub(crate) node: u64,
    /// As it was answered.
    pub(crate) fh: u64,
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// What of a file is in memory.
fn read_cached(file: &File, offset: u64, size: u32) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; size as usize];
    let part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let at = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `part` describes `bytes`, which outlives the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) };
    match Errno::result(read).map(isize::unsigned_abs) {
        // A part of it may be all that is in memory; what is missing is fetched by the full read.
        Ok(length) if length == bytes.len() => Ok(Some(bytes)),
        Ok(_) | Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a call is to be made again; once with the pages of the file system below, where it was not
/// ([`sys::read_directly`]): one that passes reads and writes through wants aligned buffers for that, and has
/// no pages of its own.
fn again(file: &File, error: &std::io::Error, direct: &mut bool) -> bool {
    if error.raw_os_error() == Some(libc::EINVAL) && std::mem::take(direct) {
        sys::read_pages(file.as_fd());
        return true;
    }
    error.kind() == std::io::ErrorKind::Interrupted
}

/// Bytes of a file; fewer at its end only.
pub(super) fn read_all(file: &File, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size as usize];
    let (mut filled, mut direct) = (0, true);
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if again(file, &error, &mut direct) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes all of `bytes`, or as many as the file system takes.
fn write_all(file: &File, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
    let (mut written, mut direct) = (0, true);
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if again(file, &error, &mut direct) => {}
            // What was written is told; the next write meets the error again.
            Err(_) if written > 0 => break,
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(written as u32)
}

impl DirectoryFs {
    /// Opens a regular file. `flags` are those of open(2).
    ///
    /// Errors: [`super::ELSEWHERE`] when its contents have to be brought back first.
    pub(crate) fn open_file(&self, unique: u64, node: u64, flags: i32) -> Result<Opened, Errno> {
        if let Some(opened) = self.opens.resent(unique) {
            return Ok(opened);
        }
        if !self.durability.is_empty() {
            let stamp = self.revalidate(node);
            let stages = self.spool.as_ref().is_some_and(|spool| !spool.is_empty());
            // What is staged may have nothing below.
            if !stages {
                stamp.map_err(|error| self.gone(node, error))?;
            }
            return self.open_ruled(unique, node, flags);
        }
        let _entered = self.enter(node)?;
        let gone = |error| self.gone(node, error);
        let version = self.revalidate(node).map_err(gone)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        if let Some(version) = version
            && !writes
            && flags & libc::O_TRUNC == 0
            && let Some(opened) = self.open_copy(unique, node, (version.stamp, version.since))?
        {
            return Ok(opened);
        }
        let file = self.open_as_asked(node, flags).map_err(gone)?;
        let open = || self.opens.open(unique, node, file.into());
        let opened = self.copies.open_below(node, open)?;
        Ok(Opened {
            flush: self.is_shared && writes,
            ..opened
        })
    }

    /// Opens a file below as open(2) with these flags does, and truncates it if that is asked for. The caller
    /// has entered.
    ///
    /// Errors: as [`DirectoryFs::open_file`].
    pub(super) fn open_as_asked(&self, node: u64, flags: i32) -> Result<OwnedFd, Errno> {
        let asked = OFlag::from_bits_truncate(flags);
        let wanted = asked & (OFlag::O_ACCMODE | OFlag::O_TRUNC | KEPT);
        // O_NONBLOCK does nothing to a regular file, and no other file of that handle can be.
        let file = self.reopen(node, self.access(wanted) | OFlag::O_NONBLOCK)?;
        self.ready(&file, flags)?;
        if asked.contains(OFlag::O_TRUNC) {
            self.drop_set_ids(node)?;
            nix::unistd::ftruncate(&file, 0)?;
        }
        Ok(file)
    }

    /// Closes a handle.
    pub(crate) fn release(&self, fh: u64) {
        if let Some(node) = self.opens.node_of(fh) {
            self.copies.releases(node, fh);
        }
        let node = self.opens.release(fh);
        if let (Some(spool), Some(node)) = (&self.spool, node) {
            spool.closed(node, fh);
        }
    }

    /// Bytes that are in memory; `None` when reading them has to wait.
    pub(crate) fn read_now(
        &self,
        of: HandleOf,
        offset: u64,
        size: u32,
    ) -> Result<Option<Vec<u8>>, Errno> {
        match self.copies.backing(of.node) {
            Some(copy) => read_cached(copy.file(), offset, size),
            None => read_cached(&*self.file_of(of)?, offset, size),
        }
    }

    /// Bytes of a file; fewer at its end only.
    pub(crate) fn read(&self, of: HandleOf, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        if let Some(copy) = self.copies.backing(of.node)
            && let Ok(bytes) = read_all(copy.file(), offset, size)
        {
            return Ok(bytes);
        }
        read_all(&*self.file_of(of)?, offset, size)
    }

    /// Writes all of `bytes`, or as many as fit.
    pub(crate) fn write(&self, of: HandleOf, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let file = self.file_of(of)?;
        self.growing(of.node, &file, offset, bytes.len(), |fits| {
            write_all(&file, offset, &bytes[..fits])
        })
    }

    /// Makes a file durable; `data_only`: without times.
    pub(crate) fn sync(&self, of: HandleOf, data_only: bool) -> Result<(), Errno> {
        if let Some(done) = self.settle(of, Call::Sync { data_only }) {
            return done;
        }
        let file = self.file_of(of)?;
        let result = if data_only {
            file.sync_data()
        } else {
            file.sync_all()
        };
        result.map_err(errno)
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&self, node: u64) -> Result<(), Errno> {
        let directory = self.reopen(node, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        File::from(directory).sync_all().map_err(errno)
    }

    /// Makes everything on the file system durable (for a planned unmount).
    pub fn sync_all(&self) -> Result<(), Errno> {
        sys::sync_file_system(self.mount.as_fd())
    }

    /// Whether a close does what a close of the directory does, and nothing more.
    pub(crate) fn closes_plainly(&self) -> bool {
        self.durability.is_empty() && self.spool.is_none()
    }

    /// What closing the file below has to say.
    pub(crate) fn flush(&self, of: HandleOf) -> Result<(), Errno> {
        if let Some(done) = self.settle(of, Call::Close) {
            return done;
        }
        if self.syncs(of)? {
            return self.sync(of, false);
        }
        let Some(file) = self.opens.file(of.fh) else {
            return Ok(()); // opened by a dead worker, whose end closed it
        };
        let copy = file.try_clone().map_err(errno)?;
        nix::unistd::close(copy)
    }

    /// Whether closing a handle on a file below has to sync it. Of one that a dead worker has opened
    /// only its path of now is known.
    fn syncs(&self, of: HandleOf) -> Result<bool, Errno> {
        if self.durability.is_empty() || self.opens.syncs_at_close(of.fh) {
            return Ok(!self.durability.is_empty());
        }
        if self.opens.file(of.fh).is_some() {
            return Ok(false);
        }
        let levels = self.levels_of(self.file_of(of)?.as_fd());
        Ok(levels.close > Level::Accepted)
    }

    /// fallocate(2).
    pub(crate) fn allocate(
        &self,
        (of, asker): (HandleOf, Asker),
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let signed = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
        let file = self.file_of(of)?;
        // The kernel has asked for what other bits this takes, but not for this one.
        self.drop_lock_mark(of.node, asker)?;
        let (at, many) = (signed(offset)?, signed(length)?);
        let wanted = |before| allocated(before, mode, offset, length);
        self.resizing(of.node, &file, wanted, || fallocate(&*file, mode, at, many))
    }

    /// copy_file_range(2).
    pub(crate) fn copy(
        &self,
        from: (HandleOf, u64),
        to: (HandleOf, u64),
        length: u64,
    ) -> Result<u32, Errno> {
        let (source, target) = (self.file_of(from.0)?, self.file_of(to.0)?);
        let signed = |value: u64| i64::try_from(value).map_err(|_| Errno::EINVAL);
        let (begin, end) = (signed(from.1)?, signed(to.1)?);
        // A source that ends earlier makes the target no longer than its own end does.
        let rest = source
            .metadata()
            .map_err(errno)?
            .len()
            .saturating_sub(from.1);
        let length = length.min(COPY_MAX).min(rest) as usize;
        self.growing(to.0.node, &target, to.1, length, |fits| {
            let copied = sys::copy_range((source.as_fd(), begin), (target.as_fd(), end), fits)?;
            Ok(copied as u32)
        })
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    pub(crate) fn seek(&self, of: HandleOf, offset: i64, whence: i32) -> Result<i64, Errno> {
        if !matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) {
            return Err(Errno::EINVAL);
        }
        sys::seek(self.file_of(of)?.as_fd(), offset, whence)
    }

    /// The descriptor of a handle.
    pub(super) fn file_of(&self, of: HandleOf) -> Result<Arc<File>, Errno> {
        if let Some(file) = self.opens.file(of.fh) {
            return Ok(file);
        }
        if let Some((spool, stage)) = self.staged(of.node) {
            let file = Arc::new(spool.reopen(&stage, OFlag::empty())?);
            self.opens.keep(of.fh, &file);
            return Ok(file);
        }
        let file = match self.reopen(of.node, OFlag::O_RDWR | OFlag::O_NONBLOCK) {
            // A program that runs, or a file system that has become read-only: nobody writes to it.
            Err(Errno::ETXTBSY | Errno::EROFS | Errno::EACCES | Errno::EPERM) => {
                self.reopen(of.node, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?
            }
            other => other?,
        };
        self.keep_here(&file);
        let file = Arc::new(File::from(file));
        if !self.durability.is_empty() {
            // Before it looks like one that was opened here.
            let levels = self.levels_of(file.as_fd());
            self.opens.promise(of.fh, levels);
        }
        self.opens.keep(of.fh, &file);
        Ok(file)
    }
}
