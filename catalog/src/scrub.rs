//! Reading versions back long after they were made: do their bytes still have their digests?
//!
//! ```text
//! every version   its manifest, block by block       each block's digest is its name
//! in a vault      every file with a digest           read whole, at a bounded pace
//! ```
//!
//! What is damaged is reported, marked ([`Ledger::mark_degraded`], which is an event) and never deleted.
//! A store that does not answer has not said that anything is damaged: such files are counted apart.
//! Blocks and files that versions share are read once, as far as a bounded memory of them goes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, mpsc};

use crate::blobs::{BlobError, BlobId};
use crate::digest::{Pace, digest_of};
use crate::ledger::{Ledger, LedgerError, Version};
use crate::manifest::{Checksum, FileEntry, Manifest, ManifestError, Reached};
use crate::name::DatasetName;
use crate::upstream::{UpFile, UpstreamErrorKind};
use crate::vault::{Vault, Vaults};

/// Datasets, versions and files that are read from lists at once.
const PAGE: usize = 512;
/// Blocks and files that are remembered as read: 24 MB or so each.
const REMEMBERED: usize = 1 << 20;
/// Findings of one version that are reported one by one.
const FINDINGS: u64 = 100;

/// What is wanted of a run.
#[derive(Clone, Debug)]
pub struct ScrubRequest {
    /// Only this dataset or model.
    pub dataset: Option<DatasetName>,
    /// Most bytes read from vaults a second; 0: no limit.
    pub bytes_per_second: u64,
}

/// Something that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `namespace.table`.
    pub dataset: String,
    /// The version.
    pub version: u64,
    /// Path of the file, or the manifest's digest.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a run saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Versions looked at.
    pub versions: u64,
    /// Blocks of manifests read.
    pub blobs: u64,
    /// Files read whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and blocks that are damaged or gone.
    pub damaged: u64,
    /// Versions that have one.
    pub damaged_versions: u64,
    /// Files that could not be read, because their store did not answer.
    pub unread: u64,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// Another run of this process is under way.
    #[error("a scrub is under way")]
    Busy,
    /// The catalog.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nobody wants to know any more.
    #[error("the caller went away")]
    Gone,
}

/// Counters since the start, for whoever shows them.
#[derive(Debug, Default)]
pub struct ScrubStats {
    /// Bytes of files read.
    pub bytes: AtomicU64,
    /// Files and blocks found damaged.
    pub damaged: AtomicU64,
}

/// See the module text. One run at a time.
#[derive(Debug)]
pub struct Scrubber {
    ledger: Ledger,
    vaults: Vaults,
    turn: Mutex<()>,
    stats: ScrubStats,
}

/// One run.
struct Run<'a> {
    ledger: &'a Ledger,
    vaults: &'a Vaults,
    stats: &'a ScrubStats,
    pace: Pace,
    findings: &'a mpsc::Sender<Finding>,
    walked: HashSet<BlobId>,
    read: HashSet<[u8; 32]>,
    done: Scrubbed,
}

impl Scrubber {
    /// Reads back what is in these vaults.
    pub fn new(ledger: Ledger, vaults: Vaults) -> Self {
        Self {
            ledger,
            vaults,
            turn: Mutex::default(),
            stats: ScrubStats::default(),
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> &ScrubStats {
        &self.stats
    }

    /// Runs once; tells of everything that is damaged. Dropped, it stops between two reads.
    pub async fn run(
        &self,
        request: &ScrubRequest,
        findings: &mpsc::Sender<Finding>,
    ) -> Result<Scrubbed, ScrubError> {
        let _turn = self.turn.try_lock().map_err(|_| ScrubError::Busy)?;
        let mut run = Run {
            ledger: &self.ledger,
            vaults: &self.vaults,
            stats: &self.stats,
            pace: Pace::new(request.bytes_per_second),
            findings,
            walked: HashSet::new(),
            read: HashSet::new(),
            done: Scrubbed::default(),
        };
        if let Some(name) = &request.dataset {
            run.dataset(name).await?;
            return Ok(run.done);
        }
        let mut after = None;
        loop {
            let names = self.ledger.names(None, after.as_ref(), PAGE).await?;
            for (name, ..) in &names {
                match run.dataset(name).await {
                    // Removed meanwhile.
                    Err(ScrubError::Ledger(LedgerError::NoDataset(_))) => {}
                    done => done?,
                }
            }
            match names.into_iter().next_back() {
                Some((last, ..)) => after = Some(last),
                None => return Ok(run.done),
            }
        }
    }
}

impl Reached for Run<'_> {
    fn blob(&mut self, id: &BlobId) -> bool {
        if self.walked.len() >= REMEMBERED {
            self.walked.clear();
        }
        let new = self.walked.insert(*id);
        self.done.blobs += u64::from(new);
        new
    }

    fn wants_files(&self) -> bool {
        // So that every block is read.
        true
    }

    fn file(&mut self, _path: &str) {}
}

impl Run<'_> {
    async fn dataset(&mut self, name: &DatasetName) -> Result<(), ScrubError> {
        let mut after = 0;
        loop {
            let versions = self.ledger.versions(name, after, PAGE).await?;
            for version in &versions {
                self.version(version).await?;
            }
            match versions.last() {
                Some(last) if versions.len() == PAGE => after = last.number,
                _ => return Ok(()),
            }
        }
    }

