//! Directory volumes in the controller: made in two steps, taken away at once, removed behind.
//!
//! ```text
//! create   record Making -> directory appears, whole -> record Ready -> answered
//! delete   record Deleting -> directory goes to the trash -> answered
//! sweep    files in the trash -> record
//! ```
//!
//! What a record names exists or is going to; what exists without a record was made by nobody here. A record
//! that is Making when the driver starts was never answered, and what it names goes. The place of a volume
//! is found again from the record's parameters each time and never read from what a request says.
//!
//! Lock order: the volume's name ([`Locks`]), for a whole operation; nothing below it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::Controller;
use super::create::same;
use crate::data::directory::{ClassDirectory, Wanted, volume_of_class};
use crate::data::size::Size;
use crate::data::{Bases, DirectoryVolume};
use crate::locks::Locks;
use crate::{DirectoryPath, RecordState, Records, VolumeId, VolumeRecord, VolumeRequest};

/// Longest time between two looks for what is to be removed: what failed once is tried again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Removes the files of deleted volumes, until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    deleted: Arc<Notify>,
    _task: JoinSet<()>,
}

/// What a sweep needs.
#[derive(Clone)]
struct Sweep {
    records: Arc<Records<VolumeRecord>>,
    locks: Locks,
    bases: Bases,
}

impl Sweeper {
    /// Begins. What was left by a driver that was killed goes first. In a tokio runtime.
    pub(super) fn new(records: &Arc<Records<VolumeRecord>>, locks: &Locks, bases: &Bases) -> Self {
        let deleted = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        // A driver without directories has nothing to remove, and could not reach it.
        if !bases.is_empty() {
            let sweep = Sweep {
                records: Arc::clone(records),
                locks: locks.clone(),
                bases: bases.clone(),
            };
            task.spawn(sweep.for_ever(Arc::clone(&deleted)));
        }
        Self {
            deleted,
            _task: task,
        }
    }

    /// A volume was deleted, and its name is free: its files may go.
    pub(super) fn wake(&self) {
        self.deleted.notify_one();
    }
}

/// Makes the volume of that name below the directory of its class, or answers the one that is there.
///
/// Errors: those of [`same`], and of the file system.
pub(super) async fn make(
    controller: &Controller,
    mut asked: VolumeRecord,
    size: Size,
    class: &DirectoryPath,
    wanted: &VolumeRequest,
) -> Result<VolumeRecord, Status> {
    let (records, bases) = (Arc::clone(&controller.records), controller.bases.clone());
    let (class, wanted) = (class.clone(), wanted.clone());
    beside(move || {
        match records.get(&asked.id)? {
            Some(there) if there.state == RecordState::Ready => return same(there, &asked, size),
            // Never answered, or deleted: the name begins anew, maybe with other arguments.
            Some(there) => finish(&records, &bases, &there)?,
            None => {}
        }
        let place = volume_of_class(&bases.resolve(&class)?, &asked.id);
        asked.context = DirectoryVolume::at(&place, &wanted)?.context();
        asked.state = RecordState::Making;
        let own = ClassDirectory::open(&bases.find(&class)?)?;
        records.put(&asked)?;
        let limited = Wanted {
            bytes: Some(asked.size).filter(|size| *size > 0),
            tenant: wanted.tenant,
        };
        if let Err(error) = own.make(&asked.id, &limited) {
            // The first error is the one to tell; the sweep removes what there is.
            let deleting = |record: &mut VolumeRecord| record.state = RecordState::Deleting;
            let _ = records.update(&asked.id, deleting);
            return Err(error.into());
        }
        asked.state = RecordState::Ready;
        records.put(&asked)?;
        tracing::info!(volume = %asked.id, place = %place.display(), "volume made");
        Ok(asked)
    })
    .await
}

