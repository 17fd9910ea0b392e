//! Files and partitions, and how a tree holds them.
//!
//! ```text
//! files of a partition    key    path below the partition's directory
//!                         value  size (varint)  mtime in ms (zigzag)  token (bytes)
//!                                rows (varint: 0 unknown, else rows + 1)
//!                                checksum: 0, or kind (1 byte: 1 SHA-256, 2 CRC-32C, 3 MD5) and its bytes
//! partitions              key    path "/", or nothing for the one partition of a table without any
//!                         value  root of its files (32 bytes)  files  bytes (varints)  rows (as above)
//!                                values: count, then name (bytes), 0 or 1 and value (bytes)
//!                                notes: count, then name and text (bytes each), names in order
//! ```
//!
//! The `/` behind a partition's path makes the order of partitions the order of their files' paths.

use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::block::Sums;
use super::codec::{Reader, put_bytes, put_option, put_varint, put_zigzag};
use super::tree::Kind;
use crate::blobs::BlobId;

/// Longest path of a file, in bytes: what Linux takes.
pub const MAX_PATH: usize = 4096;
/// Longest token and longest note, in bytes.
pub const MAX_TEXT: usize = 4096;

/// Trees of files: about 1,000 to a block, so that most partitions have one block.
pub(crate) const FILES: Kind = Kind {
    mean: 1024,
    sums: file_sums,
};
/// Trees of partitions: about 128 to a block, so that adding one writes little.
pub(crate) const PARTITIONS: Kind = Kind {
    mean: 128,
    sums: partition_sums,
};

/// A checksum of a file's bytes that somebody else has computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// SHA-256.
    Sha256([u8; 32]),
    /// CRC-32 with the Castagnoli polynomial.
    Crc32c(u32),
    /// MD5.
    Md5([u8; 16]),
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the version's location: no leading `/`, no empty, `.` or `..` segment, no NUL.
    pub path: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// When it was last changed: milliseconds since 1970, as the store says.
    pub mtime_ms: i64,
    /// What pins these bytes in their store: an ETag, a version. Opaque.
    pub token: Arc<str>,
    /// Rows, when known.
    pub rows: Option<u64>,
    /// A checksum, when known.
    pub checksum: Option<Checksum>,
}

/// A directory of files that is replaced as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its directory below the version's location; empty for a table without partitions.
    pub path: Arc<str>,
    /// Columns and their values in this partition; None is Hive's default partition.
    pub values: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, when each file's are known.
    pub rows: Option<u64>,
    /// Root of its list of files.
    pub list: BlobId,
    /// What others have to say about it, by name, in the order of the names. Opaque.
    pub notes: Vec<(Arc<str>, Arc<str>)>,
}

/// Refuses what is no path below a directory.
pub(crate) fn check_path(path: &str) -> Result<(), ManifestError> {
    let good = path.len() <= MAX_PATH
        && !path.contains('\0')
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | ".."));
    if good {
        Ok(())
    } else {
        Err(ManifestError::Path(crate::name::shortened(path)))
    }
}

impl FileEntry {
    /// Its value below a partition; the key is the path that is left.
    pub(crate) fn encode(&self) -> Result<Bytes, ManifestError> {
        if self.token.len() > MAX_TEXT {
            return Err(ManifestError::TooLong(
                "the token of a file",
                self.token.len(),
            ));
        }
        let mut out = Vec::with_capacity(64);
        put_varint(&mut out, self.size);
        put_zigzag(&mut out, self.mtime_ms);
        put_bytes(&mut out, self.token.as_bytes());
        put_option(&mut out, self.rows);
        match &self.checksum {
            None => out.push(0),
            Some(Checksum::Sha256(bytes)) => {
                out.push(1);
                out.extend_from_slice(bytes);
            }
            Some(Checksum::Crc32c(sum)) => {
                out.push(2);
                out.extend_from_slice(&sum.to_be_bytes());
            }
            Some(Checksum::Md5(bytes)) => {
                out.push(3);
                out.extend_from_slice(bytes);
            }
        }
        Ok(out.into())
    }

