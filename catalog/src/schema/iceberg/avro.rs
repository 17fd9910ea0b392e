//! Reading Avro containers that others wrote: manifests of Iceberg tables, taken apart by their own schema.
//!
//! ```text
//! file    "Obj" 0x01  header: map of bytes  sync (16 bytes)  block ..
//! block   number of records (long)  their bytes (long)  the records, as the codec left them  sync
//! ```
//!
//! Codecs "null" and "deflate", which is what Iceberg's writers use. Nothing here trusts a length, a
//! count or a nesting: each is held against the bytes that are there, or against a limit with a name.
//! Source: Apache Avro 1.12, "Object Container Files", "Schema Declaration", "Binary Encoding".

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;

use flate2::read::DeflateDecoder;
use serde_json::Value as Json;

/// Deepest nesting of a schema and of a value.
const DEPTH_MAX: usize = 32;
/// Most bytes of all blocks after their codec was undone.
const INFLATED_MAX: usize = 256 << 20;
/// Most values for each byte: an absent one of a union is two in one byte, a structure one more. A schema
/// of structures without parts would have any number of values in no byte at all.
const VALUES_PER_BYTE: usize = 16;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AvroError {
    /// The bytes contradict themselves, or are no such file.
    #[error("is no whole Avro file")]
    Malformed,
    /// Another codec.
    #[error("is compressed in a way that is not read: only deflate is")]
    Codec,
}

/// A value, as far as anybody here wants to know.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Long(i64),
    Text(String),
    Record(Arc<[String]>, Vec<Value>),
    /// Read over.
    Other,
}

impl Value {
    /// The part of this name.
    pub(super) fn part(&self, name: &str) -> &Value {
        let Self::Record(names, values) = self else {
            return &Self::Null;
        };
        let at = names.iter().position(|known| known == name);
        at.and_then(|at| values.get(at)).unwrap_or(&Self::Null)
    }

