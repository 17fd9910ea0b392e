//! One block of a tree: sorted keys with a value each.
//!
//! ```text
//! block  = "TCB" 0x01  level (1 byte)  count (varint)  entry*
//! entry  = shared (varint: bytes shared with the key before, as many as there are)
//!          rest of the key (bytes)  value (bytes)
//! ```
//!
//! Level 0 holds the entries of the tree; in a block of level n > 0 a key is the last key of a block
//! of level n - 1 and the value says which:
//!
//! ```text
//! child  = digest (32 bytes)  entries  files  bytes (varints)  rows (varint: 0 unknown, else rows + 1)
//! ```
//!
//! A reader refuses an unknown version, keys out of order, a prefix shorter than it could be and
//! bytes behind the last entry.

use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::codec::{Reader, put_bytes, put_option, put_varint};
use crate::blobs::BlobId;

const MAGIC: &[u8; 4] = b"TCB\x01";
/// Deepest tree that is read: 2^40 entries at the least branching there is.
pub(crate) const MAX_LEVEL: u8 = 40;

/// A key and its value.
pub(crate) type Entry = (Bytes, Bytes);

/// What lies below: entries of level 0, and the sums over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Entries of level 0.
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// None when one of them does not know.
    pub(crate) rows: Option<u64>,
}

impl Sums {
    pub(crate) const ZERO: Self = Self {
        entries: 0,
        files: 0,
        bytes: 0,
        rows: Some(0),
    };

    pub(crate) fn add(&mut self, other: &Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.rows = self
            .rows
            .zip(other.rows)
            .map(|(one, other)| one.saturating_add(other));
    }
}

/// The value of an entry above level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) id: BlobId,
    pub(crate) sums: Sums,
}

impl Child {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(self.id.as_bytes());
        for number in [self.sums.entries, self.sums.files, self.sums.bytes] {
            put_varint(&mut out, number);
        }
        put_option(&mut out, self.sums.rows);
        out.into()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("a reference to a block", value);
        let child = Self {
            id: BlobId::from_bytes(reader.array()?),
            sums: Sums {
                entries: reader.varint()?,
                files: reader.varint()?,
                bytes: reader.varint()?,
                rows: reader.option()?,
            },
        };
        reader.finish()?;
        Ok(child)
    }
}

/// A decoded block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) level: u8,
    pub(crate) entries: Vec<Entry>,
}

impl Block {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(MAGIC);
        out.push(self.level);
        put_varint(&mut out, self.entries.len() as u64);
        let mut before: &[u8] = &[];
        for (key, value) in &self.entries {
            let shared = shared_prefix(before, key);
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, &key[shared..]);
            put_bytes(&mut out, value);
            before = key;
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Arc<Self>, ManifestError> {
        let mut reader = Reader::new("a block", bytes);
        if reader.take(4)? != MAGIC {
            return Err(reader.damaged("it does not begin as one of this version"));
        }
        let level = reader.byte()?;
        if level > MAX_LEVEL {
            return Err(reader.damaged("its level is too high"));
        }
        let count = reader.count()?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for at in 0..count {
            let shared = reader.varint()?;
            let rest = reader.bytes()?;
            let value = bytes.slice_ref(reader.bytes()?);
            let before = entries.last().map_or(&[][..], |(key, _)| key);
            let Some(prefix) = usize::try_from(shared).ok().and_then(|n| before.get(..n)) else {
                return Err(reader.damaged("a key shares more than there is"));
            };
            let key = Bytes::from([prefix, rest].concat());
            if at > 0 && key.as_ref() <= before || shared_prefix(before, &key) != prefix.len() {
                return Err(reader.damaged("its keys are not in order"));
            }
            entries.push((key, value));
        }
        reader.finish()?;
        Ok(Arc::new(Self { level, entries }))
    }

    /// Position of the first entry whose key is not less than `key`.
    pub(crate) fn position(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|(found, _)| found < key)
    }
}

fn shared_prefix(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        // A block read as another one would be another list of files.
        #[test]
        fn a_block_is_read_as_it_was_written(
            level in 0u8..4,
            entries in prop::collection::btree_map(prop::collection::vec(0u8..4, 0..6), any::<Vec<u8>>(), 0..30),
        ) {
            let entries: BTreeMap<Vec<u8>, Vec<u8>> = entries;
            let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            let block = Block { level, entries };
            prop_assert_eq!(&*Block::decode(&block.encode()).unwrap(), &block);
        }

        // Bytes from a disk may be anything: they are refused, or they are exactly what encoding gives.
        #[test]
        fn any_bytes_are_answered(
            entries in prop::collection::btree_map(prop::collection::vec(0u8..4, 0..6), any::<Vec<u8>>(), 0..9),
            cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bits in 1u8..,
        ) {
            let entries = entries.into_iter().map(|(key, value): (Vec<u8>, Vec<u8>)| (key.into(), value.into())).collect();
            let good = Block { level: 0, entries }.encode();
            prop_assert!(Block::decode(&good.slice(..cut.index(good.len()))).is_err());
            let mut bad = good.to_vec();
            let at = flip.index(bad.len());
            bad[at] ^= bits;
            let bad = Bytes::from(bad);
            if let Ok(block) = Block::decode(&bad) {
                prop_assert_eq!(&block.encode(), &bad);
            }
            let _ = Child::decode(&bad);
        }
    }
}
