//! What a file's inode says about its contents in the cold store. Owns the format.
//!
//! # Format 1
//!
//! The value of one extended attribute ([`super::attribute`]). Integers are little endian.
//! ```text
//!  0  4  magic "TCLD"
//!  4  1  format, 1
//!  5  1  state: 1 copy, 2 demoting, 3 stub, 4 recalling
//!  6  2  zero
//!  8  8  length of the contents, bytes
//! 16  8  modification time of the contents, seconds (signed)
//! 24  4  the same, nanoseconds
//! 28  4  zero
//! 32 32  SHA-256 of the contents
//! 64  2  length of the store's address, n
//! 66  2  length of the object's key, m
//! 68  n  address of the store, as `s3://bucket`
//!     m  full key of the object
//!     4  crc32c of all before
//! ```
//! A reader takes nothing else: another format, a reserved byte that is set, a length that does not
//! fit or a checksum that does not agree is an error, and an error changes no file.

use std::ops::Range;

const MAGIC: &[u8; 4] = b"TCLD";
const FORMAT: u8 = 1;
const AT_SIZE: usize = 8;
const AT_SECONDS: usize = 16;
const AT_NANOSECONDS: usize = 24;
const AT_DIGEST: usize = 32;
const AT_STORE_LENGTH: usize = 64;
const AT_KEY_LENGTH: usize = 66;
const AT_TEXT: usize = 68;

/// Longest record: what fits beside other attributes into one block of 4 KiB.
pub(super) const RECORD_MAX: usize = 2048;

/// What of the contents is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The file has its contents; the object has the same ones.
    Copy,
    /// The object is verified, the file is about to be emptied. Empty, it is a stub.
    Demoting,
    /// The file is empty; the object has the contents.
    Stub,
    /// The contents are coming back: what the file has is not to be believed.
    Recalling,
}

/// A time as stat(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    /// Length of the contents.
    pub(super) size: u64,
    /// When the contents were changed last.
    pub(super) mtime: Time,
    /// SHA-256 of the contents.
    pub(super) digest: [u8; 32],
    /// Canonical address of the store.
    pub(super) store: String,
    /// Full key of the object.
    pub(super) key: String,
}

/// A record that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damaged {
    /// Too short, or not as long as it says.
    #[error("its length is wrong")]
    Length,
    /// Written by another program, or by a later version.
    #[error("its format is not known")]
    Format,
    /// Bits have changed.
    #[error("its checksum does not agree")]
    Checksum,
    /// A value that nobody writes.
    #[error("a value in it is not possible")]
    Value,
}

impl Record {
    /// The same record in another state.
    pub(super) fn with(&self, state: State) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    /// As it is kept; `None` when store and key are too long to be.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(AT_TEXT + self.store.len() + self.key.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        bytes.push(match self.state {
            State::Copy => 1,
            State::Demoting => 2,
            State::Stub => 3,
            State::Recalling => 4,
        });
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        bytes.extend_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&u16::try_from(self.store.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.key.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(self.store.as_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        let check = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        (bytes.len() <= RECORD_MAX).then_some(bytes)
    }

    /// Reads what [`Record::encode`] has written.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(Damaged::Length)?;
        if body.len() < AT_TEXT || bytes.len() > RECORD_MAX {
            return Err(Damaged::Length);
        }
        if &body[..4] != MAGIC || body[4] != FORMAT {
            return Err(Damaged::Format);
        }
        if crc32c::crc32c(body) != u32::from_le_bytes(*check) {
            return Err(Damaged::Checksum);
        }
        let state = match body[5] {
            1 => State::Copy,
            2 => State::Demoting,
            3 => State::Stub,
            4 => State::Recalling,
            _ => return Err(Damaged::Value),
        };
        let nanoseconds = u32::from_le_bytes(array(body, AT_NANOSECONDS)?);
        let reserved = body[6..8].iter().chain(&body[28..32]);
        if nanoseconds >= 1_000_000_000 || reserved.copied().any(|byte| byte != 0) {
            return Err(Damaged::Value);
        }
        let length = |at| array(body, at).map(|two| usize::from(u16::from_le_bytes(two)));
        let store = AT_TEXT..AT_TEXT + length(AT_STORE_LENGTH)?;
        let key = store.end..store.end + length(AT_KEY_LENGTH)?;
        if key.end != body.len() {
            return Err(Damaged::Length);
        }
        let text = |range: Range<usize>| {
            let text = std::str::from_utf8(&body[range]).map_err(|_| Damaged::Value)?;
            match text.is_empty() {
                true => Err(Damaged::Value),
                false => Ok(text.to_owned()),
            }
        };
        Ok(Self {
            state,
            size: u64::from_le_bytes(array(body, AT_SIZE)?),
            mtime: Time {
                seconds: i64::from_le_bytes(array(body, AT_SECONDS)?),
                nanoseconds,
            },
            digest: array(body, AT_DIGEST)?,
            store: text(store)?,
            key: text(key)?,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Damaged> {
    let part = bytes.get(at..at + N).ok_or(Damaged::Length)?;
    part.try_into().map_err(|_| Damaged::Length)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn record() -> Record {
        Record {
            state: State::Stub,
            size: 0x0102_0304_0506,
            mtime: Time {
                seconds: -2,
                nanoseconds: 999_999_999,
            },
            digest: std::array::from_fn(|at| at as u8),
            store: "s3://bucket".to_owned(),
            key: "cold/v/0a/0a1b".to_owned(),
        }
    }

    // Without it a change of the format would make every stub of an older version unreadable.
    #[test]
    fn the_format_stays() {
        let golden = "54434c4401030000060504030201000\
            0feffffffffffffffffc99a3b00000000000102030405060708090a0b0c0d0e0f101112131415161718191a\
            1b1c1d1e1f0b000e0073333a2f2f6275636b6574636f6c642f762f30612f30613162";
        let bytes = record().encode().unwrap();
        let (body, check) = bytes.split_last_chunk::<4>().unwrap();
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(u32::from_le_bytes(*check), crc32c::crc32c(body));
        assert_eq!(Record::decode(&bytes).unwrap(), record());
    }

    // Without it a damaged attribute would name other contents, or end the worker.
    #[test]
    fn what_is_damaged_is_refused() {
        let bytes = record().encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bad).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Record::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    // Without it a record with a good checksum and impossible values would be believed.
    #[test]
    fn impossible_values_are_refused() {
        let bytes = record().encode().unwrap();
        for (at, value) in [
            (5, 0),
            (5, 9),
            (6, 1),
            (27, 0xff),
            (31, 1),
            (64, 0),
            (66, 9),
        ] {
            let mut body = bytes[..bytes.len() - 4].to_vec();
            body[at] = value;
            let check = crc32c::crc32c(&body);
            body.extend_from_slice(&check.to_le_bytes());
            assert!(Record::decode(&body).is_err(), "byte {at} is {value}");
        }
        let long = Record {
            key: "k".repeat(RECORD_MAX),
            ..record()
        };
        assert_eq!(long.encode(), None);
    }
}
