//! The values of single columns of a small Parquet file: what a table format keeps in one.
//!
//! ```text
//! RowGroup       1 columns: ColumnChunk: 3 meta_data: 3 path  4 codec  5 values
//!                7 length  9 first data page  11 dictionary page                          (offsets)
//! ```
//!
//! Row groups are read one by one, and of each the columns that are asked for. What is in their pages,
//! and which of it is read, is said in [`super::page`]. Read are texts and whole numbers.

use bytes::Bytes;

use super::assemble::tree;
use super::footer::{self, Meta};
use super::page::{Header, Leaf, Page, levels, unpack};
use super::thrift::{Kind, Malformed, Reader};
use super::values::{Plain, Raw, Values};
use super::{Problem, footer_bytes};
use crate::upstream::{UpFile, Upstream};

/// Most values of one column in one row group; entries without a value count.
const VALUES_MAX: i64 = 4_000_000;
/// Most bytes of one column in one row group, packed and unpacked.
const BYTES_MAX: usize = 256 << 20;

/// A Parquet file whose columns can be read.
#[derive(Debug)]
pub(crate) struct Table {
    leaves: Vec<Leaf>,
    groups: Vec<Vec<Piece>>,
}

/// The part of a column that lies in one row group.
#[derive(Clone, Debug, Default)]
struct Piece {
    path: Vec<String>,
    codec: i64,
    values: i64,
    length: i64,
    data: i64,
    dictionary: Option<i64>,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A whole number.
    Number(i64),
    /// A text.
    Bytes(Vec<u8>),
}

/// The values of a column in one row group, in order; none for an entry without a value. A column
/// directly in a row has one entry for each row.
pub(crate) type Cells = Vec<Option<Cell>>;

impl Table {
    /// Reads the footer.
    pub(crate) async fn open(upstream: &dyn Upstream, file: &UpFile) -> Result<Self, Problem> {
        let bytes = footer_bytes(upstream, file).await?;
        let damaged = || Problem::damaged(&file.path, "its footer cannot be read");
        let read = |meta: Meta| Some((tree(&meta.elements)?.1, pieces(&bytes).ok()?));
        let (leaves, groups) = footer::parse(&bytes)
            .ok()
            .and_then(read)
            .ok_or_else(damaged)?;
        // The parts of a row group stand in the order of the schema's leaves.
        match groups.iter().all(|group| group.len() == leaves.len()) {
            true => Ok(Self { leaves, groups }),
            false => Err(damaged()),
        }
    }

    /// Number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The values of the column in a row group whose path is `wanted`; none without such a column.
    pub(crate) async fn values(
        &self,
        upstream: &dyn Upstream,
        file: &UpFile,
        group: usize,
        wanted: impl Fn(&[&str]) -> bool,
    ) -> Result<Option<Cells>, Problem> {
        let is_wanted = |(piece, _): &(&Piece, &Leaf)| {
            let path: Vec<&str> = piece.path.iter().map(String::as_str).collect();
            wanted(&path)
        };
        let mut columns = self.groups[group].iter().zip(&self.leaves);
        let Some((piece, leaf)) = columns.find(is_wanted) else {
            return Ok(None);
        };
        let named = |reason: String| {
            let text = format!("column {}: {reason}", piece.path.join("."));
            Problem::damaged(&file.path, text)
        };
        let start = piece.dictionary.unwrap_or(piece.data).min(piece.data);
        let range = u64::try_from(start)
            .ok()
            .zip(u64::try_from(piece.length).ok())
            .and_then(|(start, length)| Some(start..start.checked_add(length)?))
            .filter(|range| range.end <= file.size && !range.is_empty())
            .ok_or_else(|| named("lies outside the file".to_owned()))?;
        if range.end - range.start > BYTES_MAX as u64 {
            return Err(named("is too long to be read".to_owned()));
        }
        let bytes = upstream.read(file, range).await?;
        decode(leaf, piece, bytes).map(Some).map_err(named)
    }
}

/// Where the parts of columns lie, by row groups.
fn pieces(footer: &[u8]) -> Result<Vec<Vec<Piece>>, Malformed> {
    let mut groups = Vec::new();
    Reader::new(footer).structure(Kind::STRUCT, |reader, id, kind| match id {
        4 => reader.list(kind, |reader, kind| {
            let mut group = Vec::new();
            reader.structure(kind, |reader, id, kind| match id {
                1 => reader.list(kind, |reader, kind| {
                    group.push(piece(reader, kind)?);
                    Ok(())
                }),
                _ => reader.skip(kind),
            })?;
            groups.push(group);
            Ok(())
        }),
        _ => reader.skip(kind),
    })?;
    Ok(groups)
}

