//! What a command names, as a stream of immutable objects: everything below a path of a mount, or
//! everything below a store prefix. Streams are bounded; dropping one stops the walk.

use std::sync::Arc;

use futures::StreamExt;
use terrace_cache::fill::Object;
use terrace_cache::store::{Store, StoreError, StoreErrorKind};
use terrace_cache::{DatasetKey, ObjectId, Source};
use terrace_fuse::namespace::{Attr, DirEntry, DirSink, FsError, Ino, Kind, Namespace};
use tokio::sync::mpsc;
use tonic::Status;

use super::proto;
use super::proto::target::Kind as Named;
use crate::node::assembly::Node;

/// Objects found and not yet taken.
const AHEAD: usize = 1024;
/// Entries asked of a namespace at once.
const PAGE: usize = 1024;

/// Objects to work on and where their bytes come from.
pub(crate) struct Found {
    /// Where bytes come from.
    pub(crate) source: Arc<dyn Source>,
    /// Whether a warm tier stands before the store.
    pub(crate) has_warm: bool,
    /// Whose budget they use.
    pub(crate) dataset: DatasetKey,
    /// The objects; ends after the first error.
    pub(crate) objects: mpsc::Receiver<Result<ObjectId, String>>,
}

impl Found {
    /// The next object as the cache knows it.
    pub(crate) async fn next(&mut self, node: &Node) -> Option<Result<Arc<Object>, String>> {
        let id = self.objects.recv().await?;
        Some(id.map(|id| node.cache().object(&id, &self.source, &self.dataset)))
    }
}

/// Starts the walk of a target. Errors: no such mount, path, or an unreachable store.
pub(crate) async fn find(node: &Arc<Node>, target: Option<proto::Target>) -> Result<Found, Status> {
    match target.and_then(|target| target.kind) {
        Some(Named::Mount(path)) => in_mount(node, &path).await,
        Some(Named::Source(source)) => in_store(node, source).await,
        None => Err(Status::invalid_argument(
            "name a path below a mount or a store URL",
        )),
    }
}

async fn in_mount(node: &Arc<Node>, path: &proto::MountPath) -> Result<Found, Status> {
    let mounted = node.at(&path.mountpoint).ok_or_else(|| {
        Status::not_found(format!(
            "find {}: not mounted by this node",
            path.mountpoint
        ))
    })?;
    let namespace = Arc::clone(&mounted.namespace);
    let attr = resolve(&*namespace, &path.path).await?;
    let dataset = namespace.dataset(attr.ino);
    let (sender, objects) = mpsc::channel(AHEAD);
    // The walk ends by itself when the receiver is dropped.
    node.spawn(async move {
        if let Err(error) = walk(&*namespace, attr, &sender).await {
            sender.send(Err(error.to_string())).await.ok();
        }
    });
    Ok(Found {
        source: Arc::clone(&mounted.source),
        has_warm: mounted.has_warm,
        dataset: match dataset {
            Some(own) => own.of_tenant(mounted.dataset.tenant()),
            None => mounted.dataset.clone(),
        },
        objects,
    })
}

/// Walks to a path below the root.
pub(crate) async fn resolve(namespace: &dyn Namespace, path: &[u8]) -> Result<Attr, Status> {
    let root = namespace.attr(Ino::ROOT);
    let mut attr = root.map_err(|error| refused(path, &error))?;
    for name in path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        attr = match namespace.try_lookup(attr.ino, name) {
            Some(known) => known,
            None => namespace.lookup(attr.ino, name).await,
        }
        .map_err(|error| refused(path, &error))?;
    }
    Ok(attr)
}

fn refused(path: &[u8], error: &FsError) -> Status {
    Status::failed_precondition(format!("find {}: {error}", String::from_utf8_lossy(path)))
}

/// Depth first, one page of a directory in memory at a time.
async fn walk(
    namespace: &dyn Namespace,
    start: Attr,
    objects: &mpsc::Sender<Result<ObjectId, String>>,
) -> Result<(), FsError> {
    if start.kind == Kind::File {
        objects.send(Ok(namespace.object(start.ino)?)).await.ok();
        return Ok(());
    }
    let mut open = vec![start.ino];
    while let Some(directory) = open.pop() {
        let mut after = 0;
        loop {
            let mut page = Page(Vec::with_capacity(PAGE));
            namespace
                .read_directory(directory, after, &mut page)
                .await?;
            let Some(last) = page.0.last() else { break };
            after = last.next;
            for entry in page.0 {
                match entry.attr.kind {
                    Kind::Directory => open.push(entry.attr.ino),
                    Kind::File => {
                        let id = namespace.object(entry.attr.ino)?;
                        if objects.send(Ok(id)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Kind::Symlink => {}
                }
            }
        }
    }
    Ok(())
}

struct Page(Vec<DirEntry>);

impl DirSink for Page {
    fn push(&mut self, entry: DirEntry) -> bool {
        if self.0.len() == PAGE {
            return false;
        }
        self.0.push(entry);
        true
    }
}

async fn in_store(node: &Arc<Node>, source: proto::SourceUrl) -> Result<Found, Status> {
    let url = source.url.clone();
    let opened = node
        .sources()
        .open(&source.url, source.credentials.into_iter().collect(), None)
        .await
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
    let (sender, objects) = mpsc::channel(AHEAD);
    let store = opened.store.clone();
    node.spawn(async move {
        if let Err(error) = walk_store(&store, &sender).await {
            sender.send(Err(error.to_string())).await.ok();
        }
    });
    Ok(Found {
        source: opened.source,
        has_warm: opened.has_warm,
        dataset: DatasetKey(url.into()),
        objects,
    })
}

/// One object when the URL names one, else everything below it.
async fn walk_store(
    store: &Store,
    objects: &mpsc::Sender<Result<ObjectId, String>>,
) -> Result<(), StoreError> {
    let prefix = store.url().prefix().to_owned();
    if !prefix.is_empty() {
        match store.head(&prefix).await {
            Ok(meta) => {
                objects.send(Ok(store.object(&meta))).await.ok();
                return Ok(());
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut all = store.walk(&prefix);
    while let Some(meta) = all.next().await {
        if objects.send(Ok(store.object(&meta?))).await.is_err() {
            break;
        }
    }
    Ok(())
}
