//! The volumes of one base directory: make, find, enlarge, begin to remove, and how much room is left.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backend::{Backend, QuotaKind, Usage, choose};
use super::base::{Expected, adopt, prepare};
use super::caps::disk_of;
use super::error::ScratchError;
use super::ids::{Ids, PRIVATE_IDS};
use super::locks::{Guard, Locks};
use super::request::{NewVolume, check_size, limit, record, same};
use super::tree::rename_durably;
use crate::mounts::{MountEntry, Target};
use crate::{RecordState, Records, SnapshotRecord, VolumeId, VolumeRecord};

/// Longest wait for the end of a removal, when the name is wanted again; the time between two looks.
const REMOVAL_WAIT: Duration = Duration::from_secs(5);
const REMOVAL_LOOK: Duration = Duration::from_millis(10);

/// Where scratch volumes lie and how their limits are kept.
#[derive(Clone, Debug)]
pub struct ScratchConfig {
    /// The base directory, made when absent.
    pub base: PathBuf,
    /// Where it is expected to lie.
    pub expected: Expected,
    /// Who keeps limits; `None` asks the file system.
    pub kind: Option<QuotaKind>,
    /// Numbers that volumes get.
    pub ids: RangeInclusive<u32>,
    /// Bytes of the file system that are never promised to a volume.
    pub keep_free: u64,
}

/// The scratch volumes of one base directory. Several processes may have it open.
#[derive(Debug)]
pub struct Scratch {
    pub(super) base: PathBuf,
    pub(super) backend: Box<dyn Backend>,
    pub(super) ids: Ids,
    pub(super) locks: Locks,
    pub(crate) volumes: Records<VolumeRecord>,
    pub(crate) snapshots: Records<SnapshotRecord>,
    pub(super) device: (u32, u32),
    pub(super) keep_free: u64,
    step: fn(&'static str),
}

impl ScratchConfig {
    /// The usual settings for a base directory.
    pub fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            expected: Expected::default(),
            kind: None,
            ids: PRIVATE_IDS,
            keep_free: 0,
        }
    }
}

impl Scratch {
    /// Opens the base directory. Nothing is removed: that is what [`Scratch::sweep`] is for.
    ///
    /// Errors: `Base` when it is not where it is expected, or not ours; `Unsupported` when its file
    /// system keeps no limits.
    pub fn open(config: &ScratchConfig) -> Result<Self, ScratchError> {
        let entry = prepare(&config.base, &config.expected)?;
        let backend = choose(&config.base, &entry.fs_type, config.kind)?;
        adopt(&config.base, backend.kind())?;
        let records = config.base.join("records");
        Ok(Self {
            ids: Ids::new(&config.base, config.ids.clone()),
            locks: Locks::new(&config.base),
            volumes: Records::open(&records)?,
            snapshots: Records::open(&records)?,
            device: disk_of(entry.device, Path::new(&entry.source)),
            base: config.base.clone(),
            backend,
            keep_free: config.keep_free,
            step: |_| {},
        })
    }