    async fn version(&mut self, version: &Version) -> Result<(), ScrubError> {
        self.done.versions += 1;
        let before = self.done.damaged;
        let mut first = None;
        let looked = self.look(version, &mut first).await;
        match looked {
            Ok(()) => {}
            Err(Trouble::Ended(error)) => return Err(error),
            Err(Trouble::Manifest(ManifestError::Blob(error @ BlobError::Unavailable { .. }))) => {
                return Err(LedgerError::from(error).into());
            }
            Err(Trouble::Manifest(error)) => {
                // Removed while it was read: nothing is wrong.
                if self
                    .ledger
                    .versions(&version.dataset, version.number - 1, 1)
                    .await?
                    .first()
                    != Some(version)
                {
                    return Ok(());
                }
                let what = version.manifest.to_string();
                self.found(version, what, error.to_string(), &mut first, before)
                    .await?;
            }
        }
        if let Some(reason) = first {
            self.done.damaged_versions += 1;
            self.ledger.mark_degraded(version, &reason).await?;
            tracing::error!(dataset = %version.dataset, version = version.number, reason, "damaged");
        }
        Ok(())
    }

    async fn look(&mut self, version: &Version, first: &mut Option<String>) -> Result<(), Trouble> {
        let manifest = Manifest::open(self.ledger.blobs(), &version.manifest).await?;
        manifest.reach(self).await?;
        let location = Arc::clone(&manifest.header().location);
        let Some((vault, home)) = self.vaults.holder(&location) else {
            return Ok(());
        };
        let before = self.done.damaged;
        let mut after: Option<Arc<str>> = None;
        loop {
            let files = manifest.files("", after.as_deref(), PAGE).await?;
            for file in &files {
                if let Some(reason) = self.file_of(vault, home, file).await {
                    let what = file.path.to_string();
                    self.found(version, what, reason, first, before).await?;
                }
            }
            match files.into_iter().next_back() {
                Some(last) => after = Some(last.path),
                None => return Ok(()),
            }
        }
    }

    /// What is wrong with a file; none when nothing is, or nobody can say.
    async fn file_of(
        &mut self,
        vault: &Arc<dyn Vault>,
        home: &str,
        file: &FileEntry,
    ) -> Option<String> {
        let Some(Checksum::Sha256(expected)) = file.checksum else {
            return None;
        };
        let file = UpFile {
            path: format!("{home}/{}", file.path).into(),
            size: file.size,
            mtime_ms: file.mtime_ms,
            token: Arc::clone(&file.token),
        };
        if self.read.len() >= REMEMBERED {
            self.read.clear();
        }
        let identity = format!("{}\0{}\0{}", vault.url(), file.path, file.token);
        if !self.read.insert(Sha256::digest(identity).into()) {
            return None;
        }
        let stats = self.stats;
        let count = |bytes| {
            stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        match digest_of(vault.as_ref(), &file, &self.pace, count).await {
            Ok(sum) => {
                self.done.files += 1;
                self.done.bytes += file.size;
                (sum != expected).then(|| "its bytes have another digest".to_owned())
            }
            Err(error) => match error.kind {
                UpstreamErrorKind::Unreachable
                | UpstreamErrorKind::Throttled
                | UpstreamErrorKind::Denied => {
                    self.done.unread += 1;
                    tracing::warn!(%error, "a file was not read back");
                    None
                }
                UpstreamErrorKind::NotFound => Some("it is gone".to_owned()),
                UpstreamErrorKind::Changed | UpstreamErrorKind::Corrupt => Some(error.message),
            },
        }
    }

    async fn found(
        &mut self,
        version: &Version,
        what: String,
        reason: String,
        first: &mut Option<String>,
        before: u64,
    ) -> Result<(), ScrubError> {
        self.done.damaged += 1;
        self.stats.damaged.fetch_add(1, Ordering::Relaxed);
        first.get_or_insert_with(|| format!("{what}: {reason}"));
        if self.done.damaged - before > FINDINGS {
            return Ok(());
        }
        let finding = Finding {
            dataset: version.dataset.to_string(),
            version: version.number,
            what,
            reason,
        };
        self.findings
            .send(finding)
            .await
            .map_err(|_| ScrubError::Gone)
    }
}

/// Why a version was not looked at to its end.
enum Trouble {
    Manifest(ManifestError),
    Ended(ScrubError),
}

impl From<ManifestError> for Trouble {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<ScrubError> for Trouble {
    fn from(error: ScrubError) -> Self {
        Self::Ended(error)
    }
}
