//! The ladder: which format a dataset has, and which columns, from a few of its files.
//!
//! Table logs stand above this (discovery follows them and knows). Here a sample of the files is looked
//! into: they must agree, or the dataset is plain `files`. A person's word about the format wins; then
//! only the columns are looked for.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::sniff::{Head, sniff};
use super::types::{Confidence, FileFormat, Schema};
use super::{Problem, archive, evolution, media, read_footer, text, tfrecord};
use crate::upstream::{UpFile, Upstream};

/// Files of a dataset that are looked into, spread over the list.
const SAMPLE: usize = 8;
/// Bytes of each.
const HEAD: u64 = 64 << 10;
/// Files that are read at the same time.
const AT_ONCE: usize = 8;

/// What a dataset seems to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Format of its files.
    pub format: FileFormat,
    /// How sure that is.
    pub confidence: Confidence,
    /// Its columns, when the format has any that can be found.
    pub schema: Option<Schema>,
}

/// Looks into a sample of `files` (paths as `upstream` knows them, data only). `told` is a person's word.
///
/// `strip` is the directory of the dataset: class directories are counted below it. Errors are those of
/// the store only: a damaged file lowers the confidence, it does not fail the dataset.
pub async fn infer(
    upstream: &dyn Upstream,
    files: &[UpFile],
    strip: &str,
    told: Option<FileFormat>,
) -> Result<Inferred, Problem> {
    let sample: Vec<&UpFile> = spread(files);
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let heads: Vec<BoxFuture<'_, _>> = sample
        .iter()
        .map(|file| head(upstream, file).boxed())
        .collect();
    let heads: Vec<Head> = stream::iter(heads).buffered(AT_ONCE).try_collect().await?;
    let (format, confidence) = match told {
        Some(format) => (format, Confidence::Told),
        None => agree(&heads),
    };
    let schema = match format {
        FileFormat::Parquet | FileFormat::Orc => footers(upstream, &sample, format).await?,
        FileFormat::Jsonl => common(heads.iter().map(text::json_lines)),
        FileFormat::Csv => common(heads.iter().map(text::csv)),
        FileFormat::Tfrecord => common(heads.iter().map(|head| tfrecord::schema(&head.bytes))),
        FileFormat::Webdataset => common(heads.iter().map(|head| archive::schema(&head.bytes))),
        FileFormat::Images | FileFormat::Audio => {
            let below = |file: &'_ UpFile| file.path.strip_prefix(strip).map(str::len);
            let paths = files.iter().map(|file| {
                let length = below(file).unwrap_or(file.path.len());
                file.path[file.path.len() - length..].trim_start_matches('/')
            });
            Some(media::schema(format, paths))
        }
        _ => None,
    };
    Ok(Inferred {
        format,
        confidence,
        schema,
    })
}

/// Some of the files, from the first to the last, without the empty ones.
fn spread(files: &[UpFile]) -> Vec<&UpFile> {
    let filled: Vec<&UpFile> = files.iter().filter(|file| file.size > 0).collect();
    let step = filled.len().div_ceil(SAMPLE).max(1);
    filled.into_iter().step_by(step).collect()
}

async fn head(upstream: &dyn Upstream, file: &UpFile) -> Result<Head, Problem> {
    let end = file.size.min(HEAD);
    Ok(Head {
        path: file.path.to_string(),
        bytes: upstream.read(file, 0..end).await?,
        whole: end == file.size,
    })
}

/// The format that all files have, as sure as the least sure of them. Files beside images and audio
/// (captions, lists) do not disturb them while they are the smaller part.
fn agree(heads: &[Head]) -> (FileFormat, Confidence) {
    let found: Vec<_> = heads.iter().map(sniff).collect();
    let Some((first, _)) = found.first() else {
        return (FileFormat::Files, Confidence::Guess);
    };
    let count = |format: FileFormat| found.iter().filter(|(other, _)| *other == format).count();
    if count(*first) == found.len() {
        let least = found.iter().map(|(_, confidence)| *confidence).min();
        return (*first, least.unwrap_or(Confidence::Guess));
    }
    let media = [FileFormat::Images, FileFormat::Audio];
    let most = media
        .into_iter()
        .find(|format| count(*format) * 2 > found.len());
    (most.unwrap_or(FileFormat::Files), Confidence::Guess)
}

async fn footers(
    upstream: &dyn Upstream,
    sample: &[&UpFile],
    format: FileFormat,
) -> Result<Option<Schema>, Problem> {
    let mut known: Option<Schema> = None;
    for file in sample {
        match read_footer(upstream, file, format).await {
            Ok(footer) => {
                known = Some(match known {
                    Some(known) => evolution::union(&known, &footer.schema),
                    None => footer.schema,
                });
            }
            Err(Problem::Damaged { .. }) => {}
            Err(problem) => return Err(problem),
        }
    }
    Ok(known)
}

/// What all samples that have columns have together.
fn common(schemas: impl Iterator<Item = Option<Schema>>) -> Option<Schema> {
    schemas
        .flatten()
        .reduce(|one, other| evolution::union(&one, &other))
}
