//! Snapshots of volumes, and what a volume may be a copy of: read-only copies of one moment (btrfs, images)
//! or file by file (reflinks).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::backend::Limit;
use super::error::ScratchError;
use super::locks::Guard;
use super::request::NewVolume;
use super::store::Scratch;
use super::tree::rename_durably;
use crate::{ContentSource, RecordState, SnapshotRecord, VolumeId};

impl Scratch {
    /// Takes a snapshot of a volume, or answers the one that the name has already. `now` is in
    /// seconds since 1970.
    ///
    /// Errors: `Exists` when the name has a snapshot of another volume, `NotFound` for the volume,
    /// `Unsupported` where none is possible, `Busy`.
    pub fn create_snapshot(
        &self,
        name: &str,
        volume: &VolumeId,
        parameters: &BTreeMap<String, String>,
        now: u64,
    ) -> Result<SnapshotRecord, ScratchError> {
        let id = self.id_of("snap", name)?;
        let gone = |record: Option<SnapshotRecord>| {
            record.is_none_or(|record| record.state == RecordState::Deleting)
        };
        let _held = self.hold_name(&id, gone(self.snapshots.get(&id)?))?;
        match self.snapshots.get(&id)? {
            Some(found) if found.state == RecordState::Ready => {
                return if found.volume == *volume && found.name == name {
                    Ok(found)
                } else {
                    Err(ScratchError::Exists { id, what: "source" })
                };
            }
            // Never answered, or deleted and not swept yet.
            Some(_) => self.finish_removal(&id, &self.snapshot_path(&id))?,
            None => {}
        }
        let record = SnapshotRecord {
            id,
            name: name.to_owned(),
            state: RecordState::Making,
            volume: volume.clone(),
            size: self.volume(volume)?.size,
            created: now,
            parameters: parameters.clone(),
            context: BTreeMap::new(),
        };
        match self.take_snapshot(&record) {
            Ok(()) => Ok(SnapshotRecord {
                state: RecordState::Ready,
                ..record
            }),
            Err(error) => {
                let at = self.snapshot_path(&record.id);
                let _ = match self.finish_removal(&record.id, &at) {
                    Ok(()) => self.snapshots.remove(&record.id).map(drop),
                    Err(_) => self.snapshots.update(&record.id, deleting).map(drop),
                };
                Err(error)
            }
        }
    }

    /// A snapshot that was answered and not removed.
    pub fn snapshot(&self, id: &VolumeId) -> Result<SnapshotRecord, ScratchError> {
        let found = self.snapshots.get(id)?;
        let ready = found.filter(|record| record.state == RecordState::Ready);
        ready.ok_or_else(|| ScratchError::NotFound(id.clone()))
    }

    /// Every snapshot that was answered and not removed, by id.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRecord>, ScratchError> {
        let mut all = self.snapshots.list()?;
        all.retain(|record| record.state == RecordState::Ready);
        Ok(all)
    }

    /// Begins the removal of a snapshot; unknown and removed ones are no error. Volumes that were
    /// made from it keep what they have.
    pub fn delete_snapshot(&self, id: &VolumeId) -> Result<(), ScratchError> {
        // One whose removal is recorded belongs to the sweep, which may be at it.
        let begun = |record: &SnapshotRecord| record.state == RecordState::Deleting;
        if self.snapshots.get(id)?.as_ref().is_none_or(begun) {
            return Ok(());
        }
        let _held = self.hold(id)?;
        if self.snapshots.update(id, deleting)?.is_none() {
            return Ok(());
        }
        self.step("delete snapshot: recorded");
        self.to_trash(id, &self.snapshot_path(id))?;
        self.step("delete snapshot: in the trash");
        Ok(())
    }

    pub(super) fn snapshot_path(&self, id: &VolumeId) -> PathBuf {
        self.base.join("snapshots").join(id.hash())
    }

    /// The directory that a volume is to be a copy of, with its lock.
    pub(super) fn source(
        &self,
        asked: &NewVolume,
    ) -> Result<Option<(PathBuf, Guard)>, ScratchError> {
        let (id, path, least) = match &asked.source {
            None => return Ok(None),
            Some(ContentSource::Volume(id)) => (id, self.volume_path(id), self.volume(id)?.size),
            Some(ContentSource::Snapshot(id)) => {
                (id, self.snapshot_path(id), self.snapshot(id)?.size)
            }
        };
        if asked.size < least {
            return Err(ScratchError::Size {
                asked: asked.size,
                why: "a copy is not smaller than what it is a copy of",
            });
        }
        let held = self.hold(id)?;
        self.may_copy(id, &path)?;
        Ok(Some((path, held)))
    }

    /// Refuses what may not be copied while it is mounted, and is. The caller holds its lock.
    fn may_copy(&self, id: &VolumeId, at: &Path) -> Result<(), ScratchError> {
        match self.backend.copies_in_use() {
            true => Ok(()),
            false => self.unused(id, at),
        }
    }

    /// Refuses a volume that is mounted.
    pub(super) fn unused(&self, id: &VolumeId, at: &Path) -> Result<(), ScratchError> {
        match at.exists() {
            true => match self.backend.mounts(at)?.into_iter().next() {
                Some(entry) => Err(ScratchError::InUse {
                    id: id.clone(),
                    path: entry.target,
                }),
                None => Ok(()),
            },
            false => Ok(()),
        }
    }

    fn take_snapshot(&self, record: &SnapshotRecord) -> Result<(), ScratchError> {
        // The volume may not be removed or enlarged meanwhile.
        let _volume = self.hold(&record.volume)?;
        let from = self.volume_path(&record.volume);
        self.may_copy(&record.volume, &from)?;
        let number = {
            let _shared = self.locks.hold_shared()?;
            self.room(self.backend.copy_needs(record.size))?;
            self.snapshots.put(record)?;
            self.step("snapshot: recorded");
            self.take_number(&record.id)?
        };
        let making = self.base.join("making").join(record.id.hash());
        let limit = Limit {
            bytes: record.size,
            inodes: 0,
        };
        self.backend.copy(&from, &making, number, limit)?;
        self.step("snapshot: made");
        rename_durably(&making, &self.snapshot_path(&record.id))?;
        self.step("snapshot: renamed");
        self.backend.seal(&self.snapshot_path(&record.id), true)?;
        self.step("snapshot: sealed");
        self.snapshots
            .update(&record.id, |r| r.state = RecordState::Ready)?;
        Ok(())
    }
}

/// Records that a snapshot is to be removed.
fn deleting(record: &mut SnapshotRecord) {
    record.state = RecordState::Deleting;
}
