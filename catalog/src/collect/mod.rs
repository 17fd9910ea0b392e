//! Taking away what no version names: blobs of manifests, files of saves and copies, replaced mirror files.
//!
//! ```text
//! 0 retire   versions that descriptors do not keep: marked, and a delay later removed        (retire)
//! 1 saves    those whose lease is over end here        the places of the others are not judged in this run
//! 2 mark     every blob and every file of every version  -> keys, sorted on disk        (mark, marks)
//! 3 sweep    what is listed, older than the grace period and not marked                (sweep)
//! ```
//!
//! It runs beside commits, at any replica, and two may run at once. Why nothing is lost that anybody
//! will name:
//!
//! - A blob that a commit stores is young until long after the commit; one that it shares with the
//!   version before is marked, because that version is the latest when the commit happens and so has
//!   had its record all the time (or is itself made of young and marked blobs).
//! - A file is written to a place under a save. A save that lives when the run begins protects its
//!   place for the whole run; a place named later is young; a save that is over is ended before anything
//!   is marked, and a commit from it fails (`ledger::Save`).
//! - Nothing is deleted before everything is marked, so a run that dies in between has done nothing.
//!
//! A version that is retired is removed as a person would (`ledger::remove`): in two steps with a delay, in
//! which a tag or `keep=true` saves it, and never one that is needed or of a model.
//!
//! What is damaged stops a run before the sweep: what a manifest names that cannot be read is not known.
//! A vault is only swept by the catalog that owns it (`owner`), and only places in it are.

mod mark;
mod marks;
mod owner;
mod retire;
mod sweep;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};

use crate::ledger::{DatasetId, Ledger, LedgerError};
use crate::upstream::UpstreamError;
use crate::vault::Vaults;

pub use marks::{Marked, Marks};

/// Shortest grace period that a caller may ask for: longer than any commit takes from its first blob.
pub const LEAST_GRACE: Duration = Duration::from_secs(60 * 60);

/// Grace period when nobody says another one.
pub const USUAL_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wanted of a run.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// What is younger stays.
    pub grace: Duration,
    /// Say what a run would take, and take nothing.
    pub dry_run: bool,
}

/// Kind of a thing that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A version that its descriptor does not keep: marked, and taken by a later run unless it is tagged
    /// or held until then.
    Retired,
    /// A version that was marked, and whose delay is over.
    Version,
    /// A save whose time was over.
    Save,
    /// A block or root of a manifest.
    Blob,
    /// A mirror file that a newer one has replaced.
    Mirror,
    /// A file in a vault.
    File,
}

/// A thing that is taken away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its digest, name or URL.
    pub name: String,
    /// Its bytes; 0 where nobody counts them.
    pub bytes: u64,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was taken, because nothing should be.
    pub dry_run: bool,
    /// Versions whose blobs and files were marked.
    pub versions: u64,
    /// Versions that only mirror files tell of; `terrace catalog rebuild` restores them.
    pub unknown_versions: u64,
    /// Blobs and files that were marked.
    pub marked: u64,
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Files in vaults that were looked at.
    pub files: u64,
    /// Blobs and files that no version names and that are too young, or in a place that is not judged.
    pub young: u64,
    /// Files in vaults that are not the catalog's; they stay.
    pub foreign: u64,
    /// Versions that were marked for a later run.
    #[serde(default)]
    pub retired: u64,
    /// Versions, blobs, files, mirror files and saves that were taken.
    pub taken: u64,
    /// Their bytes.
    pub taken_bytes: u64,
}

/// Why a run ended early. What it took until then was garbage.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Another run of this process is under way.
    #[error("a collection is under way")]
    Busy,
    /// What cannot be read may name anything; nothing was taken.
    #[error("{0}")]
    Damaged(String),
    /// A vault belongs to another catalog.
    #[error("{0}")]
    Foreign(String),
    /// The catalog.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A vault.
    #[error(transparent)]
    Vault(#[from] UpstreamError),
    /// The disk for marks.
    #[error("keep the marks in {directory}: {reason}")]
    Disk {
        /// Where.
        directory: String,
        /// Why not.
        reason: String,
    },
    /// Nobody wants to know any more.
    #[error("the caller went away")]
    Gone,
}

impl From<crate::blobs::BlobError> for CollectError {
    fn from(error: crate::blobs::BlobError) -> Self {
        Self::Ledger(error.into())
    }
}

