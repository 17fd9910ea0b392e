//! A descriptor's pin moves with the newest version: once that is near, pins of older ones end.
//!
//! ```text
//! older versions   unpin every file      some of them are files of the newest one, too
//! newest version   pin every file again
//! ```
//!
//! Between the two steps a file of both may be evicted, so whoever calls counts afterwards. Pins that
//! somebody set by hand on an older version of such a dataset end as well.

use std::path::PathBuf;
use std::sync::Arc;

use terrace_cache::Digest;
use terrace_cache::hot::HotTier;
use terrace_fuse::namespace::{Ino, Namespace as _};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::Snapshot;

/// Entries that are looked at, and pins that are written, at once: each write is a sync of the index.
const AT_ONCE: u64 = 4096;

/// Ends the pins of these lists of files, then pins those of `newest`. A list that cannot be read any
/// more is left out: its version is gone from this node.
pub(super) async fn move_to(
    newest: &Arc<Snapshot>,
    older: Vec<PathBuf>,
    hot: &HotTier,
) -> Result<(), String> {
    for path in older {
        let opening = move || Snapshot::open(&path, Ownership::default());
        let opened = tokio::task::spawn_blocking(opening).await;
        if let Ok(Ok(snapshot)) = opened {
            set(&Arc::new(snapshot), hot, false).await?;
        }
    }
    set(newest, hot, true).await
}

async fn set(snapshot: &Arc<Snapshot>, hot: &HotTier, pinned: bool) -> Result<(), String> {
    let mut next = 1;
    while next <= snapshot.entries() {
        let end = (next + AT_ONCE).min(snapshot.entries() + 1);
        let (listed, tier) = (Arc::clone(snapshot), hot.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let objects = (next..end).filter_map(|ino| listed.object(Ino(ino)).ok());
            let digests = objects.map(|object| object.digest());
            let changed = digests.filter(|digest| tier.is_pinned(digest) != pinned);
            changed.collect::<Vec<Digest>>()
        });
        let digests = looking.await.map_err(|error| error.to_string())?;
        if !digests.is_empty() {
            let written = hot.pin_all(digests, pinned).await;
            written.map_err(|error| format!("move the pins: {error}"))?;
        }
        next = end;
    }
    Ok(())
}
