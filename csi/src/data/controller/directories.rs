//! Directory volumes in the controller: made in two steps, taken away at once, removed behind.
//!
//! ```text
//! create   record Making -> directory appears, whole, of a copy with its files -> record Ready -> answered
//! delete   record Deleting -> directory goes to the trash -> answered
//! sweep    files in the trash -> record (sweep.rs)
//! ```
//!
//! What a record names exists or is going to; what exists without a record was made by nobody here. A record
//! that is Making when the driver starts was never answered, and what it names goes. The place of a volume
//! is found again from the record's parameters each time and never read from what a request says.
//!
//! Lock order: the volume's name ([`crate::locks`]), for a whole operation; nothing below it.

use std::sync::Arc;

use tonic::{Code, Status};

use super::Controller;
use super::create::same;
use super::snapshots::{Found, origin};
pub(super) use super::sweep::finish;
use crate::data::DirectoryVolume;
use crate::data::directory::{ClassDirectory, CopyOf, DirectoryError, Wanted, volume_of_class};
use crate::data::size::Size;
use crate::spaces::SpaceName;
use crate::{DirectoryPath, RecordState, VolumeId, VolumeRecord, VolumeRequest};

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
    let (owned, bases) = (controller.clone(), controller.bases.clone());
    let (class, wanted) = (class.clone(), wanted.clone());
    beside(move || {
        let records = &owned.records;
        match records.get(&asked.id)? {
            Some(there) if there.state == RecordState::Ready => return same(there, &asked, size),
            // Never answered, or deleted: the name begins anew, maybe with other arguments.
            Some(there) => finish(&owned.records, &bases, &there)?,
            None => {}
        }
        let origin = asked.source.as_ref().map(|source| origin(&owned, source));
        let origin = origin.transpose()?;
        if let Some(origin) = &origin {
            asked.size = size_of_copy(origin, size)?;
            check_store(origin, &wanted)?;
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
        let name = SpaceName::of_volume(&asked.id);
        let made = match &origin {
            None => own.make(&name, &limited, None),
            Some(origin) => copy(&owned, &own, &name, &limited, origin),
        };
        if let Err(error) = made {
            // The first error is the one to tell; the sweep removes what there is.
            let deleting = |record: &mut VolumeRecord| record.state = RecordState::Deleting;
            let _ = records.update(&asked.id, deleting);
            return Err(match (&origin, Status::from(error)) {
                // The interface has a word of its own for a source that cannot be used.
                (Some(_), status) if status.code() == Code::FailedPrecondition => {
                    Status::invalid_argument(status.message())
                }
                (_, status) => status,
            });
        }
        asked.state = RecordState::Ready;
        records.put(&asked)?;
        tracing::info!(volume = %asked.id, place = %place.display(), "volume made");
        Ok(asked)
    })
    .await
}

/// Makes a volume as a copy.
fn copy(
    controller: &Controller,
    own: &ClassDirectory,
    name: &SpaceName,
    limited: &Wanted,
    origin: &Found,
) -> Result<(), DirectoryError> {
    let class = ClassDirectory::open(&controller.bases.find(&origin.class)?)?;
    let source = CopyOf {
        class: &class,
        name: &origin.name,
        contents: controller.promises.contents(),
    };
    own.make(name, limited, Some(source))
}

/// The limit of a copy: what was asked for, which is not less than what its origin may have.
///
/// Errors: OUT_OF_RANGE.
fn size_of_copy(origin: &Found, asked: Size) -> Result<u64, Status> {
    let bytes = match asked.least {
        0 => origin.size,
        least => least,
    };
    if bytes < origin.size || !asked.fits(bytes) {
        return Err(Status::out_of_range(format!(
            "a copy is not smaller than what it is a copy of, which has {} bytes",
            origin.size
        )));
    }
    Ok(bytes)
}

/// Refuses a copy whose stubs would name another store than it has.
fn check_store(origin: &Found, wanted: &VolumeRequest) -> Result<(), Status> {
    let same = |cold: &String| wanted.cold.as_ref().is_some_and(|own| own.url() == cold);
    match &origin.cold {
        Some(cold) if !same(cold) => Err(Status::invalid_argument(format!(
            "files of the source may be in its cold store, so a copy needs the same one: use a class with cold: {cold}"
        ))),
        _ => Ok(()),
    }
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
        ClassDirectory::open(&bases.find(&class)?)?.discard(&SpaceName::of_volume(&id))?;
        Ok(true)
    })
    .await
}

/// The directory of the class that a volume was made in; `None` for the volume of a version. Whatever else its
/// parameters were, it can be removed.
pub(super) fn class_of(record: &VolumeRecord) -> Result<Option<DirectoryPath>, Status> {
    let named = record.parameters.get("directory");
    Ok(named.map(|path| path.parse()).transpose()?)
}

/// Does something that blocks beside the runtime's threads.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
}