/// Makes a volume larger, if it is not as large already; its size. The size of a version is a promise about
/// nothing, that of a directory its limit.
///
/// Errors: NOT_FOUND; OUT_OF_RANGE for a smaller one; those of the file system.
pub(super) async fn grow(controller: &Controller, id: VolumeId, size: Size) -> Result<u64, Status> {
    let owned = controller.clone();
    beside(move || {
        let record = owned.known(id.as_str())?;
        let bytes = size.grown(record.size)?;
        if let Some(class) = class_of(&record)? {
            // The limit first: a size that is told holds.
            ClassDirectory::open(&owned.bases.find(&class)?)?.grow(&id, bytes)?;
        }
        if bytes > record.size {
            owned.records.update(&id, |record| record.size = bytes)?;
            tracing::info!(volume = %id, bytes, "volume is larger now");
        }
        Ok(bytes)
    })
    .await
}

/// Deletes a volume: the record of a version, and of a directory what it names. Whether there was one.
///
/// Errors: those of the file system; the volume is gone for everybody all the same, and the call may come
/// again.
pub(super) async fn delete(controller: &Controller, id: VolumeId) -> Result<bool, Status> {
    let (records, bases) = (Arc::clone(&controller.records), controller.bases.clone());
    beside(move || {
        let Some(record) = records.get(&id)? else {
            return Ok(false);
        };
        let Some(class) = class_of(&record)? else {
            return Ok(records.remove(&id)?);
        };
        records.update(&id, |record| record.state = RecordState::Deleting)?;
        ClassDirectory::open(&bases.find(&class)?)?.discard(&id)?;
        Ok(true)
    })
    .await
}

/// The directory of the class that a volume was made in; `None` for the volume of a version. Whatever else its
/// parameters were, it can be removed.
fn class_of(record: &VolumeRecord) -> Result<Option<DirectoryPath>, Status> {
    let named = record.parameters.get("directory");
    Ok(named.map(|path| path.parse()).transpose()?)
}

/// Removes what a record names, then the record. The caller holds the name.
fn finish(
    records: &Records<VolumeRecord>,
    bases: &Bases,
    record: &VolumeRecord,
) -> Result<(), Status> {
    if let Some(class) = class_of(record)? {
        let own = ClassDirectory::open(&bases.find(&class)?)?;
        own.discard(&record.id)?;
        own.empty(&record.id)?;
    }
    records.remove(&record.id)?;
    Ok(())
}

impl Sweep {
    async fn for_ever(self, deleted: Arc<Notify>) {
        // Only at the start: later a record that is Making belongs to a call.
        let mut is_due: fn(RecordState) -> bool = |state| state != RecordState::Ready;
        loop {
            if let Err(why) = self.once(is_due).await {
                tracing::warn!(why = why.message(), "deleted volumes stay for now");
            }
            is_due = |state| state == RecordState::Deleting;
            // Both ends of the wait mean the same: look again.
            let _ = tokio::time::timeout(SWEEP_EVERY, deleted.notified()).await;
        }
    }

    async fn once(&self, is_due: fn(RecordState) -> bool) -> Result<(), Status> {
        let records = Arc::clone(&self.records);
        let mut due = beside(move || Ok(records.list()?)).await?;
        due.retain(|record| is_due(record.state));
        for record in due {
            let id = record.id.clone();
            let sweep = self.clone();
            let work = beside(move || sweep.one(&record.id, is_due));
            match self.locks.run(id.as_str(), work).await {
                Ok(()) => {}
                // A call has the volume; the next look finds what it left.
                Err(busy) if busy.code() == Code::Aborted => {}
                Err(why) => {
                    tracing::warn!(volume = %id, why = why.message(), "a deleted volume stays for now");
                }
            }
        }
        Ok(())
    }

    fn one(&self, id: &VolumeId, is_due: fn(RecordState) -> bool) -> Result<(), Status> {
        // It may have been answered, or removed, before the name was had.
        match self.records.get(id)? {
            Some(record) if is_due(record.state) => finish(&self.records, &self.bases, &record),
            _ => Ok(()),
        }
    }
}

/// Does something that blocks beside the runtime's threads.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
}
