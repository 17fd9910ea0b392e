//! The root of a manifest: what a version is as a whole, and where its partitions are.
//!
//! ```text
//! root = "TCM" 0x01
//!        location (bytes)            where paths begin: s3://b/p, hdfs://.., file:///d
//!        format (bytes)              of the files, as schema inference or the descriptor names it
//!        schema (bytes)              a text of its owner; empty for none
//!        columns: count, then name and type (bytes each)      of the partitions, outermost first
//!        notes: count, then name and text (bytes each), names in order
//!        partitions  files  bytes (varints)  rows (varint: 0 unknown, else rows + 1)
//!        root of the tree of partitions (32 bytes)
//! ```
//!
//! Its digest names the version's content: equal digests are equal versions.

use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::block::{Child, Sums};
use super::codec::{Reader, put_bytes, put_option, put_varint};
use crate::blobs::BlobId;

const MAGIC: &[u8; 4] = b"TCM\x01";
/// Most bytes of a root: a schema of thousands of columns.
const MAX_ROOT: usize = 8 << 20;

/// What a version is as a whole, apart from its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the paths of the files begin: a URL without a trailing slash.
    pub location: Arc<str>,
    /// Format of the files.
    pub format: Arc<str>,
    /// The schema, as its owner writes it. Opaque.
    pub schema: Option<Arc<str>>,
    /// Partition columns and their types, outermost first.
    pub columns: Vec<(Arc<str>, Arc<str>)>,
    /// What others have to say about it, by name, in the order of the names. Opaque.
    pub notes: Vec<(Arc<str>, Arc<str>)>,
}

/// Sums over a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Partitions; 1 for a table without any.
    pub partitions: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, when each file's are known.
    pub rows: Option<u64>,
}

/// A decoded root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) header: Header,
    pub(crate) partitions: Child,
}

impl Root {
    pub(crate) fn totals(&self) -> Totals {
        let sums = self.partitions.sums;
        Totals {
            partitions: sums.entries,
            files: sums.files,
            bytes: sums.bytes,
            rows: sums.rows,
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, ManifestError> {
        let header = &self.header;
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(MAGIC);
        put_bytes(&mut out, header.location.as_bytes());
        put_bytes(&mut out, header.format.as_bytes());
        put_bytes(&mut out, header.schema.as_deref().unwrap_or("").as_bytes());
        for pairs in [&header.columns, &header.notes] {
            put_varint(&mut out, pairs.len() as u64);
            for (name, text) in pairs {
                put_bytes(&mut out, name.as_bytes());
                put_bytes(&mut out, text.as_bytes());
            }
        }
        if !header
            .notes
            .is_sorted_by(|(one, _), (other, _)| one < other)
        {
            return Err(ManifestError::Order("notes".into()));
        }
        let sums = &self.partitions.sums;
        for number in [sums.entries, sums.files, sums.bytes] {
            put_varint(&mut out, number);
        }
        put_option(&mut out, sums.rows);
        out.extend_from_slice(self.partitions.id.as_bytes());
        if out.len() > MAX_ROOT {
            return Err(ManifestError::TooLong("schema and notes", out.len()));
        }
        Ok(out.into())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("a manifest's root", bytes);
        if reader.take(4)? != MAGIC {
            return Err(reader.damaged("it does not begin as one of this version"));
        }
        let location = reader.text()?.into();
        let format = reader.text()?.into();
        let schema = Some(reader.text()?)
            .filter(|schema| !schema.is_empty())
            .map(Arc::from);
        let columns = pairs(&mut reader)?;
        let notes = pairs(&mut reader)?;
        if !notes.is_sorted_by(|(one, _), (other, _)| one < other) {
            return Err(reader.damaged("its notes are not in order"));
        }
        let sums = Sums {
            entries: reader.varint()?,
            files: reader.varint()?,
            bytes: reader.varint()?,
            rows: reader.option()?,
        };
        let id = BlobId::from_bytes(reader.array()?);
        reader.finish()?;
        Ok(Self {
            header: Header {
                location,
                format,
                schema,
                columns,
                notes,
            },
            partitions: Child { id, sums },
        })
    }
}

type Pairs = Vec<(Arc<str>, Arc<str>)>;

fn pairs(reader: &mut Reader<'_>) -> Result<Pairs, ManifestError> {
    let count = reader.count()?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((reader.text()?.into(), reader.text()?.into()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn root() -> impl Strategy<Value = Root> {
        let columns = prop::collection::vec((".{0,5}", ".{0,5}"), 0..4);
        let notes = prop::collection::btree_map(".{0,5}", ".{0,5}", 0..4);
        let texts = (".{0,9}", ".{0,9}", prop::option::of(".{1,9}"));
        let sums = (
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            prop::option::of(0..u64::MAX),
        );
        (texts, columns, notes, sums, any::<[u8; 32]>()).prop_map(
            |(texts, columns, notes, sums, id)| {
                let pair = |(name, text): (String, String)| (name.into(), text.into());
                let header = Header {
                    location: texts.0.into(),
                    format: texts.1.into(),
                    schema: texts.2.map(Arc::from),
                    columns: columns.into_iter().map(pair).collect(),
                    notes: notes.into_iter().map(pair).collect(),
                };
                let sums = Sums {
                    entries: sums.0,
                    files: sums.1,
                    bytes: sums.2,
                    rows: sums.3,
                };
                let id = BlobId::from_bytes(id);
                let partitions = Child { id, sums };
                Root { header, partitions }
            },
        )
    }

    proptest! {
        // The root's digest is the version: two roots for one content would be two versions.
        #[test]
        fn a_root_is_read_as_it_was_written(root in root()) {
            prop_assert_eq!(Root::decode(&root.encode().unwrap()).unwrap(), root);
        }

        // Bytes from a disk may be anything: they are refused, or exactly what encoding gives.
        #[test]
        fn any_bytes_are_answered(root in root(), at in any::<prop::sample::Index>(), bits in 1u8..) {
            let good = root.encode().unwrap();
            let at = at.index(good.len());
            let mut bad = good.to_vec();
            bad[at] ^= bits;
            for bytes in [&bad[..], &good[..at]] {
                if let Ok(root) = Root::decode(bytes) {
                    prop_assert_eq!(&root.encode().unwrap()[..], bytes);
                }
            }
        }
    }
}
