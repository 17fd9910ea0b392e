//! Pages of a column: their headers, their compression, and the entries in them.
//!
//! ```text
//! page           header (Thrift), then its bytes, compressed
//! PageHeader     1 type (0 data, 2 dictionary, 3 data v2)  2 bytes unpacked  3 bytes in the file
//!                5 data {1 values 2 encoding}  7 dictionary {1 values}
//!                8 data v2 {1 values 4 encoding 5 bytes of definition 6 of repetition levels 7 packed}
//! data page      levels of repetition and of definition (each: length u32 LE, hybrid), values
//! data page v2   levels of repetition and of definition (hybrid; never compressed), values
//! ```
//!
//! An entry has a value, or says by its level how much of the path to one is there. Lengths in a header
//! are a stranger's: nothing is unpacked beyond [`PAGE_MAX`].

use bytes::Bytes;

use super::assemble::Entry;
use super::footer::Element;
use super::hybrid::Hybrid;
use super::thrift::{Kind, Malformed, Reader};
use super::values::{Plain, Raw, Values, shown};
use crate::schema::types::Type;
use crate::schema::unpack::{Codec, unpack as unpacked};

/// Longest page that is read or unpacked; usual writers make pages of 1 MiB.
pub(super) const PAGE_MAX: u64 = 8 << 20;

/// Most entries of a column that are looked at: lists in the first rows may be long.
const ENTRIES_MAX: usize = 1 << 14;

/// What a header says.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    pub(super) kind: i64,
    unpacked: i64,
    /// Bytes that follow the header.
    pub(super) packed: i64,
    pub(super) values: i64,
    pub(super) encoding: i64,
    definition: i64,
    repetition: i64,
    is_compressed: bool,
}

/// One page as it lies in the file.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) header: Header,
    pub(super) bytes: Bytes,
}

/// A column of the schema: its element, and the levels at which something is there.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) element: Element,
    pub(super) kind: Type,
    pub(super) definition: u32,
    pub(super) repetition: u32,
}

impl Header {
    /// Reads a header; with the bytes it takes.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        let mut found = Self {
            is_compressed: true,
            ..Self::default()
        };
        let mut reader = Reader::new(bytes);
        reader.structure(Kind::STRUCT, |reader, id, kind| match id {
            1..=3 => {
                let value = reader.integer(kind)?;
                match id {
                    1 => found.kind = value,
                    2 => found.unpacked = value,
                    _ => found.packed = value,
                }
                Ok(())
            }
            5 | 7 | 8 => found.inner(reader, kind, id == 8),
            _ => reader.skip(kind),
        })?;
        Ok((found, bytes.len() - reader.rest().len()))
    }

    fn inner(&mut self, reader: &mut Reader<'_>, kind: Kind, is_v2: bool) -> Result<(), Malformed> {
        reader.structure(kind, |reader, id, kind| {
            match (id, is_v2) {
                (1, _) => self.values = reader.integer(kind)?,
                (2, false) | (4, true) => self.encoding = reader.integer(kind)?,
                (5, true) => self.definition = reader.integer(kind)?,
                (6, true) => self.repetition = reader.integer(kind)?,
                (7, true) => self.is_compressed = kind == Kind::TRUE,
                _ => reader.skip(kind)?,
            }
            Ok(())
        })
    }
}

