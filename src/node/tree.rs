//! `terrace materialize`: a native tree of hard links, built from what a source holds right now or
//! from the snapshot that a mount shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use terrace_cache::DatasetKey;
use terrace_cache::store::Store;
use terrace_fuse::materialize::{self, MaterializeOptions, Objects};
use terrace_fuse::namespace::Namespace as _;
use terrace_fuse::snapshot::Snapshot;
use tonic::Status;

use super::assembly::{Mounted, Node};
use super::names;
use super::options::MountOptions;
use crate::control::proto::target::Kind;
use crate::control::proto::{MaterializeRequest, Target, WarmProgress};
use crate::control::{Reports, target};

/// What to make a tree of.
struct Origin {
    listing: Listing,
    objects: Objects,
    options: MountOptions,
}

/// Where the list of files comes from.
enum Listing {
    /// The snapshot that a mount shows.
    Shown(PathBuf),
    /// What a store has now.
    Store(Store),
}

/// Starts to build or remove a tree; progress goes to `reports`, the last message is `finished`.
///
/// Errors: an unknown mount, or a store that cannot be reached. A client that goes away does not
/// stop the work; what is half done is cleaned up by the next call.
pub(crate) async fn start(
    node: &Arc<Node>,
    request: MaterializeRequest,
    reports: Reports,
) -> Result<(), Status> {
    let directory = PathBuf::from(&request.directory);
    if !directory.is_absolute() {
        return Err(Status::invalid_argument(
            "name the tree by an absolute path",
        ));
    }
    let hot = node.cache().hot().clone();
    if request.remove {
        node.spawn(async move {
            let removed =
                tokio::task::spawn_blocking(move || materialize::remove(&hot, &directory));
            let result = match removed.await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            finish(&reports, result.map(|()| 0)).await;
        });
        return Ok(());
    }
    let origin = origin(node, request.target).await?;
    let node = Arc::clone(node);
    let owner = Arc::clone(&node);
    owner.spawn(async move {
        let result = build(&node, origin, &directory, &reports).await;
        finish(&reports, result.map_err(|error| format!("{error:#}"))).await;
    });
    Ok(())
}

async fn origin(node: &Arc<Node>, target: Option<Target>) -> Result<Origin, Status> {
    match target.and_then(|target| target.kind) {
        Some(Kind::Mount(path)) => {
            let mounted = node.at(&path.mountpoint).ok_or_else(|| {
                Status::not_found(format!(
                    "find {}: not mounted by this node",
                    path.mountpoint
                ))
            })?;
            of_mount(node, &mounted, &path.path).await
        }
        Some(Kind::Source(source)) => {
            let credentials = source.credentials.into_iter().collect();
            let opened = node
                .sources()
                .open(&source.url, credentials, None)
                .await
                .map_err(|error| Status::failed_precondition(error.to_string()))?;
            Ok(Origin {
                listing: Listing::Store(opened.store),
                objects: Objects {
                    cache: node.cache().clone(),
                    source: opened.source,
                    dataset: DatasetKey(source.url.into()),
                },
                options: MountOptions::default(),
            })
        }
        None => Err(Status::invalid_argument(
            "name a mount point or a store URL",
        )),
    }
}

/// A whole mount, or the directory of a version in a tree of tables.
async fn of_mount(node: &Node, mounted: &Mounted, path: &[u8]) -> Result<Origin, Status> {
    let (listing, dataset) = match (&mounted.tree, mounted.stores.one()) {
        (Some(tree), _) => {
            let attr = target::resolve(tree, path).await?;
            let file = tree.snapshot_file(attr.ino).await.map_err(|error| {
                let path = String::from_utf8_lossy(path);
                Status::invalid_argument(format!(
                    "link {path}: {error}; name a version, such as ads/clicks@v12"
                ))
            })?;
            (Listing::Shown(file), tree.dataset(attr.ino))
        }
        (None, _) if !path.is_empty() => {
            return Err(Status::invalid_argument(
                "a tree is made of a whole mount; name the mount point or a store URL",
            ));
        }
        (None, _) if mounted.options.snapshot => (
            Listing::Shown(node.sources().snapshot_of(&mounted.spec)),
            None,
        ),
        (None, Some(store)) => (Listing::Store(store.clone()), None),
        (None, None) => return Err(Status::internal("a mount without names")),
    };
    Ok(Origin {
        listing,
        objects: Objects {
            cache: node.cache().clone(),
            source: Arc::clone(&mounted.source),
            dataset: match dataset {
                Some(own) => own.of_tenant(mounted.dataset.tenant()),
                None => mounted.dataset.clone(),
            },
        },
        options: mounted.options.clone(),
    })
}

async fn build(node: &Node, origin: Origin, tree: &Path, reports: &Reports) -> Result<u64> {
    let made = node.sources().scratch_file("tree");
    let path = match &origin.listing {
        Listing::Shown(shown) => shown,
        Listing::Store(store) => {
            names::build(store, &made).await?;
            &made
        }
    };
    let snapshot = Snapshot::open(path, names::ownership(&origin.options))
        .with_context(|| format!("open the snapshot {}", path.display()));
    // Once open, the file is needed no more.
    std::fs::remove_file(&made).ok();
    let snapshot = Arc::new(snapshot?);
    let files = snapshot.files();
    let tell = |progress: materialize::Progress| {
        let report = WarmProgress {
            files_done: progress.filled.min(progress.linked),
            files_total: progress.files,
            listed: true,
            ..WarmProgress::default()
        };
        reports.try_send(Ok(report)).ok();
    };
    materialize::materialize(
        &snapshot,
        &origin.objects,
        tree,
        &MaterializeOptions::default(),
        &tell,
    )
    .await
    .with_context(|| format!("build {}", tree.display()))?;
    Ok(files)
}

async fn finish(reports: &Reports, result: Result<u64, String>) {
    let last = match result {
        Ok(files) => WarmProgress {
            files_done: files,
            files_total: files,
            listed: true,
            finished: true,
            ..WarmProgress::default()
        },
        Err(error) => WarmProgress {
            error,
            files_failed: 1,
            finished: true,
            ..WarmProgress::default()
        },
    };
    reports.send(Ok(last)).await.ok();
}
