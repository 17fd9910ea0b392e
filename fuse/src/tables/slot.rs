//! One record of the slot file: what a slot is about. Layout, encoding and decoding without I/O.
//!
//! ```text
//! record   crc32c of what follows u32 | length of body u32 | the same, inverted u32 | body
//! body     kind u8, then by kind:
//!   1 namespace    text name
//!   2 version      text selector, version      what the name named when it was shown
//!   3 repository   u8 hub, text dataset
//!   4 link         u8 hub, version             an entry of a repository's `snapshots`
//!   5 text         i64 mtime_ms, bytes to the end
//!   6 again        u32 slot                    the name of an earlier `version` names it again
//!   7 gone         text selector               the name names nothing
//!   8 sql          version, text name, u64 size, 32 bytes SHA-256 of the file's bytes
//! version  text dataset, u64 number, 32 bytes manifest, i64 committed_ms
//! text     u16 length, UTF-8
//! hub      1 models, 2 datasets
//! ```
//!
//! All numbers are little-endian. The inverted length tells a damaged length from a record whose end
//! was not written. Kinds 6 and 7 use up a slot that no inode number ever has. A kind
//! that is not known makes the file one of a newer release: refused, not skipped.

use std::sync::Arc;

use terrace_catalog::{DatasetName, Selector};

use super::catalog::{ManifestId, TableVersion};
use super::hub::Hub;

/// Longest body: a text of [`TEXT_MAX`] with room for its head.
const BODY_MAX: usize = TEXT_MAX + 64;
/// Longest text that is made up. Heat of a thousand nodes fits.
pub(super) const TEXT_MAX: usize = 256 << 10;
/// Checksum and length.
const HEAD: usize = 12;

/// What a slot is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// A namespace's directory.
    Namespace(Arc<str>),
    /// The directory of a version, under the name it was asked for.
    Version(Selector, TableVersion),
    /// A repository of the Hugging Face tree.
    Repository(Hub, DatasetName),
    /// A link in a repository to a version.
    Link(Hub, TableVersion),
    /// A small file that is made up.
    Text(i64, Arc<[u8]>),
    /// A name is back at an earlier slot.
    Again(u32),
    /// A name names nothing any more.
    Gone(Selector),
    /// A file for SQL engines that the catalog makes from a version.
    Sql(SqlFile),
}

/// A file in `.iceberg`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SqlFile {
    pub(super) version: TableVersion,
    pub(super) name: Arc<str>,
    pub(super) size: u64,
    pub(super) digest: [u8; 32],
}

/// What the bytes at some place of the file are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A record, and its length.
    Record(Slot, usize),
    /// The beginning of a record that was not written to its end.
    Torn,
    /// No record of this release.
    Damaged(&'static str),
}

impl Slot {
    /// Appends the record. `false`: it is too long, nothing is appended.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.encode_body(out);
        let body = out.len() - start - HEAD;
        if body > BODY_MAX {
            out.truncate(start);
            return false;
        }
        let length = body as u32;
        out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        out[start + 8..start + HEAD].copy_from_slice(&(!length).to_le_bytes());
        let crc = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        true
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Namespace(name) => {
                out.push(1);
                put_text(out, name);
            }
            Self::Version(selector, version) => {
                out.push(2);
                put_text(out, &selector.to_string());
                put_version(out, version);
            }
            Self::Repository(hub, dataset) => {
                out.extend_from_slice(&[3, *hub as u8]);
                put_text(out, dataset.as_str());
            }
            Self::Link(hub, version) => {
                out.extend_from_slice(&[4, *hub as u8]);
                put_version(out, version);
            }
            Self::Text(mtime_ms, bytes) => {
                out.push(5);
                out.extend_from_slice(&mtime_ms.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Again(slot) => {
                out.push(6);
                out.extend_from_slice(&slot.to_le_bytes());
            }
            Self::Gone(selector) => {
                out.push(7);
                put_text(out, &selector.to_string());
            }
            Self::Sql(file) => {
                out.push(8);
                put_version(out, &file.version);
                put_text(out, &file.name);
                out.extend_from_slice(&file.size.to_le_bytes());
                out.extend_from_slice(&file.digest);
            }
        }
    }

