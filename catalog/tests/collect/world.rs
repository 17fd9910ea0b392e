//! A catalog with a vault in a temporary directory, and a clock of its own for what is not a file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, stream};
use sha2::{Digest as _, Sha256};
use terrace_catalog::DatasetName;
use terrace_catalog::blobs::{BlobId, Blobs, DirectoryBlobs};
use terrace_catalog::collect::{Collected, Collection, Collector, Item};
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::kv::Kv;
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{BatchId, Commit, Ledger, LedgerConfig, Version};
use terrace_catalog::manifest::{FileEntry, Header, Manifest, ManifestEdit};
use terrace_catalog::saves::{Progress, SaveError, SavedFile, Saves, print_list, save_id};
use terrace_catalog::upstream::{UpFile, Upstream};
use terrace_catalog::vault::{Vault, Vaults};
use tokio::sync::mpsc;

use super::vault::{self, DirectoryVault};

/// What is younger stays.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);
/// Twice that.
const LONG: i64 = 2 * 3_600_000;

pub(crate) struct World {
    pub(crate) directory: Arc<tempfile::TempDir>,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) ledger: Ledger,
    pub(crate) vault: Arc<DirectoryVault>,
    pub(crate) saves: Saves,
    pub(crate) collector: Collector,
}

pub(crate) fn name(text: &str) -> DatasetName {
    text.parse().unwrap()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(&directory.path().join("kv")).unwrap();
        Self::over(directory, Arc::new(kv)).await
    }

    pub(crate) async fn over(
        directory: impl Into<Arc<tempfile::TempDir>>,
        kv: Arc<dyn Kv>,
    ) -> Self {
        let clock = Arc::new(AtomicI64::new(now_ms()));
        Self::replica(directory.into(), clock, kv).await
    }

    /// Another catalog over the same database and the same directories.
    pub(crate) async fn beside(&self, kv: Arc<dyn Kv>) -> Self {
        Self::replica(Arc::clone(&self.directory), Arc::clone(&self.clock), kv).await
    }

    async fn replica(
        directory: Arc<tempfile::TempDir>,
        clock: Arc<AtomicI64>,
        kv: Arc<dyn Kv>,
    ) -> Self {
        let blobs: Arc<dyn Blobs> =
            Arc::new(DirectoryBlobs::open(&directory.path().join("store")).unwrap());
        let time = Arc::clone(&clock);
        let config = LedgerConfig {
            clock: Arc::new(move || time.load(Ordering::SeqCst)),
            removal_delay: Duration::ZERO,
            ..LedgerConfig::default()
        };
        let ledger = Ledger::open(kv, blobs, config).await.unwrap();
        let vault = DirectoryVault::new(&directory.path().join("cold"));
        let vaults = Vaults::new(vec![Arc::clone(&vault) as Arc<dyn Vault>]);
        let scratch = directory.path().to_owned();
        Self {
            directory,
            clock,
            saves: Saves::new(ledger.clone(), vaults.clone()),
            collector: Collector::new(ledger.clone(), vaults, scratch),
            ledger,
            vault,
        }
    }

    /// Another collector over the same catalog, as another process has one.
    pub(crate) fn collector(&self) -> Collector {
        let vaults = Vaults::new(vec![Arc::clone(&self.vault) as Arc<dyn Vault>]);
        Collector::new(
            self.ledger.clone(),
            vaults,
            self.directory.path().to_owned(),
        )
    }

    /// Everything that is there becomes older than the grace period.
    pub(crate) fn age(&self) {
        self.clock.fetch_add(LONG, Ordering::SeqCst);
        let past = SystemTime::now() - Duration::from_millis(LONG as u64);
        let mut left = vec![self.directory.path().join("store/blobs")];
        while let Some(next) = left.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => left.push(path),
                    false => {
                        let file = std::fs::File::options().append(true).open(path).unwrap();
                        file.set_modified(past).unwrap();
                    }
                }
            }
        }
    }

    pub(crate) async fn collect(&self, dry_run: bool) -> (Collected, Vec<Item>) {
        let wanted = Collection {
            grace: GRACE,
            dry_run,
        };
        let (sender, mut items) = mpsc::channel(16);
        let taken = async {
            let mut taken = Vec::new();
            while let Some(item) = items.recv().await {
                taken.push(item);
            }
            taken
        };
        let run = async {
            let done = self.collector.run(wanted, &sender).await;
            drop(sender);
            done
        };
        let (done, mut taken) = tokio::join!(run, taken);
        taken.sort();
        (done.unwrap(), taken)
    }

    /// Writes files and their list to a place; the list's digest.
    pub(crate) async fn write(&self, location: &str, files: &[(&str, Vec<u8>)]) -> BlobId {
        let place = location.strip_prefix(self.vault.url()).unwrap();
        let place = place.trim_start_matches('/');
        let mut saved = Vec::new();
        for (path, bytes) in files {
            self.put(&format!("{place}/{path}"), bytes.clone()).await;
            let digest = Sha256::digest(bytes);
            saved.push(SavedFile {
                path: (*path).to_owned(),
                size: bytes.len() as u64,
                sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            });
        }
        let list = print_list(saved).unwrap();
        let id = BlobId::of(list.as_bytes());
        let path = format!("{place}/.terrace-save.jsonl");
        self.put(&path, list.into_bytes()).await;
        id
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> UpFile {
        let content = stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        self.vault.put(path, content).await.unwrap()
    }

    /// A whole save.
    pub(crate) async fn save(
        &self,
        model: &str,
        id: &str,
        files: &[(&str, Vec<u8>)],
    ) -> Result<Version, SaveError> {
        let (model, id) = (name(model), save_id(id).unwrap());
        let location = match self.saves.begin(&model, &id, None).await? {
            Progress::Ready(version) => return Ok(*version),
            Progress::Writing(save) | Progress::Checking { save, .. } => save.location(),
        };
        let list = self.write(&location, files).await;
        self.finish(&model, &id, list).await
    }

    pub(crate) async fn finish(
        &self,
        model: &DatasetName,
        id: &BatchId,
        list: BlobId,
    ) -> Result<Version, SaveError> {
        loop {
            match self.saves.finish(model, id, list).await {
                Ok(Progress::Ready(version)) => return Ok(*version),
                Ok(_) | Err(SaveError::Busy) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn dataset(&self, text: &str) -> DatasetName {
        let descriptor = Descriptor::new(Kind::Dataset, name(text), "s3://lake/table");
        self.ledger.create(descriptor).await.unwrap();
        name(text)
    }

    /// The next version of a dataset: these partitions replaced, each with so many files.
    pub(crate) async fn commit(&self, dataset: &DatasetName, partitions: &[(u64, u64)]) -> Version {
        loop {
            let head = self.latest(dataset).await;
            let mut edit = match &head {
                None => ManifestEdit::new(self.ledger.blobs(), Header::default()),
                Some(head) => ManifestEdit::from(&self.open(head).await),
            };
            for (partition, files) in partitions {
                let path = format!("dt={partition:03}");
                let files = (0..*files).map(|at| entry(&format!("{path}/{at:04}"), *files));
                edit.put_partition(&path, Vec::new(), files).await.unwrap();
            }
            let commit = Commit {
                dataset: dataset.clone(),
                expected_head: head.map(|head| head.number),
                manifest: edit.finish().await.unwrap(),
                batch: None,
                source_seq: vec![("".into(), 1)],
                cause: "test".into(),
                summary: BTreeMap::new(),
            };
            if let Ok(done) = self.ledger.commit(commit).await {
                return done.version().clone();
            }
        }
    }

    pub(crate) async fn latest(&self, dataset: &DatasetName) -> Option<Version> {
        let selector = dataset.as_str().parse().unwrap();
        self.ledger.resolve(&selector).await.ok()
    }

    async fn open(&self, version: &Version) -> Manifest {
        Manifest::open(self.ledger.blobs(), &version.manifest)
            .await
            .unwrap()
    }

    /// Reads a version whole: every block, and every file that is in the vault. Panics at what is gone.
    pub(crate) async fn read(&self, version: &Version) -> u64 {
        let manifest = self.open(version).await;
        let location = manifest.header().location.to_string();
        let home = location.strip_prefix(self.vault.url()).map(str::to_owned);
        let files = manifest.files("", None, 100_000).await.unwrap();
        assert_eq!(files.len() as u64, version.totals.files);
        for file in &files {
            let Some(home) = &home else {
                continue;
            };
            let up = UpFile {
                path: format!("{}/{}", home.trim_start_matches('/'), file.path).into(),
                size: file.size,
                mtime_ms: file.mtime_ms,
                token: Arc::clone(&file.token),
            };
            self.vault.read(&up, 0..file.size).await.unwrap();
        }
        files.len() as u64
    }

    /// Files below a part of the world's directory.
    pub(crate) fn count(&self, part: &str) -> usize {
        vault::count(&self.directory.path().join(part))
    }
}

fn entry(path: &str, size: u64) -> FileEntry {
    FileEntry {
        path: path.into(),
        size,
        mtime_ms: 1,
        token: "etag".into(),
        rows: None,
        checksum: None,
    }
}
