//! Saves that are under way: who writes where, and until when nobody takes it away.
//!
//! ```text
//! begin    s id save  names a place; a lease                  again: the same place, a new lease
//! commit   if the save is still there: version, save is done  (`commit.rs`)
//! expire   the lease is over: the save is gone, and its place is garbage
//! ```
//!
//! A collector expires a save before it takes a file of its place, and a commit compares the save it
//! was made from: of the two exactly one happens. A managed copy is a save like a model's.

use std::time::Duration;

use super::dataset::{Dataset, DatasetState};
use super::key::{Keys, Table, id_of, is_ledger_key, text_of};
use super::record::{SaveRecord, decode, encode, stored};
use super::{BatchId, DatasetId, Key, Ledger, LedgerError, RETRIES};
use crate::kv::{KeyRange, Txn, TxnOutcome, Versioned};
use crate::vault::Place;

/// Saves that are listed in one page.
const PAGE: usize = 256;

/// A save that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// Whose.
    pub dataset: DatasetId,
    /// What its writer calls it.
    pub id: BatchId,
    /// URL of the vault it is written to.
    pub vault: String,
    /// Where in the vault.
    pub place: Place,
    /// Since when: milliseconds since 1970.
    pub since_ms: i64,
    /// Until when nobody takes its files away.
    pub until_ms: i64,
}

impl Save {
    /// URL of its place.
    pub fn location(&self) -> String {
        format!("{}/{}", self.vault, self.place)
    }
}

impl Ledger {
    /// Begins a save, or goes on with one: the place is the same as before, the lease is new. Errors
    /// with `Removing`, and with `Refused` for another vault than it was begun in.
    pub async fn begin_save(
        &self,
        dataset: &Dataset,
        id: &BatchId,
        vault: &str,
        lease: Duration,
    ) -> Result<Save, LedgerError> {
        self.begin_save_at(dataset, id, vault, None, lease).await
    }

    /// The same in a place that is there already, when `place` is given: for adding to it.
    pub(crate) async fn begin_save_at(
        &self,
        dataset: &Dataset,
        id: &BatchId,
        vault: &str,
        place: Option<&Place>,
        lease: Duration,
    ) -> Result<Save, LedgerError> {
        let key = self.keys.save(dataset.id, id.as_str());
        for attempt in 0..RETRIES {
            let now = self.now();
            let dataset_key = self.keys.dataset(dataset.id);
            let keys = [key.clone(), dataset_key.clone()];
            let found = self.kv.get_many(&keys).await?;
            let alive = self.by_id(dataset.id).await?;
            if alive.is_none_or(|dataset| dataset.state != DatasetState::Active) {
                return Err(LedgerError::Removing(dataset.name().to_string()));
            }
            let mut record = match stored::<SaveRecord>(found[0].as_ref())? {
                Some(record) => record,
                None => SaveRecord {
                    vault: vault.to_owned(),
                    place: match place {
                        Some(place) => place.to_string(),
                        None => Place::new(dataset.id, now).to_string(),
                    },
                    since_ms: now,
                    until_ms: now,
                },
            };
            if record.vault != vault {
                let text = format!("save {id} was begun in {}", record.vault);
                return Err(LedgerError::Refused(text));
            }
            let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
            record.until_ms = now.saturating_add(lease);
            let txn = Txn::new()
                .unchanged(key.clone(), found[0].as_ref())
                .unchanged(dataset_key, found[1].as_ref())
                .put(key.clone(), encode(&record)?);
            if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
                return from_record(dataset.id, id.clone(), record);
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(dataset.name().to_string()))
    }

    /// A save of a dataset, if it is under way.
    pub async fn save(
        &self,
        dataset: DatasetId,
        id: &BatchId,
    ) -> Result<Option<Save>, LedgerError> {
        let found = self.kv.get(&self.keys.save(dataset, id.as_str())).await?;
        stored::<SaveRecord>(found.as_ref())?
            .map(|record| from_record(dataset, id.clone(), record))
            .transpose()
    }

    /// Gives a save up: its files are garbage from now on. No error when there is none.
    pub async fn abandon_save(&self, dataset: DatasetId, id: &BatchId) -> Result<(), LedgerError> {
        let key = self.keys.save(dataset, id.as_str());
        self.kv.txn(Txn::new().delete(key)).await?;
        Ok(())
    }

    /// Every save of every tenant that is under way; those whose lease is over by `now_ms` apart, as the second.
    pub async fn saves(&self, now_ms: i64) -> Result<(Vec<Save>, Vec<Save>), LedgerError> {
        let mut range = KeyRange::prefix(&Keys::everyone(Table::Save));
        let (mut live, mut over) = (Vec::new(), Vec::new());
        loop {
            let page = self.kv.scan(range.clone(), PAGE).await?;
            for (key, found) in page.iter().filter(|(key, _)| is_ledger_key(key)) {
                let save = from_key(key, found)?;
                match save.until_ms > now_ms {
                    true => live.push(save),
                    false => over.push(save),
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => range = range.after(last),
                _ => return Ok((live, over)),
            }
        }
    }

    /// Ends a save whose lease is still the one that was seen to be over. False: its writer came back.
    pub async fn expire_save(&self, save: &Save) -> Result<bool, LedgerError> {
        let key = self.keys.save(save.dataset, save.id.as_str());
        let Some(found) = self.kv.get(&key).await? else {
            return Ok(true);
        };
        if from_key(&key, &found)? != *save {
            return Ok(false);
        }
        let txn = Txn::new().unchanged(key.clone(), Some(&found)).delete(key);
        Ok(matches!(
            self.kv.txn(txn).await?,
            TxnOutcome::Committed { .. }
        ))
    }

    /// The record of a save as a commit compares it. Errors with `Refused` when it is gone.
    pub(super) async fn save_guard(&self, save: &Save) -> Result<(Key, Versioned), LedgerError> {
        let key = self.keys.save(save.dataset, save.id.as_str());
        let found = self.kv.get(&key).await?;
        let same = match &found {
            Some(found) => from_key(&key, found)?.place == save.place,
            None => false,
        };
        match found.filter(|_| same) {
            Some(found) => Ok((key, found)),
            None => {
                let text = format!("save {} was given up, or its time was over", save.id);
                Err(LedgerError::Refused(text))
            }
        }
    }
}

fn from_key(key: &Key, found: &Versioned) -> Result<Save, LedgerError> {
    let damaged = || LedgerError::Damaged("the key of a save".into());
    let dataset = id_of(key).ok_or_else(damaged)?;
    let id = text_of(key).and_then(|text| text.parse().ok());
    from_record(dataset, id.ok_or_else(damaged)?, decode(&found.value)?)
}

fn from_record(dataset: DatasetId, id: BatchId, record: SaveRecord) -> Result<Save, LedgerError> {
    let place = record.place.parse();
    Ok(Save {
        dataset,
        id,
        vault: record.vault,
        place: place.map_err(|()| LedgerError::Damaged("the place of a save".into()))?,
        since_ms: record.since_ms,
        until_ms: record.until_ms,
    })
}
