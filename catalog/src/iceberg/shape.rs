//! Types of columns as Iceberg has them, and which file can be read as which column.
//!
//! | of a file | of the table |
//! | --- | --- |
//! | 8 to 32 bits signed, 8 and 16 unsigned | `int` |
//! | 64 bits signed, 32 unsigned | `long` |
//! | decimals up to 38 digits, texts, times, nested columns | the same |
//! | 64 bits unsigned, 16-bit floats, types nobody here names | none: the column is not in the table |
//!
//! A file's column may be read as a wider one (`int` as `long`, `float` as `double`, more digits of a
//! decimal), which is all that the specification's version 2 allows.

use std::fmt;
use std::str::FromStr;

use crate::schema::{Field, Type};

/// Most digits of a decimal.
const DIGITS_MAX: u32 = 38;

/// A type without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Primitive {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Decimal { precision: u32, scale: u32 },
    Date,
    Time,
    Timestamp,
    Timestamptz,
    String,
    Binary,
    Fixed(u32),
    Uuid,
}

/// A type, without numbers and names of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Primitive(Primitive),
    List(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

/// The shape of a type; none when the format has nothing like it.
pub(super) fn shape(of: &Type) -> Option<Shape> {
    let primitive = match of {
        Type::Boolean => Primitive::Boolean,
        Type::Int8 | Type::Int16 | Type::Int32 | Type::Uint8 | Type::Uint16 => Primitive::Int,
        Type::Int64 | Type::Uint32 => Primitive::Long,
        Type::Float32 => Primitive::Float,
        Type::Float64 => Primitive::Double,
        Type::Decimal { precision, scale } => {
            let scale = u32::try_from(*scale).ok()?;
            if !(1..=DIGITS_MAX).contains(precision) || scale > *precision {
                return None;
            }
            let precision = *precision;
            Primitive::Decimal { precision, scale }
        }
        Type::Date => Primitive::Date,
        Type::Time => Primitive::Time,
        Type::Timestamp => Primitive::Timestamp,
        Type::Timestamptz => Primitive::Timestamptz,
        Type::String => Primitive::String,
        Type::Binary => Primitive::Binary,
        Type::Fixed(length) => Primitive::Fixed(*length),
        Type::Uuid => Primitive::Uuid,
        Type::List(element) => {
            return Some(Shape::List(Box::new(shape(&element.data_type)?)));
        }
        Type::Map { key, value } => {
            let (key, value) = (shape(&key.data_type)?, shape(&value.data_type)?);
            return Some(Shape::Map(Box::new(key), Box::new(value)));
        }
        Type::Struct(fields) => return structure(fields).map(Shape::Struct),
        Type::Uint64 | Type::Float16 | Type::Unknown(_) => return None,
    };
    Some(Shape::Primitive(primitive))
}

/// A structure whose parts all have a shape: what could not be read of it would be read as absent.
fn structure(fields: &[Field]) -> Option<Vec<(String, Shape)>> {
    let parts = fields
        .iter()
        .map(|field| Some((field.name.clone(), shape(&field.data_type)?)));
    parts
        .collect::<Option<Vec<_>>>()
        .filter(|parts| !parts.is_empty())
}

impl Primitive {
    /// Whether a file's column of this type can be read as one of `table`.
    fn reads_as(self, table: Self) -> bool {
        match (self, table) {
            (own, table) if own == table => true,
            (Self::Int, Self::Long) | (Self::Float, Self::Double) => true,
            (
                Self::Decimal { precision, scale },
                Self::Decimal {
                    precision: wider,
                    scale: same,
                },
            ) => scale == same && precision <= wider,
            _ => false,
        }
    }
}

impl Shape {
    /// Whether a file's column of this shape can be read as one of `table`. Parts that the table does
    /// not have are not read; parts that the file does not have are absent.
    pub(super) fn reads_as(&self, table: &Self) -> bool {
        match (self, table) {
            (Self::Primitive(own), Self::Primitive(table)) => own.reads_as(*table),
            (Self::List(own), Self::List(table)) => own.reads_as(table),
            (Self::Map(key, value), Self::Map(table_key, table_value)) => {
                key.reads_as(table_key) && value.reads_as(table_value)
            }
            (Self::Struct(own), Self::Struct(table)) => own.iter().all(|(name, shape)| {
                let same = table.iter().find(|(other, _)| other == name);
                same.is_none_or(|(_, table)| shape.reads_as(table))
            }),
            _ => false,
        }
    }

    /// What tells this column from another one of the same path: its type without its parts.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Primitive(primitive) => primitive.to_string(),
            Self::List(_) => "list".to_owned(),
            Self::Map(..) => "map".to_owned(),
            Self::Struct(_) => "struct".to_owned(),
        }
    }

    /// Whether a column of that kind is this one: the same, or wider or narrower.
    pub(super) fn is_kind(&self, kind: &str) -> bool {
        let Self::Primitive(own) = self else {
            return self.kind() == kind;
        };
        let other = kind.parse::<Primitive>();
        other.is_ok_and(|other| own.reads_as(other) || other.reads_as(*own))
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Timestamptz => f.write_str("timestamptz"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Fixed(length) => write!(f, "fixed[{length}]"),
            Self::Uuid => f.write_str("uuid"),
        }
    }
}

