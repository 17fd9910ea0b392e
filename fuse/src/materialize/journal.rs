//! The journal beside a tree: one JSON line that says what is going on.
//!
//! ```text
//! {"format":1,"state":"building","snapshot":"<64 hex>","device":0,"inode":0}
//! ```
//! `state` is `building`, `complete` or `removing`; `snapshot` is the digest of the snapshot file;
//! `device` and `inode` name the root directory of the tree (0 while building). It is replaced by
//! a rename and synced, so it is always whole. Whoever changes the tree holds a lock on the
//! directory it lies in; the lock ends with the process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use terrace_cache::Digest;

use super::sys::{directory, io_error};
use super::{MaterializeError, neighbour};

/// The only format so far.
const FORMAT: u32 = 1;
/// Bytes of a journal that are looked at.
const LEN_MAX: u64 = 4096;

/// What is going on with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Building,
    Complete,
    Removing,
}

/// One journal line, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    format: u32,
    pub(super) state: State,
    pub(super) snapshot: String,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The neighbour of a tree, locked.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) tree: PathBuf,
    /// The directory beside the tree.
    pub(super) home: PathBuf,
    /// Open on `home`; carries the lock.
    handle: File,
}

impl Line {
    pub(super) fn new(state: State, snapshot: &Digest, root: Option<&std::fs::Metadata>) -> Self {
        let (device, inode) = root.map_or((0, 0), |root| (root.dev(), root.ino()));
        Self {
            format: FORMAT,
            state,
            snapshot: snapshot.hex(),
            device,
            inode,
        }
    }

    /// The same tree in another state.
    pub(super) fn now(&self, state: State) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    /// Whether `root` is the tree this line names.
    pub(super) fn names(&self, root: &std::fs::Metadata) -> bool {
        self.inode != 0 && (root.dev(), root.ino()) == (self.device, self.inode) && root.is_dir()
    }
}

impl Journal {
    /// Locks the neighbour of `tree`; with `create`, makes it. `None`: there is none.
    pub(super) fn open(tree: &Path, create: bool) -> Result<Option<Self>, MaterializeError> {
        let home = neighbour(tree);
        if create {
            match DirBuilder::new().mode(0o700).create(&home) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(io_error("create directory", &home)(error));
                }
                _ => {}
            }
        }
        let handle = match directory(&home) {
            Ok(handle) => handle,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open directory", &home)(error)),
        };
        match handle.try_lock() {
            Ok(()) => Ok(Some(Self {
                tree: tree.to_owned(),
                home,
                handle,
            })),
            Err(TryLockError::WouldBlock) => Err(MaterializeError::Busy(tree.to_owned())),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &home)(error)),
        }
    }

    /// What the journal says; `None`: nothing was written yet.
    pub(super) fn read(&self) -> Result<Option<Line>, MaterializeError> {
        let path = self.home.join("journal");
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open journal", &path)(error)),
        };
        let mut text = String::new();
        file.take(LEN_MAX)
            .read_to_string(&mut text)
            .map_err(io_error("read journal", &path))?;
        let bad = |reason: String| MaterializeError::Journal {
            path: path.clone(),
            reason,
        };
        let line: Line = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if line.format != FORMAT {
            return Err(bad(format!(
                "format {} is not known to this release",
                line.format
            )));
        }
        Ok(Some(line))
    }

    /// Replaces the journal, durably.
    pub(super) fn write(&self, line: &Line) -> Result<(), MaterializeError> {
        let (new, path) = (self.home.join("journal.new"), self.home.join("journal"));
        let text = serde_json::to_string(line).map_err(|error| MaterializeError::Journal {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            self.handle.sync_all()
        };
        write().map_err(io_error("write journal", &path))
    }

    /// Puts a copy of the snapshot beside the tree, durably.
    pub(super) fn keep_snapshot(&self, bytes: &[u8]) -> Result<(), MaterializeError> {
        self.put("snapshot", bytes)
    }

    /// Notes which files of the tree are no links.
    pub(super) fn keep_copies(&self, copies: &[u64]) -> Result<(), MaterializeError> {
        let bytes: Vec<u8> = copies.iter().flat_map(|ino| ino.to_le_bytes()).collect();
        self.put("copies", &bytes)
    }

    /// Inode numbers of the files that are no links, sorted.
    pub(super) fn copies(&self) -> Result<Vec<u64>, MaterializeError> {
        let path = self.home.join("copies");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("read list of copies", &path)(error)),
        };
        let (numbers, _) = bytes.as_chunks::<8>();
        let mut numbers: Vec<u64> = numbers
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), MaterializeError> {
        let path = self.home.join(name);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(io_error("write", &path))
    }

    /// Where the tree is while it is built or removed.
    pub(super) fn building(&self) -> PathBuf {
        self.home.join("tree")
    }

    /// Makes a rename of the tree, in or out, durable.
    pub(super) fn sync_parent(&self) -> Result<(), MaterializeError> {
        let parent = self
            .tree
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let sync = || {
            directory(parent)?.sync_all()?;
            self.handle.sync_all()
        };
        sync().map_err(io_error("sync directory", parent))
    }

    /// Ends it: nothing of the tree is left.
    pub(super) fn delete(self) -> Result<(), MaterializeError> {
        super::remove::remove_tree(&self.home)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Broken: an upgraded daemon no longer recognises the trees of its predecessor.
    #[test]
    fn format_1_is_as_it_always_was() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&directory.path().join("t"), true)
            .unwrap()
            .unwrap();
        assert_eq!(journal.read().unwrap(), None);
        journal
            .write(&Line::new(State::Building, &Digest([0xab; 32]), None))
            .unwrap();
        let path = journal.home.join("journal");
        let hex = "ab".repeat(32);
        let golden = format!(
            "{{\"format\":1,\"state\":\"building\",\"snapshot\":\"{hex}\",\"device\":0,\"inode\":0}}\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), golden);
        assert_eq!(journal.read().unwrap().unwrap().state, State::Building);
        for bad in [
            "",
            "{",
            &golden.replace(":1", ":2"),
            &golden.replace("inode", "x"),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(
                journal.read(),
                Err(MaterializeError::Journal { .. })
            ));
        }
        assert!(matches!(
            Journal::open(&directory.path().join("t"), true),
            Err(MaterializeError::Busy(_))
        ));
    }
}
