//! Lists in pages, in the order of ids.
//!
//! A token is `after:` and the last id of the page before. It stays good when that one goes away.

use tonic::Status;

use crate::{Record, VolumeId};

const TOKEN: &str = "after:";

/// One page of all records, and the token of the next one (empty at the end). 0 entries is all.
pub(crate) fn page<R: Record>(
    mut all: Vec<R>,
    most: i32,
    token: &str,
) -> Result<(Vec<R>, String), Status> {
    let most = usize::try_from(most)
        .map_err(|_| Status::invalid_argument("max_entries cannot be negative"))?;
    if !token.is_empty() {
        let after: Option<VolumeId> = token.strip_prefix(TOKEN).and_then(|id| id.parse().ok());
        let after = after
            .ok_or_else(|| Status::aborted("the token is not one of this list; begin without"))?;
        all.retain(|record| *record.id() > after);
    }
    let mut next = String::new();
    if most > 0 && all.len() > most {
        all.truncate(most);
        next = all
            .last()
            .map_or_else(String::new, |last| format!("{TOKEN}{}", last.id()));
    }
    Ok((all, next))
}
