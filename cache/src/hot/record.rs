//! What the index says about one object, and about the tier.
//!
//! Column family `objects`: key = digest (32 bytes); value, little-endian:
//! ```text
//! 0   1  version of this format: 1
//! 1   1  stage: 1 partial, 2 complete (all data was synced before this was written), 3 filled (all
//!        data was written and checked before this was written, not synced)
//! 2   2  length d of the dataset's name
//! 4   4  epoch in which the fingerprint was taken (see `Trust`)
//! 8   8  incarnation: the data file is `objects/<xx>/<digest>.<incarnation, 16 hex digits>`
//! 16  8  length of the object in bytes
//! 24  8  fingerprint of the data file: device
//! 32  8    inode
//! 40  8    mtime, nanoseconds since 1970, signed
//! 48  8    ctime, likewise
//! 56  8  bytes charged to the budget
//! 64  8  bytes of the blocks that are present
//! 72  d  dataset, UTF-8
//! .   .  block table (`blocks.rs`) when the object has at most 16 blocks, else it is in the sidecar
//! end 4  crc32c of the key and all bytes before this field
//! ```
//! Column family `marks`: key = digest; value = last use and last verification, each `u32` seconds
//! since 1970. Advisory (eviction and scrub order), hence without a checksum.
//!
//! Column family `pins`: key = digest; value, little-endian, of 5 or 37 bytes:
//! ```text
//! 0   1  pinned: 0 or 1
//! 1   4  owners: links that materialized trees hold
//! 5   8  incarnation of the data file whose times follow
//! 13  8  ctime in the record they are newer than, nanoseconds since 1970, signed
//! 21  8  mtime after the last link was made, likewise
//! 29  8  ctime, likewise
//! ```
//! Kept for objects that are not resident, too. The times take the place of those in the record that
//! they name: a link costs a short value instead of the whole record, and a record that is written
//! later, of another ctime, makes them void. Without a checksum: a wrong time makes an object
//! unverified, never trusted. A release that does not know them verifies the object.
//!
//! Column family `default`: `trust` = version 1 (`u8`), clean (`u8`), starts (`u32`), epoch
//! (`u32`), first trusted epoch (`u32`), boot id (16 bytes).

use super::blocks::{BlockTable, block_count};
use super::codec::Reader;
use super::data::Fingerprint;
use crate::identity::Digest;

/// Objects of at most this many blocks keep their block table in the index record, so that a
/// small file costs one file creation and one record.
pub(super) const EMBEDDED_BLOCKS: u32 = 16;

const VERSION: u8 = 1;

/// How far an object has come, as drawn in `mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Partial,
    /// All of it lies in the page cache at least, which outlives the process and not the machine.
    Filled,
    Complete,
}

impl Stage {
    /// Whether the data file may be somebody's backing, and is never written to again.
    pub(super) fn is_sealed(self) -> bool {
        match self {
            Self::Partial => false,
            Self::Filled | Self::Complete => true,
        }
    }

    fn encode(self) -> u8 {
        match self {
            Self::Partial => 1,
            Self::Complete => 2,
            Self::Filled => 3,
        }
    }

    fn decode(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Partial),
            2 => Some(Self::Complete),
            3 => Some(Self::Filled),
            _ => None,
        }
    }
}

/// One value of column family `objects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stage: Stage,
    pub(super) epoch: u32,
    pub(super) incarnation: u64,
    pub(super) size: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) charged: u64,
    pub(super) present: u64,
    pub(super) dataset: String,
    /// `None` when the sidecar has it.
    pub(super) table: Option<BlockTable>,
}

impl Record {
    pub(super) fn encode(&self, key: &Digest) -> Vec<u8> {
        // A name longer than 64 KiB loses its tail; it only groups objects for the policy.
        let mut length = self.dataset.len().min(usize::from(u16::MAX));
        while !self.dataset.is_char_boundary(length) {
            length -= 1;
        }
        let dataset = &self.dataset[..length];
        let mut out = Vec::with_capacity(160);
        out.push(VERSION);
        out.push(self.stage.encode());
        out.extend_from_slice(&(dataset.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.device.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.inode.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.mtime_ns.to_le_bytes());
        out.extend_from_slice(&self.fingerprint.ctime_ns.to_le_bytes());
        out.extend_from_slice(&self.charged.to_le_bytes());
        out.extend_from_slice(&self.present.to_le_bytes());
        out.extend_from_slice(dataset.as_bytes());
        if let Some(table) = &self.table {
            table.encode(&mut out);
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&key.0), &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when the bytes are not what [`Record::encode`] writes for `key`.
    pub(super) fn decode(key: &Digest, bytes: &[u8]) -> Option<Self> {
        let (head, mut reader) = Head::split(key, bytes)?;
        let table = if block_count(head.size) <= EMBEDDED_BLOCKS {
            Some(BlockTable::decode(head.size, &mut reader)?)
        } else {
            None
        };
        reader.0.is_empty().then(|| Self {
            stage: head.stage,
            epoch: head.epoch,
            incarnation: head.incarnation,
            size: head.size,
            fingerprint: head.fingerprint,
            charged: head.charged,
            present: head.present,
            dataset: head.dataset.to_owned(),
            table,
        })
    }
}

/// A [`Record`] without its block table, borrowed: what a pass over a million records can afford.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) stage: Stage,
    pub(super) epoch: u32,
    pub(super) incarnation: u64,
    pub(super) size: u64,
    pub(super) fingerprint: Fingerprint,
    pub(super) charged: u64,
    pub(super) present: u64,
    pub(super) dataset: &'a str,
}

impl<'a> Head<'a> {
    /// Checks the checksum of the whole record and reads its head. Whether the block table makes
    /// sense is found out when the object is opened.
    pub(super) fn decode(key: &Digest, bytes: &'a [u8]) -> Option<Self> {
        Self::split(key, bytes).map(|(head, _)| head)
    }

