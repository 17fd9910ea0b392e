//! Footers of ORC files: rows and columns, by one ranged read of the file's end, rarely two.
//!
//! ```text
//! file        "ORC" ... footer  postscript  length of the postscript (u8)
//! postscript  1 footer length   2 codec   8000 "ORC"                        never compressed
//! footer      4 types, in the order of a walk over the tree   6 rows        in compressed pieces
//! type        1 kind   2 subtypes   3 names of fields   5 precision   6 scale
//! piece       length << 1 | is plain (u24 LE)   bytes
//! ```
//!
//! From the format's specification (`orc_proto.proto`); real writers are held against it in the tests.
//! Statistics of columns are not taken from here: ORC files have no ranges.

use super::Problem;
use super::parquet::Footer;
use super::protobuf::{Malformed, Value, message};
use super::types::{Field, Schema, Type};
use super::unpack::{Codec, unpack};
use crate::upstream::{UpFile, Upstream};

/// The first read of a file's end: holds the footer of nearly every file.
const TAIL: u64 = 64 << 10;
/// Longest footer, packed and unpacked.
const FOOTER_MAX: usize = 64 << 20;
/// Deepest nesting of columns that is followed.
const DEPTH_MAX: usize = 64;

/// Reads the footer of a file. `Damaged` for whatever is not a complete ORC file.
pub(super) async fn read_footer(upstream: &dyn Upstream, file: &UpFile) -> Result<Footer, Problem> {
    let damaged = |reason: &str| Problem::damaged(&file.path, reason);
    let start = file.size.saturating_sub(TAIL);
    if file.size < 5 {
        return Err(damaged("too short for an ORC file"));
    }
    let tail = upstream.read(file, start..file.size).await?;
    let script = postscript(&tail)
        .ok_or_else(|| damaged("does not end as an ORC file does: incomplete or damaged"))?;
    let end = file.size - script.length;
    if script.footer > end || script.footer > FOOTER_MAX as u64 {
        return Err(damaged("its footer has an impossible length"));
    }
    let codec = script.codec.ok_or_else(|| {
        damaged("its footer is compressed in a way that is not read (LZO or LZ4)")
    })?;
    let range = end - script.footer..end;
    let packed = match usize::try_from(range.start.wrapping_sub(start)) {
        Ok(at) if range.start >= start => tail.slice(at..at + script.footer as usize),
        _ => upstream.read(file, range).await?,
    };
    let footer = pieces(codec, &packed).and_then(|bytes| parse(&bytes).ok().flatten());
    footer.ok_or_else(|| damaged("its footer cannot be read"))
}

/// What the end of a file says about its footer.
struct Postscript {
    /// Bytes of the footer, packed.
    footer: u64,
    /// None for one that is not read here.
    codec: Option<Codec>,
    /// Its own bytes, with the last one.
    length: u64,
}

fn postscript(tail: &[u8]) -> Option<Postscript> {
    let (length, rest) = tail.split_last()?;
    let at = rest.len().checked_sub(usize::from(*length))?;
    let (mut footer, mut codec, mut is_orc) = (0, 0, false);
    let read = message(&rest[at..], |field, value| {
        match field {
            1 => footer = value.number(),
            2 => codec = value.number(),
            8000 => is_orc = value.bytes() == b"ORC",
            _ => {}
        }
        Ok(())
    });
    (read.is_ok() && is_orc).then_some(Postscript {
        footer,
        codec: match codec {
            0 => Some(Codec::Plain),
            1 => Some(Codec::Deflate),
            2 => Some(Codec::Snappy),
            5 => Some(Codec::Zstd),
            _ => None,
        },
        length: u64::from(*length) + 1,
    })
}

/// Joins the pieces of a packed stream.
fn pieces(codec: Codec, mut packed: &[u8]) -> Option<Vec<u8>> {
    if codec == Codec::Plain {
        return Some(packed.to_vec());
    }
    let mut whole = Vec::new();
    while let Some((head, rest)) = packed.split_first_chunk::<3>() {
        let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let (piece, rest) = rest.split_at_checked((head >> 1) as usize)?;
        let codec = if head & 1 == 1 { Codec::Plain } else { codec };
        whole.extend(unpack(codec, piece, FOOTER_MAX.checked_sub(whole.len())?)?);
        packed = rest;
    }
    packed.is_empty().then_some(whole)
}

