//! The name space of a mount: a live prefix, or a snapshot made when it was mounted.
//!
//! Below a mount's state directory: `inodes/` (the live prefix's inode table) or
//! `snapshot-<mount id>` (read by every worker that serves this mount; those of earlier mounts are
//! removed when a new one is made).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use terrace_cache::store::Store;
use terrace_fuse::keeper::MountSpec;
use terrace_fuse::live::{LiveConfig, LiveParts, LivePrefix, Opening, SystemClock};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{Snapshot, from_store};

use super::options::MountOptions;

/// Opens the live prefix; the store is not asked.
pub(super) fn live(
    state: &Path,
    store: &Store,
    options: &MountOptions,
    opening: Opening,
) -> Result<LivePrefix> {
    let table = state.join("inodes");
    let parts = LiveParts {
        lister: Arc::new(store.clone()),
        prefix: store.url().prefix(),
        table: &table,
        opening,
        config: LiveConfig {
            metadata_ttl: options.ttl.0,
            negative_ttl: options.ttl.0,
            ..LiveConfig::default()
        },
        ownership: ownership(options),
        clock: Arc::new(SystemClock::new()),
    };
    LivePrefix::open(parts).with_context(|| format!("open the inode table {}", table.display()))
}

/// Opens the snapshot of this mount, or makes it from the store's listing.
pub(super) async fn snapshot(
    state: &Path,
    store: &Store,
    spec: &MountSpec,
    options: &MountOptions,
) -> Result<Snapshot> {
    let path = snapshot_path(state, spec);
    if !path.exists() {
        remove_others(state, &path);
        build(store, &path).await?;
    }
    Snapshot::open(&path, ownership(options))
        .with_context(|| format!("open the snapshot {}", path.display()))
}

/// Where the snapshot of a mount lies.
pub(super) fn snapshot_path(state: &Path, spec: &MountSpec) -> PathBuf {
    state.join(format!("snapshot-{}", spec.id))
}

/// Lists the store into a snapshot file, which appears whole or not at all.
pub(super) async fn build(store: &Store, path: &Path) -> Result<()> {
    let walked = from_store(store, store.url().prefix(), &|seen| {
        tracing::debug!(seen, "listing for a snapshot");
    })
    .await
    .with_context(|| format!("list {}", store.url()))?;
    if walked.hidden > 0 {
        tracing::warn!(
            hidden = walked.hidden,
            "keys that cannot be paths are left out"
        );
    }
    let target: PathBuf = path.to_owned();
    // Sorting and writing ten million entries takes seconds: not on the runtime's threads.
    tokio::task::spawn_blocking(move || walked.builder.finish(&target))
        .await
        .context("build the snapshot")?
        .with_context(|| format!("write the snapshot {}", path.display()))?;
    Ok(())
}

/// Snapshots of mounts that ended. An error costs disk space, nothing else.
pub(super) fn remove_others(state: &Path, keep: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        let path = entry.path();
        let stale = entry.file_name().to_string_lossy().starts_with("snapshot-") && path != keep;
        if stale && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "old snapshot cannot be removed");
        }
    }
}

pub(super) fn ownership(options: &MountOptions) -> Ownership {
    Ownership {
        uid: options.uid,
        gid: options.gid,
        file_mode: options.file_mode,
        directory_mode: options.dir_mode,
    }
}
