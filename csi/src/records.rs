//! What a controller promised about volumes and snapshots: one small file each, in one directory.
//!
//! ```text
//! <directory>/                 0700
//!   LOCK                       flock(2) held while a file is changed; empty
//!   <hash>.volume              hash = 32 hex digits of the SHA-256 of the volume's id
//!   <hash>.snapshot            likewise, of a snapshot
//!   <hash>.volume.new          being written; worth nothing, removed when the directory is opened
//!
//! file = "terrace-volume 1 " SHA-256(body) in hex "\n" body
//! body = JSON object, UTF-8, the fields of `VolumeRecord` by name; ends with "\n"
//! ```
//!
//! A file is written under its `.new` name, synced, renamed, and the directory synced, so a name
//! shows a whole record or none, whatever dies when; a change that was answered survives a power
//! loss. An unknown version, a body that does not fit its checksum and a body with unknown fields are
//! errors, never an absent record: a driver that took a damaged record for none would make a second
//! volume in the place of the first.
//!
//! An id follows from the name that the request gave ([`VolumeId::of_name`]), so a name needs no
//! index, and several processes may have the directory open: readers take no lock, because a file
//! never changes under its name; writers take `LOCK` for the time of one write.

mod page;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::VolumeId;
use crate::volume_id::hex;

/// The format that this code writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// Largest file that is read: requests are limited to 4 MiB by gRPC, records hold a part of one.
const FILE_MAX: u64 = 8 << 20;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file is not a record that this version understands.
    #[error("record {path:?} is damaged or of another version: {why}; restore it or remove it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk refused.
    #[error("{what} record {path:?}: {source}")]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Something that has an id and is kept in a file of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// The word for it: the end of its file names and the first line of its files.
    const KIND: &'static str;

    /// The id that it is found by.
    fn id(&self) -> &VolumeId;
}

/// How far a volume or snapshot has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Asked for, not answered yet: nobody has it, and it may be removed.
    Making,
    /// Answered.
    #[default]
    Ready,
    /// Its removal was asked for: it is gone for everybody, its remains are being removed.
    Deleting,
}

/// What a volume began as a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentSource {
    /// A snapshot, by its id.
    Snapshot(VolumeId),
    /// Another volume, by its id.
    Volume(VolumeId),
}

/// What was promised about one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// The volume's id.
    pub id: VolumeId,
    /// The name that the request gave; the same name is the same volume.
    pub name: String,
    /// How far it has come.
    pub state: RecordState,
    /// Capacity in bytes; 0 when it has none of its own.
    pub size: u64,
    /// Parameters of the StorageClass, as they came.
    pub parameters: BTreeMap<String, String>,
    /// Parameters that may change (VolumeAttributesClass), as they were last accepted.
    pub mutable: BTreeMap<String, String>,
    /// Access modes that it was asked for, by their names in the specification.
    pub access: Vec<String>,
    /// What it began as a copy of.
    pub source: Option<ContentSource>,
    /// What the answer gave as the volume's context, for the node.
    pub context: BTreeMap<String, String>,
}

/// What was promised about one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    /// The snapshot's id.
    pub id: VolumeId,
    /// The name that the request gave.
    pub name: String,
    /// How far it has come.
    pub state: RecordState,
    /// The volume that it is a snapshot of.
    pub volume: VolumeId,
    /// Bytes that a volume made from it needs at least.
    pub size: u64,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Parameters of the VolumeSnapshotClass, as they came.
    pub parameters: BTreeMap<String, String>,
    /// What its driver needs to find it, and what volumes made from it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

/// The records of one kind in one directory.
#[derive(Debug)]
pub struct Records<R> {
    directory: PathBuf,
    kind: PhantomData<fn() -> R>,
}

impl Record for VolumeRecord {
    const KIND: &'static str = "volume";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}

impl Record for SnapshotRecord {
    const KIND: &'static str = "snapshot";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}

impl<R: Record> Records<R> {
    /// Opens the directory, made when absent (its parent must exist), and removes what a killed
    /// writer left half written.
    pub fn open(directory: &Path) -> Result<Self, RecordError> {
        let made = DirBuilder::new().mode(0o700).create(directory);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(io_error("make the directory of", directory, error));
        }
        let records = Self {
            directory: directory.to_owned(),
            kind: PhantomData,
        };
        let _lock = records.lock()?;
        for path in records.files(".new")? {
            fs::remove_file(&path).map_err(|e| io_error("clean", &path, e))?;
        }
        Ok(records)
    }

