//! System calls the standard library does not have, behind safe functions.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice};

/// `RWF_DONTCACHE` of Linux 6.14; not yet in `libc`.
const RWF_DONTCACHE: libc::c_int = 0x80;

/// Seconds since 1970, for orders that survive a restart. Nothing relies on it being right.
pub(super) fn now_seconds() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |time| time.as_secs().min(u64::from(u32::MAX)) as u32)
}

/// Whether the kernel and the file system know `RWF_DONTCACHE`; found out on first use.
#[derive(Debug)]
pub(super) struct Uncached(AtomicBool);

impl Uncached {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(true))
    }

    /// Writes all of `data` at `offset` without leaving it in the page cache where that is
    /// possible. Says whether the page cache was bypassed.
    pub(super) fn write(&self, file: &File, data: &[u8], offset: u64) -> io::Result<bool> {
        let mut done = 0;
        while done < data.len() && self.0.load(Ordering::Relaxed) {
            let slice = libc::iovec {
                iov_base: data[done..].as_ptr().cast_mut().cast(),
                iov_len: data.len() - done,
            };
            let at = (offset + done as u64) as libc::off_t;
            // SAFETY: the vector describes a live, readable slice; the call only reads from it.
            let wrote = unsafe { libc::pwritev2(file.as_raw_fd(), &slice, 1, at, RWF_DONTCACHE) };
            if wrote >= 0 {
                done += wrote as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => {
                    self.0.store(false, Ordering::Relaxed);
                }
                _ => return Err(error),
            }
        }
        write_all(file, &data[done..], offset + done as u64)?;
        Ok(done == data.len())
    }
}

/// Writes all of `data` at `offset` through the page cache.
pub(super) fn write_all(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

/// Fills `buffer` from `offset` if all of it is in the page cache; `false` when it is not, when
/// the file ends before, or when the file system cannot tell.
pub(super) fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let slice = libc::iovec {
            iov_base: rest.as_mut_ptr().cast(),
            iov_len: rest.len(),
        };
        let at = (offset + done as u64) as libc::off_t;
        // SAFETY: the vector describes a live slice that is exclusively borrowed for the call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &slice, 1, at, libc::RWF_NOWAIT) };
        if read <= 0 {
            return false;
        }
        done += read as usize;
    }
    true
}

/// Reserves `length` bytes from the start of `file` and sets its length. A file system that cannot
/// reserve gets a sparse file of that length.
pub(super) fn allocate(file: &File, length: u64) -> io::Result<()> {
    let wanted = length as libc::off_t;
    match nix::fcntl::fallocate(file, FallocateFlags::empty(), 0, wanted) {
        Ok(()) => Ok(()),
        Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(length),
        Err(error) => Err(error.into()),
    }
}

/// Drops the clean pages of `file` from the page cache. Best effort.
pub(super) fn drop_pages(file: &File) {
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    let _ = nix::fcntl::posix_fadvise(file, 0, 0, advice);
}
