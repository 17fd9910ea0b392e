//! Memory for requests, made present before the first one is taken.
//!
//! The kernel copies a request into the memory of the thread that reads it. Where a page of that
//! memory is not there yet and the process is being killed, the page cannot be brought any more, and
//! the kernel ends the request with EIO: it was taken, so it is not queued again for the next worker.
//! A new worker's buffers have no page at all; one kill in eighty failed a write of 1 MiB that way.
//!
//! ```text
//!   session starts, its threads read from our socket
//!   one FORGET of node 0 is sent for each thread     (no answer, and the kernel never sends one)
//!   each thread meets the others here, with its buffer present
//!   the device takes the socket's place              (nobody is reading)
//!   all go on, and read from the device
//! ```
//! The address of a buffer is that of the request in it, which the library passes by reference.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuser::{INodeNo, Request};

use crate::adapter::MAX_REQUEST;

/// `FUSE_FORGET` of linux/fuse.h.
const FORGET: u32 = 2;

/// Bytes of `fuse_in_header` and `fuse_forget_in`.
const LENGTH: usize = 40 + 8;

/// What a request has besides its data, and the page in which it begins.
const MORE: usize = 2 * 4096;

/// Threads that do not come within this do not come: a machine so busy answers nobody.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    here: usize,
    go: bool,
}

/// Where the threads of a session meet before they take requests.
#[derive(Debug, Default)]
pub struct Primer {
    state: Mutex<State>,
    changed: Condvar,
}

impl Primer {
    /// To be called first in `forget` of every file system that is served; `true`: it was no request of
    /// the kernel, and there is nothing more to be done.
    pub fn meets(&self, request: &Request, node: INodeNo) -> bool {
        if node.0 != 0 {
            return false;
        }
        let mut state = self.lock();
        if state.go {
            return true;
        }
        make_present(std::ptr::from_ref(request).cast());
        state.here += 1;
        self.changed.notify_all();
        while !state.go {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// The request that sends a thread here.
    pub(super) fn request() -> [u8; LENGTH] {
        let mut request = [0; LENGTH];
        request[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
        request[4..8].copy_from_slice(&FORGET.to_ne_bytes());
        request
    }

    /// Waits for so many threads.
    ///
    /// Errors: `TimedOut`; those that are here go on.
    pub(super) fn gather(&self, threads: usize) -> io::Result<Gathered<'_>> {
        let gathered = Gathered(self);
        let begun = Instant::now();
        let mut state = self.lock();
        while state.here < threads {
            let left = PATIENCE.checked_sub(begun.elapsed()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    "threads of the session did not start",
                )
            })?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        Ok(gathered)
    }

    /// No code under this lock leaves half a change behind when it panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that wait; they go on when this is dropped.
#[derive(Debug)]
pub(super) struct Gathered<'a>(&'a Primer);

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        self.0.lock().go = true;
        self.0.changed.notify_all();
    }
}

/// Makes the pages present in which a request at this address can lie.
fn make_present(request: *const u8) {
    let begin = request.map_addr(|address| address & !4095).cast_mut();
    let length = MAX_REQUEST as usize + MORE;
    // SAFETY: the advice brings pages and changes the contents of none, whatever lies there; what is not
    // mapped is an error, and then a kill may cost a request.
    let result = unsafe { libc::madvise(begin.cast(), length, libc::MADV_POPULATE_WRITE) };
    if let Err(errno) = nix::errno::Errno::result(result) {
        tracing::warn!(%errno, "the memory for requests is not present from the start");
    }
}
