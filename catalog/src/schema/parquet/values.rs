//! What the encodings of a page hold, value by value, and what a value is for people.
//!
//! Values are borrowed from the page; every reader ends where its bytes end. An encoding or type that is
//! not known here is an error in words, and never a guess.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::delta::Delta;
use super::footer::Element;
use super::hybrid::Hybrid;
use crate::calendar::date;
use crate::schema::types::Type;

/// Most values of a dictionary or of a list of lengths: pages of usual writers have a tenth of that.
const LENGTHS_MAX: u64 = 1 << 19;

/// JSON readers keep integers exactly up to here.
const EXACT: i64 = 1 << 53;

/// Bytes of a binary value that are shown.
const BINARY_SHOWN: usize = 32;

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Cow<'a, [u8]>),
}

/// The values of a page.
#[derive(Debug)]
pub(super) enum Values<'a> {
    Plain(Plain<'a>),
    /// Indexes into the dictionary.
    Indexes(Hybrid<'a>, &'a [Raw<'a>]),
    Bools(Hybrid<'a>),
    Integers(Delta<'a>),
    /// Lengths first, then the bytes of all values.
    Lengths(std::vec::IntoIter<i64>, &'a [u8]),
    /// Each value begins with a part of the one before.
    Prefixes(std::vec::IntoIter<i64>, Box<Values<'a>>, Vec<u8>),
    /// The first bytes of all values, then the second ones, and so on.
    Split {
        bytes: &'a [u8],
        at: usize,
        physical: i64,
        width: usize,
    },
}

impl<'a> Values<'a> {
    /// Reads `bytes` by an encoding's number. The error says what is not read.
    pub(super) fn new(
        encoding: i64,
        element: &Element,
        bytes: &'a [u8],
        dictionary: &'a [Raw<'a>],
    ) -> Result<Self, String> {
        let physical = element.physical.unwrap_or(-1);
        let damaged = || "its page contradicts itself".to_owned();
        Ok(match encoding {
            0 => Self::Plain(Plain::new(element, bytes)?),
            2 | 8 => {
                let (width, rest) = bytes.split_first().ok_or_else(damaged)?;
                let indexes = Hybrid::new(rest, u32::from(*width)).ok_or_else(damaged)?;
                Self::Indexes(indexes, dictionary)
            }
            3 => {
                let (_, rest) = bytes.split_at_checked(4).ok_or_else(damaged)?;
                Self::Bools(Hybrid::new(rest, 1).ok_or_else(damaged)?)
            }
            5 => Self::Integers(Delta::new(bytes).ok_or_else(damaged)?),
            6 => Self::lengths(bytes).ok_or_else(damaged)?,
            7 => {
                let (prefixes, rest) = lengths(bytes).ok_or_else(damaged)?;
                let suffixes = Self::lengths(rest).ok_or_else(damaged)?;
                Self::Prefixes(prefixes, Box::new(suffixes), Vec::new())
            }
            9 => Self::Split {
                bytes,
                at: 0,
                physical,
                width: width_of(element).ok_or_else(damaged)?,
            },
            other => return Err(format!("encoding {other} is not read here")),
        })
    }

    fn lengths(bytes: &'a [u8]) -> Option<Self> {
        let (found, rest) = lengths(bytes)?;
        Some(Self::Lengths(found, rest))
    }
}

fn lengths(bytes: &[u8]) -> Option<(std::vec::IntoIter<i64>, &[u8])> {
    let mut delta = Delta::new(bytes)?;
    if delta.left() > LENGTHS_MAX {
        return None;
    }
    let found: Vec<i64> = delta.by_ref().collect();
    Some((found.into_iter(), delta.rest()))
}

impl<'a> Iterator for Values<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        match self {
            Self::Plain(plain) => plain.next(),
            Self::Indexes(indexes, dictionary) => dictionary.get(indexes.next()? as usize).cloned(),
            Self::Bools(bits) => Some(Raw::Bool(bits.next()? != 0)),
            Self::Integers(delta) => delta.next().map(Raw::Int),
            Self::Lengths(lengths, bytes) => {
                let length = usize::try_from(lengths.next()?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                Some(Raw::Bytes(Cow::Borrowed(value)))
            }
            Self::Prefixes(prefixes, suffixes, last) => {
                let kept = usize::try_from(prefixes.next()?).ok()?;
                let Some(Raw::Bytes(suffix)) = suffixes.next() else {
                    return None;
                };
                if kept > last.len() {
                    return None;
                }
                last.truncate(kept);
                last.extend_from_slice(&suffix);
                Some(Raw::Bytes(Cow::Owned(last.clone())))
            }
            Self::Split {
                bytes,
                at,
                physical,
                width,
            } => {
                let count = bytes.len() / *width;
                if *at >= count {
                    return None;
                }
                let value: Vec<u8> = (0..*width).map(|part| bytes[part * count + *at]).collect();
                *at += 1;
                match fixed(*physical, &value)? {
                    Raw::Bytes(_) => Some(Raw::Bytes(Cow::Owned(value))),
                    Raw::Bool(value) => Some(Raw::Bool(value)),
                    Raw::Int(value) => Some(Raw::Int(value)),
                    Raw::Float(value) => Some(Raw::Float(value)),
                }
            }
        }
    }
}

/// Values one after the other, as they are.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    physical: i64,
    width: Option<usize>,
    bytes: &'a [u8],
    bit: u64,
}

impl<'a> Plain<'a> {
    pub(super) fn new(element: &Element, bytes: &'a [u8]) -> Result<Self, String> {
        let physical = element.physical.unwrap_or(-1);
        let width = width_of(element);
        if width.is_none() && !matches!(physical, 0 | 6) {
            return Err(format!("its type {physical} is not read here"));
        }
        Ok(Self {
            physical,
            width,
            bytes,
            bit: 0,
        })
    }

    /// The values of a dictionary's page. None when there are more than a dictionary may have.
    pub(super) fn dictionary(self, values: i64) -> Option<Vec<Raw<'a>>> {
        let count = u64::try_from(values)
            .ok()
            .filter(|count| *count <= LENGTHS_MAX)?;
        Some(self.take(usize::try_from(count).ok()?).collect())
    }
}

impl<'a> Iterator for Plain<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        if self.physical == 0 {
            let value = super::hybrid::bits(self.bytes, self.bit, 1)?;
            self.bit += 1;
            return Some(Raw::Bool(value != 0));
        }
        let width = match self.width {
            Some(width) => width,
            None => {
                let (length, rest) = self.bytes.split_first_chunk::<4>()?;
                self.bytes = rest;
                usize::try_from(u32::from_le_bytes(*length)).ok()?
            }
        };
        let (value, rest) = self.bytes.split_at_checked(width)?;
        self.bytes = rest;
        fixed(self.physical, value)
    }
}

