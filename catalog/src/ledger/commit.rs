//! The one transaction that makes a version.
//!
//! ```text
//! before   everything the version names is durable: manifest, source sequences
//! if       the dataset's record and `latest` are as read, the batch is new
//! then     v number   the version                 r latest   points to it
//!          r day      points to it                b batch    leads to it
//!          p number   its mirror file is due      e          the event
//!          s save     gone, if files of a save were committed
//! after    the mirror file is written, and `p number` removed
//! ```
//!
//! Committing is idempotent by batch, ordered by source sequence for each partition, and a manifest
//! that is already the latest makes no version. The sequences are a map stored as blobs
//! (`manifest::map`) that the head names: any number of partitions costs the transaction nothing.
//! The empty partition name stands for the whole table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dataset::{Dataset, DatasetState};
use super::event::EventKind;
use super::record::{BatchRecord, NameRecord, RefRecord, VersionRecord, decode, encode, stored};
use super::version::{Version, VersionState, day_of};
use super::{BatchId, DatasetId, Key, Ledger, LedgerError, RETRIES, Save};
use crate::blobs::BlobId;
use crate::kv::{KvError, Txn, TxnOutcome, Versioned};
use crate::manifest::{Manifest, NumberMap};
use crate::name::DatasetName;

/// The name of the reference to the newest version.
pub(super) const LATEST: &str = "latest";
/// Longest cause, and most bytes of a summary.
const MAX_TEXT: usize = 8 << 10;

/// A version to be made.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Of which dataset.
    pub dataset: DatasetName,
    /// The latest version that the manifest was made from; None: the dataset had none.
    pub expected_head: Option<u64>,
    /// The files.
    pub manifest: BlobId,
    /// The delivery that led to it: the same one again makes no second version.
    pub batch: Option<BatchId>,
    /// Partitions and the place of the delivery in their source's order; an empty name is the whole
    /// table. An older place than one that was committed is refused.
    pub source_seq: Vec<(Arc<str>, u64)>,
    /// Why, for people.
    pub cause: String,
    /// What changed, for people, by what is counted.
    pub summary: BTreeMap<String, String>,
}

/// What a commit led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// A new version.
    New(Version),
    /// None: the batch has led to this one, or its files are these already.
    Same(Version),
}

impl Committed {
    /// The version, new or not.
    pub fn version(&self) -> &Version {
        match self {
            Self::New(version) | Self::Same(version) => version,
        }
    }
}

/// Why a commit made no version.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The latest version is another one by now: look again and make another manifest.
    #[error("the latest version is {found:?} and not {expected:?}")]
    Conflict {
        /// What the caller expected.
        expected: Option<u64>,
        /// What is there.
        found: Option<u64>,
    },
    /// A newer delivery of the partition is committed already.
    #[error("source sequence {got} of partition {partition:?} is older than {committed}")]
    Stale {
        /// Which partition; empty for the whole table.
        partition: Arc<str>,
        /// What the caller has.
        got: u64,
        /// What is committed.
        committed: u64,
    },
    /// Anything else.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<KvError> for CommitError {
    fn from(error: KvError) -> Self {
        Self::Ledger(error.into())
    }
}

/// What a commit looks at.
struct Head {
    dataset: Dataset,
    latest: Option<(RefRecord, Versioned)>,
    /// The version that the batch has led to.
    known: Option<u64>,
    /// The save that the version is made of, as it was read.
    guard: Option<(Key, Versioned)>,
}

/// What the head says about source sequences.
#[derive(Clone, Copy, Default)]
struct Sequences {
    root: Option<BlobId>,
    high: Option<u64>,
}