fn piece(reader: &mut Reader<'_>, kind: Kind) -> Result<Piece, Malformed> {
    let mut piece = Piece::default();
    reader.structure(kind, |reader, id, kind| match id {
        3 => reader.structure(kind, |reader, id, kind| {
            match id {
                3 => reader.list(kind, |reader, kind| {
                    piece.path.push(reader.text(kind)?);
                    Ok(())
                })?,
                4 => piece.codec = reader.integer(kind)?,
                5 => piece.values = reader.integer(kind)?,
                7 => piece.length = reader.integer(kind)?,
                9 => piece.data = reader.integer(kind)?,
                11 => piece.dictionary = Some(reader.integer(kind)?),
                _ => reader.skip(kind)?,
            }
            Ok(())
        }),
        _ => reader.skip(kind),
    })?;
    Ok(piece)
}

/// The entries of all pages of a column in one row group. The error says in words what is not read.
fn decode(leaf: &Leaf, piece: &Piece, mut bytes: Bytes) -> Result<Cells, String> {
    let broken = || "its pages cannot be read".to_owned();
    if !(0..=VALUES_MAX).contains(&piece.values) {
        return Err("has more values than are read".to_owned());
    }
    let (mut pages, mut values, mut room) = (Vec::new(), 0_i64, BYTES_MAX);
    while values < piece.values {
        let (header, length) = Header::read(&bytes).map_err(|_| broken())?;
        let packed = usize::try_from(header.packed).map_err(|_| broken())?;
        let end = length.checked_add(packed).filter(|end| *end <= bytes.len());
        let mut page = bytes.split_to(end.ok_or_else(broken)?);
        drop(page.split_to(length));
        if matches!(header.kind, DATA | DATA_V2) {
            values = values
                .checked_add(header.values.max(0))
                .ok_or_else(broken)?;
        }
        let page = Page {
            header,
            bytes: page,
        };
        let unpacked = unpack(&page, piece.codec)?;
        room = room.checked_sub(unpacked.len()).ok_or_else(broken)?;
        pages.push((page.header, unpacked));
    }
    if values != piece.values {
        return Err(broken());
    }
    let (mut dictionary, mut cells) = (Vec::new(), Cells::new());
    for (header, bytes) in &pages {
        match header.kind {
            DICTIONARY => {
                let found = Plain::new(&leaf.element, bytes)?.dictionary(header.values);
                dictionary = found.ok_or_else(broken)?;
            }
            DATA | DATA_V2 => page_cells(leaf, (header, bytes), &dictionary, &mut cells)?,
            _ => {}
        }
    }
    Ok(cells)
}

/// Kinds of pages.
const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;

/// Adds the entries of a page. Which row an entry belongs to is not asked: who reads a repeated column
/// takes all of its entries.
fn page_cells(
    leaf: &Leaf,
    (header, bytes): (&Header, &[u8]),
    dictionary: &[Raw<'_>],
    cells: &mut Cells,
) -> Result<(), String> {
    let broken = || "its pages cannot be read".to_owned();
    let (_, mut definition, bytes) = levels(leaf, header, bytes).ok_or_else(broken)?;
    // A page without a value may have no bytes of values either.
    let mut values = match bytes.is_empty() {
        true => None,
        false => Some(Values::new(
            header.encoding,
            &leaf.element,
            bytes,
            dictionary,
        )?),
    };
    for _ in 0..header.values {
        let level = match &mut definition {
            None => leaf.definition,
            Some(levels) => levels.next().ok_or_else(broken)?,
        };
        let value = match level == leaf.definition {
            true => Some(
                values
                    .as_mut()
                    .and_then(Iterator::next)
                    .ok_or_else(broken)?,
            ),
            false => None,
        };
        let cell = value.map(|value| match value {
            Raw::Int(number) => Ok(Cell::Number(number)),
            Raw::Bytes(bytes) => Ok(Cell::Bytes(bytes.into_owned())),
            Raw::Bool(_) | Raw::Float(_) => Err("has values of a type that is not read".to_owned()),
        });
        cells.push(cell.transpose()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::types::Type;

    proptest! {
        // Footers and pages come from whoever can write to the store: no bytes may panic or blow up.
        #[test]
        fn any_column_is_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), codec in 0_i64..8, physical in 0_i64..8,
        ) {
            let _ = pieces(&bytes);
            let element = footer::Element { physical: Some(physical), ..footer::Element::default() };
            let leaf = Leaf { element, kind: Type::String, definition: 2, repetition: 1 };
            let piece = Piece { codec, values: 50, ..Piece::default() };
            let _ = decode(&leaf, &piece, Bytes::from(bytes));
        }
    }
}
