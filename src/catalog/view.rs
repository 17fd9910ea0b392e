//! The catalog as a mount sees it: names and lists of files over HTTP, snapshots in the hot directory.
//!
//! ```text
//! HOT/catalog/<manifest>.snapshot    the files of a version, as every mount of this node shows them
//! ```
//!
//! The file is built from the version's list once and appears whole or not at all; its name is the
//! digest of what it was built from, so it is never out of date and mounts share it. Files that nobody
//! opened for [`KEPT`] go when a new mount is made; a version that needs one again builds it again.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use terrace_cache::Version;
use terrace_cache::fill::Cache;
use terrace_cache::store::{StoreError, StoreErrorKind, StoreUrl};
use terrace_catalog::Selector;
use terrace_catalog::rest::wire::{DatasetPage, DatasetSummary, FileItem, FilePage, NamePage};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::{BuildError, Builder, Entry, EntryKind, Snapshot, Surplus};
use terrace_fuse::tables::{ManifestId, Report, TableVersion, Tables};

use super::client::{CatalogClient, CatalogError};
use crate::node::residency;
use crate::node::router::Router;

/// Names asked for at once.
const NAMES: usize = 1000;
/// Files asked for at once: the most the catalog gives.
const FILES: usize = 10_000;
/// How long a snapshot stays after it was last opened.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long another mount of this node may take to build the same snapshot, and how often we look.
const BUSY: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// A cache that is opened while name spaces are.
pub(crate) type LateCache = Arc<OnceLock<Cache>>;

/// A catalog, and where this node keeps what it said.
#[derive(Clone)]
pub(crate) struct View {
    client: CatalogClient,
    directory: PathBuf,
    cache: LateCache,
    /// Told where files are, before they are read.
    router: Option<Arc<Router>>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What a mount needs to know of a version (`rest::wire::VersionDetail` has more).
#[derive(Debug, Deserialize)]
pub(crate) struct Located {
    /// `namespace.table`.
    pub(crate) dataset: String,
    /// Its number.
    pub(crate) version: u64,
    /// Digest of its list of files.
    pub(crate) manifest: String,
    /// When it was committed.
    pub(crate) committed_ms: i64,
    /// The URL that paths of files are below.
    pub(crate) location: String,
}

/// Where below a hot directory the files of versions are.
pub(crate) fn directory(hot: &Path) -> PathBuf {
    hot.join("catalog")
}

/// Where the files of a version are in that directory.
pub(crate) fn snapshot_file(directory: &Path, manifest: &ManifestId) -> PathBuf {
    directory.join(format!("{}.snapshot", manifest.hex()))
}

/// The page behind a name.
#[derive(Serialize)]
struct After<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    limit: usize,
}

