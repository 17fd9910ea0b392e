//! Saving models: written to a place of their own, read back, checked, and only then a version.
//!
//! ```text
//! begin    the writer gets a place in a vault, and a lease on it         again: the same place
//!          (the writer writes files and the list of them there)          again: over what is there
//! finish   a task reads everything back and commits                      again: how far it is, or the version
//! abandon  the place is garbage                                          so it is when the lease is over
//! ```
//!
//! Invariants: a version is there whole, checked and pinned, or not at all; a save leads to one version
//! however often it is finished; two saves never share a place. The writer needs no connection
//! while the catalog reads back: whoever calls `finish` again is told how far it is, at any replica (one
//! that knows of no check begins one; both commit the same).
//!
//! Lock order: the map of checks and the set of tasks are each held for a look, never together and never
//! across an await.

mod check;
mod list;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

pub use list::{LIST_MAX, LIST_NAME, SavedFile, check_saved_path, print as print_list};

use crate::blobs::BlobId;
use crate::descriptor::{Descriptor, Kind};
use crate::ledger::{BatchId, Dataset, DatasetId, Ledger, LedgerError, Save, Version};
use crate::name::DatasetName;
use crate::vault::{Vault, Vaults};
use check::{Check, Meter};

/// How long a save may rest before a collector may take it away. Every call renews it.
pub const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Saves that are read back at the same time; others are asked to come back.
const CHECKS: usize = 8;

/// Why a save did not go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SaveError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such save.
    #[error("{0} has no save {1}")]
    Unknown(DatasetName, BatchId),
    /// What is in the store is not what was to be saved. Write it again, then finish again.
    #[error("{0}")]
    NotMet(String),
    /// Too many saves are being read back; come back.
    #[error("too many saves are being read back")]
    Busy,
    /// The store does not answer; come back.
    #[error("{0}")]
    Unavailable(String),
    /// The catalog.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// How far a save is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Files may be written to its place.
    Writing(Save),
    /// It is being read back.
    Checking {
        /// The save.
        save: Save,
        /// Bytes read back.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// It is this version.
    Ready(Box<Version>),
}

/// What an id of a save means now.
enum Found {
    Save(Save),
    Version(Box<Version>),
}

/// A check that runs, or has ended and not been asked for.
#[derive(Debug)]
struct Running {
    list: BlobId,
    meter: Arc<Meter>,
    /// Set when it has ended.
    ended: Ended,
}

/// What a check led to.
type Ended = Arc<Mutex<Option<Result<Version, SaveError>>>>;

type Checks = HashMap<(DatasetId, BatchId), Running>;

/// See the module text. Checks under way end when it is dropped.
#[derive(Debug)]
pub struct Saves {
    ledger: Ledger,
    vaults: Vaults,
    checks: Mutex<Checks>,
    tasks: Mutex<JoinSet<()>>,
}