    /// Calls `step` between any two steps that a kill can come between, with the name of what was
    /// done last. For tests of kills.
    pub fn with_steps(mut self, step: fn(&'static str)) -> Self {
        self.step = step;
        self
    }

    /// Who keeps the limits.
    pub fn kind(&self) -> QuotaKind {
        self.backend.kind()
    }

    /// Whether snapshots and copies of volumes are possible.
    pub fn copies(&self) -> bool {
        self.backend.copies()
    }

    /// The base directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Makes a volume, or answers the one that the name has already.
    ///
    /// Errors: `Exists` when the name has a volume with other arguments, `Full`, `Size`, `Busy`,
    /// `NotFound` for a source that is absent, `Unsupported` for a copy where none is possible.
    pub fn create(&self, asked: &NewVolume) -> Result<VolumeRecord, ScratchError> {
        let id = self.id_of("scratch", &asked.name)?;
        let gone = |record: Option<VolumeRecord>| {
            record.is_none_or(|record| record.state == RecordState::Deleting)
        };
        let _held = self.hold_name(&id, gone(self.volumes.get(&id)?))?;
        match self.volumes.get(&id)? {
            Some(found) if found.state == RecordState::Ready => return same(found, asked),
            // The name is wanted again before the sweep came to it.
            Some(found) if found.state == RecordState::Deleting => {
                self.finish_removal(&id, &self.volume_path(&id))?;
            }
            // Never answered, so it may be begun again, with other arguments too.
            Some(_) => self.discard(&id)?,
            None => {}
        }
        let record = record(id, asked);
        let made = self.make(&record, asked);
        match made {
            Ok(()) => Ok(VolumeRecord {
                state: RecordState::Ready,
                ..record
            }),
            Err(error) => {
                // The first error is the one to tell; what cannot be removed now is swept later.
                let _ = match self.discard(&record.id) {
                    Ok(()) => self.volumes.remove(&record.id).map(drop),
                    Err(_) => {
                        let deleting = |r: &mut VolumeRecord| r.state = RecordState::Deleting;
                        self.volumes.update(&record.id, deleting).map(drop)
                    }
                };
                Err(error)
            }
        }
    }

    /// A volume that was answered and not removed.
    pub fn volume(&self, id: &VolumeId) -> Result<VolumeRecord, ScratchError> {
        let found = self.volumes.get(id)?;
        let ready = found.filter(|record| record.state == RecordState::Ready);
        ready.ok_or_else(|| ScratchError::NotFound(id.clone()))
    }

    /// Every volume that was answered and not removed, by id.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, ScratchError> {
        let mut all = self.volumes.list()?;
        all.retain(|record| record.state == RecordState::Ready);
        Ok(all)
    }

    /// Begins the removal of a volume; unknown and removed ones are no error. Its files go with
    /// [`Scratch::sweep`].
    ///
    /// Errors: `InUse` while it is mounted, `Busy`.
    pub fn delete(&self, id: &VolumeId) -> Result<(), ScratchError> {
        // One whose removal is recorded belongs to the sweep, which may be at it.
        let begun = |record: &VolumeRecord| record.state == RecordState::Deleting;
        if self.volumes.get(id)?.as_ref().is_none_or(begun) {
            return Ok(());
        }
        let _held = self.hold(id)?;
        let Some(record) = self.volumes.get(id)? else {
            return Ok(());
        };
        let at = self.volume_path(id);
        self.unused(id, &at)?;
        if record.state != RecordState::Deleting {
            self.volumes
                .update(id, |r| r.state = RecordState::Deleting)?;
        }
        (self.step)("delete: recorded");
        self.to_trash(id, &at)?;
        (self.step)("delete: in the trash");
        Ok(())
    }

    /// Enlarges a volume and answers it. A smaller size changes nothing.
    ///
    /// Errors: `NotFound`, `Full`, `Size`, `Busy`.
    pub fn expand(&self, id: &VolumeId, size: u64) -> Result<VolumeRecord, ScratchError> {
        let _held = self.hold(id)?;
        let mut record = self.volume(id)?;
        check_size(size)?;
        if size < record.size {
            return Ok(record);
        }
        if size > record.size {
            let _shared = self.locks.hold_shared()?;
            self.room(size - record.size)?;
            record.size = size;
            self.volumes.put(&record)?;
        }
        (self.step)("expand: recorded");
        // Also for a size that it has: the call before may have ended between the two.
        let number = self.number(id)?;
        self.backend
            .resize(&self.volume_path(id), number, limit(&record)?)?;
        (self.step)("expand: limited");
        Ok(record)
    }

    /// Changes the parameters that may change, and answers the volume.
    pub fn modify(
        &self,
        id: &VolumeId,
        mutable: &BTreeMap<String, String>,
    ) -> Result<VolumeRecord, ScratchError> {
        let _held = self.hold(id)?;
        self.volume(id)?;
        let changed = self
            .volumes
            .update(id, |record| record.mutable.extend(mutable.clone()))?;
        changed.ok_or_else(|| ScratchError::NotFound(id.clone()))
    }

    /// What a volume has and may have.
    pub fn usage(&self, id: &VolumeId) -> Result<Usage, ScratchError> {
        let record = self.volume(id)?;
        let mut usage = self
            .backend
            .usage(&self.volume_path(id), self.number(id)?)?;
        if usage.byte_limit == 0 {
            usage.byte_limit = record.size;
        }
        Ok(usage)
    }

    /// Shows a volume at a target; again is no error. The volume's lock is held meanwhile.
    pub fn attach(&self, id: &VolumeId, target: &Target) -> Result<(), ScratchError> {
        let _held = self.hold(id)?;
        self.volume(id)?;
        self.backend.attach(&self.volume_path(id), target)
    }

