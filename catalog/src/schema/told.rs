//! What the footer of one file tells about its columns, as the details of a manifest keep it.
//!
//! ```text
//! text    JSON: names of columns; the number of a column is its place here
//! value   size of the file (varint)  column*
//! column  number (varint), greater than that before  flags (1 least, 2 greatest, 4 absent)
//!         least  greatest (scalars)  absent (varint), each as its flag says
//! scalar  0 false, 1 true, 2 and a zigzag number, 3 and the bits of a double (8 bytes, big-endian),
//!         4 and a text (bytes)
//! ```
//!
//! Bounds that are wrong make engines pass over rows. So a value says which size its file has, whatever is
//! not exactly as written here tells nothing, and what does not fit is left out: leading columns come first.

use std::collections::HashMap;

use super::types::{ColumnRange, Scalar};
use crate::manifest::ManifestError;
use crate::manifest::codec::{Reader, put_bytes, put_varint, put_zigzag};

/// Longest text of names, bytes: a note takes 4096, with a digest before it.
const NAMES_MAX: usize = 3072;
/// Longest value, bytes: some 60 columns of numbers. Ten million files have 10 GB of them at most.
const VALUE_MAX: usize = 1024;

const LEAST: u8 = 1;
const GREATEST: u8 = 2;
const ABSENT: u8 = 4;

/// The columns of a partition's files by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    bytes: usize,
}

/// What a file tells about the column of a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) number: usize,
    pub(crate) min: Option<Scalar>,
    pub(crate) max: Option<Scalar>,
    pub(crate) nulls: Option<u64>,
}

