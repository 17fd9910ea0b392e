//! Bytes of the `.sum` and `.lease` files, format 1. Integers are little endian.
//!
//! ```text
//! .sum    0  magic "TRCWARM\n"          .lease  0  magic "TRCLEAS\n"
//!         8  u32 version = 1                    8  u32 version = 1
//!        12  u32 block size = 1 MiB            12  u32 blocks n
//!        16  u64 length of the object          16  owner, 16 random bytes
//!        24  digest, 32 bytes                  32  u64 heartbeat
//!        56  u32 length of the label           40  one byte per block: 1 = finished
//!        60  label: URL, for people only       ..  u32 x n crc32c of finished blocks, else 0
//!        ..  u32 x n crc32c of each block      ..  u32 crc32c of all before
//!        ..  u32 crc32c of all before
//! ```
//! The `.sum` of an object is a function of its bytes and identity: all writers write the same. A
//! lease is rewritten in place; a reader that meets a half-written one finds a wrong checksum and
//! looks again later.

use crate::hot::BLOCK;
use crate::identity::{Digest, ObjectId};

const SUM_MAGIC: &[u8; 8] = b"TRCWARM\n";
const LEASE_MAGIC: &[u8; 8] = b"TRCLEAS\n";
const VERSION: u32 = 1;

/// Longest label that is written; keys may have up to 1 KiB in S3, paths up to 4 KiB.
const LABEL_MAX: usize = 4096;

/// Blocks of an object of `length` bytes.
pub(super) fn blocks(length: u64) -> u32 {
    u32::try_from(length.div_ceil(BLOCK)).unwrap_or(u32::MAX)
}

/// Bytes of block `index` in an object of `length` bytes.
pub(super) fn block_len(length: u64, index: u32) -> usize {
    length.saturating_sub(u64::from(index) * BLOCK).min(BLOCK) as usize
}

/// Random identity of one attempt to fill.
pub(super) type Owner = [u8; 16];

/// What a lease file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseRecord {
    pub(super) owner: Owner,
    pub(super) heartbeat: u64,
    /// Checksum of each finished block.
    pub(super) finished: Vec<Option<u32>>,
}

/// Longest `.sum` file of an object of `length` bytes.
pub(super) fn sum_max(length: u64) -> u64 {
    64 + LABEL_MAX as u64 + 4 * u64::from(blocks(length))
}

/// Longest `.lease` file of an object of `length` bytes.
pub(super) fn lease_max(length: u64) -> u64 {
    44 + 5 * u64::from(blocks(length))
}

pub(super) fn encode_sum(object: &ObjectId, table: &[u32]) -> Vec<u8> {
    let label = object.to_string();
    let mut cut = label.len().min(LABEL_MAX);
    while !label.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut out = Vec::with_capacity(64 + cut + 4 * table.len());
    out.extend_from_slice(SUM_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    out.extend_from_slice(&object.size().to_le_bytes());
    out.extend_from_slice(&object.digest().0);
    out.extend_from_slice(&(cut as u32).to_le_bytes());
    out.extend_from_slice(&label.as_bytes()[..cut]);
    for sum in table {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    seal(out)
}

/// The block checksums in a `.sum` file, if it is whole and about that object.
pub(super) fn decode_sum(bytes: &[u8], digest: &Digest, length: u64) -> Option<Vec<u32>> {
    let mut reader = Reader(unseal(bytes)?);
    let known = reader.take(8)? == SUM_MAGIC
        && reader.u32()? == VERSION
        && u64::from(reader.u32()?) == BLOCK
        && reader.u64()? == length
        && reader.take(32)? == digest.0;
    if !known {
        return None;
    }
    let label = reader.u32()? as usize;
    reader.take(label)?;
    let count = blocks(length) as usize;
    if reader.0.len() != 4 * count {
        return None;
    }
    (0..count).map(|_| reader.u32()).collect()
}

pub(super) fn encode_lease(record: &LeaseRecord) -> Vec<u8> {
    let count = record.finished.len();
    let mut out = Vec::with_capacity(44 + 5 * count);
    out.extend_from_slice(LEASE_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(count as u32).to_le_bytes());
    out.extend_from_slice(&record.owner);
    out.extend_from_slice(&record.heartbeat.to_le_bytes());
    out.extend(record.finished.iter().map(|sum| u8::from(sum.is_some())));
    for sum in &record.finished {
        out.extend_from_slice(&sum.unwrap_or(0).to_le_bytes());
    }
    seal(out)
}

/// A lease of an object of `count` blocks; `None` when half-written or foreign.
pub(super) fn decode_lease(bytes: &[u8], count: u32) -> Option<LeaseRecord> {
    let mut reader = Reader(unseal(bytes)?);
    let known =
        reader.take(8)? == LEASE_MAGIC && reader.u32()? == VERSION && reader.u32()? == count;
    if !known {
        return None;
    }
    let owner = reader.take(16)?.try_into().ok()?;
    let heartbeat = reader.u64()?;
    let done = reader.take(count as usize)?;
    let mut finished = Vec::with_capacity(count as usize);
    for done in done {
        let sum = reader.u32()?;
        finished.push((*done == 1).then_some(sum));
    }
    reader.0.is_empty().then_some(LeaseRecord {
        owner,
        heartbeat,
        finished,
    })
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*sum)).then_some(body)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
