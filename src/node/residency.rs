//! How much of a version is in the hot tier, counted file by file.
//!
//! The tier knows objects by their digests and nothing of versions, so a count asks it about each file
//! of the version, from memory alone.

use terrace_cache::hot::{HotTier, Residency};
use terrace_fuse::namespace::{Ino, Namespace as _};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::Snapshot;
use tonic::Status;

use super::assembly::Node;

/// What is there of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// Files of which every byte is there and synced.
    pub(crate) complete_files: u64,
    /// Bytes of those files.
    pub(crate) complete_bytes: u64,
    /// Bytes of all blocks that are there.
    pub(crate) present_bytes: u64,
}

/// Counts. Blocking: milliseconds for a thousand files, seconds for millions.
pub(crate) fn count(snapshot: &Snapshot, hot: &HotTier) -> Present {
    let mut present = Present::default();
    for ino in (1..=snapshot.entries()).map(Ino) {
        let Ok(object) = snapshot.object(ino) else {
            continue;
        };
        match hot.peek(&object.digest()) {
            Some(Residency::Complete) => {
                present.complete_files += 1;
                present.complete_bytes += object.size();
                present.present_bytes += object.size();
            }
            Some(Residency::Partial { present_bytes }) => {
                present.present_bytes += present_bytes.min(object.size());
            }
            None => {}
        }
    }
    present
}

/// Counts what a mount shows: its number of files, and what is there of them. Blocking, as [`count`].
///
/// Errors: no such mount, or one that shows no fixed set of files.
pub(crate) fn of_mount(node: &Node, mountpoint: &str) -> Result<(u64, Present), Status> {
    let mounted = node.at(mountpoint);
    let mounted = mounted
        .ok_or_else(|| Status::not_found(format!("find {mountpoint}: not mounted by this node")))?;
    if !mounted.options.snapshot {
        return Err(Status::failed_precondition(format!(
            "count {mountpoint}: what a live mount shows changes; mount a version"
        )));
    }
    let file = node.sources().snapshot_of(&mounted.spec);
    let snapshot = Snapshot::open(&file, Ownership::default())
        .map_err(|error| Status::internal(format!("count {mountpoint}: {error}")))?;
    Ok((snapshot.files(), count(&snapshot, node.cache().hot())))
}