impl Ledger {
    /// Makes a version. May be called again with the same batch when the answer got lost. Dropped
    /// before it ends, the version may be made or not.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.commit_guarded(commit, None).await
    }

    /// The same for files that a save has written, and ends the save. Errors with `Refused` when it
    /// was given up meanwhile: then its files may be gone.
    pub async fn commit_saved(
        &self,
        commit: Commit,
        save: &Save,
    ) -> Result<Committed, CommitError> {
        self.commit_guarded(commit, Some(save)).await
    }

    async fn commit_guarded(
        &self,
        commit: Commit,
        save: Option<&Save>,
    ) -> Result<Committed, CommitError> {
        let text: usize = commit
            .summary
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if commit.cause.len() > MAX_TEXT || text > MAX_TEXT {
            let text = format!("cause or summary has more than {MAX_TEXT} bytes");
            return Err(LedgerError::Refused(text).into());
        }
        // Also proves that the manifest is there, before anything says so.
        let manifest = Manifest::open(&self.blobs, &commit.manifest).await;
        let manifest = manifest.map_err(LedgerError::from)?;
        for attempt in 0..RETRIES {
            let mut head = self.head(&commit).await?;
            if let Some(known) = head.known {
                let version = self.version(&head.dataset, known).await?;
                return Ok(Committed::Same(version));
            }
            if let Some(save) = save {
                head.guard = Some(self.save_guard(save).await?);
            }
            let found = head.latest.as_ref().map(|(latest, _)| latest.version);
            let equal = head
                .latest
                .as_ref()
                .is_some_and(|(latest, _)| latest.manifest == commit.manifest.to_string());
            if found != commit.expected_head && !equal {
                return Err(CommitError::Conflict {
                    expected: commit.expected_head,
                    found,
                });
            }
            let sequences = self.advance(&head, &commit).await?;
            let done = if equal {
                self.note_equal(&head, &commit, sequences).await
            } else {
                self.write_version(&head, &commit, &manifest, sequences)
                    .await
            };
            match done {
                Ok(Some(committed)) => return Ok(committed),
                // Somebody was faster, or the answer got lost: look again.
                Ok(None) | Err(LedgerError::Kv(KvError::Unknown(_))) => {}
                Err(error) => return Err(error.into()),
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(commit.dataset.to_string()).into())
    }

    /// Reads what the commit depends on.
    async fn head(&self, commit: &Commit) -> Result<Head, LedgerError> {
        let name = &commit.dataset;
        let absent = || LedgerError::NoDataset(name.to_string());
        let named = self.kv.get(&self.keys.name(name.as_str())).await?;
        let named: NameRecord = stored(named.as_ref())?.ok_or_else(absent)?;
        let id = DatasetId(named.id);
        let dataset = self.by_id(id).await?.ok_or_else(absent)?;
        if dataset.state != DatasetState::Active {
            return Err(LedgerError::Removing(name.to_string()));
        }
        let mut keys = vec![self.keys.reference(id, LATEST)];
        keys.extend(
            commit
                .batch
                .as_ref()
                .map(|batch| self.keys.batch(id, batch.as_str())),
        );
        let mut found = self.kv.get_many(&keys).await?.into_iter();
        let latest = match found.next().flatten() {
            None => None,
            Some(found) => Some((decode(&found.value)?, found)),
        };
        let known: Option<BatchRecord> = stored(found.next().flatten().as_ref())?;
        Ok(Head {
            dataset,
            latest,
            known: known.map(|record| record.version),
            guard: None,
        })
    }

    /// Checks the order of deliveries, and stores the map with this one in it.
    async fn advance(&self, head: &Head, commit: &Commit) -> Result<Sequences, CommitError> {
        let mut now = Sequences::default();
        if let Some((latest, _)) = &head.latest {
            let root = latest.sequences.as_deref().map(str::parse).transpose();
            now = Sequences {
                root: root.map_err(LedgerError::from)?,
                high: latest.sequence_high,
            };
        }
        if commit.source_seq.is_empty() {
            return Ok(now);
        }
        let map = NumberMap::open(&self.blobs, now.root);
        let table = map.get("").await.map_err(LedgerError::from)?;
        let mut entries = BTreeMap::new();
        for (partition, got) in &commit.source_seq {
            // A delivery of the whole table comes after everything, or not at all.
            let committed = if partition.is_empty() {
                now.high
            } else {
                map.get(partition)
                    .await
                    .map_err(LedgerError::from)?
                    .max(table)
            };
            if let Some(committed) = committed.filter(|committed| got < committed) {
                return Err(CommitError::Stale {
                    partition: Arc::clone(partition),
                    got: *got,
                    committed,
                });
            }
            let entry = entries.entry(Arc::clone(partition)).or_insert(*got);
            *entry = (*entry).max(*got);
        }
        let root = map.with(&entries).await.map_err(LedgerError::from)?;
        Ok(Sequences {
            root: Some(root),
            high: now.high.max(entries.values().max().copied()),
        })
    }

    /// The files are those of the latest version: notes the batch and its place in the order.
    async fn note_equal(
        &self,
        head: &Head,
        commit: &Commit,
        sequences: Sequences,
    ) -> Result<Option<Committed>, LedgerError> {
        let Some((latest, read)) = &head.latest else {
            return Ok(None);
        };
        let version = self.version(&head.dataset, latest.version).await?;
        if commit.batch.is_none() && commit.source_seq.is_empty() {
            return Ok(Some(Committed::Same(version)));
        }
        let id = head.dataset.id;
        let key = self.keys.reference(id, LATEST);
        let record = RefRecord {
            sequences: sequences.root.map(|root| root.to_string()),
            sequence_high: sequences.high,
            ..latest.clone()
        };
        let mut txn = Txn::new()
            .unchanged(key.clone(), Some(read))
            .put(key, encode(&record)?)
            .put(self.keys.pending(id, 0), Key::new());
        txn = self.with_batch(txn, id, commit, latest.version)?;
        match self.kv.txn(txn).await? {
            TxnOutcome::Conflict { .. } => Ok(None),
            TxnOutcome::Committed { .. } => {
                self.mirror_soon(id, 0).await;
                Ok(Some(Committed::Same(version)))
            }
        }
    }

    fn with_batch(
        &self,
        txn: Txn,
        id: DatasetId,
        commit: &Commit,
        version: u64,
    ) -> Result<Txn, LedgerError> {
        let Some(batch) = &commit.batch else {
            return Ok(txn);
        };
        let key = self.keys.batch(id, batch.as_str());
        let record = BatchRecord { version };
        Ok(txn.unchanged(key.clone(), None).put(key, encode(&record)?))
    }

    /// The transaction of the module text.
    async fn write_version(
        &self,
        head: &Head,
        commit: &Commit,
        manifest: &Manifest,
        sequences: Sequences,
    ) -> Result<Option<Committed>, LedgerError> {
        let totals = manifest.totals();
        let is_table = crate::iceberg::no_table(manifest.header(), &totals).is_none();
        let (id, latest) = (head.dataset.id, head.latest.as_ref());
        let before = latest.map_or(i64::MIN, |(latest, _)| latest.at_ms);
        let created_ms = self.now().max(before);
        let version = Version {
            dataset: commit.dataset.clone(),
            id,
            number: latest.map_or(0, |(latest, _)| latest.version) + 1,
            manifest: commit.manifest,
            parent: latest.map(|(latest, _)| latest.version),
            created_ms,
            day: day_of(created_ms),
            totals,
            batch: commit.batch.clone(),
            cause: commit.cause.clone(),
            summary: commit.summary.clone(),
            state: VersionState::Committed,
            sequences: sequences.root,
            sequence_high: sequences.high,
        };
        let day = RefRecord {
            version: version.number,
            manifest: version.manifest.to_string(),
            at_ms: created_ms,
            sequences: None,
            sequence_high: None,
            table: None,
        };
        let newest = RefRecord {
            table: Some(is_table),
            sequences: sequences.root.map(|root| root.to_string()),
            sequence_high: sequences.high,
            ..day.clone()
        };
        let what = EventKind::VersionCommitted {
            version: version.number,
            manifest: version.manifest,
        };
        let (event_key, event) = self.event(&commit.dataset, id, &what)?;
        let latest_key = self.keys.reference(id, LATEST);
        let dataset = Versioned {
            value: Key::new(),
            revision: head.dataset.revision,
        };
        let number = version.number;
        let txn = Txn::new()
            .unchanged(self.keys.dataset(id), Some(&dataset))
            .unchanged(latest_key.clone(), latest.map(|(_, read)| read))
            .put(latest_key, encode(&newest)?)
            .put(self.keys.reference(id, &version.day), encode(&day)?)
            .put(
                self.keys.version(id, number),
                encode::<VersionRecord>(&version.to_record())?,
            )
            .put(self.keys.pending(id, number), Key::new())
            .append(event_key, event);
        let mut txn = self.with_batch(txn, id, commit, number)?;
        if let Some((save, read)) = &head.guard {
            txn = txn.unchanged(save.clone(), Some(read)).delete(save.clone());
        }
        match self.kv.txn(txn).await? {
            TxnOutcome::Conflict { .. } => Ok(None),
            TxnOutcome::Committed { .. } => {
                self.mirror_soon(id, number).await;
                Ok(Some(Committed::New(version)))
            }
        }
    }
}
