//! Numbers and texts of the encoding: one way to write each value, and a reader that refuses others.
//!
//! ```text
//! varint   7 bits per byte, least significant first, no superfluous zero byte; at most 64 bits
//! zigzag   varint of (n << 1) ^ (n >> 63)
//! bytes    varint length, then as many bytes
//! ```
//!
//! Because there is one encoding for each value, equal content has an equal digest. Nothing here
//! panics or allocates by what a length claims: a length is checked against what is there.

use super::ManifestError;

/// Adds a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Adds a zigzag number.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Adds a length and bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Adds an optional number: 0 for none, else the number and one; 2^64-1 counts as none.
pub(crate) fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    put_varint(
        out,
        value.and_then(|value| value.checked_add(1)).unwrap_or(0),
    );
}

/// What is left to read, and what it is a part of for messages.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn damaged(&self, how: &str) -> ManifestError {
        ManifestError::Damaged(format!("{}: {how}", self.what))
    }

    /// Whether everything is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], ManifestError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.damaged("it ends early"));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ManifestError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, ManifestError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.damaged("a number is written too long"));
                }
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too large"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, ManifestError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of things that take at least a byte each.
    pub(crate) fn count(&mut self) -> Result<usize, ManifestError> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 {
            return Err(self.damaged("a count is larger than the rest"));
        }
        Ok(count as usize)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ManifestError> {
        let length = self.count()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, ManifestError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, ManifestError> {
        Ok(self.varint()?.checked_sub(1))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.damaged("it ends early"))
    }

    /// Refuses bytes behind the end.
    pub(crate) fn finish(self) -> Result<(), ManifestError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("there is more than belongs to it"))
        }
    }
}