impl Saves {
    /// Saves into these vaults.
    pub fn new(ledger: Ledger, vaults: Vaults) -> Self {
        Self {
            ledger,
            vaults,
            checks: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Begins or goes on with a save; makes the model when there is none of this name. `vault`: one of
    /// the catalog's, by its URL; the first when absent.
    pub async fn begin(
        &self,
        name: &DatasetName,
        id: &BatchId,
        vault: Option<&str>,
    ) -> Result<Progress, SaveError> {
        let vault = self.vault(vault)?;
        let dataset = match self.model(name).await {
            Err(SaveError::Ledger(LedgerError::NoDataset(_))) => {
                let descriptor = Descriptor::new(Kind::Model, name.clone(), "");
                match self.ledger.create(descriptor).await {
                    // Two first saves of one model.
                    Err(LedgerError::Exists(_)) => self.model(name).await?,
                    created => created?,
                }
            }
            found => found?,
        };
        if let Some(version) = self.ledger.batch_version(name, id).await? {
            return Ok(Progress::Ready(Box::new(version)));
        }
        let save = self.ledger.begin_save(&dataset, id, vault.url(), LEASE);
        Ok(Progress::Writing(save.await?))
    }

    /// How far a save is. Errors with `Unknown`.
    pub async fn status(&self, name: &DatasetName, id: &BatchId) -> Result<Progress, SaveError> {
        let dataset = self.model(name).await?;
        let save = match self.look(&dataset, id).await? {
            Found::Version(version) => return Ok(Progress::Ready(version)),
            Found::Save(save) => save,
        };
        let checks = self.checks();
        Ok(match checks.get(&(dataset.id, id.clone())) {
            Some(running) => running.progress(save),
            None => Progress::Writing(save),
        })
    }

    /// Begins to read a save back, or says how far that is. `list` is the digest of its list. Errors
    /// with `NotMet` when what is there is not what was to be saved: the next call reads it again.
    pub async fn finish(
        &self,
        name: &DatasetName,
        id: &BatchId,
        list: BlobId,
    ) -> Result<Progress, SaveError> {
        let dataset = self.model(name).await?;
        let key = (dataset.id, id.clone());
        let save = match self.look(&dataset, id).await? {
            Found::Version(version) => {
                self.checks().remove(&key);
                return Ok(Progress::Ready(version));
            }
            Found::Save(save) => save,
        };
        if let Some(answer) = self.running(&key, &save, list) {
            return answer;
        }
        let vault = self.vault(Some(&save.vault))?;
        let (vault, vault_url) = (Arc::clone(vault), save.vault.clone());
        let save = self.ledger.begin_save(&dataset, id, &vault_url, LEASE);
        let save = save.await?;
        self.start(key, dataset, save, vault, list)
    }

    /// Gives a save up. No error when there is none.
    pub async fn abandon(&self, name: &DatasetName, id: &BatchId) -> Result<(), SaveError> {
        let dataset = self.model(name).await?;
        // A check under way finds the save gone when it commits.
        self.checks().remove(&(dataset.id, id.clone()));
        Ok(self.ledger.abandon_save(dataset.id, id).await?)
    }

    /// A save, or the version that it is by now. Errors with `Unknown`.
    async fn look(&self, dataset: &Dataset, id: &BatchId) -> Result<Found, SaveError> {
        // In this order: the commit that ends the save makes the version.
        let save = self.ledger.save(dataset.id, id).await?;
        if let Some(version) = self.ledger.batch_version(dataset.name(), id).await? {
            return Ok(Found::Version(Box::new(version)));
        }
        let unknown = || SaveError::Unknown(dataset.name().clone(), id.clone());
        save.map(Found::Save).ok_or_else(unknown)
    }

    /// What a check of this save says, if there is one. What it led to is told once.
    fn running(
        &self,
        key: &(DatasetId, BatchId),
        save: &Save,
        list: BlobId,
    ) -> Option<Result<Progress, SaveError>> {
        let mut checks = self.checks();
        let running = checks.get(key)?;
        let ended = running.ended().take();
        if let Some(ended) = ended {
            checks.remove(key);
            return Some(ended.map(|version| Progress::Ready(Box::new(version))));
        }
        // The other owner of the meter is the task.
        if Arc::strong_count(&running.meter) == 1 {
            checks.remove(key);
            let text = "reading the save back broke off".to_owned();
            return Some(Err(SaveError::Unavailable(text)));
        }
        if running.list != list {
            let text = "another list of this save is being read back";
            return Some(Err(SaveError::Invalid(text.to_owned())));
        }
        Some(Ok(running.progress(save.clone())))
    }

    fn start(
        &self,
        key: (DatasetId, BatchId),
        dataset: Dataset,
        save: Save,
        vault: Arc<dyn Vault>,
        list: BlobId,
    ) -> Result<Progress, SaveError> {
        let meter = Arc::new(Meter::default());
        let ended = Ended::default();
        let running = Running {
            list,
            meter: Arc::clone(&meter),
            ended: Arc::clone(&ended),
        };
        let progress = running.progress(save.clone());
        {
            let mut checks = self.checks();
            // Those that ended and were never asked for again take no place.
            checks.retain(|_, running| running.ended().is_none());
            if checks.len() >= CHECKS {
                return Err(SaveError::Busy);
            }
            checks.insert(key, running);
        }
        let check = Check {
            ledger: self.ledger.clone(),
            vault,
            dataset,
            save,
            list,
            meter,
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let (model, id) = (check.dataset.name().clone(), check.save.id.clone());
            let done = check.run().await;
            match &done {
                Ok(version) => {
                    tracing::info!(dataset = %model, version = version.number, save = %id, "saved");
                }
                Err(error) => {
                    tracing::warn!(dataset = %model, save = %id, %error, "a save is not complete");
                }
            }
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        });
        Ok(progress)
    }

    fn vault(&self, url: Option<&str>) -> Result<&Arc<dyn Vault>, SaveError> {
        let found = self.vaults.find(url);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.vaults.iter().map(|vault| vault.url()).collect();
            SaveError::Invalid(match known.is_empty() {
                true => "this catalog has no place to save to; start it with --cold URL".to_owned(),
                false => format!("not a place to save to; there are {}", known.join(", ")),
            })
        })
    }

    async fn model(&self, name: &DatasetName) -> Result<Dataset, SaveError> {
        let dataset = self.ledger.dataset(name).await?;
        match dataset.kind() {
            Kind::Model => Ok(dataset),
            Kind::Dataset => Err(SaveError::Invalid(format!(
                "{name} is a dataset, and only models are saved"
            ))),
        }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn ended(&self) -> MutexGuard<'_, Option<Result<Version, SaveError>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, save: Save) -> Progress {
        Progress::Checking {
            save,
            done: self.meter.done.load(Ordering::Relaxed),
            total: self.meter.total.load(Ordering::Relaxed),
        }
    }
}

/// The id under which a save that its writer calls `text` is kept: apart from the batches of a sync
/// system.
pub fn save_id(text: &str) -> Result<BatchId, crate::NameError> {
    format!("save:{text}").parse()
}