/// No type is written so.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoType;

impl FromStr for Primitive {
    type Err = NoType;

    fn from_str(text: &str) -> Result<Self, NoType> {
        let within = |head: &str, end: char| text.strip_prefix(head)?.strip_suffix(end);
        if let Some(length) = within("fixed[", ']') {
            return length.parse().map(Self::Fixed).map_err(|_| NoType);
        }
        if let Some(digits) = within("decimal(", ')') {
            let (precision, scale) = digits.split_once(',').ok_or(NoType)?;
            let number = |text: &str| text.trim().parse().map_err(|_| NoType);
            return Ok(Self::Decimal {
                precision: number(precision)?,
                scale: number(scale)?,
            });
        }
        Ok(match text {
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "date" => Self::Date,
            "time" => Self::Time,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "string" => Self::String,
            "binary" => Self::Binary,
            "uuid" => Self::Uuid,
            _ => return Err(NoType),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A promotion that the format does not have makes readers fail in the middle of a scan, or read
    // other values than were written.
    #[test]
    fn only_wider_columns_read_older_files() {
        let of = |of: &Type| shape(of).unwrap();
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        let cases = [
            (Type::Int8, Type::Int32, true),
            (Type::Int32, Type::Int64, true),
            (Type::Int64, Type::Int32, false),
            (Type::Float32, Type::Float64, true),
            (Type::Int32, Type::Float64, false),
            (Type::Date, Type::Timestamp, false),
            (decimal(9, 2), decimal(12, 2), true),
            (decimal(9, 2), decimal(12, 3), false),
            (Type::Int32, Type::String, false),
        ];
        for (file, table, expected) in cases {
            assert_eq!(
                of(&file).reads_as(&of(&table)),
                expected,
                "{file:?} {table:?}"
            );
        }
        for none in [Type::Uint64, Type::Float16, decimal(39, 0), decimal(2, -1)] {
            assert!(shape(&none).is_none(), "{none:?}");
        }
    }

    // Kinds are stored for ever: another spelling would give every column another number.
    #[test]
    fn kinds_are_read_as_they_were_written() {
        let all = [
            Primitive::Boolean,
            Primitive::Int,
            Primitive::Long,
            Primitive::Float,
            Primitive::Double,
            Primitive::Decimal {
                precision: 9,
                scale: 2,
            },
            Primitive::Date,
            Primitive::Time,
            Primitive::Timestamp,
            Primitive::Timestamptz,
            Primitive::String,
            Primitive::Binary,
            Primitive::Fixed(16),
            Primitive::Uuid,
        ];
        for one in all {
            assert_eq!(one.to_string().parse::<Primitive>().unwrap(), one);
            assert!(Shape::Primitive(one).is_kind(&one.to_string()));
        }
        assert!("decimal(9)".parse::<Primitive>().is_err());
        assert!(!Shape::Primitive(Primitive::Int).is_kind("struct"));
        assert!(Shape::Primitive(Primitive::Int).is_kind("long"));
    }
}
