//! What a name in SQL names: the newest version with the ones before it, or one version alone.
//!
//! ```text
//! clicks          the newest version; a snapshot for each version that can be told beside it; tags
//! clicks@v3       that version alone, whatever came before and after; also @tag and @2026-11-20
//! ```
//!
//! A file says nothing about numbers of columns, so one table can have one meaning for each path only: a
//! version in which a path is another column than it is now is no snapshot of `clicks`. It is a table of
//! its own under its own name, and counted in the properties.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::columns::{Columns, give};
use super::judge::{Judge, LeftOut, left_out};
use super::warehouse::Place;
use crate::blobs::BlobId;
use crate::ledger::{ColumnIds, DatasetId, Ledger, LedgerError, Version, VersionState};
use crate::manifest::{Header, Manifest, ManifestError, Totals};
use crate::{DatasetName, Selector, VersionRef};

/// Most versions before the newest that are snapshots; tagged ones come on top.
const VERSIONS: u64 = 1000;

/// Manifests that are opened at a time.
const AT_ONCE: usize = 16;

/// Why there is no table.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// It is a dataset, and nothing that SQL can read.
    #[error("{name}@v{number} is no table: {reason}; read it by its path")]
    NoTable {
        /// The dataset.
        name: DatasetName,
        /// The version.
        number: u64,
        /// Why not.
        reason: String,
    },
    /// There is none of that name, or the catalog cannot say.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<ManifestError> for Refused {
    fn from(error: ManifestError) -> Self {
        Self::Ledger(error.into())
    }
}

/// A version as a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) version: Version,
    pub(super) location: Arc<str>,
    pub(super) columns: Arc<Columns>,
    /// Whether it may have less than the version has.
    pub(super) may_lack: bool,
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct Table {
    pub(super) name: DatasetName,
    pub(super) id: DatasetId,
    pub(super) place: Place,
    /// In the order of their numbers.
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) current: Snapshot,
    pub(super) tags: BTreeMap<String, u64>,
    pub(super) left_out: LeftOut,
    /// Versions that are no snapshots because a path is another column there.
    pub(super) versions_left_out: u64,
}

/// What is opened of a version.
struct Opened {
    version: Version,
    header: Header,
}

impl Table {
    /// Loads what a selector names. Gives numbers to columns that have none.
    pub async fn load(ledger: &Ledger, selector: &Selector, place: Place) -> Result<Self, Refused> {
        let version = ledger.resolve(selector).await?;
        check_served(ledger, &version).await?;
        if *selector.version() != VersionRef::Latest {
            return Self::pinned(ledger, version, place).await;
        }
        let tags = ledger.tags(selector.dataset()).await?;
        let versions = around(ledger, &version, tags.values()).await?;
        let mut table = Self::build(ledger, version, versions, place).await?;
        table.tags = tags
            .into_iter()
            .filter(|(_, number)| table.has(*number))
            .map(|(tag, number)| (tag.to_string(), number))
            .collect();
        Ok(table)
    }

    /// Whether a selector names a table. Errors like [`Table::load`].
    pub async fn check(ledger: &Ledger, selector: &Selector) -> Result<(), Refused> {
        let version = ledger.resolve(selector).await?;
        check_served(ledger, &version).await?;
        let manifest = Manifest::open(ledger.blobs(), &version.manifest).await?;
        check(&version, manifest.header())
    }

    /// One version alone.
    pub(super) async fn pinned(
        ledger: &Ledger,
        version: Version,
        place: Place,
    ) -> Result<Self, Refused> {
        Self::build(ledger, version, Vec::new(), place).await
    }

    /// `others` are the versions beside `version`, in order.
    async fn build(
        ledger: &Ledger,
        version: Version,
        others: Vec<Version>,
        place: Place,
    ) -> Result<Self, Refused> {
        let manifest = Manifest::open(ledger.blobs(), &version.manifest).await?;
        check(&version, manifest.header())?;
        let left_out = left_out(&manifest).await?;
        let mut opened = open(ledger, others).await?;
        opened.retain(|one| check(&one.version, &one.header).is_ok());
        let header = manifest.header().clone();
        let (name, id, number) = (version.dataset.clone(), version.id, version.number);
        opened.push(Opened { version, header });
        opened.sort_by_key(|one| one.version.number);
        let ids = ledger.column_ids(&name, |ids| {
            opened.iter().for_each(|one| give(ids, &one.header));
        });
        let ids = ids.await?;
        let mut known = HashMap::new();
        let snapshots: Vec<Snapshot> = opened
            .into_iter()
            .map(|one| snapshot(&ids, one, &mut known))
            .collect();
        let newest = snapshots.iter().find(|one| one.version.number == number);
        let gone = || LedgerError::NoVersion(name.clone(), format!("v{number}"));
        let current = newest.cloned().ok_or_else(gone)?;
        let all = snapshots.len();
        let snapshots = of_one_meaning(&current, snapshots);
        Ok(Self {
            name,
            id,
            place,
            versions_left_out: (all - snapshots.len()) as u64,
            snapshots,
            current,
            tags: BTreeMap::new(),
            left_out,
        })
    }

    /// Leaves out the snapshots that neither a tag nor the newest version names.
    pub fn keep_referenced(&mut self) {
        let (current, tags) = (self.current.version.number, &self.tags);
        self.snapshots.retain(|one| {
            let number = one.version.number;
            number == current || tags.values().any(|tagged| *tagged == number)
        });
    }

    fn has(&self, number: u64) -> bool {
        let mut snapshots = self.snapshots.iter();
        snapshots.any(|one| one.version.number == number)
    }
}

