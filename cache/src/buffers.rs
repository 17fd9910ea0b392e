//! Buffers of full blocks, used again instead of being given back to the allocator.
//!
//! A fresh 1 MiB buffer costs 256 page faults, more than the copy into it. A [`Bytes`] made by
//! [`Pool::freeze`] gives its buffer back when the last slice of it is dropped. Idle buffers are
//! bounded by [`IDLE`]; buffers in use are bounded by their users (requests in flight, the budget, the
//! window). Only full blocks
//! are pooled: a small object has a buffer of its own size.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::hot::BLOCK;

/// Idle buffers kept: 16 MiB, what one object's parts turn over while a disk write is under way.
const IDLE: usize = 16;

/// See the module text. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A buffer on loan; goes back on drop.
struct Loan {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Pool {
    /// An empty buffer with room for `len` bytes.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        if len == BLOCK as usize
            && let Some(buffer) = self.lock().pop()
        {
            return buffer;
        }
        Vec::with_capacity(len)
    }

    /// Makes a filled buffer shareable; it comes back here when nobody reads it any more.
    pub(crate) fn freeze(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() == BLOCK as usize {
            Bytes::from_owner(Loan {
                bytes: buffer,
                pool: self.clone(),
            })
        } else {
            Bytes::from(buffer)
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle.lock().expect("no code under this lock can panic")
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.bytes);
        buffer.clear();
        let mut idle = self.pool.lock();
        if idle.len() < IDLE {
            idle.push(buffer);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &self.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a slice kept by a slow reader would be overwritten by the next block.
    #[test]
    fn a_buffer_comes_back_only_when_its_last_slice_is_gone() {
        let pool = Pool::default();
        let mut buffer = pool.take(BLOCK as usize);
        buffer.resize(BLOCK as usize, 7);
        let place = buffer.as_ptr();
        let block = pool.freeze(buffer);
        let slice = block.slice(10..20);
        drop(block);
        assert_eq!(pool.lock().len(), 0);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        let again = pool.take(BLOCK as usize);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    // Without it a burst of readers would leave the daemon with their memory for ever.
    #[test]
    fn idle_buffers_are_bounded() {
        let pool = Pool::default();
        let full = |_| {
            let mut buffer = pool.take(BLOCK as usize);
            buffer.push(1);
            pool.freeze(buffer)
        };
        let blocks: Vec<_> = (0..IDLE + 10).map(full).collect();
        drop(blocks);
        assert_eq!(pool.lock().len(), IDLE);
    }
}
