//! What lies below the file system of a mount: names, and where bytes come from. Decided by the source.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use terrace_cache::Source;
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::Opening;
use terrace_fuse::namespace::Namespace;
use terrace_fuse::snapshot::Snapshot;
use terrace_fuse::tables::TableTree;

use super::names;
use super::options::{CATALOG_SOURCE, MountOptions};
use super::router;
use super::sources::{Opened, Sources};
use super::stores::Stores;
use super::tables;
use crate::catalog::view::LateCache;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Below {
    pub(super) namespace: Arc<dyn Namespace>,
    pub(super) stores: Stores,
    pub(super) source: Arc<dyn Source>,
    pub(super) has_warm: bool,
    /// The namespace, when it is the tree of all tables.
    pub(super) tree: Option<TableTree>,
    /// Where the cache goes that a tree of tables reports about.
    pub(super) late_cache: Option<LateCache>,
}

/// Reaches what a new mount needs to be reachable; a mount that is taken over asks nobody.
pub(super) async fn below(
    sources: &Sources,
    spec: &MountSpec,
    options: &MountOptions,
    opening: Opening,
) -> Result<Below, Failure> {
    let state = sources.state_dir(spec).map_err(refused)?;
    if spec.source == CATALOG_SOURCE {
        let opened = tables::tree(sources, &state, spec, options, opening).await;
        let opened = opened.map_err(refused_by_catalog)?;
        return Ok(Below {
            namespace: Arc::new(opened.tree.clone()),
            stores: Stores::Routed(Arc::clone(&opened.router)),
            has_warm: opened.router.has_warm(),
            source: opened.router,
            tree: Some(opened.tree),
            late_cache: Some(opened.cache),
        });
    }
    let warm = options.warm.clone().or_else(|| sources.configured_warm());
    if let Some(pinned) = &options.version {
        let snapshot = tables::version(sources, &state, spec, options, pinned).await;
        let snapshot = snapshot.map_err(refused_by_catalog)?;
        let url = router::url_of(snapshot.store(), snapshot.prefix());
        let opened = open(sources, &url, spec, options, warm).await?;
        return Ok(of_one_store(Arc::new(snapshot), opened));
    }
    let opened = open(sources, &spec.source, spec, options, warm).await?;
    if options.snapshot {
        let snapshot = names::snapshot(&state, &opened.store, spec, options).await;
        let snapshot: Snapshot = snapshot.map_err(refused)?;
        return Ok(of_one_store(Arc::new(snapshot), opened));
    }
    let (owned, chosen) = (opened.store.clone(), options.clone());
    // Opening the inode table reads and writes files, beside the tables of other mounts.
    let live = tokio::task::spawn_blocking(move || names::live(&state, &owned, &chosen, opening));
    let live = live.await.map_err(|error| refused(error.into()))?;
    let live = live.map_err(refused)?;
    if opening == Opening::Mount {
        let checked = live.check().await;
        checked.map_err(|error| refused(error.into()))?;
    }
    Ok(of_one_store(Arc::new(live), opened))
}

async fn open(
    sources: &Sources,
    url: &str,
    spec: &MountSpec,
    options: &MountOptions,
    warm: Option<PathBuf>,
) -> Result<Opened, Failure> {
    let credentials = spec.credentials.0.clone();
    let opened = sources.open(url, credentials, warm).await?;
    if let Some(bandwidth) = sources.bandwidth(options) {
        opened.store.share(bandwidth);
    }
    Ok(opened)
}

fn of_one_store(namespace: Arc<dyn Namespace>, opened: Opened) -> Below {
    Below {
        namespace,
        stores: Stores::One(opened.store),
        source: opened.source,
        has_warm: opened.has_warm,
        tree: None,
        late_cache: None,
    }
}

fn refused(error: anyhow::Error) -> Failure {
    Failure::new(format!("{error:#}"), "check the source and its permissions")
}

fn refused_by_catalog(error: anyhow::Error) -> Failure {
    let hint = "check --catalog and the token, and that the catalog runs";
    Failure::new(format!("{error:#}"), hint)
}
