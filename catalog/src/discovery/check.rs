//! Looking into files before they are published: are they whole, what do they hold?
//!
//! Parquet and ORC files are checked one by one by their footers, which also tell rows, columns and
//! ranges; other formats by a sample. What a file said is remembered under its identity (path, size, token), so
//! that a file is read once however often its partition is looked at. What each file of several told is
//! stored while they are read (`schema::told`), so that memory holds a block of it and not a partition.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::manifest_file::join;
use super::table::Ready;
use crate::blobs::Blobs;
use crate::manifest::{DetailsWriter, ManifestError};
use crate::schema::{
    ColumnRange, Confidence, FileFormat, Footer, Inferred, Names, Problem, Schema, evolution,
    infer, read_footer,
};
use crate::upstream::{UpFile, Upstream, UpstreamErrorKind};

/// Footers that are read at the same time for one table.
const AT_ONCE: usize = 16;
/// Footers that are remembered in each of two generations.
const REMEMBERED: usize = 20_000;
/// Files that inference may choose its sample from.
const CHOICE: usize = 4096;

/// What the files of one partition say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    /// Rows of each file, in the order of the files.
    pub(crate) rows: Vec<Option<u64>>,
    pub(crate) schema: Option<Schema>,
    pub(crate) ranges: Vec<ColumnRange>,
    /// Some column has several types, none of which is wider than the others.
    pub(crate) mixed: bool,
    /// Columns of some file have numbers.
    pub(crate) numbered: bool,
    /// The partition's note of what each of its files told, where there are several.
    pub(crate) details: Option<(Arc<str>, Arc<str>)>,
}

/// Why a partition cannot be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not until somebody does something.
    Refused(String),
    /// A file has changed or gone while it was read.
    Moving,
}

/// The store does not answer: nothing is known.
#[derive(Clone, Debug)]
pub(crate) struct Unreachable(pub(crate) String);

/// Why files were not checked to the end.
#[derive(Debug)]
pub(crate) enum CheckError {
    Unreachable(String),
    /// What the files told could not be stored.
    Manifest(ManifestError),
}

impl From<ManifestError> for CheckError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

type Identity = (Arc<str>, u64, Arc<str>);

/// Footers by the identity of their file; the older generation goes when the newer one is full.
#[derive(Debug, Default)]
pub(crate) struct Footers {
    generations: Mutex<[HashMap<Identity, Arc<Footer>>; 2]>,
}

impl Footers {
    fn get(&self, identity: &Identity) -> Option<Arc<Footer>> {
        let generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations
            .iter()
            .find_map(|known| known.get(identity).map(Arc::clone))
    }

    fn put(&self, identity: Identity, footer: Arc<Footer>) {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= REMEMBERED {
            generations[1] = std::mem::take(&mut generations[0]);
        }
        generations[0].insert(identity, footer);
    }

    async fn read(
        &self,
        upstream: &dyn Upstream,
        file: UpFile,
        format: FileFormat,
    ) -> Result<Arc<Footer>, Problem> {
        let identity = (Arc::clone(&file.path), file.size, Arc::clone(&file.token));
        if let Some(known) = self.get(&identity) {
            return Ok(known);
        }
        let footer = Arc::new(read_footer(upstream, &file, format).await?);
        self.put(identity, Arc::clone(&footer));
        Ok(footer)
    }
}

/// The format and, where a sample has to tell, the columns of what is about to be published. None when a
/// file changed while it was read: what was listed is not there any more.
pub(crate) async fn format_of(
    upstream: &dyn Upstream,
    table: &str,
    ready: &[Ready],
    told: Option<FileFormat>,
) -> Result<Option<Inferred>, Unreachable> {
    let files: Vec<UpFile> = ready
        .iter()
        .flat_map(|ready| &ready.files)
        .take(CHOICE)
        .map(|file| full(table, file))
        .collect();
    match infer(upstream, &files, table, told).await {
        Ok(found) => Ok(Some(found)),
        Err(Problem::Upstream(error)) if is_unreachable(error.kind) => {
            Err(Unreachable(error.to_string()))
        }
        Err(Problem::Upstream(error)) if is_moving(error.kind) => Ok(None),
        // Files that may be listed and not read are published as files; nobody can say more of them.
        Err(_) => Ok(Some(Inferred {
            format: told.unwrap_or(FileFormat::Files),
            confidence: Confidence::Guess,
            schema: None,
        })),
    }
}

/// Where files are, and where what they tell is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shelf<'a> {
    pub(crate) upstream: &'a dyn Upstream,
    pub(crate) footers: &'a Footers,
    pub(crate) blobs: &'a Arc<dyn Blobs>,
}

