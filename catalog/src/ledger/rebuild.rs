//! Everything from the mirror files alone.
//!
//! The key-value store is to be empty. A marker (`x`) says that a rebuild is under way: a ledger is not
//! opened while it is there, and a rebuild that was interrupted is simply done again. What is not
//! mirrored is not restored: holds (their holders renew them), events, grants. Sequences of events go on
//! far above every revision that a file knows of, so that no reader of events misses one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::commit::LATEST;
use super::dataset::kind_and_text;
use super::key::{Keys, Table};
use super::record::{
    BatchRecord, DatasetMirror, DatasetRecord, DatasetStateRecord, NameRecord, RefRecord,
    VersionMirror, VersionRecord, decode, encode,
};
use super::{DatasetId, Ledger, LedgerConfig, LedgerError};
use crate::blobs::{BlobName, Blobs};
use crate::kv::{KeyRange, Kv, MAX_OPS, Txn};
use crate::manifest::Manifest;

/// Datasets that are read at once.
const PARALLEL: usize = 16;
/// How far above the revisions that files know of the store goes on: more transactions than can have
/// left no file behind.
const MARGIN: u64 = 1 << 32;
/// Names of damaged files in a report.
const NAMED: usize = 100;

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Datasets restored.
    pub datasets: u64,
    /// Versions restored.
    pub versions: u64,
    /// Tags restored.
    pub tags: u64,
    /// Mirror files that cannot be read, and manifests that are not there: the first 100, by name.
    pub damaged: Vec<String>,
}

/// The files of one dataset.
#[derive(Default)]
struct Files {
    /// The newest one that tells of the dataset.
    dataset: Option<BlobName>,
    versions: BTreeSet<BlobName>,
}

/// What the files of one dataset say.
struct Found {
    id: DatasetId,
    record: DatasetRecord,
    tags: BTreeMap<String, u64>,
    batches: BTreeMap<String, u64>,
    versions: BTreeMap<u64, VersionRecord>,
    /// Of the newest file.
    revision: u64,
    head: Option<RefRecord>,
    damaged: Vec<String>,
}

impl Ledger {
    /// Restores the ledger of a tenant into an empty store. Errors with `Refused` when it is not empty.
    pub async fn rebuild(
        kv: &Arc<dyn Kv>,
        blobs: &Arc<dyn Blobs>,
        config: &LedgerConfig,
    ) -> Result<RebuildReport, LedgerError> {
        let keys = Keys {
            tenant: config.tenant,
        };
        let marker = keys.table(Table::Rebuild);
        if kv.get(&marker).await?.is_none() {
            for table in [Table::Name, Table::Dataset, Table::Version, Table::Event] {
                let range = KeyRange::prefix(&keys.table(table));
                if !kv.scan(range, 1).await?.is_empty() {
                    let text = "a catalog is rebuilt into an empty database, and this one is not";
                    return Err(LedgerError::Refused(text.into()));
                }
            }
            kv.txn(Txn::new().put(marker.clone(), Bytes::new())).await?;
        }
        let files = list(blobs, keys).await?;
        let mut report = RebuildReport::default();
        let mut names: BTreeMap<String, u64> = BTreeMap::new();
        let mut greatest = 0;
        let mut reading = futures::stream::iter(files)
            .map(|(id, files)| read(Arc::clone(blobs), id, files))
            .buffer_unordered(PARALLEL);
        while let Some(found) = reading.next().await {
            let Some(found) = found? else {
                continue;
            };
            greatest = greatest.max(found.revision);
            let room = NAMED.saturating_sub(report.damaged.len());
            report
                .damaged
                .extend(found.damaged.iter().take(room).cloned());
            if found.record.state == DatasetStateRecord::Removed {
                continue;
            }
            // A name that was given again: the newer dataset has it.
            let known = names.entry(found.record.name.clone()).or_default();
            let named = found.revision >= *known;
            *known = found.revision.max(*known);
            report.datasets += u64::from(named);
            report.versions += found.versions.len() as u64;
            report.tags += found.tags.len() as u64;
            write(kv, keys, &found, named).await?;
        }
        let done = Txn {
            floor: greatest.saturating_add(MARGIN),
            ..Txn::new().delete(marker)
        };
        kv.txn(done).await?;
        Ok(report)
    }

    /// Refuses a store in which a rebuild was not finished.
    pub(super) async fn refuse_half_rebuilt(&self) -> Result<(), LedgerError> {
        match self.kv.get(&self.keys.table(Table::Rebuild)).await? {
            None => Ok(()),
            Some(_) => Err(LedgerError::Refused(
                "a rebuild of this catalog was not finished: rebuild it again".into(),
            )),
        }
    }
}

/// The mirror files of a tenant, by dataset.
async fn list(
    blobs: &Arc<dyn Blobs>,
    keys: Keys,
) -> Result<BTreeMap<DatasetId, Files>, LedgerError> {
    let mut found: BTreeMap<DatasetId, Files> = BTreeMap::new();
    let mut names = blobs.list_named(&format!("datasets/{:08x}", keys.tenant.0));
    while let Some(name) = names.next().await {
        let name = name?;
        let mut parts = name.as_str().rsplit('/');
        let (file, id) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let Ok(id) = u64::from_str_radix(id, 16) else {
            continue;
        };
        let files = found.entry(DatasetId(id)).or_default();
        if file.starts_with("version-") {
            files.versions.insert(name);
        } else if file.starts_with("dataset-") {
            files.dataset = files.dataset.take().max(Some(name));
        }
    }
    Ok(found)
}