    /// The record of an id.
    pub fn get(&self, id: &VolumeId) -> Result<Option<R>, RecordError> {
        let Some(record) = self.read(&self.path(id))? else {
            return Ok(None);
        };
        if record.id() == id {
            return Ok(Some(record));
        }
        Err(damaged(&self.path(id), "it belongs to another id"))
    }

    /// Every record, by its id. One that goes away meanwhile is left out.
    pub fn list(&self) -> Result<Vec<R>, RecordError> {
        let mut found = Vec::new();
        for path in self.files(&format!(".{}", R::KIND))? {
            found.extend(self.read(&path)?);
        }
        found.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(found)
    }

    /// Keeps a record whose id has none yet; else answers the one that is there, unchanged.
    pub fn insert(&self, record: &R) -> Result<Option<R>, RecordError> {
        let _lock = self.lock()?;
        if let Some(there) = self.get(record.id())? {
            return Ok(Some(there));
        }
        self.write(record)?;
        Ok(None)
    }

    /// Keeps a record in the place of what its id had. Durable when it returns.
    pub fn put(&self, record: &R) -> Result<(), RecordError> {
        let _lock = self.lock()?;
        self.write(record)
    }

    /// Changes a record; what `change` makes of it is kept and answered. `None` when the id has none.
    pub fn update(
        &self,
        id: &VolumeId,
        change: impl FnOnce(&mut R),
    ) -> Result<Option<R>, RecordError> {
        let _lock = self.lock()?;
        let Some(mut record) = self.get(id)? else {
            return Ok(None);
        };
        change(&mut record);
        self.write(&record)?;
        Ok(Some(record))
    }

    /// Forgets a record. Whether there was one.
    pub fn remove(&self, id: &VolumeId) -> Result<bool, RecordError> {
        let _lock = self.lock()?;
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("remove", &path, error)),
        }
    }

    fn path(&self, id: &VolumeId) -> PathBuf {
        self.directory.join(format!("{}.{}", id.hash(), R::KIND))
    }

    /// Files whose names end so.
    fn files(&self, end: &str) -> Result<Vec<PathBuf>, RecordError> {
        let failed = |error| io_error("list", &self.directory, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().ends_with(end.as_bytes()) {
                found.push(path);
            }
        }
        Ok(found)
    }

    fn lock(&self) -> Result<Flock<File>, RecordError> {
        let path = self.directory.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(|e| io_error("open the lock of", &path, e))?;
        // Held by others for one synced write of a small file at a time.
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io_error("lock", &path, errno.into()))
    }

    fn read(&self, path: &Path) -> Result<Option<R>, RecordError> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)) {
            Ok(_) => decode(&bytes).map(Some).map_err(|why| damaged(path, &why)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", path, error)),
        }
    }

    fn write(&self, record: &R) -> Result<(), RecordError> {
        let path = self.path(record.id());
        let new = self
            .directory
            .join(format!("{}.{}.new", record.id().hash(), R::KIND));
        let bytes = encode(record).map_err(|why| damaged(&path, &why))?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|e| io_error("write", &new, e))?;
        fs::rename(&new, &path).map_err(|e| io_error("rename", &new, e))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), RecordError> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|e| io_error("sync the directory of", &self.directory, e))
    }
}

fn encode<R: Record>(record: &R) -> Result<Vec<u8>, String> {
    let mut body = serde_json::to_vec_pretty(record).map_err(|why| why.to_string())?;
    body.push(b'\n');
    let checksum = hex(&Sha256::digest(&body));
    let mut bytes = format!("terrace-{} {FORMAT} {checksum}\n", R::KIND).into_bytes();
    bytes.append(&mut body);
    Ok(bytes)
}

fn decode<R: Record>(bytes: &[u8]) -> Result<R, String> {
    let head_end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(head_end.ok_or("its first line has no end")? + 1);
    let head = std::str::from_utf8(head).map_err(|_| "its first line is no text")?;
    let mut words = head.trim_end().split(' ');
    if words.next() != Some(&format!("terrace-{}", R::KIND)) {
        return Err(format!("it is not a record of a {}", R::KIND));
    }
    if words.next() != Some(&FORMAT.to_string()) {
        return Err(format!("its version is not {FORMAT}"));
    }
    if words.next() != Some(&hex(&Sha256::digest(body))) || words.next().is_some() {
        return Err("its checksum does not fit".to_owned());
    }
    serde_json::from_slice(body).map_err(|why| why.to_string())
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: &Path, why: &str) -> RecordError {
    RecordError::Damaged {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
