//! The objects of a snapshot by their names in every tier, for whoever walks all of them.
//!
//! What siblings share is kept from one to the next: the path of their directory, and room for the
//! input of the hash. [`Namespace::object`](crate::namespace::Namespace::object) makes anew what it
//! tells, and takes about as long as linking a file.

use terrace_cache::Digest;
use terrace_cache::identity::Namer;

use super::{Snapshot, SnapshotError};
use crate::namespace::{FsError, Ino, Kind};

/// Where an entry is, and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Inode number of the directory it is in.
    pub parent: Ino,
    /// Digest of its object, if it is a file with bytes: the hot tier keeps no file for nothing.
    pub object: Option<Digest>,
}

/// See the module text.
#[derive(Debug)]
pub struct Digests<'a> {
    snapshot: &'a Snapshot,
    namer: Namer,
    /// The directory of the last entry, and what the keys of its entries begin with.
    directory: Option<(Ino, Vec<u8>)>,
    text: String,
}

impl<'a> Digests<'a> {
    /// Of `snapshot`.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            namer: Namer::new(&snapshot.store),
            directory: None,
            text: String::new(),
        }
    }

    /// One entry; fast when it is in the directory of the one before.
    pub fn entry(&mut self, ino: Ino) -> Result<Placed, FsError> {
        let snapshot = self.snapshot;
        let (_, row) = snapshot.row(ino)?;
        let parent = Ino(u64::from(row.parent) + 1);
        if row.kind != Kind::File || row.size == 0 {
            return Ok(Placed {
                parent,
                object: None,
            });
        }
        let start = match &mut self.directory {
            Some((directory, start)) if *directory == parent => start,
            directory => {
                let start = key_start(snapshot, parent)?;
                &directory.insert((parent, start)).1
            }
        };
        let name = snapshot.pages.name(&row)?;
        if str::from_utf8(name).is_err() {
            return Err(SnapshotError::Corrupt("a path is not UTF-8").into());
        }
        let token = snapshot.token(&row, &mut self.text)?;
        let namer = &mut self.namer;
        let object = Some(namer.digest(start, name, &token, row.size, row.mtime_ns));
        Ok(Placed { parent, object })
    }
}

/// What the keys of the entries of a directory begin with.
fn key_start(snapshot: &Snapshot, directory: Ino) -> Result<Vec<u8>, FsError> {
    let path = snapshot.path(directory)?;
    if str::from_utf8(&path).is_err() {
        return Err(SnapshotError::Corrupt("a path is not UTF-8").into());
    }
    let mut start = Vec::new();
    for part in [snapshot.prefix.as_bytes(), &path] {
        start.extend_from_slice(part);
        if !part.is_empty() {
            start.push(b'/');
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use terrace_cache::{Token, Version};

    use super::*;
    use crate::namespace::Namespace as _;
    use crate::ownership::Ownership;
    use crate::snapshot::{Builder, Entry, EntryKind, Surplus};

    /// Broken: a tree of links looks for its files under names that no tier has, and fetches all of
    /// them again.
    #[test]
    fn walked_names_are_those_of_the_objects() {
        let etag = |etag: &str, version_id: Option<&str>| Token::ETag {
            etag: etag.into(),
            version_id: version_id.map(Into::into),
        };
        let tokens = [
            etag("\"0123456789abcdef0123456789abcdef\"", None),
            etag("\"0123456789abcdef0123456789abcdef-17\"", None),
            etag("weak", Some("v1")),
            Token::Hdfs { file_id: 7 },
            Token::File {
                device: 3,
                inode: 4,
            },
        ];
        let paths = ["a", "b/c/d", "b/c/e", "b/é", "z", "z2/y", "z2/y2"];
        let directory = tempfile::tempdir().unwrap();
        for prefix in ["", "train/images"] {
            let mut builder = Builder::new("s3://bucket", prefix, Surplus::Refuse);
            for (number, path) in paths.iter().enumerate() {
                let version = Version {
                    token: tokens[number % tokens.len()].clone(),
                    // One is empty.
                    size: number as u64,
                    mtime_ns: -5,
                };
                let (mode, kind) = (None, EntryKind::File(&version));
                builder.push(&Entry { path, mode, kind }).unwrap();
            }
            let file = directory.path().join(format!("snapshot-{}", prefix.len()));
            builder.finish(&file).unwrap();
            let snapshot = Snapshot::open(&file, Ownership::default()).unwrap();
            let mut digests = Digests::new(&snapshot);
            let mut objects = 0;
            for ino in (1..=snapshot.entries()).map(Ino) {
                let placed = digests.entry(ino).unwrap();
                assert_eq!(placed.parent, snapshot.parent(ino).unwrap());
                let object = snapshot.object(ino).ok().filter(|object| object.size() > 0);
                assert_eq!(placed.object, object.map(|object| object.digest()));
                objects += u32::from(placed.object.is_some());
            }
            assert_eq!(objects, 6);
            assert!(digests.entry(Ino(snapshot.entries() + 1)).is_err());
        }
    }
}
