//! Datasets: created, read, changed, listed.

use std::sync::Arc;

use super::columns::ColumnIds;
use super::event::EventKind;
use super::key::Table;
use super::record::{DatasetRecord, DatasetStateRecord, NameRecord, decode, encode, stored};
use super::{DatasetId, Key, Ledger, LedgerError, RETRIES};
use crate::descriptor::{Descriptor, Kind};
use crate::kv::{KeyRange, KvError, MAX_OPS, Txn, TxnOutcome, Versioned};
use crate::name::DatasetName;

/// A dataset as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Never given twice.
    pub id: DatasetId,
    /// Its resource file.
    pub descriptor: Arc<Descriptor>,
    /// When it was created: milliseconds since 1970.
    pub created_ms: i64,
    /// When its descriptor last changed.
    pub updated_ms: i64,
    /// Whether it is being removed.
    pub state: DatasetState,
    /// Changes with every change of the above: for conditional updates.
    pub revision: u64,
    /// Numbers of its columns.
    pub(super) columns: Arc<ColumnIds>,
}

/// Whether a dataset is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetState {
    /// It is not.
    Active,
    /// It takes no commits, and is removed when this time has come and somebody says so again.
    Removing {
        /// Milliseconds since 1970.
        not_before_ms: i64,
    },
}

impl Dataset {
    /// Its name.
    pub fn name(&self) -> &DatasetName {
        &self.descriptor.name
    }

    /// Dataset or model.
    pub fn kind(&self) -> Kind {
        self.descriptor.kind
    }

    fn from_record(
        id: DatasetId,
        revision: u64,
        record: DatasetRecord,
    ) -> Result<Option<Self>, LedgerError> {
        let state = match record.state {
            DatasetStateRecord::Active => DatasetState::Active,
            DatasetStateRecord::Removing { not_before_ms } => {
                DatasetState::Removing { not_before_ms }
            }
            DatasetStateRecord::Removed => return Ok(None),
        };
        let descriptor = Descriptor::from_value(record.descriptor)
            .map_err(|error| LedgerError::Damaged(format!("descriptor of {id}: {error}")))?;
        Ok(Some(Self {
            id,
            descriptor: Arc::new(descriptor),
            created_ms: record.created_ms,
            updated_ms: record.updated_ms,
            state,
            revision,
            columns: Arc::new(
                record
                    .columns
                    .map_or_else(ColumnIds::default, ColumnIds::from_record),
            ),
        }))
    }

    pub(super) fn to_record(&self) -> DatasetRecord {
        DatasetRecord {
            name: self.name().to_string(),
            descriptor: self.descriptor.to_value(),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            state: match self.state {
                DatasetState::Active => DatasetStateRecord::Active,
                DatasetState::Removing { not_before_ms } => {
                    DatasetStateRecord::Removing { not_before_ms }
                }
            },
            columns: self.columns.to_record(),
        }
    }
}