    /// The number, if it is one.
    pub(super) fn long(&self) -> Option<i64> {
        match self {
            Self::Long(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A parsed schema.
#[derive(Clone, Debug)]
enum Kind {
    Null,
    Boolean,
    Long,
    /// So many bytes that nobody wants.
    Fixed(usize),
    Bytes,
    Text,
    Array(Arc<Kind>),
    Map(Arc<Kind>),
    Union(Vec<Kind>),
    Record(Arc<[String]>, Arc<Vec<Kind>>),
}

type Result<T> = std::result::Result<T, AvroError>;

/// All records of a file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Value>> {
    let mut rest = Rest::new(bytes);
    if rest.take(4)? != b"Obj\x01" {
        return Err(AvroError::Malformed);
    }
    let (mut schema, mut deflated) = (None, false);
    while let Some(count) = rest.items()? {
        for _ in 0..count {
            let name = rest.bytes()?;
            let value = rest.bytes()?;
            match name {
                b"avro.schema" => schema = Some(parse(value)?),
                b"avro.codec" => match value {
                    b"null" => {}
                    b"deflate" => deflated = true,
                    _ => return Err(AvroError::Codec),
                },
                _ => {}
            }
        }
    }
    let schema = schema.ok_or(AvroError::Malformed)?;
    let sync = rest.take(16)?;
    let mut records = Vec::new();
    let mut left = INFLATED_MAX;
    while !rest.bytes.is_empty() {
        let count = rest.long()?;
        let block = rest.bytes()?;
        let inflated;
        let block = match deflated {
            false => block,
            true => {
                inflated = inflate(block, left)?;
                left -= inflated.len();
                &inflated
            }
        };
        let mut inside = Rest::new(block);
        for _ in 0..count {
            records.push(inside.value(&schema, 0)?);
        }
        if rest.take(16)? != sync {
            return Err(AvroError::Malformed);
        }
    }
    Ok(records)
}

/// Undoes deflate, up to `limit` bytes.
fn inflate(block: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    // One byte more than is allowed tells that there is more.
    let mut bytes = DeflateDecoder::new(block).take(limit as u64 + 1);
    let read = bytes.read_to_end(&mut out);
    match read.is_ok() && out.len() <= limit {
        true => Ok(out),
        false => Err(AvroError::Malformed),
    }
}

fn parse(text: &[u8]) -> Result<Kind> {
    let json: Json = serde_json::from_slice(text).map_err(|_| AvroError::Malformed)?;
    kind(&json, &mut HashMap::new(), 0)
}

/// `named`: types that were declared before.
fn kind(json: &Json, named: &mut HashMap<String, Kind>, depth: usize) -> Result<Kind> {
    if depth > DEPTH_MAX {
        return Err(AvroError::Malformed);
    }
    let malformed = || AvroError::Malformed;
    match json {
        Json::String(name) => primitive(name)
            .or_else(|| named.get(name).cloned())
            .ok_or_else(malformed),
        Json::Array(members) => {
            let members = members.iter().map(|one| kind(one, named, depth + 1));
            Ok(Kind::Union(members.collect::<Result<_>>()?))
        }
        Json::Object(object) => {
            let part = |name: &str| object.get(name).ok_or_else(malformed);
            let found = match part("type")?.as_str() {
                Some("array") => Kind::Array(Arc::new(kind(part("items")?, named, depth + 1)?)),
                Some("map") => Kind::Map(Arc::new(kind(part("values")?, named, depth + 1)?)),
                Some("fixed") => {
                    let size = part("size")?.as_u64().and_then(|size| size.try_into().ok());
                    Kind::Fixed(size.ok_or_else(malformed)?)
                }
                Some("enum") => Kind::Long,
                Some("record") => {
                    let fields = part("fields")?.as_array().ok_or_else(malformed)?;
                    let (mut names, mut kinds) = (Vec::new(), Vec::new());
                    for field in fields {
                        let name = field.get("name").and_then(Json::as_str);
                        names.push(name.ok_or_else(malformed)?.to_owned());
                        let of = field.get("type").ok_or_else(malformed)?;
                        kinds.push(kind(of, named, depth + 1)?);
                    }
                    Kind::Record(names.into(), Arc::new(kinds))
                }
                _ => kind(part("type")?, named, depth + 1)?,
            };
            if let Some(name) = object.get("name").and_then(Json::as_str) {
                named.insert(name.to_owned(), found.clone());
            }
            Ok(found)
        }
        _ => Err(AvroError::Malformed),
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" | "long" => Kind::Long,
        "float" => Kind::Fixed(4),
        "double" => Kind::Fixed(8),
        "bytes" => Kind::Bytes,
        "string" => Kind::Text,
        _ => return None,
    })
}

/// What is left to read.
struct Rest<'a> {
    bytes: &'a [u8],
    /// Values that may still come.
    values: usize,
}

impl<'a> Rest<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let values = bytes.len().saturating_mul(VALUES_PER_BYTE);
        Self { bytes, values }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let split = self.bytes.split_at_checked(length);
        let (taken, rest) = split.ok_or(AvroError::Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(AvroError::Malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| AvroError::Malformed)?)
    }

    /// The number of items in the next part of an array or map; none at its end.
    fn items(&mut self) -> Result<Option<usize>> {
        let mut count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        if count < 0 {
            // Then the part's bytes are counted too.
            self.long()?;
            count = count.checked_neg().ok_or(AvroError::Malformed)?;
        }
        let count = usize::try_from(count).map_err(|_| AvroError::Malformed)?;
        // An item takes a byte at least: no schema of a manifest has arrays of nothing.
        match count <= self.bytes.len() {
            true => Ok(Some(count)),
            false => Err(AvroError::Malformed),
        }
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Result<Value> {
        let values = self.values.checked_sub(1);
        self.values = values
            .filter(|_| depth <= DEPTH_MAX)
            .ok_or(AvroError::Malformed)?;
        Ok(match kind {
            Kind::Null => Value::Null,
            Kind::Boolean => Value::Long(i64::from(self.take(1)?[0] != 0)),
            Kind::Long => Value::Long(self.long()?),
            Kind::Fixed(length) => {
                self.take(*length)?;
                Value::Other
            }
            Kind::Bytes => {
                self.bytes()?;
                Value::Other
            }
            Kind::Text => {
                let text = std::str::from_utf8(self.bytes()?);
                Value::Text(text.map_err(|_| AvroError::Malformed)?.to_owned())
            }
            Kind::Array(of) => {
                while let Some(count) = self.items()? {
                    for _ in 0..count {
                        self.value(of, depth + 1)?;
                    }
                }
                Value::Other
            }
            Kind::Map(of) => {
                while let Some(count) = self.items()? {
                    for _ in 0..count {
                        self.bytes()?;
                        self.value(of, depth + 1)?;
                    }
                }
                Value::Other
            }
            Kind::Union(members) => {
                let at = usize::try_from(self.long()?).map_err(|_| AvroError::Malformed)?;
                self.value(members.get(at).ok_or(AvroError::Malformed)?, depth + 1)?
            }
            Kind::Record(names, kinds) => {
                let values = kinds.iter().map(|kind| self.value(kind, depth + 1));
                Value::Record(Arc::clone(names), values.collect::<Result<_>>()?)
            }
        })
    }
}