    /// What is at the start of `bytes`, which reach to the end of the file.
    pub(super) fn decode(bytes: &[u8]) -> Decoded {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Decoded::Torn;
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = word(4) as usize;
        if word(4) != !word(8) || length > BODY_MAX {
            return Decoded::Damaged("length of a record is wrong");
        }
        let Some(body) = rest.get(..length) else {
            return Decoded::Torn;
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[4..]), body);
        if crc != word(0) {
            // The last record may have its length and not yet its bytes; nothing follows it then.
            return if rest.len() == length {
                Decoded::Torn
            } else {
                Decoded::Damaged("checksum of a record is wrong")
            };
        }
        match decode_body(body) {
            Some(slot) => Decoded::Record(slot, HEAD + length),
            None => Decoded::Damaged("a record is not of this release"),
        }
    }
}

fn decode_body(body: &[u8]) -> Option<Slot> {
    let mut rest = Rest(body);
    let slot = match rest.array::<1>()?[0] {
        1 => Slot::Namespace(rest.text()?.into()),
        2 => Slot::Version(rest.text()?.parse().ok()?, rest.version()?),
        3 => Slot::Repository(rest.hub()?, rest.text()?.parse().ok()?),
        4 => Slot::Link(rest.hub()?, rest.version()?),
        5 => {
            let mtime_ms = i64::from_le_bytes(rest.array()?);
            Slot::Text(mtime_ms, std::mem::take(&mut rest.0).into())
        }
        6 => Slot::Again(u32::from_le_bytes(rest.array()?)),
        7 => Slot::Gone(rest.text()?.parse().ok()?),
        8 => Slot::Sql(SqlFile {
            version: rest.version()?,
            name: rest.text()?.into(),
            size: u64::from_le_bytes(rest.array()?),
            digest: rest.array()?,
        }),
        _ => return None,
    };
    rest.0.is_empty().then_some(slot)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Names of files have at most 255 bytes, selectors 194.
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_version(out: &mut Vec<u8>, version: &TableVersion) {
    put_text(out, version.dataset.as_str());
    out.extend_from_slice(&version.number.to_le_bytes());
    out.extend_from_slice(&version.manifest.0);
    out.extend_from_slice(&version.committed_ms.to_le_bytes());
}

/// The part of a body not decoded yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn hub(&mut self) -> Option<Hub> {
        Hub::from_byte(self.array::<1>()?[0])
    }

    fn version(&mut self) -> Option<TableVersion> {
        Some(TableVersion {
            dataset: self.text()?.parse().ok()?,
            number: u64::from_le_bytes(self.array()?),
            manifest: ManifestId(self.array()?),
            committed_ms: i64::from_le_bytes(self.array()?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn all() -> Vec<Slot> {
        let version = TableVersion {
            dataset: "ads.clicks".parse().unwrap(),
            number: 12,
            manifest: ManifestId([7; 32]),
            committed_ms: -5,
        };
        vec![
            Slot::Namespace("ads".into()),
            Slot::Version("ads.clicks@prod".parse().unwrap(), version.clone()),
            Slot::Repository(Hub::Models, "ads.clicks".parse().unwrap()),
            Slot::Link(Hub::Datasets, version.clone()),
            Slot::Sql(SqlFile {
                version,
                name: "at_mnt.snap.avro".into(),
                size: 4096,
                digest: [9; 32],
            }),
            Slot::Text(9, Arc::from(*b"text")),
            Slot::Again(3),
            Slot::Gone("ads.clicks".parse().unwrap()),
        ]
    }

    // Without it a worker that takes over would answer with another version than the kernel has.
    #[test]
    fn every_record_survives_and_a_torn_one_is_told() {
        for slot in all() {
            let mut bytes = Vec::new();
            assert!(slot.encode(&mut bytes));
            for cut in 0..bytes.len() {
                assert_eq!(Slot::decode(&bytes[..cut]), Decoded::Torn, "{slot:?} {cut}");
            }
            let length = bytes.len();
            bytes.extend_from_slice(b"next record");
            assert_eq!(Slot::decode(&bytes), Decoded::Record(slot, length));
            bytes[length - 1] ^= 1;
            assert!(matches!(Slot::decode(&bytes), Decoded::Damaged(_)));
        }
        let long = Slot::Text(0, vec![0; BODY_MAX].into());
        assert!(!long.encode(&mut Vec::new()));
    }

    proptest::proptest! {
        // Without it a damaged disk takes the worker down.
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            Slot::decode(&bytes);
            decode_body(&bytes);
        }
    }
}
