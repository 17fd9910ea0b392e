//! Snapshots, and what volumes are copies of, as the interface shows them: the same for every driver.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use tonic::Status;

use crate::attributes::is_of_kubernetes;
use crate::wire::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::wire::{Snapshot, VolumeContentSource};
use crate::{ContentSource, SnapshotRecord, VolumeId};

/// A snapshot as answers show it. What has a record that is ready can be used.
pub(crate) fn snapshot(record: SnapshotRecord) -> Snapshot {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    Snapshot {
        size_bytes: signed(record.size),
        snapshot_id: record.id.into(),
        source_volume_id: record.volume.into(),
        creation_time: Some(Timestamp {
            seconds: signed(record.created),
            nanos: 0,
        }),
        ready_to_use: true,
        group_snapshot_id: String::new(),
    }
}

/// What a volume is a copy of, as answers show it.
pub(crate) fn shown(source: ContentSource) -> VolumeContentSource {
    let source = match source {
        ContentSource::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.into(),
        }),
        ContentSource::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.into(),
        }),
    };
    VolumeContentSource {
        r#type: Some(source),
    }
}

/// Reads what a volume is to be a copy of.
///
/// Errors: INVALID_ARGUMENT for nothing, NOT_FOUND for what can be no id.
pub(crate) fn source(asked: VolumeContentSource) -> Result<ContentSource, Status> {
    match asked.r#type {
        Some(Type::Snapshot(snapshot)) => Ok(ContentSource::Snapshot(id(&snapshot.snapshot_id)?)),
        Some(Type::Volume(volume)) => Ok(ContentSource::Volume(id(&volume.volume_id)?)),
        None => Err(Status::invalid_argument(
            "the source of the volume is empty",
        )),
    }
}

/// Refuses parameters of a VolumeSnapshotClass, but for those that Kubernetes adds for whoever wants them.
pub(crate) fn refuse_parameters(parameters: &BTreeMap<String, String>) -> Result<(), Status> {
    match parameters.keys().find(|key| !is_of_kubernetes(key)) {
        None => Ok(()),
        Some(key) => Err(Status::invalid_argument(format!(
            "unknown parameter {key:.80?}; snapshots take none"
        ))),
    }
}

fn id(text: &str) -> Result<VolumeId, Status> {
    text.parse().map_err(|_| {
        Status::not_found(format!("no volume and no snapshot has the id {text:.140?}"))
    })
}
