//! A table of any size, made up, and what a process has taken: for the examples that measure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use terrace_catalog::DatasetName;
use terrace_catalog::blobs::{BlobId, Blobs, DirectoryBlobs};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::{Commit, Ledger, LedgerConfig};
use terrace_catalog::manifest::{FileEntry, Header, ManifestEdit};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Things that are made at once.
pub(crate) const PARALLEL: usize = 64;

/// The catalog in a directory, made when it is not there: RocksDB and a directory of blobs.
pub(crate) async fn open(directory: &Path) -> Result<Ledger, Failure> {
    let kv = Arc::new(RocksKv::open(&directory.join("kv"))?);
    let blobs: Arc<dyn Blobs> = Arc::new(DirectoryBlobs::open(&directory.join("store"))?);
    Ok(Ledger::open(kv, blobs, LedgerConfig::default()).await?)
}

/// Stores a manifest of so many partitions with so many files each.
pub(crate) async fn manifest_of(
    ledger: &Ledger,
    header: Header,
    partitions: usize,
    files: usize,
) -> Result<BlobId, Failure> {
    let mut edit = ManifestEdit::new(ledger.blobs(), header);
    let stored: Vec<_> = futures::stream::iter(0..partitions)
        .map(|number| {
            let (edit, path) = (&edit, partition_path(number));
            async move {
                let stored = edit.store_files(&path, files_of(&path, files)).await?;
                Ok::<_, Failure>((path, stored))
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    for (path, own) in stored {
        edit.set_partition(&path, Vec::new(), BTreeMap::new(), own)?;
    }
    Ok(edit.finish().await?)
}

/// The version behind `head` that has these files.
pub(crate) fn commit(
    name: &DatasetName,
    head: Option<u64>,
    manifest: BlobId,
    cause: &str,
) -> Commit {
    Commit {
        dataset: name.clone(),
        expected_head: head,
        manifest,
        batch: None,
        source_seq: Vec::new(),
        cause: cause.into(),
        summary: BTreeMap::new(),
    }
}

/// The directory of a partition.
pub(crate) fn partition_path(number: usize) -> String {
    format!("dt={:05}/hour={:02}", number / 24, number % 24)
}

/// Files as Spark names them, with ETags as S3 makes them; no two alike.
pub(crate) fn files_of(partition: &str, count: usize) -> impl Iterator<Item = FileEntry> + use<> {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let partition = partition.to_owned();
    let fold = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(ODD).rotate_left(29);
    let mut hash = partition.bytes().fold(ODD, fold);
    (0..count).map(move |number| {
        hash = hash.wrapping_add(ODD).wrapping_mul(ODD).rotate_left(41);
        FileEntry {
            path: format!("{partition}/part-{number:05}-{hash:032x}.c000.snappy.parquet").into(),
            size: (100 << 20) + (hash as u64 >> 40),
            mtime_ms: 1_763_600_000_000 + number as i64,
            token: format!("\"{:032x}\"", hash.wrapping_mul(ODD)).into(),
            rows: Some(1_000_000 + (hash as u64 >> 50)),
            checksum: None,
        }
    })
}

/// KiB.
pub(crate) fn peak_memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmHWM")?.parse()?)
}

/// Of all threads of this process, user and system.
pub(crate) fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second.
    Ok(Duration::from_millis(ticks * 10))
}
