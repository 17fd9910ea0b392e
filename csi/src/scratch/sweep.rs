//! Ends what was begun: removals whose files lie in the trash, creations that nobody was answered.

use std::path::Path;

use super::error::ScratchError;
use super::store::Scratch;
use crate::{Record, RecordState, Records, SnapshotRecord, VolumeId, VolumeRecord};

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Volumes and snapshots that are gone now.
    pub removed: usize,
    /// What could not be removed, and why; the next sweep tries again.
    pub failed: Vec<(VolumeId, ScratchError)>,
    /// Names in `volumes` that have no record. They are left alone; someone has to look.
    pub unknown: Vec<String>,
}

impl Scratch {
    /// Removes what was deleted, and what was begun and never answered: for the start of a driver. A
    /// volume or snapshot that somebody works on is left to them. Blocks as long as removing its files
    /// takes.
    pub fn sweep(&self) -> Result<Swept, ScratchError> {
        self.sweep_if(|state| state != RecordState::Ready)
    }

    /// As [`Scratch::sweep`], but leaves alone what is being made, while requests are served: to look
    /// at it would mean to hold it, and whoever just made it would be told to come again.
    pub fn sweep_deleted(&self) -> Result<Swept, ScratchError> {
        self.sweep_if(|state| state == RecordState::Deleting)
    }

    fn sweep_if(&self, due: fn(RecordState) -> bool) -> Result<Swept, ScratchError> {
        let mut swept = Swept::default();
        let mut volumes = self.volumes.list()?;
        let known: Vec<String> = volumes.iter().map(|record| record.id.hash()).collect();
        volumes.retain(|record| due(record.state));
        for record in volumes {
            let at = self.volume_path(&record.id);
            self.sweep_one(&self.volumes, &record, &at, &mut swept)?;
        }
        let mut snapshots = self.snapshots.list()?;
        snapshots.retain(|record| due(record.state));
        for record in snapshots {
            let at = self.snapshot_path(&record.id);
            self.sweep_one(&self.snapshots, &record, &at, &mut swept)?;
        }
        let volumes = self.base.join("volumes");
        let listing = std::fs::read_dir(&volumes).map_err(ScratchError::io("list", &volumes))?;
        for entry in listing.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // One that was made meanwhile has its record by now.
            if !known.contains(&name) && !self.has_record(&name)? {
                swept.unknown.push(name);
            }
        }
        Ok(swept)
    }

    /// Removes the files, the limit and the number of something; not its record. The caller holds
    /// its lock.
    pub(super) fn finish_removal(&self, id: &VolumeId, at: &Path) -> Result<(), ScratchError> {
        self.to_trash(id, at)?;
        let hash = id.hash();
        self.backend.remove(&self.base.join("trash").join(&hash))?;
        self.step("remove: files");
        if let Some(number) = self.ids.of(&hash)? {
            self.backend.release(number)?;
            self.step("remove: limit");
            self.ids.free(&hash)?;
        }
        self.step("remove: number");
        Ok(())
    }

    fn sweep_one<R: Record + Stateful>(
        &self,
        records: &Records<R>,
        record: &R,
        at: &Path,
        swept: &mut Swept,
    ) -> Result<(), ScratchError> {
        let id = record.id();
        let Some(_held) = self.locks.try_hold(&id.hash())? else {
            return Ok(());
        };
        // It may have been answered, or removed, before the lock was had.
        if records
            .get(id)?
            .is_none_or(|now| now.state() == RecordState::Ready)
        {
            return Ok(());
        }
        let removed = self
            .finish_removal(id, at)
            .and_then(|()| Ok(records.remove(id)?));
        match removed {
            Ok(_) => swept.removed += 1,
            Err(error) => swept.failed.push((id.clone(), error)),
        }
        Ok(())
    }

    fn has_record(&self, hash: &str) -> Result<bool, ScratchError> {
        let records = self.volumes.list()?;
        Ok(records.iter().any(|record| record.id.hash() == hash))
    }
}

/// A record that says how far its subject has come.
trait Stateful {
    fn state(&self) -> RecordState;
}

impl Stateful for VolumeRecord {
    fn state(&self) -> RecordState {
        self.state
    }
}

impl Stateful for SnapshotRecord {
    fn state(&self) -> RecordState {
        self.state
    }
}
