//! A pinned version as one line of text, for records that know nothing of stores: the catalog keeps
//! it as a file's opaque `token`.
//!
//! ```text
//! text = "etag:" etag
//!      | "etag+id:" length of id ":" id etag          version id of the bucket too
//!      | "hdfs:" file id ":" mtime_ns
//!      | "file:" device ":" inode ":" mtime_ns
//! ```
//!
//! Numbers are decimal and the length counts bytes. What a read is compared with comes back exactly:
//! a record's own modification time may be rounded to milliseconds, so the kinds whose pin includes
//! the time carry it themselves. Size stands beside the text in every record and is not repeated.

use std::sync::Arc;

use super::{Token, Version};

/// Nanoseconds in a millisecond.
const MILLISECOND: i64 = 1_000_000;

impl Version {
    /// The text that pins this version, without its size. Equal texts and sizes are equal pins.
    pub fn pin_text(&self) -> String {
        match &self.token {
            Token::ETag {
                etag,
                version_id: None,
            } => format!("etag:{etag}"),
            Token::ETag {
                etag,
                version_id: Some(id),
            } => format!("etag+id:{}:{id}{etag}", id.len()),
            Token::Hdfs { file_id } => format!("hdfs:{file_id}:{}", self.mtime_ns),
            Token::File { device, inode } => format!("file:{device}:{inode}:{}", self.mtime_ns),
        }
    }

    /// The version that [`Version::pin_text`] described, of `size` bytes; `mtime_ms` is used where
    /// the pin has no time of its own. `None`: not such a text.
    pub fn from_pin_text(text: &str, size: u64, mtime_ms: i64) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let mut numbers = rest.split(':');
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let (token, mtime_ns) = match kind {
            "etag" => (etag(rest, None), None),
            "etag+id" => {
                let (length, rest) = rest.split_once(':')?;
                let (id, etag_text) = rest.split_at_checked(length.parse().ok()?)?;
                (etag(etag_text, Some(id.into())), None)
            }
            "hdfs" => {
                let file_id = number()?;
                (Token::Hdfs { file_id }, Some(numbers.next()?.parse().ok()?))
            }
            "file" => {
                let (device, inode) = (number()?, number()?);
                let time = numbers.next()?.parse().ok()?;
                (Token::File { device, inode }, Some(time))
            }
            _ => return None,
        };
        let has_end = mtime_ns.is_none() || numbers.next().is_none();
        has_end.then(|| Self {
            token,
            size,
            mtime_ns: mtime_ns.unwrap_or_else(|| mtime_ms.saturating_mul(MILLISECOND)),
        })
    }
}

fn etag(etag: &str, version_id: Option<Arc<str>>) -> Token {
    let etag = etag.into();
    Token::ETag { etag, version_id }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a mount asks the store for another version than the catalog registered.
    #[test]
    fn every_pin_survives() {
        let id = |text: &str| Some(Arc::from(text));
        for (token, text) in [
            (etag("\"0af1\"", None), "etag:\"0af1\""),
            (etag("\"a:b\"", None), "etag:\"a:b\""),
            (etag("", None), "etag:"),
            (etag("\"0af1\"", id("v:1é")), "etag+id:5:v:1é\"0af1\""),
            (etag("\"0af1\"", id("")), "etag+id:0:\"0af1\""),
            (
                Token::Hdfs { file_id: u64::MAX },
                "hdfs:18446744073709551615:-7",
            ),
            (
                Token::File {
                    device: 1,
                    inode: 2,
                },
                "file:1:2:-7",
            ),
        ] {
            let pins_time = !matches!(token, Token::ETag { .. });
            let version = Version {
                token,
                size: 9,
                mtime_ns: if pins_time { -7 } else { 3_000_000 },
            };
            assert_eq!(version.pin_text(), text);
            assert_eq!(Version::from_pin_text(text, 9, 3), Some(version));
        }
    }

    // Records come from the network: what is no pin is told, not guessed, and nothing panics.
    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "etag",
            "\"0af1\"",
            "hdfs:1",
            "hdfs:-1:2",
            "hdfs:1:2:3",
            "file:1:2",
            "file:1:2:x",
            "etag+id:9:short",
            "etag+id:x:",
            "etag+id:1:é",
            "gcs:1",
        ] {
            assert_eq!(Version::from_pin_text(bad, 1, 1), None, "{bad:?}");
        }
        assert!(
            Version::from_pin_text("etag:x", 1, i64::MAX)
                .unwrap()
                .mtime_ns
                > 0
        );
    }
}