/// One node of the flattened tree of types.
#[derive(Default)]
struct Node {
    kind: u64,
    below: Vec<u64>,
    names: Vec<String>,
    precision: u64,
    scale: u64,
}

/// None when the types contradict each other.
fn parse(bytes: &[u8]) -> Result<Option<Footer>, Malformed> {
    let (mut nodes, mut rows) = (Vec::new(), 0);
    message(bytes, |field, value| {
        match field {
            4 => nodes.push(node(value)?),
            6 => rows = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    let mut next = 0;
    let root = data_type(&nodes, 0, &mut next, 0);
    Ok(match root {
        Some(Type::Struct(fields)) if next == nodes.len() as u64 => Some(Footer {
            schema: Schema { fields },
            rows,
            ranges: Vec::new(),
            numbered: false,
        }),
        _ => None,
    })
}

fn node(value: Value<'_>) -> Result<Node, Malformed> {
    let mut node = Node::default();
    message(value.bytes(), |field, value| {
        match field {
            1 => node.kind = value.number(),
            2 => value.numbers(&mut node.below)?,
            3 => {
                let name = String::from_utf8_lossy(value.bytes());
                node.names.push(name.into_owned());
            }
            5 => node.precision = value.number(),
            6 => node.scale = value.number(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

/// The type of a node. The nodes stand in the order of this walk, so each is met once: a tree that says
/// otherwise could grow without end.
fn data_type(nodes: &[Node], at: u64, next: &mut u64, depth: usize) -> Option<Type> {
    if at != *next || depth > DEPTH_MAX {
        return None;
    }
    *next += 1;
    let node = nodes.get(usize::try_from(at).ok()?)?;
    let mut below = |position: usize, name: &str| {
        let data_type = data_type(nodes, *node.below.get(position)?, next, depth + 1)?;
        Some(Field {
            name: name.to_owned(),
            data_type,
            nullable: true,
        })
    };
    Some(match node.kind {
        0 => Type::Boolean,
        1 => Type::Int8,
        2 => Type::Int16,
        3 => Type::Int32,
        4 => Type::Int64,
        5 => Type::Float32,
        6 => Type::Float64,
        7 | 16 | 17 => Type::String,
        8 => Type::Binary,
        9 => Type::Timestamp,
        10 => Type::List(Box::new(below(0, "element")?)),
        11 => {
            let key = below(0, "key")?;
            Type::Map {
                key: Box::new(Field {
                    nullable: false,
                    ..key
                }),
                value: Box::new(below(1, "value")?),
            }
        }
        12 if node.names.len() == node.below.len() => {
            let fields = node.names.iter().enumerate();
            let fields = fields.map(|(position, name)| below(position, name));
            Type::Struct(fields.collect::<Option<_>>()?)
        }
        13 => {
            for position in 0..node.below.len() {
                below(position, "")?;
            }
            Type::Unknown("orc union".to_owned())
        }
        14 => Type::Decimal {
            precision: u32::try_from(node.precision).ok()?,
            scale: i32::try_from(node.scale).ok()?,
        },
        15 => Type::Date,
        18 => Type::Timestamptz,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // A footer comes from whoever can write to the store: no bytes may panic or blow up.
        #[test]
        fn any_footer_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = postscript(&bytes);
            let _ = parse(&bytes);
            for codec in [Codec::Snappy, Codec::Deflate, Codec::Zstd] {
                let _ = pieces(codec, &bytes);
            }
        }
    }

    // Types that name each other in a circle, or one type a thousand times, would never end.
    #[test]
    fn a_tree_of_types_is_walked_once() {
        // Two fields of the root, both the second type.
        let twice = [
            0x22, 0x0c, 0x08, 12, 0x12, 2, 1, 1, 0x1a, 1, b'a', 0x1a, 1, b'b', 0x22, 2, 0x08, 4,
        ];
        assert_eq!(parse(&twice), Ok(None));
        // A list of itself.
        assert_eq!(parse(&[0x22, 5, 0x08, 10, 0x12, 1, 0]), Ok(None));
        // A struct of one number.
        let one = [
            0x22, 0x08, 0x08, 12, 0x12, 1, 1, 0x1a, 1, b'a', 0x22, 2, 0x08, 4, 0x30, 7,
        ];
        let footer = parse(&one).ok().flatten();
        assert!(footer.is_some_and(|footer| footer.rows == 7 && footer.schema.fields.len() == 1));
    }
}