/// Counters since the start, for whoever shows them.
#[derive(Debug, Default)]
pub struct CollectStats {
    /// Runs that took something or could have.
    pub runs: AtomicU64,
    /// Things taken away.
    pub taken: AtomicU64,
    /// Their bytes.
    pub taken_bytes: AtomicU64,
}

/// See the module text. One run at a time.
#[derive(Debug)]
pub struct Collector {
    ledger: Ledger,
    vaults: Vaults,
    scratch: PathBuf,
    turn: Mutex<()>,
    stats: CollectStats,
}

impl Collector {
    /// Collects for this catalog; `scratch` is a directory that takes 16 bytes for each live file.
    pub fn new(ledger: Ledger, vaults: Vaults, scratch: PathBuf) -> Self {
        Self {
            ledger,
            vaults,
            scratch,
            turn: Mutex::default(),
            stats: CollectStats::default(),
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> &CollectStats {
        &self.stats
    }

    /// Notes in each vault that it is this catalog's. Errors with `Foreign` when it is another's; a
    /// vault that does not answer is asked again by the next run.
    pub async fn claim(&self) -> Result<(), CollectError> {
        match owner::check(&self.ledger, &self.vaults, false).await {
            Err(CollectError::Vault(error)) => {
                tracing::warn!(%error, "a place for models does not answer");
                Ok(())
            }
            done => done,
        }
    }

    /// Runs once; tells of each thing that is taken. Dropped, it stops between two of them.
    pub async fn run(
        &self,
        wanted: Collection,
        items: &mpsc::Sender<Item>,
    ) -> Result<Collected, CollectError> {
        let _turn = self.turn.try_lock().map_err(|_| CollectError::Busy)?;
        let mut run = Run {
            ledger: &self.ledger,
            vaults: &self.vaults,
            wanted,
            begun_ms: self.ledger.now(),
            items,
            protected: HashSet::new(),
            gone: HashSet::new(),
            done: Collected {
                dry_run: wanted.dry_run,
                ..Collected::default()
            },
        };
        owner::check(&self.ledger, &self.vaults, wanted.dry_run).await?;
        run.retire().await?;
        run.end_saves().await?;
        let (marked, replaced) = run.mark(&self.scratch).await?;
        run.sweep_mirrors(replaced).await?;
        let marked = std::sync::Arc::new(marked);
        run.sweep_blobs(&marked).await?;
        for vault in self.vaults.iter() {
            run.sweep_vault(vault, &marked).await?;
        }
        if !wanted.dry_run {
            let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed);
            add(&self.stats.runs, 1);
            add(&self.stats.taken, run.done.taken);
            add(&self.stats.taken_bytes, run.done.taken_bytes);
        }
        Ok(run.done)
    }
}

/// One run.
struct Run<'a> {
    ledger: &'a Ledger,
    vaults: &'a Vaults,
    wanted: Collection,
    begun_ms: i64,
    items: &'a mpsc::Sender<Item>,
    /// Places of saves that live.
    protected: HashSet<crate::vault::Place>,
    /// Versions that a dry run takes for removed.
    gone: HashSet<(DatasetId, u64)>,
    done: Collected,
}

impl Run<'_> {
    /// Ends saves whose lease is over; protects the places of the others.
    async fn end_saves(&mut self) -> Result<(), CollectError> {
        let (live, over) = self.ledger.saves(self.begun_ms).await?;
        self.protected
            .extend(live.into_iter().map(|save| save.place));
        for save in over {
            if !self.wanted.dry_run && !self.ledger.expire_save(&save).await? {
                // Its writer has come back in this moment.
                self.protected.insert(save.place);
                continue;
            }
            let name = format!("{} of {}", save.id, save.location());
            self.take(ItemKind::Save, name, 0).await?;
        }
        Ok(())
    }

    /// Tells of a thing that is taken.
    async fn take(&mut self, kind: ItemKind, name: String, bytes: u64) -> Result<(), CollectError> {
        self.done.taken += 1;
        self.done.taken_bytes += bytes;
        let item = Item { kind, name, bytes };
        self.items.send(item).await.map_err(|_| CollectError::Gone)
    }

    fn grace_ms(&self) -> i64 {
        i64::try_from(self.wanted.grace.as_millis()).unwrap_or(i64::MAX)
    }
}
