//! Versions: listed, resolved, compared, and their files page by page.

use axum::extract::{RawPathParams, State};
use axum::response::Response;
use serde_json::Value;

use super::Api;
use super::compare::{self, Cursor};
use super::error::ApiError;
use super::extract::{Dataset, Json, Query, page, param};
use super::policy::Caller;
use super::wire::{
    Column, DiffPage, DiffQuery, DirectoryPage, DirectoryQuery, ErrorBody, FileItem, FilePage,
    FileQuery, NameQuery, PartitionItem, PartitionPage, RemovalPlan, RemoveQuery, ResolveQuery,
    SqlDetail, VersionDetail, VersionPage, VersionQuery, VersionSummary,
};
use crate::access::Scope;
use crate::iceberg::{self, LeftOut, Refused};
use crate::ledger::{LedgerError, Version, VersionState};
use crate::manifest::{DirectoryEntry, FileEntry, Manifest};
use crate::{DatasetName, Selector, VersionRef};

/// Usual and greatest page of versions and of partitions.
const VERSIONS: (usize, usize) = (100, 1000);

/// Usual and greatest page of files.
const FILES: (usize, usize) = (1000, 10_000);

/// The versions of a dataset, the newest first.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions", tag = "versions",
    operation_id = "list_versions",
    params(("dataset" = String, Path, description = "namespace.table"), VersionQuery),
    responses((status = 200, body = VersionPage,
        description = "A page of versions, the newest first"), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    Dataset(name): Dataset,
    Query(query): Query<VersionQuery>,
) -> Result<Json<VersionPage>, ApiError> {
    let limit = page(query.limit, VERSIONS.0, VERSIONS.1)?;
    let before = match query.before {
        Some(before) => before,
        None => match resolve_latest(&api, &name).await? {
            Some(latest) => latest.number.saturating_add(1),
            None => 1,
        },
    };
    // Numbers are dense but for removed versions, so a window of numbers is a page.
    let behind = before.saturating_sub(limit as u64).saturating_sub(1);
    let found = api.ledger().versions(&name, behind, limit).await?;
    let inside = found.iter().rev().filter(|version| version.number < before);
    let items = inside.map(|version| summary(&name, version)).collect();
    let next = (behind > 0).then_some(behind + 1);
    Ok(Json(VersionPage { items, next }))
}

/// One version: `v12`, `12`, a tag, a day or `latest`.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}", tag = "versions",
    operation_id = "show_version",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day such as 2026-11-20, or latest")),
    responses((status = 200, body = VersionDetail,
        description = "The version"), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
) -> Result<Json<VersionDetail>, ApiError> {
    let version = of_path(&api, name.clone(), &params).await?;
    let manifest = open(&api, &version).await?;
    let mut shown = detail(&name, &version, &manifest);
    shown.sql = Some(sql(&api, &version, &manifest).await?);
    Ok(Json(shown))
}

/// Removes a version, in two steps as a dataset. Refused for the latest, a tagged and a held one.
#[utoipa::path(delete, path = "/api/v1/datasets/{dataset}/versions/{version}", tag = "versions",
    operation_id = "remove_version",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12 or 12"), RemoveQuery),
    responses((status = 200, body = RemovalPlan,
        description = "It is removed, or kept"), (status = 202, body = RemovalPlan,
        description = "It is marked; a call after the time in the answer removes it"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Query(query): Query<RemoveQuery>,
) -> Result<Response, ApiError> {
    let version = of_path(&api, name, &params).await?;
    super::removal::version(api.ledger(), &version, &query).await
}

/// The version that a selector means now.
#[utoipa::path(get, path = "/api/v1/resolve", tag = "versions", params(ResolveQuery),
    responses((status = 200, body = VersionDetail,
        description = "The version that is meant now"), (status = "default", body = ErrorBody)))]
pub(super) async fn resolve(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ResolveQuery>,
) -> Result<Json<VersionDetail>, ApiError> {
    let selector: Selector = query.selector.parse()?;
    caller.require(Scope::List, selector.dataset().namespace())?;
    let version = api.ledger().resolve(&selector).await?;
    let manifest = open(&api, &version).await?;
    Ok(Json(detail(selector.dataset(), &version, &manifest)))
}

/// The files of a version, in the order of their paths.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}/files", tag = "versions",
    operation_id = "list_files",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day or latest"), FileQuery),
    responses((status = 200, body = FilePage,
        description = "A page of files, in the order of their paths"), (status = "default", body = ErrorBody)))]
