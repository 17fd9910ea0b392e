//! Single values: read from directories and statistics, written as the specification's appendix D says.

use std::sync::Arc;

use super::avro::Encoder;
use super::shape::Primitive;
use crate::schema::Scalar;

/// A value of a column. Values of one column are of one kind and compare as the column does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Datum {
    Boolean(bool),
    Int(i32),
    Long(i64),
    /// By its bytes: UTF-8 keeps the order of characters.
    Text(Arc<str>),
}

/// Whether directories can tell values of this type.
pub(super) fn is_readable(kind: Primitive) -> bool {
    avro_type(kind).is_some()
}

/// The type of a partition value in a manifest.
pub(super) fn avro_type(kind: Primitive) -> Option<&'static str> {
    Some(match kind {
        Primitive::Boolean => r#""boolean""#,
        Primitive::Int => r#""int""#,
        Primitive::Long => r#""long""#,
        Primitive::Date => r#"{"type":"int","logicalType":"date"}"#,
        Primitive::String => r#""string""#,
        _ => return None,
    })
}

impl Datum {
    /// The value that a directory's name spells; none when it is no value of that type.
    pub(super) fn read(kind: Primitive, text: &Arc<str>) -> Option<Self> {
        Some(match kind {
            Primitive::Boolean => Self::Boolean(text.to_ascii_lowercase().parse().ok()?),
            Primitive::Int => Self::Int(text.parse().ok()?),
            Primitive::Long => Self::Long(text.parse().ok()?),
            Primitive::Date => Self::Int(days(text)?),
            Primitive::String => Self::Text(Arc::clone(text)),
            _ => return None,
        })
    }

    /// A bound that statistics tell; none for types whose statistics say less than they seem to.
    pub(super) fn bound(kind: Primitive, scalar: &Scalar) -> Option<Self> {
        Some(match (kind, scalar) {
            (Primitive::Boolean, Scalar::Bool(value)) => Self::Boolean(*value),
            (Primitive::Int | Primitive::Date, Scalar::Int(value)) => {
                Self::Int(i32::try_from(*value).ok()?)
            }
            // Times are left out: their unit is that of the file, and the table's is another one.
            (Primitive::Long, Scalar::Int(value)) => Self::Long(*value),
            (Primitive::String, Scalar::Text(value)) => Self::Text(value.as_str().into()),
            _ => return None,
        })
    }

    /// As a bound.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Boolean(value) => vec![u8::from(*value)],
            Self::Int(value) => value.to_le_bytes().to_vec(),
            Self::Long(value) => value.to_le_bytes().to_vec(),
            Self::Text(value) => value.as_bytes().to_vec(),
        }
    }

    /// As a value of a partition.
    pub(super) fn put(&self, out: &mut Encoder) {
        match self {
            Self::Boolean(value) => out.boolean(*value),
            Self::Int(value) => out.long(i64::from(*value)),
            Self::Long(value) => out.long(*value),
            Self::Text(value) => out.bytes(value.as_bytes()),
        }
    }
}

/// Days since 1970 of `2026-11-20`.
fn days(text: &str) -> Option<i32> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let good = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i64>().ok().filter(|_| good)
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let of_days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    i32::try_from(era * 146_097 + of_days - 719_468).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A value that is read wrongly puts a partition where no query looks for it.
    #[test]
    fn directories_tell_values() {
        let read = |kind, text: &str| Datum::read(kind, &Arc::from(text));
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2026-11-20", Some(20_777)),
            ("2026-1-20", None),
            ("2026-13-01", None),
            ("20261120", None),
        ] {
            assert_eq!(
                read(Primitive::Date, text),
                expected.map(Datum::Int),
                "{text}"
            );
        }
        assert_eq!(read(Primitive::Int, "007"), Some(Datum::Int(7)));
        assert_eq!(read(Primitive::Int, "3000000000"), None);
        assert_eq!(read(Primitive::Boolean, "True"), Some(Datum::Boolean(true)));
        assert_eq!(read(Primitive::Double, "1.5"), None);
        assert_eq!(Datum::Int(-2).bytes(), [0xfe, 0xff, 0xff, 0xff]);
    }
}
