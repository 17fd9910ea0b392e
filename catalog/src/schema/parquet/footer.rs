//! The footer of a Parquet file: what is taken from `FileMetaData`, by Thrift field ids.
//!
//! ```text
//! FileMetaData   2 schema: list of SchemaElement, depth first   3 num_rows   4 row_groups
//! SchemaElement  1 type  2 type_length  3 repetition  4 name  5 num_children  6 converted_type
//!                7 scale  8 precision  9 field_id  10 logicalType (union: 1 string 2 map 3 list 4 enum 5 decimal
//!                6 date 7 time 8 timestamp 10 integer 12 json 13 bson 14 uuid 15 float16)
//! RowGroup       1 columns: list of ColumnChunk   3 num_rows
//! ColumnChunk    3 meta_data: 1 type  3 path  4 codec  7 bytes in the file  9 first data page
//!                11 dictionary page  12 statistics (1 max 2 min 3 nulls 5 max_value 6 min_value)
//! ```

use super::thrift::{Kind, Malformed, Reader};
use crate::schema::types::{ColumnRange, Scalar};

type Result<T> = std::result::Result<T, Malformed>;

/// One element of the flattened schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Element {
    pub(super) physical: Option<i64>,
    pub(super) length: i64,
    pub(super) repetition: i64,
    pub(super) name: String,
    pub(super) children: i64,
    pub(super) converted: Option<i64>,
    pub(super) scale: i64,
    pub(super) precision: i64,
    pub(super) logical: Option<Logical>,
    /// Whether its writer gave it a number.
    pub(super) numbered: bool,
}

/// A logical type: which member of the union, and what the members say that we need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Logical {
    pub(super) id: i64,
    pub(super) utc: bool,
    pub(super) bits: i64,
    pub(super) signed: bool,
    pub(super) scale: i64,
    pub(super) precision: i64,
    /// Of times: 1 milliseconds, 2 microseconds, 3 nanoseconds.
    pub(super) unit: i64,
}

/// Where a column of the first row group lies in the file, for who reads its pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) physical: i64,
    pub(super) codec: i64,
    /// Bytes of all its pages.
    pub(super) length: i64,
    /// Offset of its first data page.
    pub(super) data: i64,
    /// Offset of its dictionary page.
    pub(super) dictionary: Option<i64>,
}

/// Everything that is taken from a footer.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    pub(super) elements: Vec<Element>,
    pub(super) rows: i64,
    pub(super) ranges: Vec<ColumnRange>,
    /// Of the first row group, in the order of the schema's leaves.
    pub(super) places: Vec<Place>,
}

/// Most columns whose ranges are kept; wide tables are described by their schema alone.
const RANGES_MAX: usize = 1024;

pub(super) fn parse(bytes: &[u8]) -> Result<Meta> {
    let mut meta = Meta::default();
    let mut groups = 0u64;
    Reader::new(bytes).structure(Kind::STRUCT, |reader, id, kind| match id {
        2 => reader.list(kind, |reader, kind| {
            meta.elements.push(element(reader, kind)?);
            Ok(())
        }),
        3 => {
            meta.rows = reader.integer(kind)?;
            Ok(())
        }
        4 => {
            let (elements, ranges) = (&meta.elements, &mut meta.ranges);
            let places = &mut meta.places;
            reader.list(kind, |reader, kind| {
                groups += 1;
                let places = (groups == 1).then_some(&mut *places);
                row_group(reader, kind, elements, ranges, places)
            })
        }
        _ => reader.skip(kind),
    })?;
    Ok(meta)
}