/// Reads the files of one dataset. What cannot be read is named in the result; an answer that a store
/// does not give is an error, because it says nothing about the file.
async fn read(
    blobs: Arc<dyn Blobs>,
    id: DatasetId,
    files: Files,
) -> Result<Option<Found>, LedgerError> {
    let mut damaged = Vec::new();
    let mut versions = BTreeMap::new();
    let mut newest: Option<(u64, DatasetRecord)> = None;
    for name in &files.versions {
        let mirror: VersionMirror = match decode(&blobs.get_named(name).await?) {
            Ok(mirror) => mirror,
            Err(error) => {
                damaged.push(format!("{name}: {error}"));
                continue;
            }
        };
        let manifest = mirror.version.manifest.parse();
        if let Err(error) = Manifest::open(&blobs, &manifest?).await {
            damaged.push(format!("{name}: {error}"));
        }
        if newest
            .as_ref()
            .is_none_or(|(revision, _)| *revision <= mirror.revision)
        {
            newest = Some((mirror.revision, mirror.record));
        }
        versions.insert(mirror.version.number, mirror.version);
    }
    let mut dataset: Option<DatasetMirror> = None;
    if let Some(name) = &files.dataset {
        match decode(&blobs.get_named(name).await?) {
            Ok(mirror) => dataset = Some(mirror),
            Err(error) => damaged.push(format!("{name}: {error}")),
        }
    }
    let revision = newest.as_ref().map_or(0, |(revision, _)| *revision);
    // The file of the dataset is written for every change of it, so it knows best.
    let record = match (&dataset, newest) {
        (Some(mirror), _) => mirror.record.clone(),
        (None, Some((_, record))) => record,
        (None, None) => return Ok(None),
    };
    let head = head_of(&versions, dataset.as_ref());
    let (mut tags, batches, mirrored) = match dataset {
        Some(mirror) => (mirror.tags, mirror.batches, mirror.revision),
        None => Default::default(),
    };
    tags.retain(|_, number| versions.contains_key(number));
    Ok(Some(Found {
        id,
        record,
        tags,
        batches,
        versions,
        revision: revision.max(mirrored),
        head,
        damaged,
    }))
}

/// The newest version, with the source sequences of whichever file is newer.
fn head_of(
    versions: &BTreeMap<u64, VersionRecord>,
    dataset: Option<&DatasetMirror>,
) -> Option<RefRecord> {
    let (number, version) = versions.last_key_value()?;
    let mut head = RefRecord {
        version: *number,
        manifest: version.manifest.clone(),
        at_ms: version.created_ms,
        sequences: version.sequences.clone(),
        sequence_high: version.sequence_high,
        table: None,
    };
    if let Some(mirror) = dataset.filter(|mirror| mirror.latest >= *number) {
        head.sequences = mirror.sequences.clone();
        head.sequence_high = mirror.sequence_high;
    }
    Some(head)
}

/// Writes one dataset, in as many transactions as it takes.
async fn write(
    kv: &Arc<dyn Kv>,
    keys: Keys,
    found: &Found,
    named: bool,
) -> Result<(), LedgerError> {
    let id = found.id;
    let mut records = vec![(keys.dataset(id), encode(&found.record)?)];
    if named {
        let (kind, text) = kind_and_text(&found.record)?;
        let name = NameRecord {
            id: id.0,
            kind,
            text,
        };
        records.push((keys.name(&found.record.name), encode(&name)?));
    }
    for (number, version) in &found.versions {
        records.push((keys.version(id, *number), encode(version)?));
        // In the order of the numbers, so the newest of a day stays.
        let day = reference(version);
        records.push((keys.reference(id, &version.day), encode(&day)?));
        if let Some(batch) = &version.batch {
            let record = BatchRecord { version: *number };
            records.push((keys.batch(id, batch), encode(&record)?));
        }
    }
    for (tag, number) in &found.tags {
        if let Some(version) = found.versions.get(number) {
            records.push((keys.reference(id, tag), encode(&reference(version))?));
        }
    }
    for (batch, number) in &found.batches {
        let record = BatchRecord { version: *number };
        records.push((keys.batch(id, batch), encode(&record)?));
    }
    if let Some(head) = &found.head {
        records.push((keys.reference(id, LATEST), encode(head)?));
    }
    for part in records.chunks(MAX_OPS) {
        let txn = Txn {
            floor: found.revision,
            ..Txn::new()
        };
        let put = |txn: Txn, (key, value): &(Bytes, Bytes)| txn.put(key.clone(), value.clone());
        kv.txn(part.iter().fold(txn, put)).await?;
    }
    Ok(())
}

fn reference(version: &VersionRecord) -> RefRecord {
    RefRecord {
        version: version.number,
        manifest: version.manifest.clone(),
        at_ms: version.created_ms,
        sequences: None,
        sequence_high: None,
        table: None,
    }
}
