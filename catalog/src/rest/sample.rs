//! The first rows of a version, for people: one file, read through the root that holds it.
//!
//! Invariants: nothing is read outside of a root, nor another version of a file than the one that the
//! manifest pins; what cannot be shown is a note, so that a page is never an error because a file is odd.
//! What a call reads and holds is limited by [`crate::schema::first_rows`] and by [`AT_ONCE`].

use std::sync::Arc;

use axum::extract::{RawPathParams, State};
use serde_json::Value;

use super::Api;
use super::error::ApiError;
use super::extract::{Dataset, Json, Query, page};
use super::versions::{of_path, open};
use super::wire::{Column, ErrorBody, Sample, SampleQuery};
use crate::manifest::{FileEntry, Header, Manifest, Partition};
use crate::schema::{self, FileFormat, Problem, Rows, Type};
use crate::upstream::{UpFile, UpstreamErrorKind};

/// Usual and greatest number of rows.
const ROWS: (usize, usize) = (20, 100);

/// Most calls at once: each may hold some tens of MiB of pages.
pub(super) const AT_ONCE: usize = 4;

/// Partitions and files that are looked through for one that is not empty.
const LOOKED: usize = 16;

/// The first rows of one file of a version. Formats without rows show names and sizes of files.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}/sample", tag = "versions",
    operation_id = "sample_version",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day or latest"), SampleQuery),
    responses((status = 200, body = Sample,
        description = "The first rows, as far as they can be read"), (status = "default", body = ErrorBody)))]
pub(super) async fn sample(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Query(query): Query<SampleQuery>,
) -> Result<Json<Sample>, ApiError> {
    let limit = page(query.limit, ROWS.0, ROWS.1)?;
    let Ok(_slot) = api.samples.try_acquire() else {
        return Err(ApiError::busy());
    };
    let version = of_path(&api, name, &params).await?;
    let manifest = open(&api, &version).await?;
    let header = manifest.header();
    let mut sample = match FileFormat::from_name(&header.format) {
        Some(format) if has_rows(format) => rows(&api, &manifest, format, limit).await?,
        _ => files(&manifest, limit).await?,
    };
    sample.version = version.number;
    Ok(Json(sample))
}

fn has_rows(format: FileFormat) -> bool {
    use FileFormat::{Csv, Delta, Iceberg, Jsonl, Parquet};
    matches!(format, Csv | Delta | Iceberg | Jsonl | Parquet)
}

/// Names and sizes, for formats whose files have no rows.
async fn files(manifest: &Manifest, limit: usize) -> Result<Sample, ApiError> {
    let found = manifest.files("", None, limit).await?;
    let format = &manifest.header().format;
    Ok(Sample {
        columns: vec![column("path", "string"), column("bytes", "int64")],
        rows: found
            .iter()
            .map(|file| vec![Value::from(&*file.path), Value::from(file.size)])
            .collect(),
        note: Some(format!(
            "files of the format {format} have no rows: these are the first files"
        )),
        ..Sample::default()
    })
}

fn column(name: &str, kind: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    }
}

async fn rows(
    api: &Api,
    manifest: &Manifest,
    format: FileFormat,
    limit: usize,
) -> Result<Sample, ApiError> {
    let header = manifest.header();
    let Some((partition, file)) = first_file(manifest).await? else {
        return Ok(noted("the version has no file with data", None));
    };
    let roots = api.parts.roots.as_ref();
    let Some((upstream, below)) =
        roots.and_then(|roots| roots.discovery().reader(&header.location))
    else {
        let why = format!("no root of this catalog holds {} any more", header.location);
        return Ok(noted(&why, Some(&file)));
    };
    let path = match below.as_str() {
        "" => Arc::clone(&file.path),
        below => format!("{below}/{}", file.path).into(),
    };
    let pinned = UpFile {
        path,
        size: file.size,
        mtime_ms: file.mtime_ms,
        token: Arc::clone(&file.token),
    };
    match schema::first_rows(&*upstream, &pinned, format, limit).await {
        Ok(Some(found)) => Ok(joined(found, header, &partition, &file)),
        Ok(None) => files(manifest, limit).await,
        Err(problem) => excuse(problem, &file),
    }
}

/// The first file with data and the partition that it is in, if one is soon found.
async fn first_file(manifest: &Manifest) -> Result<Option<(Partition, FileEntry)>, ApiError> {
    for partition in manifest.partitions(None, LOOKED).await? {
        let files = manifest.files_of(&partition, None, LOOKED).await?;
        if let Some(file) = files.into_iter().find(|file| file.size > 0) {
            return Ok(Some((partition, file)));
        }
    }
    Ok(None)
}

fn noted(why: &str, file: Option<&FileEntry>) -> Sample {
    Sample {
        file: file.map(|file| file.path.to_string()),
        note: Some(why.to_owned()),
        ..Sample::default()
    }
}

/// A file that is odd is a note; a store that does not answer is an error.
fn excuse(problem: Problem, file: &FileEntry) -> Result<Sample, ApiError> {
    let why = match problem {
        Problem::Damaged { reason, .. } => reason,
        Problem::Upstream(error) => match error.kind {
            UpstreamErrorKind::NotFound => "the file is gone from its store".to_owned(),
            UpstreamErrorKind::Changed => "the file was overwritten after this version".to_owned(),
            UpstreamErrorKind::Corrupt => error.message,
            UpstreamErrorKind::Denied
            | UpstreamErrorKind::Throttled
            | UpstreamErrorKind::Unreachable => return Err(ApiError::unavailable(error.message)),
        },
    };
    Ok(noted(&why, Some(file)))
}

/// Rows with the columns that only the partition's directory tells.
fn joined(found: Rows, header: &Header, partition: &Partition, file: &FileEntry) -> Sample {
    let own = |name: &str| found.fields.iter().any(|field| field.name == name);
    let values = partition.values.iter().filter(|(name, _)| !own(name));
    let (names, values): (Vec<_>, Vec<Value>) = values
        .map(|(name, value)| (name, value.as_deref().map_or(Value::Null, Value::from)))
        .unzip();
    let kind = |wanted: &str| {
        let mut columns = header.columns.iter();
        let found = columns.find(|(name, _)| **name == *wanted);
        found.map_or("string", |(_, kind)| kind)
    };
    let fields = found.fields.iter();
    let columns = fields.map(|field| column(&field.name, &type_name(&field.data_type)));
    let keys = names.into_iter().map(|name| column(name, kind(name)));
    let rows = found.rows.into_iter();
    Sample {
        columns: columns.chain(keys).collect(),
        rows: rows
            .map(|row| row.into_iter().chain(values.clone()).collect())
            .collect(),
        file: Some(file.path.to_string()),
        note: found.note,
        ..Sample::default()
    }
}

/// A type in a word: parts of nested ones are in the schema.
fn type_name(kind: &Type) -> String {
    match kind {
        Type::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
        Type::List(item) => format!("list<{}>", type_name(&item.data_type)),
        Type::Map { key, value } => {
            format!(
                "map<{}, {}>",
                type_name(&key.data_type),
                type_name(&value.data_type)
            )
        }
        Type::Struct(_) => "struct".to_owned(),
        Type::Fixed(length) => format!("fixed({length})"),
        Type::Unknown(name) => name.clone(),
        plain => serde_json::to_value(plain)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default(),
    }
}
