//! Snapshots of directory volumes, and what a new volume may be a copy of.
//!
//! ```text
//! create   record Making -> copied tree appears, whole -> record Ready -> answered
//! delete   record Deleting -> tree goes to the trash -> answered; the sweep removes its files
//! ```
//! A snapshot that is answered is there, so it is always ready to be used; one that is Making when the driver
//! starts was never answered, and goes. It lies beside the volumes of its class and outlives its volume. What is
//! needed to find it is in its record (`directory`, and `cold`: the store that its stubs name).
//!
//! Lock order: the snapshot's name, then what `spaces/copy.rs` takes.

use std::collections::BTreeMap;

use tonic::Status;

use super::Controller;
use super::create::{NAME_MAX, sorted};
use super::directories::{beside, class_of, finish};
use crate::copies::refuse_parameters;
use crate::data::directory::{ClassDirectory, CopyOf, Wanted, now};
use crate::secrets::Secrets;
use crate::spaces::SpaceName;
use crate::wire::CreateSnapshotRequest;
use crate::{
    ContentSource, DirectoryPath, RecordState, SnapshotRecord, VolumeId, VolumeRecord,
    VolumeRequest,
};

/// First part of this driver's snapshot ids.
const PREFIX: &str = "snap";

/// What is found in the directory of a class, and may be copied.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The directory of the class.
    pub(super) class: DirectoryPath,
    /// Its name in it.
    pub(super) name: SpaceName,
    /// Its limit; 0: none.
    pub(super) size: u64,
    /// The store that its stubs name.
    pub(super) cold: Option<String>,
}

/// Takes a snapshot, or answers the one that the name has.
///
/// Errors: ALREADY_EXISTS for one of another volume; NOT_FOUND; FAILED_PRECONDITION where none is possible.
pub(super) async fn create(
    controller: &Controller,
    request: CreateSnapshotRequest,
) -> Result<SnapshotRecord, Status> {
    if request.name.is_empty() || request.name.len() > NAME_MAX {
        return Err(Status::invalid_argument(format!(
            "a snapshot needs a name of 1 to {NAME_MAX} bytes"
        )));
    }
    super::named(&request.source_volume_id)?;
    let parameters = sorted(&request.parameters);
    refuse_parameters(&parameters)?;
    Secrets::parse(&request.secrets)?;
    if controller.bases.is_empty() {
        return Err(Status::unimplemented(
            "this driver serves no directories, and versions never change; name directories with --directories",
        ));
    }
    let id = VolumeId::of_name(PREFIX, &request.name);
    let id = id.map_err(|why| Status::internal(why.to_string()))?;
    let (owned, key) = (controller.clone(), id.to_string());
    let work = beside(move || {
        if let Some(there) = there(&owned, &id, &request.source_volume_id)? {
            return Ok(there);
        }
        let volume = owned.known(&request.source_volume_id)?;
        let of = volume_to_copy(&owned, &volume)?;
        let mut context = BTreeMap::from([("directory".to_owned(), of.class.to_string())]);
        context.extend(of.cold.clone().map(|url| ("cold".to_owned(), url)));
        let record = SnapshotRecord {
            id,
            name: request.name,
            state: RecordState::Making,
            volume: volume.id,
            size: of.size,
            created: now(),
            parameters,
            context,
        };
        take(&owned, record, &of)
    });
    controller.locks.run(&key, work).await
}

/// The snapshot that has the name; what is left of one that was never answered, or was deleted, goes.
fn there(
    controller: &Controller,
    id: &VolumeId,
    volume: &str,
) -> Result<Option<SnapshotRecord>, Status> {
    match controller.snapshots.get(id)? {
        Some(there) if there.state != RecordState::Ready => {
            finish(&controller.snapshots, &controller.bases, &there)?;
            Ok(None)
        }
        Some(there) if there.volume.as_str() != volume => Err(Status::already_exists(format!(
            "snapshot {:?} exists, of another volume; use another name",
            there.name
        ))),
        there => Ok(there),
    }
}

fn take(
    controller: &Controller,
    mut record: SnapshotRecord,
    of: &Found,
) -> Result<SnapshotRecord, Status> {
    let class = ClassDirectory::open(&controller.bases.find(&of.class)?)?;
    controller.snapshots.put(&record)?;
    let source = CopyOf {
        class: &class,
        name: &of.name,
        contents: controller.promises.contents(),
    };
    let name = SpaceName::of_snapshot(&record.id);
    if let Err(error) = class.make(&name, &Wanted::default(), Some(source)) {
        // The first error is the one to tell; the sweep removes what there is.
        let deleting = |record: &mut SnapshotRecord| record.state = RecordState::Deleting;
        let _ = controller.snapshots.update(&record.id, deleting);
        return Err(error.into());
    }
    record.state = RecordState::Ready;
    controller.snapshots.put(&record)?;
    tracing::info!(snapshot = %record.id, volume = %record.volume, "snapshot taken");
    Ok(record)
}