fn element(reader: &mut Reader<'_>, kind: Kind) -> Result<Element> {
    let mut found = Element::default();
    reader.structure(kind, |reader, id, kind| {
        match id {
            1 => found.physical = Some(reader.integer(kind)?),
            2 => found.length = reader.integer(kind)?,
            3 => found.repetition = reader.integer(kind)?,
            4 => found.name = reader.text(kind)?,
            5 => found.children = reader.integer(kind)?,
            6 => found.converted = Some(reader.integer(kind)?),
            7 => found.scale = reader.integer(kind)?,
            8 => found.precision = reader.integer(kind)?,
            // Less than zero is how some writers say that there is none.
            9 => found.numbered = reader.integer(kind)? >= 0,
            10 => found.logical = Some(logical(reader, kind)?),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(found)
}

fn logical(reader: &mut Reader<'_>, kind: Kind) -> Result<Logical> {
    let mut found = Logical::default();
    reader.structure(kind, |reader, member, kind| {
        found.id = member;
        reader.structure(kind, |reader, id, kind| {
            match (member, id) {
                (5, 1) => found.scale = reader.integer(kind)?,
                (5, 2) => found.precision = reader.integer(kind)?,
                (7 | 8, 1) => found.utc = kind == Kind::TRUE,
                (7 | 8, 2) => reader.structure(kind, |reader, unit, kind| {
                    found.unit = unit;
                    reader.skip(kind)
                })?,
                (10, 1) => found.bits = reader.integer(kind)?,
                (10, 2) => found.signed = kind == Kind::TRUE,
                _ => reader.skip(kind)?,
            }
            Ok(())
        })
    })?;
    Ok(found)
}

fn row_group(
    reader: &mut Reader<'_>,
    kind: Kind,
    elements: &[Element],
    ranges: &mut Vec<ColumnRange>,
    mut places: Option<&mut Vec<Place>>,
) -> Result<()> {
    let mut at = 0;
    reader.structure(kind, |reader, id, kind| match id {
        1 => reader.list(kind, |reader, kind| {
            let (range, place) = column(reader, kind, elements)?;
            let room = places.is_some() && ranges.len() < RANGES_MAX;
            if let Some(places) = &mut places {
                places.push(place);
            }
            match ranges.get_mut(at) {
                Some(known) if known.name == range.name => known.merge(&range),
                None if room => ranges.push(range),
                // Row groups with other columns than the first: nothing holds for all of them.
                Some(known) => (known.min, known.max, known.nulls) = (None, None, None),
                None => {}
            }
            at += 1;
            Ok(())
        }),
        _ => reader.skip(kind),
    })
}

/// Raw statistics of one column of one row group.
#[derive(Default)]
struct Raw<'a> {
    physical: i64,
    path: Vec<String>,
    nulls: Option<i64>,
    old: (Option<&'a [u8]>, Option<&'a [u8]>),
    new: (Option<&'a [u8]>, Option<&'a [u8]>),
}

fn column(
    reader: &mut Reader<'_>,
    kind: Kind,
    elements: &[Element],
) -> Result<(ColumnRange, Place)> {
    let mut raw = Raw::default();
    let mut place = Place::default();
    reader.structure(kind, |reader, id, kind| match id {
        3 => reader.structure(kind, |reader, id, kind| match id {
            1 => {
                raw.physical = reader.integer(kind)?;
                Ok(())
            }
            3 => reader.list(kind, |reader, kind| {
                raw.path.push(reader.text(kind)?);
                Ok(())
            }),
            4 | 7 | 9 | 11 => {
                let value = reader.integer(kind)?;
                match id {
                    4 => place.codec = value,
                    7 => place.length = value,
                    9 => place.data = value,
                    _ => place.dictionary = Some(value),
                }
                Ok(())
            }
            12 => statistics(reader, kind, &mut raw),
            _ => reader.skip(kind),
        }),
        _ => reader.skip(kind),
    })?;
    // Only a column directly under the root has an unambiguous element to tell its order by.
    let element = match raw.path.as_slice() {
        [name] => elements
            .iter()
            .skip(1)
            .find(|element| element.name == *name),
        _ => None,
    };
    let (min, max) = element.map_or((None, None), |element| bounds(&raw, element));
    place.physical = raw.physical;
    let range = ColumnRange {
        name: raw.path.join("."),
        min,
        max,
        nulls: raw.nulls.and_then(|nulls| u64::try_from(nulls).ok()),
    };
    Ok((range, place))
}

fn statistics<'a>(reader: &mut Reader<'a>, kind: Kind, raw: &mut Raw<'a>) -> Result<()> {
    reader.structure(kind, |reader, id, kind| {
        match id {
            1 => raw.old.1 = Some(reader.binary(kind)?),
            2 => raw.old.0 = Some(reader.binary(kind)?),
            3 if kind.is_integer() => raw.nulls = Some(reader.integer(kind)?),
            5 => raw.new.1 = Some(reader.binary(kind)?),
            6 => raw.new.0 = Some(reader.binary(kind)?),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })
}

/// The old statistics were compared as signed numbers whatever the type: they are right for those only.
fn bounds(raw: &Raw<'_>, element: &Element) -> (Option<Scalar>, Option<Scalar>) {
    let unsigned = matches!(element.converted, Some(11..=14))
        || element
            .logical
            .is_some_and(|logical| logical.id == 10 && !logical.signed);
    let text =
        element.converted == Some(0) || element.logical.is_some_and(|logical| logical.id == 1);
    let decimal =
        element.converted == Some(5) || element.logical.is_some_and(|logical| logical.id == 5);
    if unsigned || decimal {
        return (None, None);
    }
    let (min, max) = match raw.physical {
        0..=2 | 4 | 5 => (raw.new.0.or(raw.old.0), raw.new.1.or(raw.old.1)),
        6 if text => raw.new,
        _ => (None, None),
    };
    let scalar = |bytes: &[u8]| scalar(raw.physical, bytes);
    (min.and_then(scalar), max.and_then(scalar))
}

/// Longest text that is kept as a bound; a cut text would be a wrong greatest value.
const TEXT_MAX: usize = 128;

fn scalar(physical: i64, bytes: &[u8]) -> Option<Scalar> {
    Some(match physical {
        0 => Scalar::Bool(*bytes.first()? != 0),
        1 => Scalar::Int(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        2 => Scalar::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        4 => finite(f64::from(f32::from_le_bytes(bytes.try_into().ok()?)))?,
        5 => finite(f64::from_le_bytes(bytes.try_into().ok()?))?,
        6 if bytes.len() <= TEXT_MAX => Scalar::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
        _ => return None,
    })
}

/// A bound that is no number bounds nothing, and JSON cannot write it.
fn finite(value: f64) -> Option<Scalar> {
    value.is_finite().then_some(Scalar::Float(value))
}
