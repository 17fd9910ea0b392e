//! Tables: listed, loaded, and what engines report about their scans.

use std::collections::BTreeMap;

use axum::extract::{RawPathParams, State};
use axum::http::{HeaderMap, StatusCode};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::own_address;
use crate::DatasetName;
use crate::descriptor::Kind;
use crate::iceberg::{Place, Refused, Table, Warehouse, WarehouseError, is_table};
use crate::ledger::{DatasetId, Ledger, LedgerError, Tabular};
use crate::rest::Api;
use crate::rest::error::ApiError;
use crate::rest::extract::{Json, Query, namespace, param, table};
use crate::rest::wire::{IcebergError, IcebergTable, IcebergTableName, IcebergTables};

/// Names that are read at a time.
const PAGE: usize = 1000;

/// Datasets that are looked into at a time, where the database alone does not say what they are.
const LOOKUPS: usize = 16;

/// Which of a table's snapshots.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LoadQuery {
    /// `all`, or `refs`: those that a branch or a tag names.
    snapshots: Option<String>,
}

impl From<Refused> for ApiError {
    fn from(error: Refused) -> Self {
        match error {
            Refused::NoTable { .. } => Self::not_found(error.to_string()),
            Refused::Ledger(error) => error.into(),
        }
    }
}

/// The warehouse of the route.
pub(super) fn prefix(params: &RawPathParams) -> Result<Warehouse, ApiError> {
    let text: String = param(params, "prefix")?;
    let refused = |error: WarehouseError| ApiError::invalid(error.to_string());
    text.parse().map_err(refused)
}

/// The tables of a namespace: its datasets of Parquet files.
#[utoipa::path(get, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables", tag = "iceberg",
    operation_id = "iceberg_list_tables",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Their namespace")),
    responses((status = 200, body = IcebergTables,
        description = "The tables"), (status = "default", body = IcebergError)))]
pub(super) async fn list(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<Json<IcebergTables>, ApiError> {
    prefix(&params)?;
    let namespace = namespace(&params)?;
    let mut tables = Vec::new();
    let (mut after, mut any): (Option<DatasetName>, bool) = (None, false);
    loop {
        let found = api.ledger().names(Some(&namespace), after.as_ref(), PAGE);
        let found = found.await?;
        let Some((last, ..)) = found.last() else {
            break;
        };
        after = Some(last.clone());
        any = true;
        let datasets = found
            .into_iter()
            .filter(|(_, _, kind)| *kind == Kind::Dataset);
        let (names, ids): (Vec<DatasetName>, Vec<DatasetId>) =
            datasets.map(|(name, id, _)| (name, id)).unzip();
        let told = api.ledger().tabular(&ids).await?;
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let judged: Vec<BoxFuture<'_, Result<Option<DatasetName>, LedgerError>>> = names
            .into_iter()
            .zip(told)
            .map(|(name, told)| judge(api.ledger(), name, told).boxed())
            .collect();
        let judged = stream::iter(judged).buffered(LOOKUPS);
        let judged: Vec<Option<DatasetName>> = judged.try_collect().await?;
        tables.extend(judged.into_iter().flatten().map(|name| IcebergTableName {
            namespace: vec![name.namespace().to_owned()],
            name: name.table().to_owned(),
        }));
    }
    if !any {
        let message = format!("there is no namespace {namespace}");
        return Err(ApiError::not_found(message));
    }
    Ok(Json(IcebergTables {
        identifiers: tables,
    }))
}

/// The name, if it is a table's.
async fn judge(
    ledger: &Ledger,
    name: DatasetName,
    told: Tabular,
) -> Result<Option<DatasetName>, LedgerError> {
    let is_table = match told {
        Tabular::Yes => true,
        Tabular::No => false,
        Tabular::Unknown => is_table(ledger, &name).await?,
    };
    Ok(is_table.then_some(name))
}

/// A table with its metadata: `clicks`, or one version of it: `clicks@v3`.
#[utoipa::path(get, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}",
    tag = "iceberg", operation_id = "iceberg_load_table",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name, and @v12, @tag or @2026-11-20"),
        LoadQuery),
    responses((status = 200, body = IcebergTable,
        description = "The table and its metadata"), (status = "default", body = IcebergError)))]
pub(super) async fn load(
    State(api): State<Api>,
    params: RawPathParams,
    headers: HeaderMap,
    Query(query): Query<LoadQuery>,
) -> Result<Json<IcebergTable>, ApiError> {
    let place = Place {
        warehouse: prefix(&params)?,
        catalog: own_address(&headers)?,
    };
    let mut loaded = Table::load(api.ledger(), &table(&params)?, place).await?;
    if query.snapshots.as_deref() == Some("refs") {
        loaded.keep_referenced();
    }
    Ok(Json(IcebergTable {
        metadata_location: loaded.metadata_location(),
        metadata: loaded.metadata(),
        // Empty on purpose: settings of a store would make engines open one for files of a mount.
        config: BTreeMap::new(),
    }))
}

/// Whether there is such a table.
#[utoipa::path(head, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}",
    tag = "iceberg", operation_id = "iceberg_table_exists",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name, and @v12, @tag or @2026-11-20")),
    responses((status = 204, description = "There is"), (status = "default", body = IcebergError)))]
pub(super) async fn exists(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<StatusCode, ApiError> {
    prefix(&params)?;
    let selector = table(&params)?;
    Table::check(api.ledger(), &selector).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes what an engine reports about a scan, and counts it.
#[utoipa::path(post, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
    tag = "iceberg", operation_id = "iceberg_report", request_body = BTreeMap<String, Value>,
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name")),
    responses((status = 204, description = "Counted"), (status = "default", body = IcebergError)))]
pub(super) async fn report(
    State(api): State<Api>,
    params: RawPathParams,
    Json(report): Json<BTreeMap<String, Value>>,
) -> Result<StatusCode, ApiError> {
    prefix(&params)?;
    let selector = table(&params)?;
    api.metrics.scan();
    let (kind, snapshot) = (report.get("report-type"), report.get("snapshot-id"));
    tracing::debug!(dataset = %selector.dataset(), ?kind, ?snapshot, "an engine reports");
    Ok(StatusCode::NO_CONTENT)
}