    /// Reads an entry of the list of a partition whose key is `directory`.
    pub(crate) fn decode(directory: &str, key: &[u8], value: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("a file's entry", value);
        let name = std::str::from_utf8(key).map_err(|_| reader.damaged("a path is not UTF-8"))?;
        let path = [directory, name].concat();
        check_path(&path).map_err(|_| reader.damaged("its path is none"))?;
        let entry = Self {
            path: path.into(),
            size: reader.varint()?,
            mtime_ms: reader.zigzag()?,
            token: reader.text()?.into(),
            rows: reader.option()?,
            checksum: match reader.byte()? {
                0 => None,
                1 => Some(Checksum::Sha256(reader.array()?)),
                2 => Some(Checksum::Crc32c(u32::from_be_bytes(reader.array()?))),
                3 => Some(Checksum::Md5(reader.array()?)),
                _ => return Err(reader.damaged("its checksum is of an unknown kind")),
            },
        };
        reader.finish()?;
        Ok(entry)
    }
}

fn file_sums(value: &[u8]) -> Result<Sums, ManifestError> {
    let mut reader = Reader::new("a file's entry", value);
    let bytes = reader.varint()?;
    reader.zigzag()?;
    reader.bytes()?;
    Ok(Sums {
        entries: 1,
        files: 1,
        bytes,
        rows: reader.option()?,
    })
}

impl Partition {
    /// The key of a partition's path.
    pub(crate) fn key_of(path: &str) -> String {
        if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, ManifestError> {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(self.list.as_bytes());
        put_varint(&mut out, self.files);
        put_varint(&mut out, self.bytes);
        put_option(&mut out, self.rows);
        put_varint(&mut out, self.values.len() as u64);
        for (name, value) in &self.values {
            put_text(&mut out, "the name of a partition column", name)?;
            match value {
                None => out.push(0),
                Some(value) => {
                    out.push(1);
                    put_text(&mut out, "the value of a partition column", value)?;
                }
            }
        }
        put_varint(&mut out, self.notes.len() as u64);
        for (name, text) in &self.notes {
            put_text(&mut out, "the name of a note", name)?;
            put_text(&mut out, "a note", text)?;
        }
        if !self.notes.is_sorted_by(|(one, _), (other, _)| one < other) {
            return Err(ManifestError::Order(self.path.to_string()));
        }
        Ok(out.into())
    }

    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader::new("a partition's entry", value);
        let key = std::str::from_utf8(key).map_err(|_| reader.damaged("a path is not UTF-8"))?;
        let path = match key.strip_suffix('/') {
            Some(path) => {
                check_path(path).map_err(|_| reader.damaged("its path is none"))?;
                path
            }
            None if key.is_empty() => key,
            None => return Err(reader.damaged("its key does not end in a slash")),
        };
        let list = BlobId::from_bytes(reader.array()?);
        let (files, bytes, rows) = (reader.varint()?, reader.varint()?, reader.option()?);
        let mut values = Vec::new();
        for _ in 0..reader.count()? {
            let name = reader.text()?.into();
            let value = match reader.byte()? {
                0 => None,
                1 => Some(reader.text()?.into()),
                _ => return Err(reader.damaged("a value is neither there nor absent")),
            };
            values.push((name, value));
        }
        let mut notes: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for _ in 0..reader.count()? {
            let (name, text): (Arc<str>, Arc<str>) = (reader.text()?.into(), reader.text()?.into());
            if notes.last().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.damaged("its notes are not in order"));
            }
            notes.push((name, text));
        }
        reader.finish()?;
        Ok(Self {
            path: path.into(),
            values,
            files,
            bytes,
            rows,
            list,
            notes,
        })
    }
}