/// Whether a version is a table, which lists ask for each dataset.
pub(crate) async fn is_table(ledger: &Ledger, name: &DatasetName) -> Result<bool, LedgerError> {
    let selector = Selector::new(name.clone(), VersionRef::Latest);
    match Table::check(ledger, &selector).await {
        Ok(()) => Ok(true),
        // Without a version, or gone while the list was made.
        Err(Refused::NoTable { .. })
        | Err(Refused::Ledger(LedgerError::NoVersion(..) | LedgerError::NoDataset(_))) => Ok(false),
        Err(Refused::Ledger(error)) => Err(error),
    }
}

/// Whether a dataset's descriptor lets engines see it.
pub(crate) async fn check_served(ledger: &Ledger, version: &Version) -> Result<(), Refused> {
    let dataset = ledger.dataset(&version.dataset).await?;
    match dataset.descriptor.serve.sql {
        true => Ok(()),
        false => Err(refused(
            version,
            "its descriptor says so (serve.sql: false)".to_owned(),
        )),
    }
}

/// Whether the files of a version can be a table at all.
pub(crate) fn check(version: &Version, header: &Header) -> Result<(), Refused> {
    match no_table(header, &version.totals) {
        None => Ok(()),
        Some(reason) => Err(refused(version, reason)),
    }
}

/// Why files are no table.
pub(crate) fn no_table(header: &Header, totals: &Totals) -> Option<String> {
    let format = &*header.format;
    if !matches!(format, "parquet" | "delta") {
        Some(format!("its files are {format} and not parquet"))
    } else if header.schema.is_none() {
        Some("its columns are not known".to_owned())
    } else if totals.rows.is_none() {
        Some("the rows of its files are not known".to_owned())
    } else {
        None
    }
}

fn refused(version: &Version, reason: String) -> Refused {
    Refused::NoTable {
        name: version.dataset.clone(),
        number: version.number,
        reason,
    }
}

/// The versions up to `newest` that are snapshots beside it, and those that are tagged.
async fn around(
    ledger: &Ledger,
    newest: &Version,
    tagged: impl Iterator<Item = &u64>,
) -> Result<Vec<Version>, LedgerError> {
    let name = &newest.dataset;
    let mut after = newest.number.saturating_sub(VERSIONS + 1);
    let mut all = Vec::new();
    for number in tagged.filter(|number| **number <= after) {
        let selector = Selector::new(name.clone(), VersionRef::Number(*number));
        match ledger.resolve(&selector).await {
            Ok(version) => all.push(version),
            Err(LedgerError::NoVersion(..)) => {}
            Err(error) => return Err(error),
        }
    }
    all.sort_by_key(|version: &Version| version.number);
    all.dedup_by_key(|version| version.number);
    loop {
        let page = ledger.versions(name, after, VERSIONS as usize).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        all.extend(page);
        if after >= newest.number {
            break;
        }
    }
    let stays = |version: &Version| !matches!(version.state, VersionState::Removing { .. });
    all.retain(|version| version.number < newest.number && stays(version));
    Ok(all)
}

async fn open(ledger: &Ledger, versions: Vec<Version>) -> Result<Vec<Opened>, ManifestError> {
    let mut wanted: Vec<BlobId> = versions.iter().map(|version| version.manifest).collect();
    wanted.sort();
    wanted.dedup();
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let headers: Vec<BoxFuture<'_, Result<(BlobId, Header), ManifestError>>> = wanted
        .into_iter()
        .map(|id| {
            async move {
                let manifest = Manifest::open(ledger.blobs(), &id).await?;
                Ok((id, manifest.header().clone()))
            }
            .boxed()
        })
        .collect();
    let headers = stream::iter(headers).buffered(AT_ONCE);
    let headers: HashMap<BlobId, Header> = headers.try_collect().await?;
    let opened = versions.into_iter().filter_map(|version| {
        let header = headers.get(&version.manifest)?.clone();
        Some(Opened { version, header })
    });
    Ok(opened.collect())
}

/// Texts of the schema and names of the partition columns: versions that share them share [`Columns`].
type Key = (Option<Arc<str>>, Vec<(Arc<str>, Arc<str>)>);

fn snapshot(ids: &ColumnIds, opened: Opened, known: &mut HashMap<Key, Arc<Columns>>) -> Snapshot {
    let Opened { version, header } = opened;
    let may_lack = Judge::new(&header).may_refuse();
    let key = (header.schema.clone(), header.columns.clone());
    let columns = known
        .entry(key)
        .or_insert_with(|| Arc::new(Columns::new(ids, &header)));
    Snapshot {
        version,
        location: Arc::clone(&header.location),
        columns: Arc::clone(columns),
        may_lack,
    }
}

/// The snapshots in which every path is the column that it is in the newer ones.
fn of_one_meaning(current: &Snapshot, snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    let mut paths = current.columns.paths();
    let mut schemas = BTreeMap::from([(current.columns.schema_id(), Arc::clone(&current.columns))]);
    let mut kept = Vec::with_capacity(snapshots.len());
    for one in snapshots.into_iter().rev() {
        let own = one.columns.paths();
        let agrees = |(path, id): (&String, &u32)| paths.get(path).is_none_or(|known| known == id);
        // Two schemas of one number cannot stand beside each other either.
        let schema = schemas
            .entry(one.columns.schema_id())
            .or_insert_with(|| Arc::clone(&one.columns));
        if own.iter().all(agrees) && schema.columns == one.columns.columns {
            paths.extend(own);
            kept.push(one);
        }
    }
    kept.reverse();
    kept
}