/// Deletes a snapshot. Volumes that were made from it keep what they have.
pub(super) async fn delete(controller: &Controller, id: VolumeId) -> Result<(), Status> {
    let (owned, key) = (controller.clone(), id.to_string());
    let work = beside(move || {
        let Some(record) = owned.snapshots.get(&id)? else {
            return Ok(());
        };
        let deleting = |record: &mut SnapshotRecord| record.state = RecordState::Deleting;
        owned.snapshots.update(&id, deleting)?;
        let class = owned.bases.find(&snapshot_class(&record)?)?;
        Ok(ClassDirectory::open(&class)?.discard(&SpaceName::of_snapshot(&id))?)
    });
    controller.locks.run(&key, work).await
}

/// Whether the removal of a snapshot has begun.
pub(super) fn is_deleted(controller: &Controller, id: &VolumeId) -> Result<bool, Status> {
    let found = controller.snapshots.get(id)?;
    Ok(found.is_none_or(|record| record.state == RecordState::Deleting))
}

/// A snapshot that was answered and not deleted.
pub(super) fn known(controller: &Controller, id: &str) -> Result<SnapshotRecord, Status> {
    let parsed = id.parse::<VolumeId>().ok();
    let found = parsed.map(|id| controller.snapshots.get(&id)).transpose()?;
    let found = found.flatten();
    let ready = found.filter(|record| record.state == RecordState::Ready);
    ready.ok_or_else(|| {
        let shown: String = id.chars().take(128).collect();
        Status::not_found(format!("snapshot {shown:?} does not exist"))
    })
}

/// Refuses an absent id.
pub(super) fn named(id: &str) -> Result<(), Status> {
    match id.is_empty() {
        true => Err(Status::invalid_argument("the request names no snapshot")),
        false => Ok(()),
    }
}

/// The directory of the class that a snapshot lies in.
pub(super) fn snapshot_class(record: &SnapshotRecord) -> Result<DirectoryPath, Status> {
    let named = record.context.get("directory");
    let named = named.ok_or_else(|| Status::data_loss("the snapshot's record names no directory"));
    Ok(named?.parse()?)
}

/// What a new volume is to be a copy of.
///
/// Errors: NOT_FOUND; INVALID_ARGUMENT and FAILED_PRECONDITION for what cannot be copied.
pub(super) fn origin(controller: &Controller, source: &ContentSource) -> Result<Found, Status> {
    match source {
        ContentSource::Volume(id) => {
            let record = controller.known(id.as_str())?;
            volume_to_copy(controller, &record)
        }
        ContentSource::Snapshot(id) => {
            let record = known(controller, id.as_str())?;
            Ok(Found {
                class: snapshot_class(&record)?,
                name: SpaceName::of_snapshot(id),
                size: record.size,
                cold: record.context.get("cold").cloned(),
            })
        }
    }
}

/// Judges whether a volume can be copied, whole.
fn volume_to_copy(controller: &Controller, volume: &VolumeRecord) -> Result<Found, Status> {
    let Some(class) = class_of(volume)? else {
        return Err(Status::invalid_argument(format!(
            "volume {} shows a version, which never changes; name the same version in another volume",
            volume.id
        )));
    };
    let wanted = VolumeRequest::parse(&volume.parameters)?;
    let place = controller.bases.find(&class)?;
    if !controller.sharing.is_possible(place.path()) {
        return Err(Status::failed_precondition(format!(
            "the file system of {} cannot share blocks between files (FICLONE), so there are no snapshots and \
             copies of its volumes; use XFS with reflink=1 or btrfs, or copy the files in a pod",
            place.path().display()
        )));
    }
    let own = ClassDirectory::open(&place)?;
    let promises = &controller.promises;
    if promises.stages(&wanted.durability) && !own.is_kept_below(&volume.id)? {
        return Err(Status::failed_precondition(format!(
            "files of volume {} may be on a node's SSD only (durability {}), and a copy would be without them; \
             use a class with durability shared or cold",
            volume.id, wanted.durability
        )));
    }
    Ok(Found {
        class,
        name: SpaceName::of_volume(&volume.id),
        size: volume.size,
        cold: wanted.cold.map(|cold| cold.url().to_owned()),
    })
}
