//! Tags: names of versions that move.

use std::collections::BTreeMap;

use super::event::EventKind;
use super::key::{Table, text_of};
use super::record::{RefRecord, decode, encode, stored};
use super::version::Version;
use super::{DatasetId, Key, Ledger, LedgerError, RETRIES};
use crate::kv::{KeyRange, Txn, TxnOutcome};
use crate::name::DatasetName;
use crate::selector::{TagName, VersionRef};

impl Ledger {
    /// Lets a tag name a version. `from`: only if it names this one now (`Some(0)`: only if there is no
    /// such tag). Errors with `Busy` when it does not, with `Removing` and `NoVersion` for the version.
    pub async fn tag(
        &self,
        version: &Version,
        tag: &TagName,
        from: Option<u64>,
    ) -> Result<(), LedgerError> {
        let key = self.keys.reference(version.id, tag.as_str());
        for attempt in 0..RETRIES {
            let version_key = self.keys.version(version.id, version.number);
            let keys = [version_key.clone(), key.clone()];
            let found = self.kv.get_many(&keys).await?;
            self.check_alive(version, stored(found[0].as_ref())?)?;
            let before: Option<RefRecord> = stored(found[1].as_ref())?;
            let before = before.map_or(0, |before| before.version);
            if from.is_some_and(|from| from != before) {
                return Err(LedgerError::Busy(format!("{}@{tag}", version.dataset)));
            }
            if before == version.number {
                return Ok(());
            }
            let record = RefRecord {
                version: version.number,
                manifest: version.manifest.to_string(),
                at_ms: self.now(),
                sequences: None,
                sequence_high: None,
                table: None,
            };
            let what = EventKind::Tagged {
                tag: tag.clone(),
                version: version.number,
            };
            let (event_key, event) = self.event(&version.dataset, version.id, &what)?;
            let txn = Txn::new()
                .unchanged(version_key, found[0].as_ref())
                .unchanged(key.clone(), found[1].as_ref())
                .put(key.clone(), encode(&record)?)
                .put(self.keys.pending(version.id, 0), Key::new())
                .append(event_key, event);
            if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
                self.mirror_soon(version.id, 0).await;
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(version.dataset.to_string()))
    }

    /// Removes a tag; no error when there is none.
    pub async fn untag(&self, name: &DatasetName, tag: &TagName) -> Result<(), LedgerError> {
        let id = self.id_of_name(name).await?;
        let key = self.keys.reference(id, tag.as_str());
        for attempt in 0..RETRIES {
            let Some(found) = self.kv.get(&key).await? else {
                return Ok(());
            };
            let what = EventKind::Untagged { tag: tag.clone() };
            let (event_key, event) = self.event(name, id, &what)?;
            let txn = Txn::new()
                .unchanged(key.clone(), Some(&found))
                .delete(key.clone())
                .put(self.keys.pending(id, 0), Key::new())
                .append(event_key, event);
            if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
                self.mirror_soon(id, 0).await;
                return Ok(());
            }
            self.back_off(attempt).await;
        }
        Err(LedgerError::Busy(name.to_string()))
    }

    /// Every tag of a dataset, and the version it names.
    pub async fn tags(&self, name: &DatasetName) -> Result<BTreeMap<TagName, u64>, LedgerError> {
        let id = self.id_of_name(name).await?;
        let references = self.references(id).await?;
        let tags = references
            .into_iter()
            .filter_map(|(text, record)| match text.parse() {
                Ok(VersionRef::Tag(tag)) => Some((tag, record.version)),
                _ => None,
            });
        Ok(tags.collect())
    }

    /// `latest`, tags and days of a dataset.
    pub(super) async fn references(
        &self,
        id: DatasetId,
    ) -> Result<Vec<(String, RefRecord)>, LedgerError> {
        let mut range = KeyRange::prefix(&self.keys.of(Table::Ref, id));
        let mut all = Vec::new();
        let page = Self::page(usize::MAX);
        loop {
            let found = self.kv.scan(range.clone(), page).await?;
            for (key, stored) in &found {
                let text = text_of(key).unwrap_or_default().to_owned();
                all.push((text, decode(&stored.value)?));
            }
            match found.last() {
                Some((last, _)) if found.len() == page => range = range.after(last),
                _ => return Ok(all),
            }
        }
    }
}
