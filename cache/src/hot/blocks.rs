//! The block table of one object: which blocks are there, which of them were checked, and the
//! checksum (crc32c) of each.
//!
//! Invariant: a verified block is present, and the checksum of an absent block is 0. Encoded (part
//! of the sidecar and of the index record):
//! ```text
//! bitmap   ceil(n / 8) bytes, bit i % 8 of byte i / 8 = block i present; padding bits are 0
//! crc32c   n x u32 LE, 0 where the block is absent
//! ```

use std::ops::Range;

use super::BLOCK;
use super::codec::Reader;

/// Number of blocks of an object of `size` bytes. Objects of 4 PiB and more are not cached.
pub(super) fn block_count(size: u64) -> u32 {
    u32::try_from(size.div_ceil(BLOCK)).unwrap_or(u32::MAX)
}

/// Presence, checksums and verification of the blocks of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockTable {
    size: u64,
    crcs: Vec<u32>,
    present: Bits,
    verified: Bits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    words: Vec<u64>,
    ones: u32,
}

impl Bits {
    fn new(count: u32) -> Self {
        Self {
            words: vec![0; count.div_ceil(64) as usize],
            ones: 0,
        }
    }

    fn get(&self, index: u32) -> bool {
        self.words[(index / 64) as usize] >> (index % 64) & 1 == 1
    }

    fn set(&mut self, index: u32, value: bool) {
        if self.get(index) == value {
            return;
        }
        self.words[(index / 64) as usize] ^= 1 << (index % 64);
        if value {
            self.ones += 1;
        } else {
            self.ones -= 1;
        }
    }
}

impl BlockTable {
    /// No block of an object of `size` bytes is present.
    pub(super) fn empty(size: u64) -> Self {
        let count = block_count(size);
        Self {
            size,
            crcs: vec![0; count as usize],
            present: Bits::new(count),
            verified: Bits::new(count),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.crcs.len() as u32
    }

    /// Bytes of the object that block `index` covers.
    pub(super) fn span(&self, index: u32) -> Range<u64> {
        let start = u64::from(index) * BLOCK;
        start..(start + BLOCK).min(self.size)
    }

    pub(super) fn is_present(&self, index: u32) -> bool {
        self.present.get(index)
    }

    pub(super) fn is_verified(&self, index: u32) -> bool {
        self.verified.get(index)
    }

    pub(super) fn crc(&self, index: u32) -> u32 {
        self.crcs[index as usize]
    }

    /// Block `index` was written with this checksum just now.
    pub(super) fn insert(&mut self, index: u32, crc: u32) {
        self.crcs[index as usize] = crc;
        self.present.set(index, true);
        self.verified.set(index, true);
    }

    /// Block `index` was read and agrees with its checksum.
    pub(super) fn mark_verified(&mut self, index: u32) {
        debug_assert!(self.is_present(index));
        self.verified.set(index, true);
    }

    /// All present blocks are trusted as if they had been read.
    pub(super) fn trust(&mut self) {
        self.verified = self.present.clone();
    }

    pub(super) fn remove(&mut self, index: u32) {
        self.crcs[index as usize] = 0;
        self.present.set(index, false);
        self.verified.set(index, false);
    }

    pub(super) fn all_present(&self) -> bool {
        self.present.ones == self.count()
    }

    pub(super) fn all_verified(&self) -> bool {
        self.verified.ones == self.count()
    }

    /// Bytes of the present blocks.
    pub(super) fn present_bytes(&self) -> u64 {
        let full = u64::from(self.present.ones) * BLOCK;
        match self.count().checked_sub(1) {
            Some(last) if self.is_present(last) => {
                let span = self.span(last);
                full - BLOCK + (span.end - span.start)
            }
            _ => full,
        }
    }

    /// Runs of absent blocks inside `blocks`.
    pub(super) fn missing(&self, blocks: Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for index in blocks.start..blocks.end.min(self.count()) {
            if self.is_present(index) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }

    /// No block is trusted any more.
    pub(super) fn distrust(&mut self) {
        self.verified = Bits::new(self.count());
    }

    /// First block from `from` on that is present but not verified.
    pub(super) fn first_unverified(&self, from: u32) -> Option<u32> {
        (from..self.count()).find(|&index| self.is_present(index) && !self.is_verified(index))
    }

    /// Length of [`BlockTable::encode`] for `count` blocks.
    pub(super) fn encoded_length(count: u32) -> usize {
        count.div_ceil(8) as usize + count as usize * 4
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let bytes = self.count().div_ceil(8) as usize;
        let words = self
            .present
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes());
        out.extend(words.take(bytes));
        for crc in &self.crcs {
            out.extend_from_slice(&crc.to_le_bytes());
        }
    }

    /// Reads what [`BlockTable::encode`] wrote; nothing of it is verified. `None` when the bytes
    /// are too short or contradict themselves.
    pub(super) fn decode(size: u64, reader: &mut Reader<'_>) -> Option<Self> {
        let count = block_count(size);
        // Checked before anything is allocated for a size that nobody vouches for.
        if reader.0.len() < Self::encoded_length(count) {
            return None;
        }
        let bitmap = reader.take(count.div_ceil(8) as usize)?;
        let mut table = Self::empty(size);
        for index in 0..bitmap.len() as u32 * 8 {
            if bitmap[(index / 8) as usize] >> (index % 8) & 1 == 1 {
                if index >= count {
                    return None;
                }
                table.present.set(index, true);
            }
        }
        for index in 0..count {
            let crc = reader.u32()?;
            if crc != 0 && !table.is_present(index) {
                return None;
            }
            table.crcs[index as usize] = crc;
        }
        Some(table)
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
