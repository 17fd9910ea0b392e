//! Removes the files of deleted volumes and snapshots behind the answers, and what a killed driver left.
//!
//! A record that is Deleting is removed with what it names; one that is Making when the driver starts was never
//! answered, and goes, too. The names are held one at a time, so calls wait for one removal at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::directories::{beside, class_of};
use super::snapshots::snapshot_class;
use crate::data::Bases;
use crate::data::directory::ClassDirectory;
use crate::locks::Locks;
use crate::spaces::SpaceName;
use crate::{DirectoryPath, Record, RecordState, Records, SnapshotRecord, VolumeId, VolumeRecord};

/// Longest time between two looks for what is to be removed: what failed once is tried again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Removes the files of what was deleted, until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    deleted: Arc<Notify>,
    _task: JoinSet<()>,
}

/// What a sweep needs.
#[derive(Clone)]
struct Sweep {
    records: Arc<Records<VolumeRecord>>,
    snapshots: Arc<Records<SnapshotRecord>>,
    locks: Locks,
    bases: Bases,
}

impl Sweeper {
    /// Begins. What was left by a driver that was killed goes first. In a tokio runtime.
    pub(super) fn new(
        records: &Arc<Records<VolumeRecord>>,
        snapshots: &Arc<Records<SnapshotRecord>>,
        locks: &Locks,
        bases: &Bases,
    ) -> Self {
        let deleted = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        // A driver without directories has nothing to remove, and could not reach it.
        if !bases.is_empty() {
            let sweep = Sweep {
                records: Arc::clone(records),
                snapshots: Arc::clone(snapshots),
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

/// A record of something that has a directory of its own.
pub(super) trait Placed: Record + Send + 'static {
    /// How far it has come.
    fn state(&self) -> RecordState;

    /// The directory of its class, and its name there; `None`: it has none.
    fn place(&self) -> Result<Option<(DirectoryPath, SpaceName)>, Status>;
}

impl Placed for VolumeRecord {
    fn state(&self) -> RecordState {
        self.state
    }

    fn place(&self) -> Result<Option<(DirectoryPath, SpaceName)>, Status> {
        let class = class_of(self)?;
        Ok(class.map(|class| (class, SpaceName::of_volume(&self.id))))
    }
}

impl Placed for SnapshotRecord {
    fn state(&self) -> RecordState {
        self.state
    }

    fn place(&self) -> Result<Option<(DirectoryPath, SpaceName)>, Status> {
        Ok(Some((
            snapshot_class(self)?,
            SpaceName::of_snapshot(&self.id),
        )))
    }
}

/// Removes what a record names, then the record. The caller holds the name.
pub(super) fn finish<R: Placed>(
    records: &Records<R>,
    bases: &Bases,
    record: &R,
) -> Result<(), Status> {
    if let Some((class, name)) = record.place()? {
        let own = ClassDirectory::open(&bases.find(&class)?)?;
        own.discard(&name)?;
        own.empty(&name)?;
    }
    records.remove(record.id())?;
    Ok(())
}

impl Sweep {
    async fn for_ever(self, deleted: Arc<Notify>) {
        // Only at the start: later a record that is Making belongs to a call.
        let mut is_due: fn(RecordState) -> bool = |state| state != RecordState::Ready;
        loop {
            let volumes = self.once(&self.records, is_due).await;
            let snapshots = self.once(&self.snapshots, is_due).await;
            for why in [volumes, snapshots].into_iter().filter_map(Result::err) {
                tracing::warn!(why = why.message(), "what was deleted stays for now");
            }
            is_due = |state| state == RecordState::Deleting;
            // Both ends of the wait mean the same: look again.
            let _ = tokio::time::timeout(SWEEP_EVERY, deleted.notified()).await;
        }
    }

    async fn once<R: Placed>(
        &self,
        records: &Arc<Records<R>>,
        is_due: fn(RecordState) -> bool,
    ) -> Result<(), Status> {
        let listed = Arc::clone(records);
        let mut due = beside(move || Ok(listed.list()?)).await?;
        due.retain(|record| is_due(record.state()));
        for record in due {
            let id = record.id().clone();
            let (records, bases, own) = (Arc::clone(records), self.bases.clone(), id.clone());
            let work = beside(move || one(&records, &bases, &own, is_due));
            match self.locks.run(id.as_str(), work).await {
                Ok(()) => {}
                // A call has it; the next look finds what it left.
                Err(busy) if busy.code() == Code::Aborted => {}
                Err(why) => {
                    tracing::warn!(%id, why = why.message(), "what was deleted stays for now");
                }
            }
        }
        Ok(())
    }
}

fn one<R: Placed>(
    records: &Records<R>,
    bases: &Bases,
    id: &VolumeId,
    is_due: fn(RecordState) -> bool,
) -> Result<(), Status> {
    // It may have been answered, or removed, before the name was had.
    match records.get(id)? {
        Some(record) if is_due(record.state()) => finish(records, bases, &record),
        _ => Ok(()),
    }
}