/// Checks the files of one partition. `table`: its directory below the root.
pub(crate) async fn check(
    shelf: Shelf<'_>,
    table: &str,
    ready: &Ready,
    format: FileFormat,
) -> Result<Result<Checked, Unfit>, CheckError> {
    let Shelf {
        upstream, footers, ..
    } = shelf;
    if !format.has_footer() {
        let rows = vec![None; ready.files.len()];
        return Ok(Ok(Checked {
            rows,
            ..Checked::default()
        }));
    }
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let read: Vec<BoxFuture<'_, _>> = ready
        .files
        .iter()
        .map(|file| footers.read(upstream, full(table, file), format).boxed())
        .collect();
    let mut read = stream::iter(read).buffered(AT_ONCE);
    let mut checked = Checked::default();
    let mut details = Details::of(shelf.blobs, ready, format);
    let mut files = ready.files.iter();
    while let (Some(found), Some(file)) = (read.next().await, files.next()) {
        match found {
            Ok(footer) => {
                checked.add(&footer);
                if let Some(details) = &mut details {
                    details.add(file, &footer).await?;
                }
            }
            Err(Problem::Damaged { path, reason }) => {
                let name = path.rsplit('/').next().unwrap_or(&path);
                return Ok(Err(Unfit::Refused(format!("{name}: {reason}"))));
            }
            Err(Problem::Upstream(error)) if is_unreachable(error.kind) => {
                return Err(CheckError::Unreachable(error.to_string()));
            }
            Err(Problem::Upstream(error)) if error.kind == UpstreamErrorKind::Denied => {
                return Ok(Err(Unfit::Refused(error.to_string())));
            }
            Err(Problem::Upstream(_)) => return Ok(Err(Unfit::Moving)),
        }
    }
    if let Some(details) = details {
        checked.details = details.finish().await?;
    }
    Ok(Ok(checked))
}

/// What the files of a partition told, on its way to the store.
struct Details<'a> {
    writer: DetailsWriter<'a>,
    names: Names,
}

impl<'a> Details<'a> {
    /// None where nobody plans with it: of one file the partition tells as much, and of other formats
    /// nobody reads it.
    fn of(blobs: &'a Arc<dyn Blobs>, ready: &Ready, format: FileFormat) -> Option<Self> {
        let is_read = matches!(format, FileFormat::Parquet | FileFormat::Delta);
        (is_read && ready.files.len() > 1).then(|| Self {
            writer: DetailsWriter::new(blobs, &ready.partition),
            names: Names::default(),
        })
    }

    async fn add(&mut self, file: &UpFile, footer: &Footer) -> Result<(), ManifestError> {
        let value = self.names.encode(file.size, &footer.ranges);
        self.writer.push(&file.path, value).await
    }

    /// The note; none when no file told anything.
    async fn finish(self) -> Result<Option<(Arc<str>, Arc<str>)>, ManifestError> {
        if self.names.iter().next().is_none() {
            return Ok(None);
        }
        self.writer.finish(&self.names.to_text()).await.map(Some)
    }
}

impl Checked {
    fn add(&mut self, footer: &Footer) {
        let first = self.rows.is_empty();
        self.rows.push(Some(footer.rows));
        self.numbered |= footer.numbered;
        if let Some(known) = &self.schema {
            self.mixed |= evolution::changes(known, &footer.schema)
                .iter()
                .any(evolution::Change::mixes_types);
        }
        self.schema = Some(match self.schema.take() {
            Some(known) => evolution::union(&known, &footer.schema),
            None => footer.schema.clone(),
        });
        if first {
            self.ranges.clone_from(&footer.ranges);
            return;
        }
        self.ranges.retain_mut(|known| {
            let other = footer.ranges.iter().find(|other| other.name == known.name);
            other.map(|other| known.merge(other)).is_some()
        });
    }

    /// Rows of all files together, when each tells its own.
    pub(crate) fn total_rows(&self) -> Option<u64> {
        self.rows
            .iter()
            .try_fold(0u64, |sum, rows| sum.checked_add((*rows)?))
    }
}

/// Whether a file is not the one that was listed.
fn is_moving(kind: UpstreamErrorKind) -> bool {
    matches!(
        kind,
        UpstreamErrorKind::Changed | UpstreamErrorKind::NotFound
    )
}

fn is_unreachable(kind: UpstreamErrorKind) -> bool {
    matches!(
        kind,
        UpstreamErrorKind::Unreachable | UpstreamErrorKind::Throttled
    )
}

/// A file with its path below the root.
pub(crate) fn full(table: &str, file: &UpFile) -> UpFile {
    UpFile {
        path: Arc::from(join(table, &file.path)),
        ..file.clone()
    }
}
