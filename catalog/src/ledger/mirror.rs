//! Every version, and every dataset with its tags, also as a file beside the manifests.
//!
//! ```text
//! datasets/TTTTTTTT/IIIIIIIIIIIIIIII/version-NNNNNNNNNNNNNNNNNNNN.json    a version, for ever
//! datasets/TTTTTTTT/IIIIIIIIIIIIIIII/dataset-RRRRRRRRRRRRRRRRRRRR.json    descriptor, tags, head
//!          tenant   id (both hexadecimal)     version number, or revision (both decimal)
//! ```
//!
//! A file describes itself: it is a record of `record.rs`. They are written after the transaction
//! they tell of, never before, so that no file speaks of what did not happen; the transaction leaves a
//! `p` record that is removed once the file is durable. Of several files of a dataset the one with the
//! greatest revision is the newest; it was read after the transaction of that revision, and so is at
//! least as new; older ones are removed.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::commit::LATEST;
use super::key::{Table, id_of, last_number, text_of};
use super::record::{
    BatchRecord, DatasetMirror, DatasetRecord, DatasetStateRecord, VersionMirror, VersionRecord,
    decode, encode, stored,
};
use super::resolve::VersionPage;
use super::{DatasetId, Ledger, LedgerError};
use crate::blobs::BlobName;
use crate::kv::{KeyRange, Txn, Versioned};
use crate::name::DatasetName;
use crate::selector::VersionRef;

/// Pending records that are looked at in one page.
const PAGE: usize = 256;

impl Ledger {
    /// Writes a mirror file that a transaction has asked for. If that fails it stays asked for, and
    /// is written when the ledger is opened or [`Ledger::write_pending_mirrors`] is called.
    pub(super) async fn mirror_soon(&self, id: DatasetId, number: u64) {
        let key = self.keys.pending(id, number);
        let written = async {
            match self.kv.get(&key).await? {
                None => Ok(()),
                Some(pending) => self.write_mirror(id, number, &pending).await,
            }
        };
        if let Err(error) = written.await {
            tracing::warn!(%id, number, %error, "a mirror file waits to be written");
        }
    }

    /// Writes every mirror file that is due; how many.
    pub async fn write_pending_mirrors(&self) -> Result<u64, LedgerError> {
        let mut range = KeyRange::prefix(&self.keys.table(Table::Pending));
        let mut written = 0;
        loop {
            let page = self.kv.scan(range.clone(), PAGE).await?;
            for (key, pending) in &page {
                let damaged = || LedgerError::Damaged("the key of a pending mirror".into());
                let id = id_of(key).ok_or_else(damaged)?;
                let number = last_number(key).ok_or_else(damaged)?;
                self.write_mirror(id, number, pending).await?;
                written += 1;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => range = range.after(last),
                _ => return Ok(written),
            }
        }
    }

    /// Looks for every mirror file there should be and writes those that are missing; how many. For
    /// after a loss in the store: lists the files of every dataset, one by one.
    pub async fn write_missing_mirrors(&self) -> Result<u64, LedgerError> {
        let mut written = 0;
        let mut after = None;
        loop {
            let names = self.names(None, after.as_ref(), PAGE).await?;
            for (name, id, _) in &names {
                written += self.write_missing_of(name, *id).await?;
            }
            if names.len() < PAGE {
                return Ok(written);
            }
            after = names.into_iter().next_back().map(|(name, _, _)| name);
        }
    }

    async fn write_missing_of(
        &self,
        name: &DatasetName,
        id: DatasetId,
    ) -> Result<u64, LedgerError> {
        let listed = self.blobs.list_named(&self.mirror_directory(id));
        let found: HashSet<BlobName> = listed.try_collect().await?;
        let mut missing = Vec::new();
        if !found.iter().any(is_dataset_file) {
            missing.push(0);
        }
        let mut versions = VersionPage::new(self, name, id);
        while let Some(version) = versions.next().await? {
            if !found.contains(&self.mirror_name(id, "version", version.number)?) {
                missing.push(version.number);
            }
        }
        for number in &missing {
            let key = self.keys.pending(id, *number);
            self.kv
                .txn(Txn::new().put(key.clone(), Bytes::new()))
                .await?;
            if let Some(pending) = self.kv.get(&key).await? {
                self.write_mirror(id, *number, &pending).await?;
            }
        }
        Ok(missing.len() as u64)
    }

    /// Writes one mirror file, then removes its pending record if no newer transaction set it.
    async fn write_mirror(
        &self,
        id: DatasetId,
        number: u64,
        pending: &Versioned,
    ) -> Result<(), LedgerError> {
        if number != 0 {
            self.mirror_version(id, number, pending.revision).await?;
        } else if self.mirror_dataset(id, pending.revision).await? {
            return self.sweep(id).await;
        }
        let key = self.keys.pending(id, number);
        let txn = Txn::new().unchanged(key.clone(), Some(pending)).delete(key);
        self.kv.txn(txn).await?;
        Ok(())
    }

