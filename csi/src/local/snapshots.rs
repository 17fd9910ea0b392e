//! Snapshots of scratch volumes, as the interface shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use tonic::Status;

use super::{Local, known, ordered, required};
use crate::copies::refuse_parameters;
use crate::wire::{CreateSnapshotRequest, Snapshot};

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