/// A file of one block, for tests: a schema of 64 to 8191 bytes, a block of at most 63.
#[cfg(test)]
pub(super) fn write(schema: &str, block: &[u8], count: u8) -> Vec<u8> {
    let mut bytes = b"Obj\x01\x02\x16avro.schema".to_vec();
    let length = schema.len() * 2;
    bytes.extend([length as u8 & 0x7f | 0x80, (length >> 7) as u8]);
    bytes.extend(schema.as_bytes());
    bytes.push(0);
    bytes.extend([7; 16]);
    bytes.extend([count * 2, block.len() as u8 * 2]);
    bytes.extend(block);
    bytes.extend([7; 16]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[
        {"name":"n","type":["null","long"]},{"name":"s","type":"string"},
        {"name":"m","type":{"type":"array","items":{"type":"map","values":"bytes"}}}]}"#;

    fn file(block: &[u8], count: u8) -> Vec<u8> {
        write(SCHEMA, block, count)
    }

    // What is read wrongly here is a file that a version has and should not, or the other way round.
    #[test]
    fn records_are_read_by_their_own_schema() {
        let block = [
            2, 6, 4, b'a', b'b', 2, 2, 2, b'k', 2, 9, 0, 0, 0, 2, b'c', 0,
        ];
        let records = read(&file(&block, 2)).expect("it is whole");
        assert_eq!(records[0].part("n"), &Value::Long(3));
        assert_eq!(records[0].part("s").text(), Some("ab"));
        assert_eq!(
            (records[1].part("n"), records[1].part("s").text()),
            (&Value::Null, Some("c"))
        );
        assert_eq!(records[1].part("x"), &Value::Null);
        assert_eq!(read(&file(&block, 3)), Err(AvroError::Malformed));
    }

    // A few bytes must not ask for more values than a machine has memory for.
    #[test]
    fn values_of_nothing_have_an_end() {
        let mut schema = r#"{"type":"record","name":"r0","fields":[]}"#.to_owned();
        for level in 1..20 {
            let below = format!("r{}", level - 1);
            schema = format!(
                r#"{{"type":"record","name":"r{level}","fields":[{{"name":"a","type":{schema}}},{{"name":"b","type":"{below}"}}]}}"#
            );
        }
        let kind = parse(schema.as_bytes()).expect("it is a schema");
        assert_eq!(
            Rest::new(&[0; 100]).value(&kind, 0),
            Err(AvroError::Malformed)
        );
        assert_eq!(Rest::new(&[0; 3]).value(&Kind::Null, 0), Ok(Value::Null));
    }

    // Nesting without end overflows the stack of the process that reads it.
    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{}\"long\"{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(deep.as_bytes()).is_err());
        assert!(
            parse(br#"{"type":"record","name":"r","fields":[{"name":"x","type":"r"}]}"#).is_err()
        );
    }

    proptest! {
        // Manifests come from whoever can write to the store: no bytes may panic or blow up.
        #[test]
        fn any_bytes_are_answered(at in any::<prop::sample::Index>(), byte: u8, tail: Vec<u8>) {
            let mut bytes = file(&[2, 6, 4, b'a', b'b', 0], 1);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read(&bytes);
            bytes.extend(&tail);
            let _ = read(&bytes);
            let _ = read(&tail);
        }
    }
}
