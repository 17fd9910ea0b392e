//! Which version a selector means; versions, page by page.

use super::commit::LATEST;
use super::dataset::Dataset;
use super::key::Table;
use super::record::{BatchRecord, NameRecord, RefRecord, VersionRecord, decode, stored};
use super::version::Version;
use super::{BatchId, DatasetId, Ledger, LedgerError};
use crate::kv::KeyRange;
use crate::name::DatasetName;
use crate::selector::{Selector, VersionRef};

impl Ledger {
    /// The version a selector means now. At most three reads. Errors with `NoDataset`, `NoVersion`.
    pub async fn resolve(&self, selector: &Selector) -> Result<Version, LedgerError> {
        let name = selector.dataset();
        let named = self.kv.get(&self.keys.name(name.as_str())).await?;
        let absent = || LedgerError::NoDataset(name.to_string());
        let record: NameRecord = stored(named.as_ref())?.ok_or_else(absent)?;
        let id = DatasetId(record.id);
        let none = || LedgerError::NoVersion(name.clone(), selector.version().to_string());
        let number = match selector.version() {
            VersionRef::Number(number) => *number,
            VersionRef::Latest => self.reference(id, LATEST).await?.ok_or_else(none)?,
            VersionRef::Tag(tag) => self.reference(id, tag.as_str()).await?.ok_or_else(none)?,
            VersionRef::Day { .. } => {
                let day = selector.version().to_string();
                self.reference(id, &day).await?.ok_or_else(none)?
            }
        };
        self.version_of(name, id, number).await?.ok_or_else(none)
    }

    /// The version that a batch has led to, if it has been committed. Errors with `NoDataset`.
    pub async fn batch_version(
        &self,
        name: &DatasetName,
        batch: &BatchId,
    ) -> Result<Option<Version>, LedgerError> {
        let id = self.id_of_name(name).await?;
        let found = self.kv.get(&self.keys.batch(id, batch.as_str())).await?;
        let record: Option<BatchRecord> = stored(found.as_ref())?;
        match record {
            Some(record) => self.version_of(name, id, record.version).await,
            None => Ok(None),
        }
    }

    /// The version that `latest`, a tag or a day names.
    pub(super) async fn reference(
        &self,
        id: DatasetId,
        name: &str,
    ) -> Result<Option<u64>, LedgerError> {
        let found = self.kv.get(&self.keys.reference(id, name)).await?;
        let record: Option<RefRecord> = stored(found.as_ref())?;
        Ok(record.map(|record| record.version))
    }

    /// A version by its number.
    pub(super) async fn version_of(
        &self,
        name: &DatasetName,
        id: DatasetId,
        number: u64,
    ) -> Result<Option<Version>, LedgerError> {
        let found = self.kv.get(&self.keys.version(id, number)).await?;
        let record: Option<VersionRecord> = stored(found.as_ref())?;
        record
            .map(|record| Version::from_record(name, id, record))
            .transpose()
    }

    /// A version by its number. Errors with `NoVersion`.
    pub(super) async fn version(
        &self,
        dataset: &Dataset,
        number: u64,
    ) -> Result<Version, LedgerError> {
        let name = dataset.name();
        let found = self.version_of(name, dataset.id, number).await?;
        found.ok_or_else(|| LedgerError::NoVersion(name.clone(), format!("v{number}")))
    }

    /// The first `limit` versions (at most 1024) of a dataset with a number above `after`, in order.
    pub async fn versions(
        &self,
        name: &DatasetName,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Version>, LedgerError> {
        let id = self.id_of_name(name).await?;
        self.versions_of(name, id, after, limit).await
    }

    async fn versions_of(
        &self,
        name: &DatasetName,
        id: DatasetId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Version>, LedgerError> {
        let range = KeyRange::prefix(&self.keys.of(Table::Version, id));
        let range = range.after(&self.keys.version(id, after));
        let found = self.kv.scan(range, Self::page(limit)).await?;
        found
            .iter()
            .map(|(_, stored)| Version::from_record(name, id, decode(&stored.value)?))
            .collect()
    }
}

/// Every version of a dataset, in order, a page at a time.
pub(super) struct VersionPage<'a> {
    ledger: &'a Ledger,
    name: &'a DatasetName,
    id: DatasetId,
    page: std::vec::IntoIter<Version>,
    after: Option<u64>,
}

impl<'a> VersionPage<'a> {
    pub(super) fn new(ledger: &'a Ledger, name: &'a DatasetName, id: DatasetId) -> Self {
        Self {
            ledger,
            name,
            id,
            page: Vec::new().into_iter(),
            after: Some(0),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Version>, LedgerError> {
        if let Some(version) = self.page.next() {
            return Ok(Some(version));
        }
        let Some(after) = self.after else {
            return Ok(None);
        };
        let limit = Ledger::page(usize::MAX);
        let page = self
            .ledger
            .versions_of(self.name, self.id, after, limit)
            .await?;
        let full = page.len() == limit;
        self.after = page.last().map(|last| last.number).filter(|_| full);
        self.page = page.into_iter();
        Ok(self.page.next())
    }
}
