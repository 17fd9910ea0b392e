//! ListVolumes and ListSnapshots: in the order of ids, in pages ([`crate::pages`]).

use tonic::Status;

use super::snapshots::snapshot;
use super::{Controller, volume};
use crate::pages::page;
use crate::wire::list_snapshots_response::Entry as SnapshotEntry;
use crate::wire::list_volumes_response::{Entry, VolumeStatus};
use crate::wire::{
    ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse,
};
use crate::{RecordState, VolumeId};

pub(super) fn volumes(
    controller: &Controller,
    request: &ListVolumesRequest,
) -> Result<ListVolumesResponse, Status> {
    let mut all = controller.records.list()?;
    all.retain(|record| record.state == RecordState::Ready);
    let (found, next_token) = page(all, request.max_entries, &request.starting_token)?;
    let entry = |record| Entry {
        volume: Some(volume(record)),
        status: Some(VolumeStatus::default()),
    };
    Ok(ListVolumesResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}

/// The snapshots that a request is about; an unknown id is an empty list.
pub(super) fn snapshots(
    controller: &Controller,
    request: &ListSnapshotsRequest,
) -> Result<ListSnapshotsResponse, Status> {
    let mut all = controller.snapshots.list()?;
    let is = |id: &VolumeId, asked: &str| asked.is_empty() || id.as_str() == asked;
    all.retain(|record| {
        record.state == RecordState::Ready
            && is(&record.id, &request.snapshot_id)
            && is(&record.volume, &request.source_volume_id)
    });
    let (found, next_token) = page(all, request.max_entries, &request.starting_token)?;
    let entry = |record| SnapshotEntry {
        snapshot: Some(snapshot(record)),
    };
    Ok(ListSnapshotsResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}
