//! ListVolumes and ListSnapshots, in pages: the same for every driver.
//!
//! A token is `after:` and the hash that names the last record of the page before
//! ([`crate::records`]). It stays good when that record goes away.

use tonic::Status;

use crate::copies::snapshot;
use crate::wire::list_snapshots_response::Entry as SnapshotEntry;
use crate::wire::list_volumes_response::{Entry, VolumeStatus};
use crate::wire::{
    ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse, Volume,
};
use crate::{Record, RecordState, Records, SnapshotRecord, VolumeId, VolumeRecord};

const TOKEN: &str = "after:";

/// One page of the volumes that were answered and not removed. Blocks on the disk.
pub(crate) fn volumes(
    records: &Records<VolumeRecord>,
    request: &ListVolumesRequest,
    shown: impl Fn(VolumeRecord) -> Volume,
) -> Result<ListVolumesResponse, Status> {
    let ready = |record: &VolumeRecord| record.state == RecordState::Ready;
    let (most, token) = (request.max_entries, &request.starting_token);
    let (found, next_token) = page(records, most, token, ready)?;
    let entry = |record| Entry {
        volume: Some(shown(record)),
        status: Some(VolumeStatus::default()),
    };
    Ok(ListVolumesResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}

/// One page of the snapshots that a request is about; an unknown id is an empty list. Blocks on the disk.
pub(crate) fn snapshots(
    records: &Records<SnapshotRecord>,
    request: &ListSnapshotsRequest,
) -> Result<ListSnapshotsResponse, Status> {
    let source = request.source_volume_id.as_str();
    let wanted = |record: &SnapshotRecord| {
        record.state == RecordState::Ready
            && (source.is_empty() || record.volume.as_str() == source)
    };
    let (most, token) = (request.max_entries, &request.starting_token);
    let (found, next_token) = match request.snapshot_id.as_str() {
        "" => page(records, most, token, wanted)?,
        id => {
            let id = id.parse::<VolumeId>().ok();
            let one = id.map(|id| records.get(&id)).transpose()?.flatten();
            (one.into_iter().filter(wanted).collect(), String::new())
        }
    };
    let entry = |record| SnapshotEntry {
        snapshot: Some(snapshot(record)),
    };
    Ok(ListSnapshotsResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}

/// One page, and the token of the next one (empty at the end). 0 entries is all.
fn page<R: Record>(
    records: &Records<R>,
    most: i32,
    token: &str,
    wanted: impl Fn(&R) -> bool,
) -> Result<(Vec<R>, String), Status> {
    let most = usize::try_from(most)
        .map_err(|_| Status::invalid_argument("max_entries cannot be negative"))?;
    let after = match token {
        "" => "",
        token => token
            .strip_prefix(TOKEN)
            .filter(|hash| VolumeId::is_hash(hash.as_bytes()))
            .ok_or_else(|| Status::aborted("the token is not one of this list; begin without"))?,
    };
    let (found, more) = records.page(after, most, wanted)?;
    let last = found.last().filter(|_| more);
    let next = last.map_or_else(String::new, |last| format!("{TOKEN}{}", last.id().hash()));
    Ok((found, next))
}