impl Ledger {
    /// Creates a dataset. Errors with `Exists`.
    pub async fn create(&self, descriptor: Descriptor) -> Result<Dataset, LedgerError> {
        let name = descriptor.name.clone();
        let now = self.now();
        let mut dataset = Dataset {
            id: DatasetId(0),
            descriptor: Arc::new(descriptor),
            created_ms: now,
            updated_ms: now,
            state: DatasetState::Active,
            revision: 0,
            columns: Arc::default(),
        };
        for attempt in 0..RETRIES {
            // Drawn, not counted: nobody waits for anybody, and a restored catalog needs no counter.
            dataset.id = DatasetId(rand::random::<u64>() >> 1);
            let what = EventKind::DatasetCreated {
                kind: dataset.kind(),
                text: dataset.descriptor.search_text(),
            };
            let (event_key, event) = self.event(&name, dataset.id, &what)?;
            let txn = Txn::new()
                .unchanged(self.keys.name(name.as_str()), None)
                .unchanged(self.keys.dataset(dataset.id), None)
                .put(
                    self.keys.name(name.as_str()),
                    encode(&name_record(&dataset))?,
                )
                .put(self.keys.dataset(dataset.id), encode(&dataset.to_record())?)
                .put(self.keys.pending(dataset.id, 0), Key::new())
                .append(event_key, event);
            match self.kv.txn(txn).await {
                Ok(TxnOutcome::Committed { revision }) => {
                    dataset.revision = revision;
                    self.mirror_soon(dataset.id, 0).await;
                    return Ok(dataset);
                }
                Ok(TxnOutcome::Conflict { failed: 0 }) => return Err(LedgerError::Exists(name)),
                // The id was drawn twice.
                Ok(TxnOutcome::Conflict { .. }) => {}
                Err(KvError::Unknown(_)) => {
                    if let Some(found) = self
                        .find(&name)
                        .await?
                        .filter(|found| found.id == dataset.id)
                    {
                        return Ok(found);
                    }
                }
                Err(error) => return Err(error.into()),
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// Replaces a dataset's descriptor. `revision`: only if it is still that one. The name and the
    /// kind stay. Errors with `NoDataset`, `Refused`, `Busy`.
    pub async fn update(
        &self,
        descriptor: Descriptor,
        revision: Option<u64>,
    ) -> Result<Dataset, LedgerError> {
        let name = descriptor.name.clone();
        let descriptor = Arc::new(descriptor);
        for attempt in 0..RETRIES {
            let mut dataset = self.dataset(&name).await?;
            if revision.is_some_and(|revision| revision != dataset.revision) {
                return Err(LedgerError::Busy(name.to_string()));
            }
            if dataset.kind() != descriptor.kind {
                let text = format!("{name} is a {}, and stays one", dataset.kind());
                return Err(LedgerError::Refused(text));
            }
            if dataset.descriptor == descriptor {
                return Ok(dataset);
            }
            let before = dataset.revision;
            dataset.descriptor = Arc::clone(&descriptor);
            dataset.updated_ms = self.now().max(dataset.updated_ms);
            let what = EventKind::DatasetUpdated {
                kind: dataset.kind(),
                text: descriptor.search_text(),
            };
            if let Some(revision) = self.replace(&dataset, before, &what).await? {
                dataset.revision = revision;
                return Ok(dataset);
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// Writes a changed dataset if it is still of revision `before`; its new revision.
    pub(super) async fn replace(
        &self,
        dataset: &Dataset,
        before: u64,
        what: &EventKind,
    ) -> Result<Option<u64>, LedgerError> {
        let key = self.keys.dataset(dataset.id);
        let read = Versioned {
            value: Key::new(),
            revision: before,
        };
        let (event_key, event) = self.event(dataset.name(), dataset.id, what)?;
        let name = self.keys.name(dataset.name().as_str());
        let txn = Txn::new()
            .unchanged(key.clone(), Some(&read))
            .put(key, encode(&dataset.to_record())?)
            .put(name, encode(&name_record(dataset))?)
            .put(self.keys.pending(dataset.id, 0), Key::new())
            .append(event_key, event);
        match self.kv.txn(txn).await? {
            TxnOutcome::Committed { revision } => {
                self.mirror_soon(dataset.id, 0).await;
                Ok(Some(revision))
            }
            TxnOutcome::Conflict { .. } => Ok(None),
        }
    }

    /// The dataset with this name. Errors with `NoDataset`.
    pub async fn dataset(&self, name: &DatasetName) -> Result<Dataset, LedgerError> {
        let found = self.find(name).await?;
        found.ok_or_else(|| LedgerError::NoDataset(name.to_string()))
    }

    /// The dataset with this name, if there is one.
    pub(super) async fn find(&self, name: &DatasetName) -> Result<Option<Dataset>, LedgerError> {
        let named = self.kv.get(&self.keys.name(name.as_str())).await?;
        match stored::<NameRecord>(named.as_ref())? {
            None => Ok(None),
            Some(record) => self.by_id(DatasetId(record.id)).await,
        }
    }

    /// The dataset with this id, if there is one.
    pub async fn by_id(&self, id: DatasetId) -> Result<Option<Dataset>, LedgerError> {
        let Some(found) = self.kv.get(&self.keys.dataset(id)).await? else {
            return Ok(None);
        };
        Dataset::from_record(id, found.revision, decode(&found.value)?)
    }

    /// The id a name stands for.
    pub(super) async fn id_of_name(&self, name: &DatasetName) -> Result<DatasetId, LedgerError> {
        let named = self.kv.get(&self.keys.name(name.as_str())).await?;
        let record = stored::<NameRecord>(named.as_ref())?;
        let absent = || LedgerError::NoDataset(name.to_string());
        Ok(DatasetId(record.ok_or_else(absent)?.id))
    }

    /// The first `limit` names (at most 1024) of a namespace, or of all, behind `after`; in order.
    pub async fn names(
        &self,
        namespace: Option<&str>,
        after: Option<&DatasetName>,
        limit: usize,
    ) -> Result<Vec<(DatasetName, DatasetId, Kind)>, LedgerError> {
        let prefix = match namespace {
            Some(namespace) => self.keys.name(&format!("{namespace}.")),
            None => self.keys.table(Table::Name),
        };
        let mut range = KeyRange::prefix(&prefix);
        if let Some(after) = after {
            range = range.after(&self.keys.name(after.as_str()));
        }
        let found = self.kv.scan(range, Self::page(limit)).await?;
        let start = self.keys.table(Table::Name).len();
        found
            .iter()
            .map(|(key, stored)| {
                let damaged = || LedgerError::Damaged("a name is none".into());
                let name = std::str::from_utf8(&key[start..]).map_err(|_| damaged())?;
                let record: NameRecord = decode(&stored.value)?;
                let kind = kind_of(&record.kind);
                Ok((
                    name.parse().map_err(|_| damaged())?,
                    DatasetId(record.id),
                    kind,
                ))
            })
            .collect()
    }

    /// Many datasets at once; those that are gone are left out.
    pub async fn by_ids(&self, ids: &[DatasetId]) -> Result<Vec<Dataset>, LedgerError> {
        let keys: Vec<Key> = ids.iter().map(|id| self.keys.dataset(*id)).collect();
        let found = self.kv.get_many(&keys).await?;
        let mut datasets = Vec::with_capacity(ids.len());
        for (id, found) in ids.iter().zip(found) {
            if let Some(found) = found {
                datasets.extend(Dataset::from_record(
                    *id,
                    found.revision,
                    decode(&found.value)?,
                )?);
            }
        }
        Ok(datasets)
    }

    /// Deletes keys, as many at a time as a transaction takes.
    pub(super) async fn delete_all(&self, keys: Vec<Key>) -> Result<(), LedgerError> {
        for part in keys.chunks(MAX_OPS) {
            let txn = part
                .iter()
                .fold(Txn::new(), |txn, key| txn.delete(key.clone()));
            self.kv.txn(txn).await?;
        }
        Ok(())
    }
}

/// What lists need to know about a dataset.
pub(super) fn name_record(dataset: &Dataset) -> NameRecord {
    NameRecord {
        id: dataset.id.0,
        kind: dataset.kind().to_string(),
        text: dataset.descriptor.search_text(),
    }
}

/// The same from a record.
pub(super) fn kind_and_text(record: &DatasetRecord) -> Result<(String, String), LedgerError> {
    let descriptor = Descriptor::from_value(record.descriptor.clone())
        .map_err(|error| LedgerError::Damaged(format!("descriptor of {}: {error}", record.name)))?;
    Ok((descriptor.kind.to_string(), descriptor.search_text()))
}

pub(super) fn kind_of(text: &str) -> Kind {
    match text {
        "model" => Kind::Model,
        _ => Kind::Dataset,
    }
}
