//! Version tokens as bytes: in the references section of a snapshot and in the inode table.
//!
//! A record is one kind byte and its fields, little-endian, padded with zeros to a multiple of 4:
//!
//! ```text
//! 1  16 bytes            ETag `"<32 lower-case hex digits>"`, no version id: a plain S3 object
//! 2  16 bytes, u32 n     ETag `"<32 lower-case hex digits>-<n>"`, no version id: a multipart upload
//! 3  u16 + etag, u16 + version id (length 0xffff: none)
//! 4  u64 file id         HDFS
//! 5  u64 device, u64 inode   local or shared directory
//! ```
//!
//! Each token has one encoding (1 before 2 before 3): equal versions are equal bytes. A link
//! target in a snapshot is its plain bytes; its length is in the row.

use std::fmt::Write as _;

use terrace_cache::Token;
use terrace_cache::identity::{TokenRef, push_hex};

/// Length that says "no version id".
const NONE: u16 = u16::MAX;

/// Appends the record of `token`. `false`: a field is longer than 65534 bytes, nothing is appended.
pub(crate) fn encode(token: &Token, out: &mut Vec<u8>) -> bool {
    match token {
        Token::ETag {
            etag,
            version_id: None,
        } if compact(etag).is_some() => {
            let Some((digest, parts)) = compact(etag) else {
                return false;
            };
            out.push(if parts.is_some() { 2 } else { 1 });
            out.extend_from_slice(&digest);
            out.extend(parts.into_iter().flat_map(u32::to_le_bytes));
        }
        Token::ETag { etag, version_id } => {
            let id = version_id.as_deref().unwrap_or("");
            if etag.len() >= NONE.into() || id.len() >= NONE.into() {
                return false;
            }
            out.push(3);
            out.extend_from_slice(&(etag.len() as u16).to_le_bytes());
            out.extend_from_slice(etag.as_bytes());
            let id_len = if version_id.is_some() {
                id.len() as u16
            } else {
                NONE
            };
            out.extend_from_slice(&id_len.to_le_bytes());
            out.extend_from_slice(id.as_bytes());
        }
        Token::Hdfs { file_id } => {
            out.push(4);
            out.extend_from_slice(&file_id.to_le_bytes());
        }
        Token::File { device, inode } => {
            out.push(5);
            out.extend_from_slice(&device.to_le_bytes());
            out.extend_from_slice(&inode.to_le_bytes());
        }
    }
    pad(out);
    true
}

/// Fills up to a multiple of 4 bytes.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Decodes the record at the start of `bytes`: the token and the record's padded length. `None` for
/// an unknown kind or a record that does not end inside `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Token, usize)> {
    let mut text = String::new();
    let (token, used) = borrow(bytes, &mut text)?;
    Some((token.to_token(), used))
}

/// The same without owning it; `text` is room for an ETag that the record does not have as text.
pub(crate) fn borrow<'a>(bytes: &'a [u8], text: &'a mut String) -> Option<(TokenRef<'a>, usize)> {
    let mut rest = Rest(bytes);
    let token = match rest.array::<1>()?[0] {
        kind @ (1 | 2) => {
            text.clear();
            text.push('"');
            // Once for each file of a tree: formatting would take as long as looking the object up.
            push_hex(text, &rest.array::<16>()?);
            if kind == 2 {
                write!(text, "-{}", u32::from_le_bytes(rest.array()?)).ok()?;
            }
            text.push('"');
            TokenRef::ETag {
                etag: text,
                version_id: None,
            }
        }
        3 => {
            let etag = rest.text()??;
            TokenRef::ETag {
                etag,
                version_id: rest.text()?,
            }
        }
        4 => TokenRef::Hdfs {
            file_id: u64::from_le_bytes(rest.array()?),
        },
        5 => TokenRef::File {
            device: u64::from_le_bytes(rest.array()?),
            inode: u64::from_le_bytes(rest.array()?),
        },
        _ => return None,
    };
    let used = (bytes.len() - rest.0.len()).next_multiple_of(4);
    (used <= bytes.len()).then_some((token, used))
}

/// Padded length of the record at the start of `bytes`, without decoding its texts.
pub(crate) fn record_len(bytes: &[u8]) -> Option<usize> {
    let text = |at: usize| {
        let len = u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
        Some(at + 2 + if len == NONE { 0 } else { usize::from(len) })
    };
    let len = match bytes.first()? {
        1 => 17,
        2 => 21,
        3 => text(text(1)?)?,
        4 => 9,
        5 => 17,
        _ => return None,
    };
    Some(len.next_multiple_of(4)).filter(|len| *len <= bytes.len())
}

/// Most bytes a record can have: decoding never needs to look further.
pub(crate) const RECORD_MAX: u64 = 1 + 2 * (2 + NONE as u64) + 3;

/// The part of a record not decoded yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// A text with its length before it; `Some(None)` when the length says "none".
    fn text(&mut self) -> Option<Option<&'a str>> {
        let len = u16::from_le_bytes(self.array()?);
        if len == NONE {
            return Some(None);
        }
        let (text, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(Some)
    }
}

/// Splits `"<32 hex>"` or `"<32 hex>-<n>"`; `None` unless printing it again gives the same text.
fn compact(etag: &str) -> Option<([u8; 16], Option<u32>)> {
    let inner = etag.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let (hex, tail) = inner.split_first_chunk::<32>()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; 16];
    for (out, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *out = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    if tail.is_empty() {
        return Some((digest, None));
    }
    let parts = std::str::from_utf8(tail.strip_prefix(b"-")?).ok()?;
    let number: u32 = parts.parse().ok()?;
    (number.to_string() == parts).then_some((digest, Some(number)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Broken: a mount asks the store for another version than the snapshot recorded.
    #[test]
    fn every_token_survives_and_common_ones_are_small() {
        let hex = "0123456789abcdef0123456789abcdef";
        let etag = |text: String, id: Option<&str>| Token::ETag {
            etag: text.into(),
            version_id: id.map(Into::into),
        };
        for (token, len) in [
            (etag(format!("\"{hex}\""), None), 20),
            (etag(format!("\"{hex}-17\""), None), 24),
            (etag(format!("\"{hex}-017\""), None), 44),
            (etag(format!("\"{}\"", hex.to_uppercase()), None), 40),
            (etag(format!("\"{hex}\""), Some("v1")), 44),
            (etag(format!("\"{hex}\""), Some("")), 40),
            (etag("W/\"weak\"".to_owned(), None), 16),
            (etag(String::new(), None), 8),
            (Token::Hdfs { file_id: u64::MAX }, 12),
            (
                Token::File {
                    device: 1,
                    inode: 2,
                },
                20,
            ),
        ] {
            let mut out = Vec::new();
            assert!(encode(&token, &mut out));
            assert_eq!(out.len(), len, "{token:?}");
            out.extend_from_slice(b"next record");
            assert_eq!(record_len(&out), Some(len));
            assert_eq!(decode(&out).unwrap(), (token, len));
        }
        assert!(!encode(&etag("x".repeat(65_535), None), &mut Vec::new()));
    }

    proptest::proptest! {
        /// Broken: a damaged snapshot takes the worker down.
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some((_, len)) = decode(&bytes) {
                assert!(len <= bytes.len());
                assert_eq!(record_len(&bytes), Some(len));
            }
        }
    }
}
