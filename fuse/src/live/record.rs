//! Inode table, format 1: keys and values, without any I/O.
//!
//! Numbers in keys are big-endian (so that they sort), in values little-endian.
//!
//! ```text
//! column family `inodes`:  key  inode number u64
//!                          value  format u8 = 1, kind u8 (0 directory, 1 file), mtime i64,
//!                                 size u64, version token (file only; see `token.rs`), path
//! column family `names`:   key  path, 0x00, kind u8; file only: size u64, mtime i64, token
//!                          value  inode number u64
//! default:                 key  "floor": numbers up to this one were given out and forgotten
//! ```
//!
//! A path holds no NUL, so keys of different paths never meet, and all versions of a path are
//! neighbours. The path is relative to the mount's prefix, without slashes at its ends; the root's
//! is empty. The mtime of a directory is when it was first seen: stores keep none for prefixes.

use terrace_cache::Version;

use crate::namespace::Kind;
use crate::token;

/// The only format so far; a value of another one is refused.
const FORMAT: u8 = 1;

/// What an inode number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Path below the mount's prefix; the root's is empty.
    pub(super) path: Box<str>,
    /// What is there.
    pub(super) what: What,
}

/// A directory, or one version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// First seen at this wall-clock time, nanoseconds since the epoch.
    Directory(i64),
    /// This version.
    File(Version),
}

impl What {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::File(_) => Kind::File,
        }
    }

    /// (size, mtime) as stat shows them.
    pub(super) fn shown(&self) -> (u64, i64) {
        match self {
            Self::Directory(mtime_ns) => (0, *mtime_ns),
            Self::File(version) => (version.size, version.mtime_ns),
        }
    }
}

impl Record {
    /// Last segment of the path.
    pub(super) fn name(&self) -> &str {
        Self::name_of(&self.path)
    }

    /// Last segment of any path.
    pub(super) fn name_of(path: &str) -> &str {
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// Path of the directory it is in.
    pub(super) fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Key in `names`; `None` when the version token is too long for any store we know.
    pub(super) fn key(path: &str, what: &What) -> Option<Vec<u8>> {
        let mut key = Vec::with_capacity(path.len() + 48);
        key.extend_from_slice(path.as_bytes());
        key.push(0);
        match what {
            What::Directory(_) => key.push(0),
            What::File(version) => {
                key.push(1);
                key.extend_from_slice(&version.size.to_be_bytes());
                key.extend_from_slice(&version.mtime_ns.to_be_bytes());
                // The token pads itself to 4 bytes from the start of its buffer.
                let mut record = Vec::with_capacity(24);
                if !token::encode(&version.token, &mut record) {
                    return None;
                }
                key.extend_from_slice(&record);
            }
        }
        Some(key)
    }

    /// Value in `inodes`; `None` as [`Record::key`].
    pub(super) fn encode(path: &str, what: &What) -> Option<Vec<u8>> {
        let mut record = Vec::with_capacity(24);
        let kind = match what {
            What::Directory(_) => 0,
            What::File(version) => {
                if !token::encode(&version.token, &mut record) {
                    return None;
                }
                1
            }
        };
        let (size, mtime_ns) = what.shown();
        let mut value = Vec::with_capacity(18 + record.len() + path.len());
        value.extend_from_slice(&[FORMAT, kind]);
        value.extend_from_slice(&mtime_ns.to_le_bytes());
        value.extend_from_slice(&size.to_le_bytes());
        value.extend_from_slice(&record);
        value.extend_from_slice(path.as_bytes());
        Some(value)
    }

    /// Decodes a value of `inodes`.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let ([format, kind], rest) = value.split_first_chunk()?;
        let (mtime_ns, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (mtime_ns, size) = (i64::from_le_bytes(*mtime_ns), u64::from_le_bytes(*size));
        let (what, path) = match (*format, *kind) {
            (FORMAT, 0) => (What::Directory(mtime_ns), rest),
            (FORMAT, 1) => {
                let (token, len) = token::decode(rest)?;
                (
                    What::File(Version {
                        token,
                        size,
                        mtime_ns,
                    }),
                    &rest[len..],
                )
            }
            _ => return None,
        };
        Some(Self {
            path: std::str::from_utf8(path).ok()?.into(),
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use terrace_cache::Token;

    use super::*;

    fn file() -> What {
        let token = Token::ETag {
            etag: "\"0123\"".into(),
            version_id: Some("v".into()),
        };
        What::File(Version {
            token,
            size: 7,
            mtime_ns: -2,
        })
    }

    /// Broken: after an upgrade of the daemon, open files of a mount turn stale.
    #[test]
    fn format_1_is_as_it_always_was() {
        let value = Record::encode("a/b", &file()).unwrap();
        let golden = b"\x01\x01\xfe\xff\xff\xff\xff\xff\xff\xff\x07\0\0\0\0\0\0\0\
            \x03\x06\0\"0123\"\x01\0va/b";
        assert_eq!(value, golden);
        let directory = Record::encode("d", &What::Directory(3)).unwrap();
        assert_eq!(directory, b"\x01\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0d");
        assert_eq!(Record::key("d", &What::Directory(3)).unwrap(), b"d\0\0");
        assert!(
            Record::key("d", &file())
                .unwrap()
                .starts_with(b"d\0\x01\0\0\0\0\0\0\0\x07\xff")
        );
    }

    /// Broken: what an inode number stands for changes by being stored.
    #[test]
    fn records_survive() {
        for what in [file(), What::Directory(i64::MIN)] {
            for path in ["", "a", "a/b c/\u{e9}"] {
                let record = Record::decode(&Record::encode(path, &what).unwrap()).unwrap();
                assert_eq!((&*record.path, &record.what), (path, &what));
            }
        }
        let record = Record {
            path: "a/b".into(),
            what: file(),
        };
        assert_eq!((record.parent(), record.name()), ("a", "b"));
    }

    proptest::proptest! {
        /// Broken: a damaged table takes the worker down.
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
