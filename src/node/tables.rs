//! Mounts of a catalog: the tree of all tables, or one version as a snapshot.
//!
//! ```text
//! catalog:           view -> tree of tables      bytes: router -> (warm tier) -> store of each version
//! ads.clicks@v12     view -> snapshot            bytes: (warm tier) -> the version's store
//! ```
//!
//! A selector is resolved by the command that mounts and carried with the mount, so every worker that
//! serves it shows the same version.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use terrace_cache::store::Credentials;
use terrace_fuse::keeper::MountSpec;
use terrace_fuse::live::{Opening, SystemClock};
use terrace_fuse::snapshot::Snapshot;
use terrace_fuse::tables::{
    ManifestId, TableTree, TableVersion, Tables as _, TreeConfig, TreeParts,
};

use super::names;
use super::options::{CATALOG_TOKEN, MountOptions, PinnedVersion};
use super::router::{Access, Router};
use super::sources::Sources;
use crate::catalog::client::CatalogClient;
use crate::catalog::view::{LateCache, View};

/// A tree of tables and where its bytes come from.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) tree: TableTree,
    pub(super) router: Arc<Router>,
    pub(super) cache: LateCache,
}

fn client(spec: &MountSpec, options: &MountOptions) -> Result<CatalogClient> {
    let address = options.catalog.as_deref();
    let address = address.context("no catalog is named; mount with --catalog URL")?;
    let token = spec.credentials.0.get(CATALOG_TOKEN).map(String::as_str);
    let ca_file = options.catalog_ca.as_deref();
    let client = CatalogClient::new(address, token, ca_file)?;
    Ok(match (options.catalog_token.clone(), token) {
        (Some(file), Some(token)) => client.renewing(file, token)?,
        _ => client,
    })
}

/// Opens the tree of all tables. A new mount asks the catalog; a take-over asks nobody.
pub(super) async fn tree(
    sources: &Sources,
    state: &Path,
    spec: &MountSpec,
    options: &MountOptions,
    opening: Opening,
) -> Result<Tree> {
    let warm = match options.warm.clone().or_else(|| sources.configured_warm()) {
        Some(dir) => Some(sources.warm_tier(&dir)?),
        None => None,
    };
    let router = Arc::new(Router::new(Access {
        config: sources.config().cache.store.clone(),
        credentials: Credentials::new(spec.credentials.0.clone()),
        warm,
        bandwidth: sources.bandwidth(options),
    }));
    let view = view(sources, spec, options, Some(Arc::clone(&router)))?;
    if opening == Opening::Mount {
        view.tidy();
    }
    let cache = view.cache();
    let parts = TreeParts {
        tables: Arc::new(view),
        slots: &state.join("slots"),
        opening,
        config: TreeConfig {
            name_ttl: options.ttl.0,
            ..TreeConfig::default()
        },
        ownership: names::ownership(options),
        clock: Arc::new(SystemClock::new()),
    };
    let tree = TableTree::open(parts)
        .with_context(|| format!("open the slot file in {}", state.display()))?;
    if opening == Opening::Mount {
        tree.check().await?;
    }
    router.set_made(tree.source());
    Ok(Tree {
        tree,
        router,
        cache,
    })
}

/// Opens the snapshot of a version, built from its list of files when it is not there.
pub(super) async fn version(
    sources: &Sources,
    state: &Path,
    spec: &MountSpec,
    options: &MountOptions,
    pinned: &PinnedVersion,
) -> Result<Snapshot> {
    let path = names::snapshot_path(state, spec);
    if !path.exists() {
        let view = view(sources, spec, options, None)?;
        let version = table_version(pinned)?;
        let kept = view.file(&version.manifest);
        if !kept.exists() {
            view.fetch(&version).await?;
        }
        names::remove_others(state, &path);
        // A name of its own: it stays as long as the mount, whatever happens to the other one.
        std::fs::hard_link(&kept, &path)
            .with_context(|| format!("keep the snapshot {}", path.display()))?;
    }
    let snapshot = Snapshot::open(&path, names::ownership(options))
        .with_context(|| format!("open the snapshot {}", path.display()))?;
    Ok(snapshot.of_version(&format!("v{}", pinned.number)))
}

fn view(
    sources: &Sources,
    spec: &MountSpec,
    options: &MountOptions,
    router: Option<Arc<Router>>,
) -> Result<View> {
    let hot = &sources.config().cache.hot.dir;
    let view = View::new(client(spec, options)?, hot, router);
    view.with_context(|| format!("keep lists of files below {}", hot.display()))
}

fn table_version(pinned: &PinnedVersion) -> Result<TableVersion> {
    Ok(TableVersion {
        dataset: pinned.dataset.parse()?,
        number: pinned.number,
        manifest: ManifestId::from_hex(&pinned.manifest).context("the manifest has no digest")?,
        committed_ms: pinned.committed_ms,
    })
}
