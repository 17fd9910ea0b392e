//! A catalog in a temporary directory, with a clock of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use terrace_catalog::DatasetName;
use terrace_catalog::blobs::{BlobId, Blobs, DirectoryBlobs};
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::kv::Kv;
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{Commit, CommitError, Ledger, LedgerConfig, Purpose, Version};
use terrace_catalog::manifest::{FileEntry, Header, ManifestEdit};

/// A day, the time between the two steps of a removal.
pub(crate) const DAY: i64 = 86_400_000;

/// 2026-11-20, noon.
pub(crate) const NOON: i64 = 1_795_176_000_000;

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) clock: Arc<AtomicI64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicI64::new(NOON)),
        }
    }

    pub(crate) fn kv(&self) -> Arc<dyn Kv> {
        Arc::new(RocksKv::open(&self.directory.path().join("kv")).unwrap())
    }

    pub(crate) fn blobs(&self) -> Arc<dyn Blobs> {
        Arc::new(DirectoryBlobs::open(&self.directory.path().join("store")).unwrap())
    }

    pub(crate) fn config(&self) -> LedgerConfig {
        let clock = Arc::clone(&self.clock);
        LedgerConfig {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            ..LedgerConfig::default()
        }
    }

    pub(crate) async fn open(&self) -> Ledger {
        Ledger::open(self.kv(), self.blobs(), self.config())
            .await
            .unwrap()
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) async fn dataset(&self, ledger: &Ledger, name: &str) -> DatasetName {
        let name: DatasetName = name.parse().unwrap();
        let descriptor = Descriptor::new(Kind::Dataset, name.clone(), "s3://lake/table");
        ledger.create(descriptor).await.unwrap();
        name
    }

    /// A manifest with these partitions, each with so many files.
    pub(crate) async fn manifest(&self, ledger: &Ledger, partitions: &[(&str, u64)]) -> BlobId {
        let mut edit = ManifestEdit::new(ledger.blobs(), Header::default());
        for (path, files) in partitions {
            let files = (0..*files).map(|number| file(&format!("{path}/{number:06}")));
            edit.put_partition(path, Vec::new(), files).await.unwrap();
        }
        edit.finish().await.unwrap()
    }
}

impl World {
    /// Commits this many versions to a dataset without one; version n has n files.
    pub(crate) async fn versions(
        &self,
        ledger: &Ledger,
        name: &DatasetName,
        count: u64,
    ) -> Vec<Version> {
        let mut all = Vec::new();
        for files in 1..=count {
            let manifest = self.manifest(ledger, &[("dt=1", files)]).await;
            let commit = commit_of(name, (files > 1).then_some(files - 1), manifest);
            let done = ledger.commit(commit).await.unwrap();
            all.push(done.version().clone());
        }
        all
    }

    /// Both steps of a version's removal, and the day between them.
    pub(crate) async fn remove_version(&self, ledger: &Ledger, version: &Version) {
        let ordinary = Purpose::Ordinary;
        let begun = ledger.begin_version_removal(version, ordinary).await;
        begun.unwrap();
        self.pass(DAY);
        let finished = ledger.finish_version_removal(version, ordinary).await;
        finished.unwrap();
    }

    /// The first step of a dataset's removal, and the day behind it.
    pub(crate) async fn begin_removal(&self, ledger: &Ledger, name: &DatasetName) {
        let begun = ledger.begin_removal(name, Purpose::Ordinary).await;
        begun.unwrap();
        self.pass(DAY);
    }
}

pub(crate) fn file(path: &str) -> FileEntry {
    FileEntry {
        path: path.into(),
        size: 100,
        mtime_ms: NOON,
        token: "etag".into(),
        rows: None,
        checksum: None,
    }
}

pub(crate) fn commit_of(name: &DatasetName, head: Option<u64>, manifest: BlobId) -> Commit {
    Commit {
        dataset: name.clone(),
        expected_head: head,
        manifest,
        batch: None,
        source_seq: Vec::new(),
        cause: "test".into(),
        summary: BTreeMap::new(),
    }
}

/// Commits a manifest behind whatever others commit meanwhile; the number of its version.
pub(crate) async fn commit_in_turn(ledger: &Ledger, name: &DatasetName, manifest: BlobId) -> u64 {
    let mut head = None;
    loop {
        match ledger.commit(commit_of(name, head, manifest)).await {
            Ok(done) => return done.version().number,
            Err(CommitError::Conflict { found, .. }) => head = found,
            Err(error) => panic!("{error}"),
        }
    }
}
