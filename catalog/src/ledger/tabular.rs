//! Which datasets SQL engines can read, many at once: what lists of tables ask.
//!
//! The reference `latest` says so since the commit that wrote it, so that a list opens no manifest. One
//! that an older program or a rebuild wrote does not.

use super::commit::LATEST;
use super::record::{DatasetRecord, DatasetStateRecord, RefRecord, stored};
use super::{DatasetId, Key, Ledger, LedgerError};
use crate::descriptor::Descriptor;

/// Whether the newest version of a dataset is a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tabular {
    /// Its descriptor lets engines see it, and its files can be read as one.
    Yes,
    /// It is not, it has no version, or it is gone.
    No,
    /// Only its manifest says so.
    Unknown,
}

impl Ledger {
    /// Whether these datasets (at most 1024) are tables, in their order and in one round trip.
    pub(crate) async fn tabular(&self, ids: &[DatasetId]) -> Result<Vec<Tabular>, LedgerError> {
        let keys: Vec<Key> = ids
            .iter()
            .flat_map(|id| [self.keys.dataset(*id), self.keys.reference(*id, LATEST)])
            .collect();
        let found = self.kv.get_many(&keys).await?;
        let pairs = found.as_chunks::<2>().0;
        pairs
            .iter()
            .map(|[dataset, latest]| {
                let dataset: Option<DatasetRecord> = stored(dataset.as_ref())?;
                let latest: Option<RefRecord> = stored(latest.as_ref())?;
                let (Some(dataset), Some(latest)) = (dataset, latest) else {
                    return Ok(Tabular::No);
                };
                Ok(match latest.table {
                    Some(false) => Tabular::No,
                    _ if dataset.state == DatasetStateRecord::Removed => Tabular::No,
                    _ if !is_served(dataset)? => Tabular::No,
                    Some(true) => Tabular::Yes,
                    None => Tabular::Unknown,
                })
            })
            .collect()
    }
}

fn is_served(dataset: DatasetRecord) -> Result<bool, LedgerError> {
    let name = dataset.name;
    let descriptor = Descriptor::from_value(dataset.descriptor)
        .map_err(|error| LedgerError::Damaged(format!("descriptor of {name}: {error}")))?;
    Ok(descriptor.serve.sql)
}
