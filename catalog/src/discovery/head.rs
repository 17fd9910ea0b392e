//! The newest version of a dataset, as far as a look or a batch compares with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::table::{Published, PublishedPartition};
use crate::ledger::{Ledger, LedgerError, Version};
use crate::manifest::{FileEntry, Manifest, Partition};
use crate::name::DatasetName;
use crate::selector::{Selector, VersionRef};

/// Partitions and files of a manifest that are read at once.
const PAGE: usize = 1024;

/// The newest version of a dataset; none for a dataset without versions or one that is not there.
pub(crate) async fn latest(
    ledger: &Ledger,
    name: &DatasetName,
) -> Result<Option<Version>, LedgerError> {
    match ledger
        .resolve(&Selector::new(name.clone(), VersionRef::Latest))
        .await
    {
        Ok(version) => Ok(Some(version)),
        Err(LedgerError::NoDataset(_) | LedgerError::NoVersion(..)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the newest version, without its partitions.
pub(crate) async fn open_latest(
    ledger: &Ledger,
    name: &DatasetName,
) -> Result<Published, LedgerError> {
    let Some(version) = latest(ledger, name).await? else {
        return Ok(Published::default());
    };
    Ok(Published {
        version: Some(version.number),
        manifest: Some(Manifest::open(ledger.blobs(), &version.manifest).await?),
        partitions: BTreeMap::new(),
    })
}

/// Opens the newest version with what is known of each partition, unless `known` is it.
pub(crate) async fn load(
    ledger: &Ledger,
    name: &DatasetName,
    known: Published,
) -> Result<Published, LedgerError> {
    let mut published = open_latest(ledger, name).await?;
    if published.version == known.version {
        return Ok(known);
    }
    let Some(manifest) = &published.manifest else {
        return Ok(published);
    };
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = manifest.partitions(after.as_deref(), PAGE).await?;
        let full = page.len() == PAGE;
        after = page.last().map(|partition| Arc::clone(&partition.path));
        for partition in page {
            let known = PublishedPartition::of(&partition);
            published.partitions.insert(partition.path, known);
        }
        if !full {
            return Ok(published);
        }
    }
}

/// The published files of a partition, sorted.
pub(crate) async fn files_of(
    manifest: &Manifest,
    partition: &Partition,
) -> Result<Vec<FileEntry>, LedgerError> {
    let mut files: Vec<FileEntry> = Vec::new();
    loop {
        let after = files.last().map(|file| Arc::clone(&file.path));
        let page = manifest.files_of(partition, after.as_deref(), PAGE).await?;
        let full = page.len() == PAGE;
        files.extend(page);
        if !full {
            return Ok(files);
        }
    }
}
