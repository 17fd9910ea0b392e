//! Names of objects, from parts that nobody has to own: a tree of a million files asks for a million.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Digest, Token};

/// Format 1 of the input that the module text of `identity` specifies.
const FORMAT: &[u8] = b"terrace-object-1";

/// A [`Token`] whose texts are somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRef<'a> {
    /// See [`Token::ETag`].
    ETag {
        /// As sent by the server, quotes included.
        etag: &'a str,
        /// S3 version id, when known.
        version_id: Option<&'a str>,
    },
    /// See [`Token::Hdfs`].
    Hdfs {
        /// INode id given by the NameNode.
        file_id: u64,
    },
    /// See [`Token::File`].
    File {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
}

/// Names objects of one store.
#[derive(Clone, Debug)]
pub struct Namer {
    /// The input of the hash; its first `start` bytes are the same for every object.
    input: Vec<u8>,
    start: usize,
}

impl Token {
    /// The same without owning it.
    pub fn as_ref(&self) -> TokenRef<'_> {
        match self {
            Self::ETag { etag, version_id } => TokenRef::ETag {
                etag,
                version_id: version_id.as_deref(),
            },
            Self::Hdfs { file_id } => TokenRef::Hdfs { file_id: *file_id },
            Self::File { device, inode } => TokenRef::File {
                device: *device,
                inode: *inode,
            },
        }
    }
}

impl TokenRef<'_> {
    /// The same, owned.
    pub fn to_token(&self) -> Token {
        match *self {
            Self::ETag { etag, version_id } => Token::ETag {
                etag: etag.into(),
                version_id: version_id.map(Arc::from),
            },
            Self::Hdfs { file_id } => Token::Hdfs { file_id },
            Self::File { device, inode } => Token::File { device, inode },
        }
    }
}

impl Namer {
    /// For objects of the store with this canonical URL.
    pub fn new(store: &str) -> Self {
        let mut namer = Self {
            input: Vec::with_capacity(256),
            start: 0,
        };
        namer.field(FORMAT);
        namer.field(store.as_bytes());
        namer.start = namer.input.len();
        namer
    }

    /// The name of the object with the key `directory` followed by `name`, as
    /// [`super::ObjectId::digest`] tells it.
    pub fn digest(
        &mut self,
        directory: &[u8],
        name: &[u8],
        token: &TokenRef<'_>,
        size: u64,
        mtime_ns: i64,
    ) -> Digest {
        self.input.truncate(self.start);
        self.length(directory.len() + name.len());
        self.input.extend_from_slice(directory);
        self.input.extend_from_slice(name);
        match *token {
            TokenRef::ETag { etag, version_id } => {
                self.field(&[1]);
                self.field(etag.as_bytes());
                self.field(version_id.unwrap_or("").as_bytes());
            }
            TokenRef::Hdfs { file_id } => {
                self.field(&[2]);
                self.field(&file_id.to_le_bytes());
                self.field(&mtime_ns.to_le_bytes());
            }
            TokenRef::File { device, inode } => {
                self.field(&[3]);
                self.field(&device.to_le_bytes());
                self.field(&inode.to_le_bytes());
                self.field(&mtime_ns.to_le_bytes());
            }
        }
        self.field(&size.to_le_bytes());
        Digest(Sha256::digest(&self.input).into())
    }

    fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.input.extend_from_slice(bytes);
    }

    fn length(&mut self, bytes: usize) {
        self.input.extend_from_slice(&(bytes as u32).to_le_bytes());
    }
}
