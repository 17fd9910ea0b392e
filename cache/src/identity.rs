//! What an object is: a place in a store plus the version found there.
//!
//! Identity makes coherence trivial: bytes of an [`ObjectId`] never change, so nothing below ever
//! needs invalidation, only eviction. A changed object is another `ObjectId`.
//!
//! [`ObjectId::digest`] names objects on disk. Its input (format 1) is, in order, each field
//! prefixed by its length as a little-endian `u32`:
//! `b"terrace-object-1"`, store, key, token kind byte, token fields, then size as `u64` LE; for
//! kinds `Hdfs` and `File` also mtime as `i64` LE (their token alone does not change on rewrite).

mod text;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// SHA-256 of an object's identity (not of its bytes): its name in every tier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// What the store says distinguishes this version from every other one at the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// Strong entity tag of an object store, and its version id when the bucket has versions.
    ETag {
        /// As sent by the server, quotes included.
        etag: Arc<str>,
        /// S3 version id, when known.
        version_id: Option<Arc<str>>,
    },
    /// HDFS file id (0 when the protocol does not tell it); compared with size and mtime.
    Hdfs {
        /// INode id given by the NameNode.
        file_id: u64,
    },
    /// Local or shared directory; compared with size and mtime.
    File {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
}

/// One version of an object: token, length and modification time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// See [`Token`].
    pub token: Token,
    /// Length in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch (may be negative).
    pub mtime_ns: i64,
}

/// An immutable object: `store` + `key` + `version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// Canonical URL of the store, without credentials: `s3://bucket`, `hdfs://ns`, `file:///`.
    pub store: Arc<str>,
    /// Key below the store, no leading slash.
    pub key: Arc<str>,
    /// The pinned version.
    pub version: Version,
}

/// The unit of eviction policy: what belongs together (a mount's prefix or a table), and of which
/// tenant. The text is `name`, or `tenant`, [`DatasetKey::TENANT_END`] and `name`; the hot tier's
/// records hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatasetKey(pub Arc<str>);

impl DatasetKey {
    /// Ends the tenant's name. Neither a URL nor a dataset's name has it.
    pub const TENANT_END: char = '\u{1f}';

    /// The same dataset as a tenant reads it.
    #[must_use]
    pub fn of_tenant(&self, tenant: Option<&str>) -> Self {
        match tenant {
            None => Self(self.name().into()),
            Some(tenant) => Self(format!("{tenant}{}{}", Self::TENANT_END, self.name()).into()),
        }
    }

    /// Whose budgets it uses; `None`: nobody's.
    pub fn tenant(&self) -> Option<&str> {
        self.0
            .split_once(Self::TENANT_END)
            .map(|(tenant, _)| tenant)
    }

    /// What it is, whoever reads it.
    pub fn name(&self) -> &str {
        let split = self.0.split_once(Self::TENANT_END);
        split.map_or(&*self.0, |(_, name)| name)
    }
}

impl ObjectId {
    /// Name of this object in every tier. See the module text for the input.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u32).to_le_bytes());
            hash.update(bytes);
        };
        field(b"terrace-object-1");
        field(self.store.as_bytes());
        field(self.key.as_bytes());
        match &self.version.token {
            Token::ETag { etag, version_id } => {
                field(&[1]);
                field(etag.as_bytes());
                field(version_id.as_deref().unwrap_or("").as_bytes());
            }
            Token::Hdfs { file_id } => {
                field(&[2]);
                field(&file_id.to_le_bytes());
                field(&self.version.mtime_ns.to_le_bytes());
            }
            Token::File { device, inode } => {
                field(&[3]);
                field(&device.to_le_bytes());
                field(&inode.to_le_bytes());
                field(&self.version.mtime_ns.to_le_bytes());
            }
        }
        field(&self.version.size.to_le_bytes());
        Digest(hash.finalize().into())
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.version.size
    }
}

impl Digest {
    /// Lower-case hexadecimal, 64 characters.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(2 * self.0.len());
        push_hex(&mut text, &self.0);
        text
    }
}

/// Appends bytes as lower-case hexadecimal.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", &self.hex()[..12])
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.store.strip_suffix('/').unwrap_or(&self.store),
            self.key
        )
    }
}
