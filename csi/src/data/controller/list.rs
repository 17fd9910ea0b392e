//! ListVolumes: every volume in the order of its id, in pages.
//!
//! A token is `after:` and the last id of the page before it. It stays good when that volume goes, and
//! volumes that come meanwhile are found if their turn is still to come.

use tonic::Status;

use super::volume;
use crate::wire::list_volumes_response::{Entry, VolumeStatus};
use crate::wire::{ListVolumesRequest, ListVolumesResponse};
use crate::{RecordState, Records, VolumeId, VolumeRecord};

/// What a token begins with.
const TOKEN: &str = "after:";

pub(super) fn page(
    records: &Records<VolumeRecord>,
    request: &ListVolumesRequest,
) -> Result<ListVolumesResponse, Status> {
    let most = usize::try_from(request.max_entries)
        .map_err(|_| Status::invalid_argument("max_entries cannot be negative"))?;
    let after = match request.starting_token.as_str() {
        "" => None,
        token => Some(parse(token)?),
    };
    let mut found: Vec<VolumeRecord> = records.list()?;
    found.retain(|record| {
        record.state == RecordState::Ready && after.as_ref().is_none_or(|after| record.id > *after)
    });
    let is_cut = most != 0 && found.len() > most;
    if is_cut {
        found.truncate(most);
    }
    let last = found.last().filter(|_| is_cut);
    let next_token = last.map_or_else(String::new, |last| format!("{TOKEN}{}", last.id));
    let entry = |record| Entry {
        volume: Some(volume(record)),
        status: Some(VolumeStatus::default()),
    };
    Ok(ListVolumesResponse {
        entries: found.into_iter().map(entry).collect(),
        next_token,
    })
}

/// Errors: ABORTED, as the interface wants it for a token that is none.
fn parse(token: &str) -> Result<VolumeId, Status> {
    let id = token.strip_prefix(TOKEN).and_then(|id| id.parse().ok());
    id.ok_or_else(|| Status::aborted("the token is not one of this list; begin without one"))
}