impl Names {
    /// Reads the text; none when it is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for name in serde_json::from_str::<Vec<String>>(text).ok()? {
            all.number(&name);
        }
        Some(all)
    }

    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(&self.names).unwrap_or_default()
    }

    /// In the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The number of a column, a new one if need be; none when there is no room for its name.
    fn number(&mut self, name: &str) -> Option<usize> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        // With its comma, and the brackets.
        let bytes = serde_json::to_string(name).ok()?.len() + 1;
        if self.bytes + bytes + 1 > NAMES_MAX {
            return None;
        }
        self.bytes += bytes;
        let number = self.names.len();
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// The value of a file of `size` bytes.
    pub(crate) fn encode(&mut self, size: u64, ranges: &[ColumnRange]) -> Vec<u8> {
        let mut columns = Vec::new();
        for range in ranges.iter().filter(|range| tells(range)) {
            if let Some(number) = self.number(&range.name) {
                columns.push((number, column(number, range)));
            }
        }
        columns.sort_by_key(|(number, _)| *number);
        let mut out = Vec::with_capacity(128);
        put_varint(&mut out, size);
        // Of two columns with one name neither is known.
        for same in columns.chunk_by(|one, other| one.0 == other.0) {
            if let [(_, bytes)] = same
                && out.len() + bytes.len() <= VALUE_MAX
            {
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    /// What a value tells of a file of `size` bytes. Nothing when it was another file's, or is damaged.
    pub(crate) fn decode(&self, size: u64, value: &[u8]) -> Vec<Told> {
        self.read(size, value).unwrap_or_default()
    }

    fn read(&self, size: u64, value: &[u8]) -> Result<Vec<Told>, ManifestError> {
        let mut reader = Reader::new("what a file tells", value);
        let own = reader.varint()?;
        let mut all: Vec<Told> = Vec::new();
        while !reader.is_empty() {
            let number = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            let follows = all.last().is_none_or(|last| last.number < number);
            if number >= self.names.len() || !follows {
                return Err(reader.damaged("a column has no name, or comes twice"));
            }
            let flags = reader.byte()?;
            if flags & !(LEAST | GREATEST | ABSENT) != 0 {
                return Err(reader.damaged("a flag is unknown"));
            }
            let mut bound = |flag: u8| match flags & flag {
                0 => Ok(None),
                _ => scalar(&mut reader).map(Some),
            };
            let (min, max) = (bound(LEAST)?, bound(GREATEST)?);
            let nulls = match flags & ABSENT {
                0 => None,
                _ => Some(reader.varint()?),
            };
            all.push(Told {
                number,
                min,
                max,
                nulls,
            });
        }
        if own != size {
            return Err(reader.damaged("it is of another file"));
        }
        Ok(all)
    }
}

/// Whether a range says something about a column directly in the table: parts of others have dots.
fn tells(range: &ColumnRange) -> bool {
    let is_bounded = range.min.is_some() || range.max.is_some();
    is_bounded || range.nulls.is_some() && !range.name.contains('.')
}

fn column(number: usize, range: &ColumnRange) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    put_varint(&mut out, number as u64);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    out.push(
        flag(range.min.is_some(), LEAST)
            | flag(range.max.is_some(), GREATEST)
            | flag(range.nulls.is_some(), ABSENT),
    );
    for bound in [&range.min, &range.max].into_iter().flatten() {
        match bound {
            Scalar::Bool(value) => out.push(u8::from(*value)),
            Scalar::Int(value) => {
                out.push(2);
                put_zigzag(&mut out, *value);
            }
            Scalar::Float(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            Scalar::Text(value) => {
                out.push(4);
                put_bytes(&mut out, value.as_bytes());
            }
        }
    }
    if let Some(nulls) = range.nulls {
        put_varint(&mut out, nulls);
    }
    out
}

fn scalar(reader: &mut Reader<'_>) -> Result<Scalar, ManifestError> {
    Ok(match reader.byte()? {
        0 => Scalar::Bool(false),
        1 => Scalar::Bool(true),
        2 => Scalar::Int(reader.zigzag()?),
        3 => Scalar::Float(f64::from_bits(u64::from_be_bytes(reader.array()?))),
        4 => Scalar::Text(reader.text()?.to_owned()),
        _ => return Err(reader.damaged("a value is of an unknown kind")),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn range(
        name: &str,
        min: Option<Scalar>,
        max: Option<Scalar>,
        nulls: Option<u64>,
    ) -> ColumnRange {
        ColumnRange {
            name: name.to_owned(),
            min,
            max,
            nulls,
        }
    }

    // The bytes lie in manifests for ever: read otherwise, they are bounds of other values.
    #[test]
    fn values_are_read_as_they_were_written() {
        let mut names = Names::default();
        let text = |text: &str| Some(Scalar::Text(text.to_owned()));
        let one = [
            range("id", Some(Scalar::Int(-3)), Some(Scalar::Int(300)), Some(0)),
            range("who", text("ann"), text("zoë"), None),
            range(
                "ok",
                Some(Scalar::Bool(false)),
                Some(Scalar::Bool(true)),
                Some(7),
            ),
            range("tags.list.element", None, None, Some(1)),
            range("empty", None, None, Some(9)),
        ];
        // A column more, one less, and another order.
        let two = [
            range("at", Some(Scalar::Float(0.5)), None, None),
            range("id", Some(Scalar::Int(1)), Some(Scalar::Int(2)), None),
        ];
        let (first, second) = (names.encode(1000, &one), names.encode(5, &two));
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(names.to_text(), r#"["id","who","ok","empty","at"]"#);
        assert_eq!(
            hex(&first),
            "e8070007020502d8040001030403616e6e04047a6fc3ab0207000107030409"
        );
        assert_eq!(hex(&second), "050003020202040401033fe0000000000000");
        let again = Names::from_text(&names.to_text()).unwrap();
        let told = again.decode(1000, &first);
        assert_eq!(
            told.iter().map(|one| one.number).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        assert_eq!((&told[0].min, told[0].nulls), (&one[0].min, Some(0)));
        assert_eq!((&told[1].max, told[1].nulls), (&one[1].max, None));
        assert_eq!(again.decode(5, &second).len(), 2);
        assert!(again.decode(1001, &first).is_empty(), "of another file");
    }

    // A table may have more columns than there is room for: what is kept is right, and the note still fits.
    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut names = Names::default();
        let wide: Vec<ColumnRange> = (0..2000)
            .map(|at| {
                range(
                    &format!("column_{at:04}"),
                    Some(Scalar::Int(at)),
                    Some(Scalar::Int(at)),
                    Some(0),
                )
            })
            .collect();
        let value = names.encode(9, &wide);
        assert!(value.len() <= VALUE_MAX && names.to_text().len() <= NAMES_MAX);
        let told = names.decode(9, &value);
        assert!(told.len() > 60, "{}", told.len());
        assert!(
            told.iter()
                .enumerate()
                .all(|(at, one)| one.min == Some(Scalar::Int(at as i64)))
        );
        let twice = names.encode(9, &[wide[0].clone(), wide[1].clone(), wide[0].clone()]);
        assert_eq!(names.decode(9, &twice).len(), 1);
    }

    proptest! {
        // Bytes from a store may be anything.
        #[test]
        fn any_bytes_are_answered(noise in any::<Vec<u8>>(), text in ".{0,40}") {
            let names = Names::from_text(r#"["a","b","c"]"#).unwrap();
            let told = names.decode(u64::from(noise.first().copied().unwrap_or(0)), &noise);
            prop_assert!(told.iter().all(|one| one.number < 3));
            let _ = Names::from_text(&text);
        }
    }
}