pub(super) async fn files(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Query(query): Query<FileQuery>,
) -> Result<Json<FilePage>, ApiError> {
    let limit = page(query.limit, FILES.0, FILES.1)?;
    let version = of_path(&api, name, &params).await?;
    let manifest = open(&api, &version).await?;
    let prefix = query.prefix.unwrap_or_default();
    let found = manifest
        .files(&prefix, query.after.as_deref(), limit)
        .await?;
    let full = found.len() == limit;
    let items: Vec<FileItem> = found.into_iter().map(file).collect();
    let next = items.last().filter(|_| full).map(|item| item.path.clone());
    let version = version.number;
    Ok(Json(FilePage {
        version,
        items,
        next,
    }))
}

/// One directory of a version: its files and directories, without what is below them.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}/directory",
    tag = "versions", operation_id = "list_directory",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day or latest"), DirectoryQuery),
    responses((status = 200, body = DirectoryPage,
        description = "A page of the directory"), (status = "default", body = ErrorBody)))]
pub(super) async fn directory(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Query(query): Query<DirectoryQuery>,
) -> Result<Json<DirectoryPage>, ApiError> {
    let limit = page(query.limit, VERSIONS.0, VERSIONS.1)?;
    let version = of_path(&api, name, &params).await?;
    let manifest = open(&api, &version).await?;
    let directory = query.path.unwrap_or_default();
    let after = match query.after.as_deref() {
        None => None,
        Some(after) => Some(entry_of(&manifest, &directory, after).await?),
    };
    let found = manifest
        .directory(&directory, after.as_ref(), limit)
        .await?;
    let full = found.len() == limit;
    let mut page = DirectoryPage {
        version: version.number,
        directories: Vec::new(),
        files: Vec::new(),
        next: None,
    };
    if full {
        page.next = found.last().map(|entry| match entry {
            DirectoryEntry::Directory(name) => format!("{name}/"),
            DirectoryEntry::File(file) => base(&file.path).to_owned(),
        });
    }
    for entry in found {
        match entry {
            DirectoryEntry::Directory(name) => page.directories.push(name.to_string()),
            DirectoryEntry::File(found) => page.files.push(file(found)),
        }
    }
    Ok(Json(page))
}

/// The partitions of a version, in the order of their files' paths.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}/partitions",
    tag = "versions", operation_id = "list_partitions",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day or latest"), NameQuery),
    responses((status = 200, body = PartitionPage,
        description = "A page of partitions"), (status = "default", body = ErrorBody)))]
pub(super) async fn partitions(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Query(query): Query<NameQuery>,
) -> Result<Json<PartitionPage>, ApiError> {
    let limit = page(query.limit, VERSIONS.0, VERSIONS.1)?;
    let version = of_path(&api, name, &params).await?;
    let manifest = open(&api, &version).await?;
    let found = manifest.partitions(query.after.as_deref(), limit).await?;
    let full = found.len() == limit;
    let items: Vec<PartitionItem> = found
        .iter()
        .map(|partition| PartitionItem {
            path: partition.path.to_string(),
            files: partition.files,
            bytes: partition.bytes,
            rows: partition.rows,
        })
        .collect();
    let next = items.last().filter(|_| full).map(|item| item.path.clone());
    let version = version.number;
    Ok(Json(PartitionPage {
        version,
        items,
        next,
    }))
}

/// The files that differ between two versions.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/diff", tag = "versions",
    operation_id = "diff_versions",
    params(("dataset" = String, Path, description = "namespace.table"), DiffQuery),
    responses((status = 200, body = DiffPage,
        description = "A page of files that differ"), (status = "default", body = ErrorBody)))]
