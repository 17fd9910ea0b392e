//! What an object is: a place in a store plus the version found there.
//!
//! Identity makes coherence trivial: bytes of an [`ObjectId`] never change, so nothing below ever
//! needs invalidation, only eviction. A changed object is another `ObjectId`.
//!
//! [`ObjectId::digest`] names objects on disk. Its input (format 1) is, in order, each field
//! prefixed by its length as a little-endian `u32`:
//! `b"terrace-object-1"`, store, key, token kind byte, token fields, then size as `u64` LE; for
//! kinds `Hdfs` and `File` also mtime as `i64` LE (their token alone does not change on rewrite).

mod name;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

pub use self::name::{Namer, TokenRef};

/// SHA-256 of an object's identity (not of its bytes): its name in every tier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// A map by digest, without hashing what is a hash already.
pub type DigestMap<V> = HashMap<Digest, V, BuildHasherDefault<DigestHasher>>;

/// Takes the word that a [`Digest`] gives as it is. For keys that are digests only.
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not of the first bytes: those that are together in a map may be so because they begin alike.
        state.write_u64(self.word(2));
    }
}

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
        let Version {
            token,
            size,
            mtime_ns,
        } = &self.version;
        let key = self.key.as_bytes();
        Namer::new(&self.store).digest(key, b"", &token.as_ref(), *size, *mtime_ns)
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.version.size
    }
}

impl Digest {
    /// Eight of its bytes, as uniformly distributed as all of them; `number` of four.
    pub(crate) fn word(&self, number: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[8 * number..][..8]);
        u64::from_le_bytes(word)
    }

    /// Lower-case hexadecimal, 64 characters.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(2 * self.0.len());
        push_hex(&mut text, &self.0);
        text
    }
}

/// Appends bytes as lower-case hexadecimal.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let [high, low] = hex_digits(*byte);
        text.push(char::from(high));
        text.push(char::from(low));
    }
}

/// A byte as two lower-case hexadecimal digits.
pub(crate) fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)])
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
