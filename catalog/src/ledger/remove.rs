//! Removing datasets and versions, in two steps with a delay between them.
//!
//! ```text
//! begin    marks it: from here on there are no new commits, tags and holds; readers go on
//! keep     takes the mark away
//! finish   not before the delay, and only if nobody holds it: removes it
//! ```
//!
//! A dataset is gone with the transaction that frees its name; what belongs to its id is swept
//! afterwards, by whoever comes first: this call or the next that opens the ledger. A model is removed
//! only by who says [`Purpose::Model`]: no policy and no garbage collection does.
//!
//! Blobs are not touched here: garbage collection removes those that no version names.

use futures::StreamExt;

use super::dataset::{Dataset, DatasetState};
use super::event::EventKind;
use super::key::Table;
use super::mirror::is_dataset_file;
use super::record::{DatasetStateRecord, encode};
use super::{DatasetId, Key, Ledger, LedgerError, RETRIES};
use crate::descriptor::Kind;
use crate::kv::{KeyRange, Txn, TxnOutcome, Versioned};
use crate::name::DatasetName;

/// Keys that are deleted in one page.
const PAGE: usize = 240;

/// Who removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A user, a policy, a collector: datasets only.
    Ordinary,
    /// Somebody who has said that it is a model, and means it.
    Model,
}

impl Purpose {
    pub(super) fn check(self, dataset: &Dataset) -> Result<(), LedgerError> {
        let name = dataset.name();
        match (self, dataset.kind()) {
            (Self::Ordinary, Kind::Dataset) | (Self::Model, Kind::Model) => Ok(()),
            (Self::Ordinary, Kind::Model) => Err(LedgerError::Refused(format!(
                "{name} is a model: no ordinary call removes it, only one that says so (--model, model=true)"
            ))),
            (Self::Model, Kind::Dataset) => {
                Err(LedgerError::Refused(format!("{name} is not a model")))
            }
        }
    }
}

impl Ledger {
    /// First step for a dataset; when it may be finished: milliseconds since 1970. Errors with
    /// `Refused` when somebody holds a version of it.
    pub async fn begin_removal(
        &self,
        name: &DatasetName,
        purpose: Purpose,
    ) -> Result<i64, LedgerError> {
        for attempt in 0..RETRIES {
            let mut dataset = self.dataset(name).await?;
            purpose.check(&dataset)?;
            if let DatasetState::Removing { not_before_ms } = dataset.state {
                return Ok(not_before_ms);
            }
            self.refuse_held(name).await?;
            let not_before_ms = self.removal_time();
            dataset.state = DatasetState::Removing { not_before_ms };
            let what = EventKind::DatasetRemoving { not_before_ms };
            if self
                .replace(&dataset, dataset.revision, &what)
                .await?
                .is_some()
            {
                return Ok(not_before_ms);
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// Takes the first step back.
    pub async fn keep(&self, name: &DatasetName) -> Result<(), LedgerError> {
        for attempt in 0..RETRIES {
            let mut dataset = self.dataset(name).await?;
            if dataset.state == DatasetState::Active {
                return Ok(());
            }
            dataset.state = DatasetState::Active;
            let what = EventKind::DatasetKept;
            if self
                .replace(&dataset, dataset.revision, &what)
                .await?
                .is_some()
            {
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// Second step for a dataset. Errors with `Refused` before its time, and while a version is held.
    pub async fn finish_removal(
        &self,
        name: &DatasetName,
        purpose: Purpose,
    ) -> Result<(), LedgerError> {
        let dataset = self.dataset(name).await?;
        purpose.check(&dataset)?;
        let DatasetState::Removing { not_before_ms } = dataset.state else {
            let text = format!("{name} is not being removed: begin first");
            return Err(LedgerError::Refused(text));
        };
        self.refuse_early(&name.to_string(), not_before_ms)?;
        self.refuse_held(name).await?;
        let id = dataset.id;
        let key = self.keys.dataset(id);
        let read = Versioned {
            value: Key::new(),
            revision: dataset.revision,
        };
        let mut record = dataset.to_record();
        record.state = DatasetStateRecord::Removed;
        let (event_key, event) = self.event(name, id, &EventKind::DatasetRemoved)?;
        let txn = Txn::new()
            .unchanged(key.clone(), Some(&read))
            .put(key, encode(&record)?)
            .delete(self.keys.name(name.as_str()))
            .put(self.keys.pending(id, 0), Key::new())
            .append(event_key, event);
        match self.kv.txn(txn).await? {
            TxnOutcome::Committed { .. } => {
                self.mirror_soon(id, 0).await;
                Ok(())
            }
            TxnOutcome::Conflict { .. } => Err(LedgerError::Busy(name.to_string())),
        }
    }

    /// Deletes what belongs to a removed dataset. Its mirror file, which says that it is removed, is
    /// durable already, and goes last.
    pub(super) async fn sweep(&self, id: DatasetId) -> Result<(), LedgerError> {
        let directory = self.mirror_directory(id);
        for last in [false, true] {
            let mut files = self.blobs.list_named(&directory);
            while let Some(file) = files.next().await {
                let file = file?;
                if is_dataset_file(&file) == last {
                    self.blobs.delete_named(&file).await?;
                }
            }
            for table in [
                Table::Ref,
                Table::Version,
                Table::Batch,
                Table::Hold,
                Table::Save,
            ] {
                self.delete_range(KeyRange::prefix(&self.keys.of(table, id)))
                    .await?;
            }
        }
        let record = self.keys.dataset(id);
        self.kv.txn(Txn::new().delete(record)).await?;
        self.delete_range(KeyRange::prefix(&self.keys.of(Table::Pending, id)))
            .await
    }

    async fn delete_range(&self, range: KeyRange) -> Result<(), LedgerError> {
        loop {
            let page = self.kv.scan(range.clone(), PAGE).await?;
            let end = page.len() < PAGE;
            self.delete_all(page.into_iter().map(|(key, _)| key).collect())
                .await?;
            if end {
                return Ok(());
            }
        }
    }

    async fn refuse_held(&self, name: &DatasetName) -> Result<(), LedgerError> {
        match self.held_versions(name).await?.first() {
            Some(number) => Err(LedgerError::Refused(format!("{name}@v{number} is held"))),
            None => Ok(()),
        }
    }

    pub(super) fn refuse_early(&self, what: &str, not_before_ms: i64) -> Result<(), LedgerError> {
        let left = not_before_ms - self.now();
        if left > 0 {
            let seconds = left.saturating_add(999) / 1000;
            let text = format!("{what} can be removed in {seconds} s, not before");
            return Err(LedgerError::Refused(text));
        }
        Ok(())
    }

    pub(super) fn removal_time(&self) -> i64 {
        let delay = i64::try_from(self.config.removal_delay.as_millis()).unwrap_or(i64::MAX);
        self.now().saturating_add(delay)
    }
}