/// The entries of a column's first rows, at least so many rows if its pages have them. The error says
/// in words why it is not shown.
pub(super) fn entries(
    leaf: &Leaf,
    codec: i64,
    pages: &[Page],
    rows: usize,
) -> Result<Vec<Entry>, String> {
    let damaged = || "its page contradicts itself".to_owned();
    let mut unpacked = Vec::with_capacity(pages.len());
    for page in pages {
        unpacked.push((&page.header, unpack(page, codec)?));
    }
    let mut dictionary: Vec<Raw<'_>> = Vec::new();
    let mut found = Vec::new();
    for (header, bytes) in &unpacked {
        match header.kind {
            2 => {
                let values = Plain::new(&leaf.element, bytes)?.dictionary(header.values);
                dictionary = values.ok_or("its dictionary is too large to be shown")?;
            }
            0 | 3 => {
                let (repetition, definition, bytes) =
                    levels(leaf, header, bytes).ok_or_else(damaged)?;
                let values = Values::new(header.encoding, &leaf.element, bytes, &dictionary)?;
                let room = Room {
                    rows,
                    entries: ENTRIES_MAX,
                };
                read(
                    leaf,
                    header,
                    (repetition, definition),
                    values,
                    &room,
                    &mut found,
                )?;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What is enough.
struct Room {
    rows: usize,
    entries: usize,
}

pub(super) type Levels<'a> = Option<Hybrid<'a>>;

/// Splits an unpacked page into its levels of repetition and definition, and its values.
pub(super) fn levels<'a>(
    leaf: &Leaf,
    header: &Header,
    bytes: &'a [u8],
) -> Option<(Levels<'a>, Levels<'a>, &'a [u8])> {
    let width = |most: u32| u32::BITS - most.leading_zeros();
    let mut rest = bytes;
    let mut part = |most: u32, length: i64| -> Option<Levels<'a>> {
        let length = match header.kind {
            3 => usize::try_from(length).ok()?,
            _ if most == 0 => 0,
            _ => {
                let (length, behind) = rest.split_first_chunk::<4>()?;
                rest = behind;
                usize::try_from(u32::from_le_bytes(*length)).ok()?
            }
        };
        let (found, behind) = rest.split_at_checked(length)?;
        rest = behind;
        match most {
            0 => Some(None),
            most => Hybrid::new(found, width(most)).map(Some),
        }
    };
    let repetition = part(leaf.repetition, header.repetition)?;
    let definition = part(leaf.definition, header.definition)?;
    Some((repetition, definition, rest))
}

fn read(
    leaf: &Leaf,
    header: &Header,
    (mut repetition, mut definition): (Levels<'_>, Levels<'_>),
    mut values: Values<'_>,
    room: &Room,
    found: &mut Vec<Entry>,
) -> Result<(), String> {
    let damaged = || "its page contradicts itself".to_owned();
    let mut rows = found.iter().filter(|entry| entry.repetition == 0).count();
    for _ in 0..header.values {
        let level = |levels: &mut Levels<'_>, most: u32| match levels {
            None => Ok(most),
            Some(levels) => levels
                .next()
                .filter(|level| *level <= most)
                .ok_or_else(damaged),
        };
        let again = match leaf.repetition {
            0 => 0,
            most => level(&mut repetition, most)?,
        };
        let defined = level(&mut definition, leaf.definition)?;
        rows += usize::from(again == 0);
        // The row behind the last one that is wanted shows that this one is whole.
        if rows > room.rows || found.len() == room.entries {
            break;
        }
        let value = match defined == leaf.definition {
            true => {
                let raw = values.next().ok_or_else(damaged)?;
                Some(shown(&raw, &leaf.kind, &leaf.element))
            }
            false => None,
        };
        found.push(Entry {
            repetition: again,
            definition: defined,
            value,
        });
    }
    Ok(())
}

/// The bytes of a page, without compression (levels of a v2 page come in front of the compressed part).
pub(super) fn unpack(page: &Page, codec: i64) -> Result<Vec<u8>, String> {
    let header = &page.header;
    let limit = u64::try_from(header.unpacked)
        .ok()
        .filter(|size| *size <= PAGE_MAX);
    let limit = limit.ok_or("its first page is too large to be shown")? as usize;
    let plain = match header.kind {
        3 => usize::try_from(header.definition.saturating_add(header.repetition)).ok(),
        _ => Some(0),
    };
    let (levels, packed) = plain
        .and_then(|length| page.bytes.split_at_checked(length))
        .ok_or("its page contradicts itself")?;
    if codec == 0 || (header.kind == 3 && !header.is_compressed) || packed.is_empty() {
        return Ok(page.bytes.to_vec());
    }
    let mut out = levels.to_vec();
    out.extend(inflate(packed, codec, limit.saturating_sub(levels.len()))?);
    Ok(out)
}

fn inflate(packed: &[u8], codec: i64, room: usize) -> Result<Vec<u8>, String> {
    let codec = match codec {
        1 => Codec::Snappy,
        2 => Codec::Gzip,
        6 => Codec::Zstd,
        3 => return Err("it is compressed with LZO, which is not read here".to_owned()),
        4 => return Err("it is compressed with Brotli, which is not read here".to_owned()),
        5 | 7 => return Err("it is compressed with LZ4, which is not read here".to_owned()),
        other => return Err(format!("compression {other} is not read here")),
    };
    unpacked(codec, packed, room)
        .ok_or_else(|| "its page cannot be unpacked, or is longer than it says".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Pages come from whoever can write to the store: no bytes may panic or blow up.
        #[test]
        fn any_page_is_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            codec in 0i64..8, kind in 0i64..4, encoding in 0i64..10, physical in 0i64..8,
            (values, definition, repetition) in (0i64..5000, 0u32..3, 0u32..2),
            levels in (0i64..20, 0i64..20),
        ) {
            let header = Header {
                kind, unpacked: 4096, packed: bytes.len() as i64, values, encoding,
                definition: levels.0, repetition: levels.1, is_compressed: values % 2 == 0,
            };
            let _ = Header::read(&bytes);
            let element = Element { physical: Some(physical), length: 5, ..Element::default() };
            let leaf = Leaf { element, kind: Type::String, definition, repetition };
            let dictionary = Page {
                header: Header { kind: 2, values: 9, ..header.clone() },
                bytes: bytes.clone().into(),
            };
            let page = Page { header, bytes: bytes.into() };
            let _ = entries(&leaf, codec, &[dictionary, page], 20);
        }
    }
}
