//! A warehouse, a catalog and discovery between them, in temporary directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use terrace_catalog::blobs::{Blobs, DirectoryBlobs};
use terrace_catalog::discovery::{Discovery, Outcome, RootSpec, Why};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{BatchId, Ledger, LedgerConfig, Version};
use terrace_catalog::manifest::{Manifest, Partition};
use terrace_catalog::upstream::Upstream;
use terrace_catalog::{DatasetName, Selector};

use crate::store::{Directory, Faulty};

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    pub(crate) discovery: Discovery,
    pub(crate) store: Arc<Directory>,
    pub(crate) faults: Arc<Faulty>,
    /// Modification times that `write` gives, milliseconds; grows by a second with each file.
    clock: AtomicI64,
}

pub(crate) fn spec() -> RootSpec {
    RootSpec {
        settle_seconds: 60,
        ..RootSpec::default()
    }
}

pub(crate) fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

pub(crate) fn batch_id(text: &str) -> BatchId {
    text.parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(spec(), |blobs| blobs).await
    }

    pub(crate) async fn with(
        spec: RootSpec,
        wrap: impl FnOnce(Arc<dyn Blobs>) -> Arc<dyn Blobs>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |part: &str| directory.path().join(part);
        std::fs::create_dir(path("warehouse")).unwrap();
        let kv = Arc::new(RocksKv::open(&path("kv")).unwrap());
        let blobs = wrap(Arc::new(DirectoryBlobs::open(&path("blobs")).unwrap()));
        let ledger = Ledger::open(kv, blobs, LedgerConfig::default())
            .await
            .unwrap();
        let store = Directory::new(&path("warehouse"));
        let faults = Faulty::new(Arc::clone(&store));
        let discovery = Discovery::new(ledger.clone());
        let upstream: Arc<dyn Upstream> = Arc::clone(&faults) as Arc<dyn Upstream>;
        discovery.add_root_on_demand(spec, upstream).unwrap();
        let clock = AtomicI64::new(1_795_000_000_000);
        Self {
            directory,
            ledger,
            discovery,
            store,
            faults,
            clock,
        }
    }

    /// The same warehouse and catalog with a discovery that remembers nothing: a restart.
    pub(crate) fn restart(&mut self) {
        self.restart_with(spec());
    }

    pub(crate) fn restart_with(&mut self, spec: RootSpec) {
        self.discovery = Discovery::new(self.ledger.clone());
        let upstream: Arc<dyn Upstream> = Arc::clone(&self.faults) as Arc<dyn Upstream>;
        self.discovery.add_root_on_demand(spec, upstream).unwrap();
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("warehouse").join(path)
    }

    /// Writes a file one second newer than the one before.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let ms = self.clock.fetch_add(1000, Ordering::Relaxed);
        self.write_at(path, bytes, ms);
    }

    pub(crate) fn write_at(&self, path: &str, bytes: &[u8], ms: i64) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(ms as u64))
            .unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    pub(crate) async fn look(&self, table: &str) -> Outcome {
        self.discovery.reconcile(&name(table)).await.unwrap()
    }

    /// Lets our clock go on; tests run with it paused.
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    pub(crate) fn why(&self, table: &str) -> Why {
        self.discovery.why(&name(table)).unwrap()
    }

    pub(crate) async fn latest(&self, table: &str) -> Option<Version> {
        let selector: Selector = table.parse().unwrap();
        self.ledger.resolve(&selector).await.ok()
    }

    pub(crate) async fn partitions(&self, table: &str) -> Vec<Partition> {
        let version = self.latest(table).await.unwrap();
        let manifest = Manifest::open(self.ledger.blobs(), &version.manifest)
            .await
            .unwrap();
        manifest.partitions(None, 1000).await.unwrap()
    }

    /// Every path of the newest version; none without a version.
    pub(crate) async fn files(&self, table: &str) -> Vec<String> {
        let Some(version) = self.latest(table).await else {
            return Vec::new();
        };
        let manifest = Manifest::open(self.ledger.blobs(), &version.manifest)
            .await
            .unwrap();
        let files = manifest.files("", None, 10_000).await.unwrap();
        files.iter().map(|file| file.path.to_string()).collect()
    }
}

/// Every file below a directory, for comparing.
pub(crate) fn data_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![directory.to_owned()];
    while let Some(next) = stack.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let own = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                stack.push(path);
            } else if !own.starts_with(['_', '.']) {
                found.push(
                    path.strip_prefix(directory)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}
