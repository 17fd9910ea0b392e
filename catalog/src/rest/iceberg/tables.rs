//! Tables: listed, loaded, and what engines report about their scans.

use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::own_address;
use crate::DatasetName;
use crate::descriptor::Kind;
use crate::iceberg::{Place, Refused, Table, Warehouse, WarehouseError, is_table};
use crate::ledger::LedgerError;
use crate::rest::Api;
use crate::rest::error::ApiError;
use crate::rest::extract::{Json, Query, body, namespace, param, table};

/// Names that are read at a time.
const PAGE: usize = 1000;

/// Datasets that are looked into at a time.
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
    responses((status = 200, body = Value,
        description = "The tables"), (status = "default", body = Value)))]
pub(super) async fn list(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<Json<Value>, ApiError> {
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
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let judged: Vec<BoxFuture<'_, Result<Option<DatasetName>, LedgerError>>> = datasets
            .map(|(name, ..)| {
                let ledger = api.ledger();
                async move { Ok(is_table(ledger, &name).await?.then_some(name)) }.boxed()
            })
            .collect();
        let judged = stream::iter(judged).buffered(LOOKUPS);
        let judged: Vec<Option<DatasetName>> = judged.try_collect().await?;
        tables.extend(
            judged
                .into_iter()
                .flatten()
                .map(|name| json!({"namespace": [name.namespace()], "name": name.table()})),
        );
    }
    if !any {
        let message = format!("there is no namespace {namespace}");
        return Err(ApiError::not_found(message));
    }
    Ok(Json(json!({"identifiers": tables})))
}

/// A table with its metadata: `clicks`, or one version of it: `clicks@v3`.
#[utoipa::path(get, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}",
    tag = "iceberg", operation_id = "iceberg_load_table",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name, and @v12, @tag or @2026-11-20"),
        LoadQuery),
    responses((status = 200, body = Value,
        description = "The table and its metadata"), (status = "default", body = Value)))]
pub(super) async fn load(
    State(api): State<Api>,
    params: RawPathParams,
    headers: HeaderMap,
    Query(query): Query<LoadQuery>,
) -> Result<Json<Value>, ApiError> {
    let place = Place {
        warehouse: prefix(&params)?,
        catalog: own_address(&headers)?,
    };
    let mut loaded = Table::load(api.ledger(), &table(&params)?, place).await?;
    if query.snapshots.as_deref() == Some("refs") {
        loaded.keep_referenced();
    }
    Ok(Json(json!({
        "metadata-location": loaded.metadata_location(),
        "metadata": loaded.metadata(),
        // Empty on purpose: settings of a store would make engines open one for files of a mount.
        "config": {},
    })))
}

/// Whether there is such a table.
#[utoipa::path(head, path = "/iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}",
    tag = "iceberg", operation_id = "iceberg_table_exists",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name, and @v12, @tag or @2026-11-20")),
    responses((status = 204, description = "There is"), (status = "default", body = Value)))]
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
    tag = "iceberg", operation_id = "iceberg_report", request_body = Value,
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its namespace"),
        ("table" = String, Path, description = "Its name")),
    responses((status = 204, description = "Counted"), (status = "default", body = Value)))]
pub(super) async fn report(
    State(api): State<Api>,
    params: RawPathParams,
    request: Request,
) -> Result<StatusCode, ApiError> {
    prefix(&params)?;
    let selector = table(&params)?;
    let report: Result<Value, _> = serde_json::from_slice(&body(request).await?);
    let refused = |error| ApiError::invalid(format!("the report is no JSON: {error}"));
    let report = report.map_err(refused)?;
    api.metrics.scan();
    let (kind, snapshot) = (&report["report-type"], &report["snapshot-id"]);
    tracing::debug!(dataset = %selector.dataset(), %kind, %snapshot, "an engine reports");
    Ok(StatusCode::NO_CONTENT)
}