fn put_text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), ManifestError> {
    if text.len() > MAX_TEXT {
        return Err(ManifestError::TooLong(what, text.len()));
    }
    put_bytes(out, text.as_bytes());
    Ok(())
}

fn partition_sums(value: &[u8]) -> Result<Sums, ManifestError> {
    let mut reader = Reader::new("a partition's entry", value);
    reader.take(32)?;
    Ok(Sums {
        entries: 1,
        files: reader.varint()?,
        bytes: reader.varint()?,
        rows: reader.option()?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn file() -> impl Strategy<Value = FileEntry> {
        let checksum = prop_oneof![
            Just(None),
            any::<[u8; 32]>().prop_map(|bytes| Some(Checksum::Sha256(bytes))),
            any::<u32>().prop_map(|sum| Some(Checksum::Crc32c(sum))),
            any::<[u8; 16]>().prop_map(|bytes| Some(Checksum::Md5(bytes))),
        ];
        let parts = (
            any::<u64>(),
            any::<i64>(),
            ".{0,20}",
            prop::option::of(0..u64::MAX),
            checksum,
        );
        parts.prop_map(|(size, mtime_ms, token, rows, checksum)| FileEntry {
            path: "dt=1/a".into(),
            size,
            mtime_ms,
            token: token.into(),
            rows,
            checksum,
        })
    }

    fn partition() -> impl Strategy<Value = Partition> {
        let values = prop::collection::vec((".{0,5}", prop::option::of(".{0,5}")), 0..4);
        let notes = prop::collection::btree_map(".{0,5}", ".{0,5}", 0..4);
        let sums = (any::<u64>(), any::<u64>(), prop::option::of(0..u64::MAX));
        (values, notes, sums, any::<[u8; 32]>()).prop_map(|(values, notes, sums, list)| {
            let text = |text: String| -> Arc<str> { text.into() };
            let values = values
                .into_iter()
                .map(|(name, value)| (text(name), value.map(text)));
            let notes = notes
                .into_iter()
                .map(|(name, note)| (text(name), text(note)));
            Partition {
                path: "dt=1".into(),
                values: values.collect(),
                files: sums.0,
                bytes: sums.1,
                rows: sums.2,
                list: BlobId::from_bytes(list),
                notes: notes.collect(),
            }
        })
    }

    proptest! {
        // An entry that is read as another one is another file.
        #[test]
        fn entries_are_read_as_they_were_written(file in file(), partition in partition()) {
            let value = file.encode().unwrap();
            prop_assert_eq!(file_sums(&value).unwrap().rows, file.rows);
            prop_assert_eq!(FileEntry::decode("dt=1/", b"a", &value).unwrap(), file);
            let value = partition.encode().unwrap();
            prop_assert_eq!(partition_sums(&value).unwrap().bytes, partition.bytes);
            prop_assert_eq!(Partition::decode(b"dt=1/", &value).unwrap(), partition);
        }

        // Bytes from a disk may be anything: they are refused, or exactly what encoding gives.
        #[test]
        fn any_bytes_are_answered(
            file in file(), partition in partition(),
            at in any::<prop::sample::Index>(), bits in 1u8.., noise in any::<Vec<u8>>(),
        ) {
            for good in [file.encode().unwrap(), partition.encode().unwrap()] {
                let at = at.index(good.len());
                let mut bad = good.to_vec();
                bad[at] ^= bits;
                for bytes in [&bad[..], &good[..at], &noise[..]] {
                    if let Ok(file) = FileEntry::decode("", b"a", bytes) {
                        prop_assert_eq!(&file.encode().unwrap()[..], bytes);
                    }
                    if let Ok(partition) = Partition::decode(b"dt=1/", bytes) {
                        prop_assert_eq!(&partition.encode().unwrap()[..], bytes);
                    }
                    let _ = (file_sums(bytes), partition_sums(bytes));
                }
                let _ = (FileEntry::decode("", &noise, &good), Partition::decode(&noise, &good));
            }
        }
    }
}