/// Bytes of a value whose type has a fixed number of them.
fn width_of(element: &Element) -> Option<usize> {
    match element.physical? {
        1 | 4 => Some(4),
        2 | 5 => Some(8),
        3 => Some(12),
        7 => usize::try_from(element.length)
            .ok()
            .filter(|width| *width > 0),
        _ => None,
    }
}

fn fixed(physical: i64, bytes: &[u8]) -> Option<Raw<'_>> {
    Some(match physical {
        1 => Raw::Int(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        2 => Raw::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        4 => Raw::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        5 => Raw::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => Raw::Bytes(Cow::Borrowed(bytes)),
    })
}

/// What a value is for people, by the type of its column.
pub(super) fn shown(raw: &Raw<'_>, kind: &Type, element: &Element) -> Value {
    match (kind, raw) {
        (_, Raw::Bool(value)) => Value::Bool(*value),
        (Type::Date, Raw::Int(days)) => Value::String(date(*days)),
        (Type::Time, Raw::Int(value)) => Value::String(time(*value, unit(element))),
        (Type::Timestamp, Raw::Int(value)) => Value::String(moment(*value, unit(element), "")),
        (Type::Timestamptz, Raw::Int(value)) => Value::String(moment(*value, unit(element), "Z")),
        (Type::Timestamptz, Raw::Bytes(bytes)) => julian(bytes),
        (Type::Decimal { scale, .. }, Raw::Int(value)) => decimal(i128::from(*value), *scale),
        (Type::Decimal { scale, .. }, Raw::Bytes(bytes)) => match wide(bytes) {
            Some(value) => decimal(value, *scale),
            None => binary(bytes),
        },
        (Type::Uint32, Raw::Int(value)) => Value::from(*value as u32),
        (Type::Uint64, Raw::Int(value)) => whole(i128::from(*value as u64)),
        (_, Raw::Int(value)) => whole(i128::from(*value)),
        (_, Raw::Float(value)) => {
            Number::from_f64(*value).map_or_else(|| Value::String(value.to_string()), Value::Number)
        }
        (Type::String, Raw::Bytes(bytes)) => {
            Value::String(String::from_utf8_lossy(bytes).into_owned())
        }
        (Type::Uuid, Raw::Bytes(bytes)) if bytes.len() == 16 => {
            let text = hex(bytes);
            let parts = [
                &text[..8],
                &text[8..12],
                &text[12..16],
                &text[16..20],
                &text[20..],
            ];
            Value::String(parts.join("-"))
        }
        (_, Raw::Bytes(bytes)) => binary(bytes),
    }
}

