//! TFRecord: frames with masked CRC-32C, and the features of `tf.train.Example`.
//!
//! ```text
//! frame    = length (u64 LE)  masked crc of the 8 length bytes (u32 LE)  data  masked crc of data (u32 LE)
//! masked   = rotate right by 15 bits, plus 0xa282ead8
//! Example  = 1: Features { 1: map<string, Feature> }      protocol buffers
//! Feature  = oneof 1: bytes list  2: float list  3: int64 list
//! ```

use std::collections::BTreeMap;

use super::types::{Field, Schema, Type};

/// Most records of a sample.
const RECORDS: usize = 32;

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// The length of the frame at the start, when its checksum says that there is one.
fn frame(bytes: &[u8]) -> Option<u64> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    (masked(length) == u32::from_le_bytes(*sum)).then(|| u64::from_le_bytes(*length))
}

/// Whether the bytes begin with a frame.
pub(super) fn is_framed(bytes: &[u8]) -> bool {
    frame(bytes).is_some()
}

/// The features of the complete records in a sample; none when a record is damaged or is no Example.
pub(super) fn schema(mut bytes: &[u8]) -> Option<Schema> {
    let mut features: BTreeMap<String, Type> = BTreeMap::new();
    let mut records = 0;
    while records < RECORDS {
        let Some(length) = frame(bytes) else { break };
        let length = usize::try_from(length).ok()?;
        let Some(data) = bytes.get(12..).and_then(|rest| rest.get(..length)) else {
            break;
        };
        let Some(sum) = bytes.get(12 + length..).and_then(<[u8]>::first_chunk::<4>) else {
            break;
        };
        if masked(data) != u32::from_le_bytes(*sum) {
            return None;
        }
        example(data, &mut features)?;
        records += 1;
        bytes = &bytes[16 + length..];
    }
    let fields = features.into_iter().map(|(name, data_type)| Field {
        name,
        data_type,
        nullable: true,
    });
    (records > 0).then(|| Schema {
        fields: fields.collect(),
    })
}

fn example(data: &[u8], features: &mut BTreeMap<String, Type>) -> Option<()> {
    for (number, value) in messages(data)? {
        if number != 1 {
            continue;
        }
        for (number, entry) in messages(value)? {
            if number != 1 {
                continue;
            }
            let (mut name, mut kind) = (None, Type::Binary);
            for (number, value) in messages(entry)? {
                match number {
                    1 => name = Some(std::str::from_utf8(value).ok()?.to_owned()),
                    2 => kind = feature(value)?,
                    _ => {}
                }
            }
            features.insert(name?, kind);
        }
    }
    Some(())
}

fn feature(value: &[u8]) -> Option<Type> {
    let inner = match messages(value)?.first().map(|(number, _)| *number) {
        Some(2) => Type::Float32,
        Some(3) => Type::Int64,
        _ => Type::Binary,
    };
    let element = Field {
        name: "element".to_owned(),
        data_type: inner,
        nullable: false,
    };
    Some(Type::List(Box::new(element)))
}

/// The length-delimited fields of a message; none when it is not one. Other fields are passed over.
fn messages(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => bytes = bytes.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                found.push((key >> 3, value));
                bytes = rest;
            }
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn message(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, body.len() as u8];
        out.extend_from_slice(body);
        out
    }

    fn framed(data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u64).to_le_bytes();
        let mut out = length.to_vec();
        out.extend_from_slice(&masked(&length).to_le_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(&masked(data).to_le_bytes());
        out
    }

    fn entry(name: &str, kind: u8) -> Vec<u8> {
        let feature = message(2, &message(kind, &[]));
        message(1, &[message(1, name.as_bytes()), feature].concat())
    }

    // Features that are named wrongly are not found by the training job.
    #[test]
    fn features_of_an_example() {
        let features = [entry("image", 1), entry("label", 3), entry("weight", 2)].concat();
        let record = framed(&message(1, &features));
        let file = [record.clone(), record[..20].to_vec()].concat();
        assert!(is_framed(&file));
        let schema = schema(&file).unwrap();
        let names: Vec<&str> = schema
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        assert_eq!(names, ["image", "label", "weight"]);
        let Type::List(element) = &schema.fields[1].data_type else {
            panic!("no list")
        };
        assert_eq!(element.data_type, Type::Int64);
    }

    // A flipped bit must not become a schema.
    #[test]
    fn checksums_are_checked() {
        let mut file = framed(&message(1, &entry("image", 1)));
        file[14] ^= 1;
        assert!(schema(&file).is_none());
        file[0] ^= 1;
        assert!(!is_framed(&file));
    }

    proptest! {
        // The bytes are a stranger's.
        #[test]
        fn any_record_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = schema(&framed(&bytes));
            let _ = schema(&bytes);
        }
    }
}
