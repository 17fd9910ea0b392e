//! Numbers of a dataset's columns, given once and kept for ever.
//!
//! A column is a path (`place.x`) and a kind (`int`, `struct`): readers of tables tell columns apart by
//! number, so a column that changed into something else is another one under the same path. Numbers
//! are only ever added; one whose column is gone is never given again. They lie in the dataset's own
//! record, so its mirror file restores them.

use std::collections::BTreeMap;

use super::dataset::Dataset;
use super::record::{ColumnsRecord, encode};
use super::{Key, Ledger, LedgerError, RETRIES};
use crate::kv::{Txn, TxnOutcome, Versioned};
use crate::name::DatasetName;

/// See the module text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnIds {
    /// The greatest number that was ever given.
    last: u32,
    /// Path -> its kinds and their numbers, in the order they came.
    ids: BTreeMap<String, Vec<(String, u32)>>,
}

impl ColumnIds {
    /// The number of the column at `path` whose kind is one that `same` accepts.
    pub fn find(&self, path: &str, same: impl Fn(&str) -> bool) -> Option<u32> {
        let kinds = self.ids.get(path)?;
        let found = kinds.iter().find(|(kind, _)| same(kind));
        found.map(|(_, id)| *id)
    }

    /// Gives the next number to a column.
    pub fn give(&mut self, path: &str, kind: &str) -> u32 {
        self.last = self.last.saturating_add(1);
        let kinds = self.ids.entry(path.to_owned()).or_default();
        kinds.push((kind.to_owned(), self.last));
        self.last
    }

    pub(super) fn from_record(record: ColumnsRecord) -> Self {
        Self {
            last: record.last,
            ids: record.ids,
        }
    }

    /// None before the first number.
    pub(super) fn to_record(&self) -> Option<ColumnsRecord> {
        (self.last > 0).then(|| ColumnsRecord {
            last: self.last,
            ids: self.ids.clone(),
        })
    }
}

impl Ledger {
    /// The numbers of a dataset's columns, after `change` has given those that were missing. `change`
    /// may run more than once, each time on what is stored; when it changes nothing, nothing is
    /// written. Errors with `NoDataset`, `Busy`.
    pub async fn column_ids(
        &self,
        name: &DatasetName,
        change: impl Fn(&mut ColumnIds),
    ) -> Result<ColumnIds, LedgerError> {
        for attempt in 0..RETRIES {
            let dataset = self.dataset(name).await?;
            let mut columns = dataset.columns.as_ref().clone();
            change(&mut columns);
            if columns == *dataset.columns || self.write_columns(&dataset, &columns).await? {
                return Ok(columns);
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// No event: nothing that somebody follows has changed. `false`: somebody else was faster.
    async fn write_columns(
        &self,
        dataset: &Dataset,
        columns: &ColumnIds,
    ) -> Result<bool, LedgerError> {
        let key = self.keys.dataset(dataset.id);
        let read = Versioned {
            value: Key::new(),
            revision: dataset.revision,
        };
        let mut record = dataset.to_record();
        record.columns = columns.to_record();
        let txn = Txn::new()
            .unchanged(key.clone(), Some(&read))
            .put(key, encode(&record)?)
            .put(self.keys.pending(dataset.id, 0), Key::new());
        match self.kv.txn(txn).await? {
            TxnOutcome::Conflict { .. } => Ok(false),
            TxnOutcome::Committed { .. } => {
                self.mirror_soon(dataset.id, 0).await;
                Ok(true)
            }
        }
    }
}