impl View {
    /// Keeps snapshots below the hot directory; asks nothing yet.
    ///
    /// Errors: the directory cannot be made.
    pub(crate) fn new(
        client: CatalogClient,
        hot: &Path,
        router: Option<Arc<Router>>,
    ) -> std::io::Result<Self> {
        let directory = directory(hot);
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            client,
            directory,
            cache: LateCache::default(),
            router,
        })
    }

    /// Where to put the cache that [`Report::Usage`] is about, once there is one.
    pub(crate) fn cache(&self) -> LateCache {
        Arc::clone(&self.cache)
    }

    /// Removes snapshots that nobody has opened for long. An error costs disk space, nothing else.
    pub(crate) fn tidy(&self) {
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let age = used.ok().and_then(|used| now.duration_since(used).ok());
            if age.is_some_and(|age| age > KEPT)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "old snapshot stays");
            }
        }
    }

    async fn build(&self, version: &TableVersion) -> Result<(), StoreError> {
        let dataset = version.dataset.as_str();
        let number = format!("v{}", version.number);
        let path = ["datasets", dataset, "versions", &number];
        let detail: Located = self.client.get(&path, &()).await.map_err(failed)?;
        if detail.manifest != version.manifest.hex() {
            let why = format!("{dataset}@{number} has another manifest than before");
            return Err(strange(&self.client, &why));
        }
        let place: StoreUrl = detail.location.parse()?;
        let mut builder = Builder::new(place.root(), place.prefix(), Surplus::Hide);
        let path = ["datasets", dataset, "versions", &number, "files"];
        let (mut after, mut hidden) = (None, 0_u64);
        loop {
            let (ns, limit) = (None, FILES);
            let query = After { ns, after, limit };
            let page: FilePage = self.client.get(&path, &query).await.map_err(failed)?;
            for file in &page.items {
                hidden += u64::from(!self.push(&mut builder, file)?);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if hidden > 0 {
            tracing::warn!(hidden, dataset, %number, "files whose keys cannot be paths are left out");
        }
        let target = self.file(&version.manifest);
        let built = tokio::task::spawn_blocking(move || builder.finish(&target)).await;
        match built {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(BuildError::Busy)) => self.built_by_another(version).await,
            Ok(Err(error)) => Err(self.local(&error)),
            Err(error) => Err(self.local(&error)),
        }
    }

    /// Adds a file. `false`: no path can name it.
    fn push(&self, builder: &mut Builder, file: &FileItem) -> Result<bool, StoreError> {
        let pinned = Version::from_pin_text(&file.token, file.size, file.mtime_ms);
        let Some(pinned) = pinned else {
            let why = format!(
                "{} is pinned in a way this release does not know",
                file.path
            );
            return Err(strange(&self.client, &why));
        };
        let entry = Entry {
            path: &file.path,
            mode: None,
            kind: EntryKind::File(&pinned),
        };
        match builder.push(&entry) {
            Ok(()) => Ok(true),
            Err(BuildError::Path { .. }) => Ok(false),
            Err(error) => Err(self.local(&error)),
        }
    }

    async fn built_by_another(&self, version: &TableVersion) -> Result<(), StoreError> {
        let target = self.file(&version.manifest);
        let waiting = async {
            while !target.exists() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(BUSY, waiting).await;
        waited.map_err(|_| self.local(&BuildError::Busy))
    }

    fn local(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError {
            kind: StoreErrorKind::Invalid,
            operation: "keep the list of files",
            target: self.directory.display().to_string(),
            reason: error.to_string(),
        }
    }

    fn usage(&self, path: &Path) -> Result<Vec<u8>, String> {
        let snapshot = Snapshot::open(path, Ownership::default()).map_err(|e| e.to_string())?;
        let cache = self.cache.get().ok_or("the hot tier is not open yet")?;
        let found = residency::count(&snapshot, cache.hot());
        let text = format!(
            "files {}\nbytes {}\nhot_files {}\nhot_bytes {}\n",
            snapshot.files(),
            snapshot.file_bytes(),
            found.complete_files,
            found.present_bytes
        );
        Ok(text.into_bytes())
    }
}

#[async_trait::async_trait]
impl Tables for View {
    async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (ns, limit) = (None, NAMES);
            let query = After { ns, after, limit };
            let page: NamePage = self
                .client
                .get(&["namespaces"], &query)
                .await
                .map_err(failed)?;
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn tables(&self, namespace: &str) -> Result<Vec<TableVersion>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (ns, limit) = (Some(namespace), NAMES);
            let query = After { ns, after, limit };
            let page: DatasetPage = self
                .client
                .get(&["datasets"], &query)
                .await
                .map_err(failed)?;
            // A dataset without a version is not shown.
            all.extend(page.items.iter().filter_map(newest));
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn resolve(&self, selector: &Selector) -> Result<Option<TableVersion>, StoreError> {
        let query = [("selector", selector.to_string())];
        match self.client.get::<_, Located>(&["resolve"], &query).await {
            Ok(detail) => table_version(&detail)
                .map(Some)
                .ok_or_else(|| strange(&self.client, &"a version that is none")),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn fetch(&self, version: &TableVersion) -> Result<(), StoreError> {
        self.build(version).await
    }

    async fn report(&self, version: &TableVersion, report: Report) -> Result<Vec<u8>, StoreError> {
        match report {
            Report::Heat => {
                let path = ["datasets", version.dataset.as_str(), "heat"];
                let heat: serde_json::Value = self.client.get(&path, &()).await.map_err(failed)?;
                Ok(format!("{heat:#}\n").into_bytes())
            }
            Report::Usage => {
                let (view, path) = (self.clone(), self.file(&version.manifest));
                let counting = tokio::task::spawn_blocking(move || view.usage(&path)).await;
                match counting {
                    Ok(text) => text.map_err(|error| self.local(&error)),
                    Err(error) => Err(self.local(&error)),
                }
            }
        }
    }

    async fn sql_file(
        &self,
        version: &TableVersion,
        name: &str,
    ) -> Result<Option<Bytes>, StoreError> {
        let (dataset, number) = (version.dataset.as_str(), format!("v{}", version.number));
        let path = ["datasets", dataset, "versions", &number, "iceberg", name];
        match self.client.bytes(&path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn file(&self, manifest: &ManifestId) -> PathBuf {
        snapshot_file(&self.directory, manifest)
    }

    fn announce(&self, manifest: &ManifestId, snapshot: &Snapshot) {
        let path = self.file(manifest);
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%error, path = %path.display(), "use of a snapshot not noted");
        }
        if let Some(router) = &self.router {
            router.allow(snapshot.store(), snapshot.prefix());
        }
    }
}

fn table_version(detail: &Located) -> Option<TableVersion> {
    Some(TableVersion {
        dataset: detail.dataset.parse().ok()?,
        number: detail.version,
        manifest: ManifestId::from_hex(&detail.manifest)?,
        committed_ms: detail.committed_ms,
    })
}

fn newest(summary: &DatasetSummary) -> Option<TableVersion> {
    Some(TableVersion {
        dataset: summary.name.parse().ok()?,
        number: summary.latest?,
        manifest: ManifestId::from_hex(summary.manifest.as_deref()?)?,
        committed_ms: summary.committed_ms?,
    })
}

fn strange(client: &CatalogClient, why: &dyn fmt::Display) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "understand",
        target: format!("the catalog at {}", client.address()),
        reason: why.to_string(),
    }
}

/// An error of the catalog as the mount's border knows errors.
fn failed(error: CatalogError) -> StoreError {
    let kind = match &error {
        CatalogError::Refused { status, .. } => match status {
            404 | 410 => StoreErrorKind::NotFound,
            401 | 403 => StoreErrorKind::Permission,
            429 => StoreErrorKind::Throttled,
            500.. => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::Invalid,
        },
        CatalogError::Unreachable { .. } | CatalogError::Unbelieved { .. } => {
            StoreErrorKind::Unreachable
        }
        CatalogError::Strange { .. } => StoreErrorKind::Corrupt,
        CatalogError::Address { .. } => StoreErrorKind::Invalid,
    };
    StoreError {
        kind,
        operation: "ask",
        target: "the catalog".to_owned(),
        reason: error.to_string(),
    }
}
