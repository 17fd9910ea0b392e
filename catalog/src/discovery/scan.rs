//! One pass over a table's directory, folded into one sketch per partition.
//!
//! A sketch holds counts, the newest time and a fingerprint of the files, and no file names: a pass over
//! ten million files needs memory for the partitions only. A partition whose fingerprint is not the
//! published one is listed again by itself ([`detail`]) before anything is believed; the two listings
//! must agree. A pass that ends with an error is no pass at all: nothing of it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::layout::{self, Values};
use super::manifest_file::join;
use super::names::{self, Refusal, Role};
use super::shape::Shape;
use crate::upstream::{UpFile, Upstream, UpstreamError};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

/// Listings that run at the same time for one table.
const AT_ONCE: usize = 8;

/// Most refused paths that are remembered for `why`; the others are only counted.
const REFUSED_SHOWN: usize = 20;

/// What a pass knows of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sketch {
    pub(crate) values: Values,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) newest_ms: Option<i64>,
    pub(crate) fingerprint: Fingerprint,
    /// Why nothing of it may be published.
    pub(crate) refusal: Option<Refusal>,
}

/// What a pass knows of a table.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By raw directory below the table; the empty one when the table has no partitions.
    pub(crate) partitions: BTreeMap<Arc<str>, Sketch>,
    /// Directory -> time of its `_SUCCESS`.
    markers: BTreeMap<Arc<str>, i64>,
    /// Directory -> entries of writers at work.
    staging: BTreeMap<Arc<str>, u64>,
    /// Directory -> its `_manifest.json`.
    pub(crate) manifests: BTreeMap<Arc<str>, UpFile>,
    /// Files of a Delta log or of an Iceberg metadata directory, by path below the table.
    pub(crate) table_log: Vec<UpFile>,
    /// The resource file in the table's directory.
    pub(crate) descriptor: Option<UpFile>,
    /// Paths outside any partition that cannot enter, a few of them, and how many there are.
    pub(crate) refused: Vec<Refusal>,
    pub(crate) refused_count: u64,
    /// Every data file seen, in or out of a partition.
    pub(crate) data_files: u64,
}

impl Scan {
    /// Walks the directory of a table. Paths in the scan are below the table.
    pub(crate) async fn run(
        upstream: &dyn Upstream,
        table: &str,
        shape: &Shape,
    ) -> Result<Self, UpstreamError> {
        let mut scan = Self::default();
        let mut files = upstream.walk(table);
        while let Some(file) = files.next().await {
            if let Some(file) = below(table, file?) {
                scan.absorb(file, shape);
            }
        }
        scan.finish();
        Ok(scan)
    }

    /// Takes one file in, in any order.
    pub(crate) fn absorb(&mut self, file: UpFile, shape: &Shape) {
        // The placeholder of a directory in an object store.
        if file.path.ends_with('/') && file.size == 0 {
            return;
        }
        let (directory, rest) = shape.split(&file.path);
        let (roles, own) = shape.roles(rest);
        let here = !rest.contains('/');
        let directory: Arc<str> = Arc::from(directory);
        match (roles, own) {
            (Role::Staging, _) | (_, Role::Staging) => {
                *self.staging.entry(directory).or_default() += 1;
            }
            (Role::TableLog, _) => self.table_log.push(file),
            _ if directory.is_empty() && names::is_iceberg_log(rest) => self.table_log.push(file),
            (Role::Data, Role::Marker) if here => {
                self.markers.insert(directory, file.mtime_ms);
            }
            (Role::Data, Role::Manifest) if here => {
                self.manifests.insert(directory, file);
            }
            (Role::Data, Role::Descriptor) if here && directory.is_empty() => {
                self.descriptor = Some(file);
            }
            (Role::Data, Role::Data) => self.absorb_data(directory, &file),
            _ => {}
        }
    }

