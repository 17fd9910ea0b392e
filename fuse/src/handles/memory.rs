//! Shared memory as atomic words: the only unsafe code of the handle table.
//!
//! Invariant: every access is an aligned atomic one inside the mapping, so that a reader in the
//! next worker, or in another thread, never sees half a word. The file behind the mapping is a
//! memfd sealed against resizing, so an access can never fault.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A mapped memfd.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapRaw,
    #[cfg(test)]
    stores_left: AtomicU64,
}

impl Memory {
    /// Maps all `len` bytes of `fd` for reading and writing. The caller has checked the seals.
    pub(super) fn map(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw(fd)?;
        Ok(Self {
            map,
            #[cfg(test)]
            stores_left: AtomicU64::new(u64::MAX),
        })
    }

    pub(super) fn load32(&self, offset: usize) -> u32 {
        self.word32(offset).load(Ordering::Acquire)
    }

    pub(super) fn load64(&self, offset: usize) -> u64 {
        self.word64(offset).load(Ordering::Acquire)
    }

    /// Stores a word that becomes visible not before all words stored earlier.
    pub(super) fn store32(&self, offset: usize, value: u32) {
        if self.alive() {
            self.word32(offset).store(value, Ordering::Release);
        }
    }

    /// See [`Memory::store32`].
    pub(super) fn store64(&self, offset: usize, value: u64) {
        if self.alive() {
            self.word64(offset).store(value, Ordering::Release);
        }
    }

    fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset + 4 <= self.map.len(),
            "offset {offset} out of bounds"
        );
        // SAFETY: aligned and inside the mapping (checked above, the mapping is page-aligned), which
        // lives as long as `self`; all accesses of this process and others are atomic.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.map.len(),
            "offset {offset} out of bounds"
        );
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    /// Lets a test kill the writer between any two stores.
    #[cfg(test)]
    pub(super) fn die_after(&self, stores: u64) {
        self.stores_left.store(stores, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn alive(&self) -> bool {
        self.stores_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    #[cfg(not(test))]
    const fn alive(&self) -> bool {
        true
    }
}