pub(super) async fn diff(
    State(api): State<Api>,
    Dataset(name): Dataset,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffPage>, ApiError> {
    let limit = page(query.limit, FILES.0, FILES.1)?;
    let cursor = query.after.as_deref().map(Cursor::parse).transpose()?;
    let from = version(&api, name.clone(), &query.from).await?;
    let to = query.to.as_deref().unwrap_or("latest");
    let to = version(&api, name, to).await?;
    let (old, new) = (open(&api, &from).await?, open(&api, &to).await?);
    let (items, next) = compare::page(&old, &new, cursor, limit).await?;
    Ok(Json(DiffPage {
        from: from.number,
        to: to.number,
        items,
        next: next.map(|cursor| cursor.text()),
    }))
}

/// The latest version; none before the first.
pub(super) async fn resolve_latest(
    api: &Api,
    name: &DatasetName,
) -> Result<Option<Version>, ApiError> {
    let selector = Selector::new(name.clone(), VersionRef::Latest);
    match api.ledger().resolve(&selector).await {
        Ok(version) => Ok(Some(version)),
        Err(LedgerError::NoVersion(..)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The version that the route's `{version}` means.
pub(super) async fn of_path(
    api: &Api,
    name: DatasetName,
    params: &RawPathParams,
) -> Result<Version, ApiError> {
    let text: String = param(params, "version")?;
    version(api, name, &text).await
}

/// The version that a text means: what may follow `@`, or a bare number.
async fn version(api: &Api, name: DatasetName, text: &str) -> Result<Version, ApiError> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    let wanted: VersionRef = match number {
        true => format!("v{text}").parse()?,
        false => text.parse()?,
    };
    Ok(api.ledger().resolve(&Selector::new(name, wanted)).await?)
}

pub(super) async fn open(api: &Api, version: &Version) -> Result<Manifest, ApiError> {
    Ok(Manifest::open(api.ledger().blobs(), &version.manifest).await?)
}

/// The entry of a directory that a page ended with: a directory has a `/` behind its name.
async fn entry_of(
    manifest: &Manifest,
    directory: &str,
    text: &str,
) -> Result<DirectoryEntry, ApiError> {
    if let Some(name) = text.strip_suffix('/') {
        return Ok(DirectoryEntry::Directory(name.into()));
    }
    let path = match directory {
        "" => text.to_owned(),
        directory => format!("{directory}/{text}"),
    };
    let found = manifest.file(&path).await?;
    let found = found.ok_or_else(|| ApiError::not_found("after is no name in this directory"))?;
    Ok(DirectoryEntry::File(found))
}

fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A version as lists show it.
pub(super) fn summary(name: &DatasetName, version: &Version) -> VersionSummary {
    let (state, reason) = match &version.state {
        VersionState::Committed => ("committed", None),
        VersionState::Degraded { reason, .. } => ("degraded", Some(reason.to_string())),
        VersionState::Removing { .. } => ("removing", None),
    };
    VersionSummary {
        dataset: name.to_string(),
        version: version.number,
        selector: format!("{name}@v{}", version.number),
        committed_ms: version.created_ms,
        manifest: version.manifest.to_string(),
        cause: version.cause.to_string(),
        state: state.to_owned(),
        reason,
        partitions: version.totals.partitions,
        files: version.totals.files,
        bytes: version.totals.bytes,
        rows: version.totals.rows,
    }
}

/// A version with what its manifest says.
fn detail(name: &DatasetName, version: &Version, manifest: &Manifest) -> VersionDetail {
    let header = manifest.header();
    // Written by schema inference as JSON; a text of somebody else is shown as a text.
    let schema = header.schema.as_deref().map(|schema| {
        serde_json::from_str(schema).unwrap_or_else(|_| Value::String(schema.to_owned()))
    });
    VersionDetail {
        summary: summary(name, version),
        location: header.location.to_string(),
        format: header.format.to_string(),
        schema,
        partition_columns: header
            .columns
            .iter()
            .map(|(name, kind)| Column {
                name: name.to_string(),
                kind: kind.to_string(),
            })
            .collect(),
        sql: None,
    }
}

/// What SQL engines see of a version.
async fn sql(api: &Api, version: &Version, manifest: &Manifest) -> Result<SqlDetail, ApiError> {
    let served = iceberg::check_served(api.ledger(), version).await;
    let checked = served.and_then(|()| iceberg::check(version, manifest.header()));
    let (reason, left_out) = match checked {
        Ok(()) => (None, iceberg::left_out(manifest).await?),
        Err(refused @ Refused::NoTable { .. }) => (Some(refused.to_string()), LeftOut::default()),
        Err(error) => return Err(error.into()),
    };
    Ok(SqlDetail {
        reason,
        partitions_left_out: left_out.partitions,
        files_left_out: left_out.files,
        example: left_out.example,
    })
}

fn file(found: FileEntry) -> FileItem {
    FileItem {
        path: found.path.to_string(),
        size: found.size,
        mtime_ms: found.mtime_ms,
        token: found.token.to_string(),
        rows: found.rows,
    }
}
