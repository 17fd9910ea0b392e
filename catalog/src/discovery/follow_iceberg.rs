//! Iceberg tables that others write: the current snapshot is the version.
//!
//! The metadata file with the highest number counts. A writer with a catalog may leave a newer file that
//! was never committed there; what it names is complete all the same, and the next one corrects it.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};

use super::check::full;
use super::follow::LOG_MAX;
use super::publish::{PublishError, Target};
use super::scan::Scan;
use crate::schema::iceberg::{DataFile, Metadata, number_of};
use crate::upstream::{UpFile, UpstreamErrorKind, read_small};

/// Directory of a table's metadata.
const DIRECTORY: &str = "metadata/";
/// Manifests that are read at a time.
const AT_ONCE: usize = 8;

/// What a metadata file leads to. Kept while that file is the newest: the files of a log never change.
#[derive(Debug)]
pub(crate) struct IcebergLog {
    newest: UpFile,
    pub(super) metadata: Metadata,
    /// The current snapshot.
    pub(super) id: i64,
    /// Its data files: path below the table -> size.
    files: BTreeMap<String, u64>,
}

/// Why there is no answer: the inner error is shown by `why`.
type Answer<T> = Result<Result<T, String>, PublishError>;

/// The metadata file that counts, if the table has any.
pub(super) fn newest(scan: &Scan) -> Option<&UpFile> {
    let numbered = scan.table_log.iter().filter_map(|file| {
        let number = number_of(file.path.strip_prefix(DIRECTORY)?)?;
        Some((number, file.mtime_ms, file))
    });
    let newest = numbered.max_by_key(|(number, mtime_ms, _)| (*number, *mtime_ms));
    newest.map(|(_, _, file)| file)
}

/// Reads what a metadata file leads to, unless that is `known` already.
pub(super) async fn read(
    target: &Target<'_>,
    scan: &Scan,
    newest: &UpFile,
    known: Option<IcebergLog>,
) -> Answer<IcebergLog> {
    if let Some(known) = known.filter(|known| known.newest == *newest) {
        return Ok(Ok(known));
    }
    let metadata = match log_file(target, newest).await? {
        Ok(bytes) => Metadata::parse(&bytes),
        Err(reason) => Err(reason),
    };
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(reason) => return Ok(Err(reason)),
    };
    let Some((id, list)) = metadata.snapshot.clone() else {
        return Ok(Err("the Iceberg table has no snapshot yet".to_owned()));
    };
    let files = data_files(target, scan, &metadata, &list).await?;
    Ok(files.map(|files| IcebergLog {
        newest: newest.clone(),
        metadata,
        id,
        files,
    }))
}

/// Every data file of the snapshot, by its path.
async fn data_files(
    target: &Target<'_>,
    scan: &Scan,
    metadata: &Metadata,
    list: &str,
) -> Answer<BTreeMap<String, u64>> {
    let manifests = match named(target, scan, metadata.below(list)).await? {
        Ok(bytes) => metadata.manifests(&bytes),
        Err(reason) => Err(reason),
    };
    let manifests = match manifests {
        Ok(manifests) => manifests,
        Err(reason) => return Ok(Err(reason)),
    };
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let reads: Vec<BoxFuture<'_, _>> = manifests
        .into_iter()
        .map(|path| named(target, scan, Ok(path)).boxed())
        .collect();
    let mut reads = stream::iter(reads).buffered(AT_ONCE);
    let mut files = BTreeMap::new();
    while let Some(read) = reads.next().await {
        match read?.and_then(|bytes| metadata.files(&bytes)) {
            Ok(found) => {
                files.extend(
                    found
                        .into_iter()
                        .map(|DataFile { path, size }| (path, size)),
                );
            }
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Ok(files))
}

/// The bytes of a file of the log by its path.
async fn named(
    target: &Target<'_>,
    scan: &Scan,
    path: Result<String, String>,
) -> Answer<bytes::Bytes> {
    let path = match path {
        Ok(path) => path,
        Err(reason) => return Ok(Err(reason)),
    };
    match scan.table_log.iter().find(|file| *file.path == *path) {
        Some(file) => log_file(target, file).await,
        None => Ok(Err(format!(
            "the Iceberg table names {path:.200}, which is not there"
        ))),
    }
}

async fn log_file(target: &Target<'_>, file: &UpFile) -> Answer<bytes::Bytes> {
    match read_small(target.upstream, &full(target.directory, file), LOG_MAX).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) if error.kind == UpstreamErrorKind::Corrupt => Ok(Err(error.to_string())),
        Err(error) => Err(PublishError::Unreachable(error.to_string())),
    }
}

/// The data files as the store has them, when all are there with the sizes that the snapshot tells.
pub(super) async fn present(target: &Target<'_>, log: &IcebergLog) -> Answer<Vec<UpFile>> {
    let size = |path: &str| log.files.get(path).copied();
    let found = super::follow::present(target, size).await?;
    let (named, there) = (log.files.len(), found.len());
    Ok(match there == named {
        true => Ok(found),
        false => Err(format!(
            "snapshot {} of the Iceberg table names {named} files, of which {there} are there",
            log.id
        )),
    })
}
