//! Columns from the flattened schema of a footer, by the rules of Parquet's logical types.

use super::footer::Element;
use crate::schema::types::{Field, Schema, Type};

/// Deepest nesting of columns that is followed.
const DEPTH_MAX: usize = 64;

/// The columns; none when the flattened tree contradicts itself.
pub(super) fn schema(elements: &[Element]) -> Option<Schema> {
    let (root, mut rest) = elements.split_first()?;
    let fields = children(root.children, &mut rest, 0)?;
    rest.is_empty().then_some(Schema { fields })
}

fn children(count: i64, rest: &mut &[Element], depth: usize) -> Option<Vec<Field>> {
    if depth > DEPTH_MAX || count < 0 || count > rest.len() as i64 {
        return None;
    }
    (0..count).map(|_| field(rest, depth)).collect()
}

fn field(rest: &mut &[Element], depth: usize) -> Option<Field> {
    let (element, behind) = rest.split_first()?;
    *rest = behind;
    let nullable = element.repetition != 0;
    let data_type = if element.children > 0 {
        group(element, children(element.children, rest, depth + 1)?)
    } else {
        leaf(element)
    };
    // A repeated field without a list around it is one, in files of the first writers.
    if element.repetition == 2 && depth == 0 {
        let inner = Field {
            name: "element".to_owned(),
            data_type,
            nullable: false,
        };
        return Some(Field {
            name: element.name.clone(),
            data_type: Type::List(Box::new(inner)),
            nullable: false,
        });
    }
    Some(Field {
        name: element.name.clone(),
        data_type,
        nullable,
    })
}

/// A group is a list, a map (each with a repeated group in the middle) or a structure.
fn group(element: &Element, mut fields: Vec<Field>) -> Type {
    let logical = element.logical.map_or(0, |logical| logical.id);
    let is_list = logical == 3 || element.converted == Some(3);
    let is_map = logical == 2 || matches!(element.converted, Some(1 | 2));
    if fields.len() != 1 || !(is_list || is_map) {
        return Type::Struct(fields);
    }
    let middle = fields.remove(0);
    match middle.data_type {
        Type::Struct(mut inner) if is_list && inner.len() == 1 => {
            Type::List(Box::new(inner.remove(0)))
        }
        Type::Struct(mut inner) if is_map && inner.len() == 2 => {
            let value = Box::new(inner.remove(1));
            Type::Map {
                key: Box::new(inner.remove(0)),
                value,
            }
        }
        data_type if is_list => Type::List(Box::new(Field {
            name: middle.name,
            data_type,
            nullable: false,
        })),
        data_type => Type::Struct(vec![Field {
            data_type,
            ..middle
        }]),
    }
}

pub(super) fn leaf(element: &Element) -> Type {
    if let Some(found) = logical(element).or_else(|| converted(element)) {
        return found;
    }
    match element.physical {
        Some(0) => Type::Boolean,
        Some(1) => Type::Int32,
        Some(2) => Type::Int64,
        // The deprecated 96-bit integer has only ever been a timestamp of Impala, Hive and Spark.
        Some(3) => Type::Timestamptz,
        Some(4) => Type::Float32,
        Some(5) => Type::Float64,
        Some(6) => Type::Binary,
        Some(7) => Type::Fixed(u32::try_from(element.length).unwrap_or(0)),
        Some(other) => Type::Unknown(format!("parquet type {other}")),
        None => Type::Struct(Vec::new()),
    }
}

fn logical(element: &Element) -> Option<Type> {
    let logical = element.logical?;
    Some(match logical.id {
        1 | 4 | 12 => Type::String,
        5 => decimal(logical.precision, logical.scale),
        6 => Type::Date,
        7 => Type::Time,
        8 if logical.utc => Type::Timestamptz,
        8 => Type::Timestamp,
        10 => integer(logical.bits, logical.signed)?,
        13 => Type::Binary,
        14 => Type::Uuid,
        15 => Type::Float16,
        _ => return None,
    })
}

fn converted(element: &Element) -> Option<Type> {
    Some(match element.converted? {
        0 | 4 | 19 => Type::String,
        5 => decimal(element.precision, element.scale),
        6 => Type::Date,
        7 | 8 => Type::Time,
        9 | 10 => Type::Timestamptz,
        11 => Type::Uint8,
        12 => Type::Uint16,
        13 => Type::Uint32,
        14 => Type::Uint64,
        15 => Type::Int8,
        16 => Type::Int16,
        17 => Type::Int32,
        18 => Type::Int64,
        20 => Type::Binary,
        _ => return None,
    })
}

fn decimal(precision: i64, scale: i64) -> Type {
    Type::Decimal {
        precision: u32::try_from(precision).unwrap_or(0),
        scale: i32::try_from(scale).unwrap_or(0),
    }
}

fn integer(bits: i64, signed: bool) -> Option<Type> {
    Some(match (bits, signed) {
        (8, true) => Type::Int8,
        (16, true) => Type::Int16,
        (32, true) => Type::Int32,
        (64, true) => Type::Int64,
        (8, false) => Type::Uint8,
        (16, false) => Type::Uint16,
        (32, false) => Type::Uint32,
        (64, false) => Type::Uint64,
        _ => return None,
    })
}
