//! Reading a save back: every byte that the list names, from the store, against the list.
//!
//! ```text
//! list (its own digest) -> what the store shows -> every file read back, its digest compared
//!   -> manifest under its digest -> one transaction: the save is done, the version is there
//! ```
//!
//! Everything before the transaction leaves garbage at most. The manifest pins the versions that were
//! read, so what is served later is what was checked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::list::{LIST_MAX, LIST_NAME, SavedFile, parse};
use super::{LEASE, SaveError};
use crate::blobs::BlobId;
use crate::digest::{Pace, digest_of};
use crate::ledger::{Commit, CommitError, Dataset, Ledger, LedgerError, Save, Version};
use crate::manifest::{Checksum, FileEntry, Header, ManifestEdit};
use crate::upstream::{UpFile, UpstreamError, read_small};
use crate::vault::Vault;
use crate::{Selector, VersionRef};

/// Files that are read back at the same time.
const AT_ONCE: usize = 4;
/// How often a save that lost a race for the head is committed again.
const RACES: usize = 64;
/// Name of the header's note that says which save a version is.
const NOTE_SAVE: &str = "save";

/// Bytes read back of a save, and of how many.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) done: AtomicU64,
    pub(super) total: AtomicU64,
}

/// What one check needs.
pub(super) struct Check {
    pub(super) ledger: Ledger,
    pub(super) vault: Arc<dyn Vault>,
    pub(super) dataset: Dataset,
    pub(super) save: Save,
    pub(super) list: BlobId,
    pub(super) meter: Arc<Meter>,
}

impl From<UpstreamError> for SaveError {
    fn from(error: UpstreamError) -> Self {
        use crate::upstream::UpstreamErrorKind::{Throttled, Unreachable};
        match error.kind {
            Throttled | Unreachable => Self::Unavailable(error.message),
            _ => Self::NotMet(error.message),
        }
    }
}

impl Check {
    /// Reads back, and makes the version.
    pub(super) async fn run(&self) -> Result<Version, SaveError> {
        let files = self.list().await?;
        let bytes = files.iter().map(|file| file.size).sum();
        self.meter.total.store(bytes, Ordering::Relaxed);
        let found = self.found().await?;
        let mut pairs = Vec::with_capacity(files.len());
        for file in files {
            let missing = || SaveError::NotMet(format!("{} is not there", file.path));
            let there = found.get(file.path.as_str()).ok_or_else(missing)?;
            if there.size != file.size {
                let text = format!(
                    "{} has {} bytes and not {}",
                    file.path, there.size, file.size
                );
                return Err(SaveError::NotMet(text));
            }
            pairs.push((file, there.clone()));
        }
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let reads: Vec<BoxFuture<'_, _>> = pairs
            .iter()
            .map(|(file, there)| self.read_back(file, there).boxed())
            .collect();
        let entries: Vec<FileEntry> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let manifest = self.manifest(entries).await?;
        self.commit(manifest).await
    }

    /// The list, checked against the digest that the writer announced.
    async fn list(&self) -> Result<Vec<SavedFile>, SaveError> {
        let path = format!("{}/{LIST_NAME}", self.save.place);
        let file = self.vault.head(&path).await?;
        let bytes = read_small(self.vault.as_ref(), &file, LIST_MAX).await?;
        if BlobId::of(&bytes) != self.list {
            let text = format!("{LIST_NAME} is not the list that was announced");
            return Err(SaveError::NotMet(text));
        }
        parse(&bytes).map_err(SaveError::NotMet)
    }

    /// What the store shows of the place, by the path below it.
    async fn found(&self) -> Result<HashMap<Arc<str>, UpFile>, SaveError> {
        let place = self.save.place.to_string();
        let mut listing = self.vault.walk(&place);
        let mut found = HashMap::new();
        while let Some(file) = listing.next().await {
            let file = file?;
            let below = file.path.strip_prefix(&place);
            if let Some(path) = below.and_then(|rest| rest.strip_prefix('/')) {
                found.insert(Arc::from(path), file);
            }
        }
        Ok(found)
    }

    async fn read_back(&self, file: &SavedFile, there: &UpFile) -> Result<FileEntry, SaveError> {
        let read = |bytes| {
            self.meter.done.fetch_add(bytes, Ordering::Relaxed);
        };
        let sum = digest_of(self.vault.as_ref(), there, &Pace::new(0), read).await?;
        if sum != file.sum().map_err(SaveError::NotMet)? {
            let text = format!("{} has other bytes in the store than were saved", file.path);
            return Err(SaveError::NotMet(text));
        }
        Ok(FileEntry {
            path: file.path.as_str().into(),
            size: there.size,
            mtime_ms: there.mtime_ms,
            token: Arc::clone(&there.token),
            rows: None,
            checksum: Some(Checksum::Sha256(sum)),
        })
    }

    async fn manifest(&self, entries: Vec<FileEntry>) -> Result<BlobId, SaveError> {
        // Reading back may have taken long; the time until the commit must be free of a collector.
        self.ledger
            .begin_save(&self.dataset, &self.save.id, &self.save.vault, LEASE)
            .await?;
        let header = Header {
            location: self.save.location().into(),
            format: "files".into(),
            notes: vec![(NOTE_SAVE.into(), self.save.id.as_str().into())],
            ..Header::default()
        };
        let mut edit = ManifestEdit::new(self.ledger.blobs(), header);
        let put = edit.put_partition("", Vec::new(), entries).await;
        put.map_err(LedgerError::from)?;
        Ok(edit.finish().await.map_err(LedgerError::from)?)
    }

    async fn commit(&self, manifest: BlobId) -> Result<Version, SaveError> {
        let name = self.dataset.name();
        for _ in 0..RACES {
            let selector = Selector::new(name.clone(), VersionRef::Latest);
            let head = match self.ledger.resolve(&selector).await {
                Ok(version) => Some(version.number),
                Err(LedgerError::NoVersion(..)) => None,
                Err(error) => return Err(error.into()),
            };
            let commit = Commit {
                dataset: name.clone(),
                expected_head: head,
                manifest,
                batch: Some(self.save.id.clone()),
                source_seq: Vec::new(),
                cause: "saved".to_owned(),
                summary: Default::default(),
            };
            match self.ledger.commit_saved(commit, &self.save).await {
                Ok(committed) => return Ok(committed.version().clone()),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Ledger(error)) => return Err(error.into()),
                Err(error) => return Err(SaveError::NotMet(error.to_string())),
            }
        }
        Err(LedgerError::Busy(name.to_string()).into())
    }
}