    fn absorb_data(&mut self, directory: Arc<str>, file: &UpFile) {
        self.data_files += 1;
        let refusal = names::check_path(&file.path).err();
        if directory.is_empty() {
            if let Some(refusal) = refusal {
                self.refuse(refusal);
                return;
            }
            let sketch = self.partitions.entry(directory).or_default();
            sketch.absorb(file);
            return;
        }
        let sketch = self
            .partitions
            .entry(directory)
            .or_insert_with_key(|directory| match layout::partition_values(directory) {
                Ok(values) => Sketch {
                    values,
                    ..Sketch::default()
                },
                Err(refusal) => Sketch {
                    refusal: Some(refusal),
                    ..Sketch::default()
                },
            });
        sketch.absorb(file);
        if sketch.refusal.is_none() {
            sketch.refusal = refusal;
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refused_count += 1;
        if self.refused.len() < REFUSED_SHOWN {
            self.refused.push(refusal);
        }
    }

    /// What only the whole pass can tell: stray files, other columns, two directories for one partition.
    fn finish(&mut self) {
        let partitioned = self
            .partitions
            .keys()
            .any(|directory| !directory.is_empty());
        if partitioned && self.partitions.remove("").is_some() {
            self.refuse(Refusal::Stray(
                "files beside the partition directories".to_owned(),
            ));
        }
        let columns = self.common_columns();
        let mut owners: BTreeMap<Values, Vec<Arc<str>>> = BTreeMap::new();
        for (directory, sketch) in &mut self.partitions {
            if sketch.refusal.is_some() || directory.is_empty() {
                continue;
            }
            if columns
                .as_ref()
                .is_some_and(|columns| !layout::same_columns(columns, &sketch.values))
            {
                sketch.refusal = Some(Refusal::Columns(directory.to_string()));
                continue;
            }
            owners
                .entry(sketch.values.clone())
                .or_default()
                .push(Arc::clone(directory));
        }
        for directory in owners.into_values().filter(|all| all.len() > 1).flatten() {
            if let Some(sketch) = self.partitions.get_mut(&directory) {
                sketch.refusal = Some(Refusal::SamePartition(directory.to_string()));
            }
        }
    }

    /// The columns that most partitions have; the first in order among equals.
    fn common_columns(&self) -> Option<Values> {
        let mut counts: BTreeMap<Vec<&str>, (u64, &Values)> = BTreeMap::new();
        for sketch in self
            .partitions
            .values()
            .filter(|sketch| sketch.refusal.is_none())
        {
            let columns = sketch.values.iter().map(|(key, _)| &**key).collect();
            counts.entry(columns).or_insert((0, &sketch.values)).0 += 1;
        }
        let most = counts.values().map(|(count, _)| *count).max()?;
        counts
            .into_values()
            .find(|(count, _)| *count == most)
            .map(|(_, values)| values.clone())
    }

    /// Time of the marker nearest to a partition, in it or in a directory above that is not the table's.
    pub(crate) fn partition_marker(&self, partition: &str) -> Option<i64> {
        ancestors(partition).find_map(|directory| self.markers.get(directory).copied())
    }

    /// Time of the table's own marker.
    pub(crate) fn table_marker(&self) -> Option<i64> {
        self.markers.get("").copied()
    }

    /// Entries of writers that may concern a partition: in it, above it, or in the table.
    pub(crate) fn staging(&self, partition: &str) -> u64 {
        let count = |directory: &str| self.staging.get(directory).copied().unwrap_or(0);
        count("") + ancestors(partition).map(count).sum::<u64>()
    }

    /// Entries of writers anywhere in the table.
    pub(crate) fn staging_anywhere(&self) -> u64 {
        self.staging.values().sum()
    }

    /// The manifest file that covers a partition: its own, or the table's.
    pub(crate) fn manifest_of(&self, partition: &str) -> Option<(&Arc<str>, &UpFile)> {
        ancestors(partition)
            .chain([""])
            .find_map(|directory| self.manifests.get_key_value(directory))
    }
}

impl Sketch {
    fn absorb(&mut self, file: &UpFile) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(file.size);
        self.newest_ms = self.newest_ms.max(Some(file.mtime_ms));
        self.fingerprint
            .add(&file.path, file.size, file.mtime_ms, &file.token);
    }
}

/// Up to so many partitions are listed one by one; more are found in one walk over the table.
const ONE_BY_ONE: usize = 32;

/// The data files of some partitions, each list sorted by path (below the table). Partitions without
/// files have no entry. The paths are checked; a file that may not enter is left out.
pub(crate) async fn details(
    upstream: &dyn Upstream,
    table: &str,
    wanted: &BTreeSet<Arc<str>>,
    shape: &Shape,
) -> Result<BTreeMap<Arc<str>, Vec<UpFile>>, UpstreamError> {
    let mut found = BTreeMap::new();
    if wanted.len() <= ONE_BY_ONE && !wanted.contains("") {
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let lists: Vec<BoxFuture<'_, _>> = wanted
            .iter()
            .map(|partition| detail(upstream, table, partition, shape).boxed())
            .collect();
        let lists: Vec<Vec<UpFile>> = stream::iter(lists).buffered(AT_ONCE).try_collect().await?;
        let lists = wanted.iter().cloned().zip(lists);
        found.extend(lists.filter(|(_, files)| !files.is_empty()));
        return Ok(found);
    }
    let mut files = upstream.walk(table);
    while let Some(file) = files.next().await {
        let Some(file) = below(table, file?) else {
            continue;
        };
        let partition = shape
            .data_of(&file)
            .and_then(|partition| wanted.get(partition));
        if let Some(partition) = partition {
            found
                .entry(Arc::clone(partition))
                .or_insert_with(Vec::new)
                .push(file);
        }
    }
    found.values_mut().for_each(tidy);
    Ok(found)
}

/// Sorted, each path once: a listing may show a page's last file again.
fn tidy(files: &mut Vec<UpFile>) {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup_by(|one, other| one.path == other.path);
}

/// The data files of one partition, sorted by path (below the table).
async fn detail(
    upstream: &dyn Upstream,
    table: &str,
    partition: &str,
    shape: &Shape,
) -> Result<Vec<UpFile>, UpstreamError> {
    let here = join(table, partition);
    let mut files = Vec::new();
    let mut listing = upstream.walk(&here);
    while let Some(file) = listing.next().await {
        match file {
            Ok(file) => {
                let file = below(table, file).filter(|file| shape.data_of(file) == Some(partition));
                files.extend(file);
            }
            // Gone since the first listing: no files.
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    tidy(&mut files);
    Ok(files)
}

/// A file with its path made relative to a table; none for a file that is not below it.
pub(crate) fn below(table: &str, file: UpFile) -> Option<UpFile> {
    if table.is_empty() {
        return Some(file);
    }
    let rest = file.path.strip_prefix(table)?.strip_prefix('/')?;
    let path = Arc::from(rest);
    Some(UpFile { path, ..file })
}

/// A partition's directory and those above it, without the table's own.
fn ancestors(partition: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(partition), |directory| {
        directory.rsplit_once('/').map(|(above, _)| above)
    })
    .filter(|directory| !directory.is_empty())
}

#[cfg(test)]
mod tests;