/// An integer; as a text where a reader of JSON would round it.
fn whole(value: i128) -> Value {
    match i64::try_from(value) {
        Ok(value) if value.abs_diff(0) <= EXACT.unsigned_abs() => Value::from(value),
        _ => Value::String(value.to_string()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text where it is text (files of old writers do not say so), else its first bytes and its length.
fn binary(bytes: &[u8]) -> Value {
    let readable = |text: &&str| !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    if let Some(text) = std::str::from_utf8(bytes).ok().filter(readable) {
        return Value::String(text.to_owned());
    }
    let shown = hex(&bytes[..bytes.len().min(BINARY_SHOWN)]);
    let rest = if bytes.len() > BINARY_SHOWN {
        "…"
    } else {
        ""
    };
    Value::String(format!("0x{shown}{rest} ({} bytes)", bytes.len()))
}

/// Parts of a second, as a power of ten.
fn unit(element: &Element) -> u32 {
    match (
        element.logical.map_or(0, |logical| logical.unit),
        element.converted,
    ) {
        (1, _) | (0, Some(7 | 9)) => 3,
        (3, _) => 9,
        _ => 6,
    }
}

fn time(value: i64, digits: u32) -> String {
    let parts = 10i64.pow(digits);
    let (seconds, part) = (value.div_euclid(parts), value.rem_euclid(parts));
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match part {
        0 => format!("{hour:02}:{minute:02}:{second:02}"),
        part => {
            let part = format!("{part:0digits$}", digits = digits as usize);
            let part = part.trim_end_matches('0');
            format!("{hour:02}:{minute:02}:{second:02}.{part}")
        }
    }
}

fn moment(value: i64, digits: u32, zone: &str) -> String {
    let day = 86_400 * 10i64.pow(digits);
    let of_day = time(value.rem_euclid(day), digits);
    format!("{} {of_day}{zone}", date(value.div_euclid(day)))
}

/// The 96-bit times of Impala, Hive and Spark: nanoseconds of the day, then the Julian day.
fn julian(bytes: &[u8]) -> Value {
    /// Julian day of 1970-01-01.
    const EPOCH: i64 = 2_440_588;
    let (Some(nanoseconds), Some(day)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<4>()) else {
        return binary(bytes);
    };
    let day = i64::from(u32::from_le_bytes(*day)) - EPOCH;
    let of_day = time(i64::from_le_bytes(*nanoseconds), 9);
    Value::String(format!("{} {of_day}Z", date(day)))
}

/// A big-endian integer of up to 16 bytes.
fn wide(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut value = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
    let start = 16usize.checked_sub(bytes.len())?;
    value[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(value))
}

fn decimal(value: i128, scale: i32) -> Value {
    let scale = usize::try_from(scale).unwrap_or(0).min(64);
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let point = if part.is_empty() { "" } else { "." };
    Value::String(format!("{sign}{whole}{point}{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A value that is shown wrong is believed, because it stands in a table.
    #[test]
    fn values_are_what_they_say() {
        let element = |unit| Element {
            logical: Some(super::super::footer::Logical {
                unit,
                ..Default::default()
            }),
            ..Element::default()
        };
        let decimal = |scale| Type::Decimal {
            precision: 9,
            scale,
        };
        let text = |raw: Raw<'_>, kind: &Type, unit| match shown(&raw, kind, &element(unit)) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        assert_eq!(text(Raw::Int(20_000), &Type::Date, 0), "2024-10-04");
        assert_eq!(
            text(Raw::Int(1_500), &Type::Timestamptz, 1),
            "1970-01-01 00:00:01.5Z"
        );
        assert_eq!(
            text(Raw::Int(-1), &Type::Timestamp, 2),
            "1969-12-31 23:59:59.999999"
        );
        assert_eq!(
            text(Raw::Int(3_723_000_000_000), &Type::Time, 3),
            "01:02:03"
        );
        assert_eq!(text(Raw::Int(-5), &decimal(2), 0), "-0.05");
        assert_eq!(
            text(Raw::Bytes(vec![0xff, 0x85].into()), &decimal(1), 0),
            "-12.3"
        );
        assert_eq!(text(Raw::Int(-1), &Type::Uint64, 0), u64::MAX.to_string());
        assert_eq!(
            text(Raw::Int(EXACT + 1), &Type::Int64, 0),
            "9007199254740993"
        );
        assert_eq!(text(Raw::Float(f64::NAN), &Type::Float64, 0), "NaN");
        assert_eq!(
            text(Raw::Bytes(vec![0, 1].into()), &Type::Binary, 0),
            "0x0001 (2 bytes)"
        );
    }
}
