//! Snapshots of scratch volumes, as the interface shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use tonic::Status;

use super::{Local, known, ordered, required};
use crate::VolumeId;
use crate::copies::refuse_parameters;
use crate::pages::page;
use crate::wire::list_snapshots_response::Entry;
use crate::wire::{CreateSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot};

pub(super) use crate::copies::snapshot;

/// Takes a snapshot, or answers the one that is there.
pub(super) fn create_snapshot(
    local: &Local,
    request: CreateSnapshotRequest,
) -> Result<Snapshot, Status> {
    required(&request.name, "name")?;
    required(&request.source_volume_id, "source volume id")?;
    let parameters = ordered(request.parameters);
    refuse_parameters(&parameters)?;
    let volume = known(&request.source_volume_id)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let made = local
        .scratch
        .create_snapshot(&request.name, &volume, &parameters, now)?;
    Ok(snapshot(made))
}

/// One page of the snapshots that a request is about; an unknown id is an empty list.
pub(super) fn list_snapshots(
    local: &Local,
    request: &ListSnapshotsRequest,
) -> Result<ListSnapshotsResponse, Status> {
    let mut all = local.scratch.snapshots()?;
    let is = |id: &VolumeId, asked: &str| asked.is_empty() || id.as_str() == asked;
    all.retain(|record| {
        is(&record.id, &request.snapshot_id) && is(&record.volume, &request.source_volume_id)
    });
    let (found, next_token) = page(all, request.max_entries, &request.starting_token)?;
    let entry = |record| Entry {
        snapshot: Some(snapshot(record)),
    };
    Ok(ListSnapshotsResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}