    /// Writes the file of a version; removes that of one that is gone.
    async fn mirror_version(
        &self,
        id: DatasetId,
        number: u64,
        revision: u64,
    ) -> Result<(), LedgerError> {
        let keys = [self.keys.version(id, number), self.keys.dataset(id)];
        let found = self.kv.get_many(&keys).await?;
        let version: Option<VersionRecord> = stored(found[0].as_ref())?;
        let dataset: Option<DatasetRecord> = stored(found[1].as_ref())?;
        let name = self.mirror_name(id, "version", number)?;
        let (Some(version), Some(record)) = (version, dataset) else {
            return Ok(self.blobs.delete_named(&name).await?);
        };
        let mirror = VersionMirror {
            tenant: self.keys.tenant.0,
            dataset: id.0,
            revision,
            record,
            version,
        };
        self.blobs
            .put_named(&name, pretty(&encode(&mirror)?))
            .await?;
        Ok(())
    }

    /// Writes the file of a dataset. Says whether the dataset is removed, and to be swept.
    async fn mirror_dataset(&self, id: DatasetId, revision: u64) -> Result<bool, LedgerError> {
        let found = self.kv.get(&self.keys.dataset(id)).await?;
        let Some(record) = stored::<DatasetRecord>(found.as_ref())? else {
            return Ok(false);
        };
        let removed = record.state == DatasetStateRecord::Removed;
        let mut mirror = DatasetMirror {
            tenant: self.keys.tenant.0,
            dataset: id.0,
            revision,
            record,
            tags: Default::default(),
            latest: 0,
            batches: Default::default(),
            sequences: None,
            sequence_high: None,
        };
        self.mirror_refs(id, &mut mirror).await?;
        self.mirror_batches(id, &mut mirror).await?;
        let name = self.mirror_name(id, "dataset", revision)?;
        self.blobs
            .put_named(&name, pretty(&encode(&mirror)?))
            .await?;
        let directory = self.mirror_directory(id);
        let mut files = self.blobs.list_named(&directory);
        while let Some(file) = files.next().await {
            let file = file?;
            if is_dataset_file(&file) && file < name {
                self.blobs.delete_named(&file).await?;
            }
        }
        Ok(removed)
    }

    /// Tags and head.
    async fn mirror_refs(
        &self,
        id: DatasetId,
        mirror: &mut DatasetMirror,
    ) -> Result<(), LedgerError> {
        for (text, record) in self.references(id).await? {
            if text == LATEST {
                mirror.latest = record.version;
                mirror.sequences = record.sequences;
                mirror.sequence_high = record.sequence_high;
            } else if matches!(text.parse(), Ok(VersionRef::Tag(_))) {
                mirror.tags.insert(text, record.version);
            }
            // Days follow from the versions.
        }
        Ok(())
    }

    /// Batches whose version names another batch, or none.
    async fn mirror_batches(
        &self,
        id: DatasetId,
        mirror: &mut DatasetMirror,
    ) -> Result<(), LedgerError> {
        let mut range = KeyRange::prefix(&self.keys.of(Table::Batch, id));
        loop {
            let page = self.kv.scan(range.clone(), PAGE).await?;
            let mut keys = Vec::with_capacity(page.len());
            let mut batches = Vec::with_capacity(page.len());
            for (key, stored) in &page {
                let record: BatchRecord = decode(&stored.value)?;
                keys.push(self.keys.version(id, record.version));
                batches.push((text_of(key).unwrap_or_default().to_owned(), record.version));
            }
            let versions = self.kv.get_many(&keys).await?;
            for ((batch, number), version) in batches.into_iter().zip(versions) {
                let version: Option<VersionRecord> = stored(version.as_ref())?;
                if version.is_none_or(|version| version.batch.as_ref() != Some(&batch)) {
                    mirror.batches.insert(batch, number);
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => range = range.after(last),
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn mirror_directory(&self, id: DatasetId) -> String {
        format!("datasets/{:08x}/{id}", self.keys.tenant.0)
    }

    fn mirror_name(&self, id: DatasetId, what: &str, number: u64) -> Result<BlobName, LedgerError> {
        let directory = self.mirror_directory(id);
        Ok(format!("{directory}/{what}-{number:020}.json").parse()?)
    }
}

/// Whether a mirror file is one of a dataset, and not of a version.
pub(super) fn is_dataset_file(name: &BlobName) -> bool {
    let last = name.as_str().rsplit('/').next();
    last.is_some_and(|last| last.starts_with("dataset-"))
}

/// The same JSON, for people: these files are read in an emergency.
fn pretty(bytes: &Bytes) -> Bytes {
    let value: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
    let pretty = value.and_then(|value| serde_json::to_vec_pretty(&value));
    pretty.map_or_else(|_| bytes.clone(), Bytes::from)
}