    /// Where a volume is mounted.
    pub fn mounts(&self, id: &VolumeId) -> Result<Vec<MountEntry>, ScratchError> {
        let at = self.volume_path(id);
        if !at.exists() {
            return Ok(Vec::new());
        }
        self.backend.mounts(&at)
    }

    /// Numbers of the block device that the volumes' bytes go to.
    pub fn device(&self) -> (u32, u32) {
        self.device
    }

    pub(super) fn volume_path(&self, id: &VolumeId) -> PathBuf {
        self.base.join("volumes").join(id.hash())
    }

    pub(super) fn hold(&self, id: &VolumeId) -> Result<Guard, ScratchError> {
        let held = self.locks.try_hold(&id.hash())?;
        held.ok_or_else(|| ScratchError::Busy(id.clone()))
    }

    pub(super) fn id_of(&self, prefix: &str, name: &str) -> Result<VolumeId, ScratchError> {
        VolumeId::of_name(prefix, name).map_err(|error| ScratchError::Base {
            base: self.base.clone(),
            why: error.to_string(),
        })
    }

    /// The lock of a name that is wanted. One whose last bearer is just being removed is waited for,
    /// for [`REMOVAL_WAIT`]; a large removal takes longer, and the call comes again.
    pub(super) fn hold_name(&self, id: &VolumeId, removed: bool) -> Result<Guard, ScratchError> {
        let begun = Instant::now();
        loop {
            match self.hold(id) {
                Err(ScratchError::Busy(_)) if removed && begun.elapsed() < REMOVAL_WAIT => {
                    // A lock of another process is no event that one could wait for.
                    std::thread::park_timeout(REMOVAL_LOOK);
                }
                done => return done,
            }
        }
    }

    pub(super) fn step(&self, done: &'static str) {
        (self.step)(done);
    }

    /// The number of a volume or snapshot; the caller holds its lock.
    pub(super) fn take_number(&self, id: &VolumeId) -> Result<u32, ScratchError> {
        self.ids
            .take(&id.hash(), |number| self.backend.unused(number))
    }

    /// Moves files into the trash, if there are any; what was being made goes at once.
    pub(super) fn to_trash(&self, id: &VolumeId, at: &Path) -> Result<(), ScratchError> {
        self.backend
            .remove(&self.base.join("making").join(id.hash()))?;
        if at.exists() {
            // What is read-only cannot be moved.
            if at.starts_with(self.base.join("snapshots")) {
                self.backend.seal(at, false)?;
            }
            rename_durably(at, &self.base.join("trash").join(id.hash()))?;
        }
        Ok(())
    }

    fn number(&self, id: &VolumeId) -> Result<u32, ScratchError> {
        let number = self.ids.of(&id.hash())?;
        number.ok_or_else(|| ScratchError::NotFound(id.clone()))
    }

    fn make(&self, record: &VolumeRecord, asked: &NewVolume) -> Result<(), ScratchError> {
        let limit = limit(record)?;
        check_size(record.size)?;
        let source = self.source(asked)?;
        let number = {
            let _shared = self.locks.hold_shared()?;
            self.room(record.size)?;
            self.volumes.put(record)?;
            self.step("create: recorded");
            self.take_number(&record.id)?
        };
        self.step("create: numbered");
        let making = self.base.join("making").join(record.id.hash());
        match &source {
            Some((from, _held)) => self.backend.copy(from, &making, number, limit)?,
            None => self.backend.make(&making, number, limit)?,
        }
        self.step("create: made");
        rename_durably(&making, &self.volume_path(&record.id))?;
        self.step("create: renamed");
        self.volumes
            .update(&record.id, |r| r.state = RecordState::Ready)?;
        self.step("create: ready");
        Ok(())
    }

    /// Removes what a creation made so far, but the record.
    fn discard(&self, id: &VolumeId) -> Result<(), ScratchError> {
        self.backend
            .remove(&self.base.join("making").join(id.hash()))?;
        self.backend.remove(&self.volume_path(id))?;
        if let Some(number) = self.ids.of(&id.hash())? {
            self.backend.release(number)?;
            self.ids.free(&id.hash())?;
        }
        Ok(())
    }
}