    fn split(key: &Digest, bytes: &'a [u8]) -> Option<(Self, Reader<'a>)> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let expected = crc32c::crc32c_append(crc32c::crc32c(&key.0), body);
        if expected != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut reader = Reader(body);
        if reader.u8()? != VERSION {
            return None;
        }
        let stage = Stage::decode(reader.u8()?)?;
        let dataset_length = usize::from(reader.u16()?);
        let epoch = reader.u32()?;
        let incarnation = reader.u64()?;
        let size = reader.u64()?;
        let fingerprint = Fingerprint {
            device: reader.u64()?,
            inode: reader.u64()?,
            size,
            mtime_ns: reader.i64()?,
            ctime_ns: reader.i64()?,
        };
        let head = Self {
            stage,
            epoch,
            incarnation,
            size,
            fingerprint,
            charged: reader.u64()?,
            present: reader.u64()?,
            dataset: str::from_utf8(reader.take(dataset_length)?).ok()?,
        };
        Some((head, reader))
    }
}

/// One value of column family `marks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) used_at: u32,
    pub(super) verified_at: u32,
}

impl Marks {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.used_at.to_le_bytes(), self.verified_at.to_le_bytes()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            used_at: reader.u32()?,
            verified_at: reader.u32()?,
        })
    }
}

/// One value of column family `pins`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins {
    pub(super) pinned: bool,
    pub(super) owners: u32,
}

impl Pins {
    pub(super) fn is_held(self) -> bool {
        self.pinned || self.owners > 0
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![u8::from(self.pinned)];
        out.extend_from_slice(&self.owners.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            pinned: reader.u8()? != 0,
            owners: reader.u32()?,
        })
    }
}

/// The part of a fingerprint that links move, since a certain record of one data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) incarnation: u64,
    /// What the record says.
    pub(super) recorded_ns: i64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
}

/// Where [`Times`] begin in a value of column family `pins`.
const TIMES_AT: usize = 5;

impl Times {
    pub(super) fn encode(self) -> [u8; 32] {
        let mut out = [0; 32];
        let (parts, _) = out.as_chunks_mut::<8>();
        parts[0] = self.incarnation.to_le_bytes();
        parts[1] = self.recorded_ns.to_le_bytes();
        parts[2] = self.mtime_ns.to_le_bytes();
        parts[3] = self.ctime_ns.to_le_bytes();
        out
    }

    /// Takes them out of a whole value of column family `pins`, if it has any.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes.get(TIMES_AT..)?);
        Some(Self {
            incarnation: reader.u64()?,
            recorded_ns: reader.i64()?,
            mtime_ns: reader.i64()?,
            ctime_ns: reader.i64()?,
        })
    }

    /// Brings the fingerprint of a record up to date, if they are about that record.
    pub(super) fn apply(&self, incarnation: u64, fingerprint: &mut Fingerprint) {
        if (self.incarnation, self.recorded_ns) == (incarnation, fingerprint.ctime_ns) {
            fingerprint.mtime_ns = self.mtime_ns;
            fingerprint.ctime_ns = self.ctime_ns;
        }
    }
}

/// Since when fingerprints are believed.
///
/// An epoch lasts until the machine stops without a clean shutdown of the tier: within one, what
/// was written through the page cache is what will be read, so an unchanged fingerprint proves
/// unchanged bytes, synced or not. After an unclean boot a new epoch begins and is the first trusted one; every
/// older object is read and verified before its first use, and then joins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) clean: bool,
    pub(super) starts: u32,
    pub(super) epoch: u32,
    pub(super) trusted_from: u32,
    pub(super) boot: [u8; 16],
}

impl Trust {
    /// The state after a start on boot `boot` at `now` (seconds since 1970), given what the last
    /// run left behind. Starts are counted from the time of the first one, so that a directory that
    /// lost its index does not begin to count again where it did before.
    pub(super) fn at_start(last: Option<Self>, boot: [u8; 16], now: u32) -> Self {
        let Some(last) = last else {
            return Self {
                clean: false,
                starts: now,
                epoch: 1,
                trusted_from: 1,
                boot,
            };
        };
        let goes_on = last.clean || last.boot == boot;
        let epoch = last.epoch.saturating_add(u32::from(!goes_on));
        Self {
            clean: false,
            starts: last.starts.saturating_add(1),
            epoch,
            trusted_from: if goes_on { last.trusted_from } else { epoch },
            boot,
        }
    }

    /// Whether an unchanged fingerprint that was taken in `epoch` proves unchanged bytes.
    pub(super) fn believes(&self, epoch: u32) -> bool {
        epoch >= self.trusted_from
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.clean)];
        out.extend_from_slice(&self.starts.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.trusted_from.to_le_bytes());
        out.extend_from_slice(&self.boot);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        Some(Self {
            clean: reader.u8()? != 0,
            starts: reader.u32()?,
            epoch: reader.u32()?,
            trusted_from: reader.u32()?,
            boot: reader.array()?,
        })
    }
}
