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
use super::create::{Size, same};
use crate::data::directory::{ClassDirectory, volume_of_class};
use crate::data::{Bases, DirectoryVolume};
use crate::locks::Locks;
use crate::{
    DirectoryPath, Durability, RecordState, Records, VolumeId, VolumeRecord, VolumeRequest,
    VolumeSource,
};

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
}

/// Makes the volume of that name below the directory of its class, or answers the one that is there.
///
/// Errors: those of [`same`], and of the file system.
pub(super) async fn make(
    controller: &Controller,
    mut asked: VolumeRecord,
    size: Size,
    class: &DirectoryPath,
    durability: Durability,
) -> Result<VolumeRecord, Status> {
    let (records, bases, class) = (
        Arc::clone(&controller.records),
        controller.bases.clone(),
        class.clone(),
    );
    beside(move || {
        match records.get(&asked.id)? {
            Some(there) if there.state == RecordState::Ready => return same(there, &asked, size),
            // Never answered, or deleted: the name begins anew, maybe with other arguments.
            Some(there) => finish(&records, &bases, &there)?,
            None => {}
        }
        let place = volume_of_class(&bases.resolve(&class)?, &asked.id);
        asked.context = DirectoryVolume::at(&place, durability)?.context();
        asked.state = RecordState::Making;
        let own = ClassDirectory::open(&bases.find(&class)?)?;
        records.put(&asked)?;
        if let Err(error) = own.make(&asked.id) {
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

/// Deletes a volume: the record of a version, and of a directory what it names. Whether there was one.
///
/// Errors: those of the file system; the volume is gone for everybody all the same, and the call may come
/// again.
pub(super) async fn delete(controller: &Controller, id: VolumeId) -> Result<bool, Status> {
    let (records, bases) = (Arc::clone(&controller.records), controller.bases.clone());
    let sweeper = Arc::clone(&controller.sweeper);
    beside(move || {
        let Some(record) = records.get(&id)? else {
            return Ok(false);
        };
        let Some(class) = class_of(&record)? else {
            return Ok(records.remove(&id)?);
        };
        records.update(&id, |record| record.state = RecordState::Deleting)?;
        ClassDirectory::open(&bases.find(&class)?)?.discard(&id)?;
        sweeper.deleted.notify_one();
        Ok(true)
    })
    .await
}

/// The directory of the class that a volume was made in; `None` for the volume of a version.
fn class_of(record: &VolumeRecord) -> Result<Option<DirectoryPath>, Status> {
    match VolumeRequest::parse(&record.parameters)?.source {
        VolumeSource::Directory(path) => Ok(Some(path)),
        VolumeSource::Dataset(_) | VolumeSource::Model(_) | VolumeSource::Scratch => Ok(None),
    }
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
