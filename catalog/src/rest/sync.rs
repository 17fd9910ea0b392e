//! Discovery over HTTP: roots, why a table is not published, and the call of a sync system.

use std::sync::Arc;

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Api;
use super::error::ApiError;
use super::extract::{Dataset, Json, Query, param, with_status};
use super::wire::{ErrorBody, NewRoot, Published, Removal, RootList, RootQuery};
use crate::discovery::{BatchError, BatchRequest, RootSpec, Why};
use crate::ledger::{BatchId, Committed};
use crate::roots::{Roots, RootsError};

/// The places that are watched for tables.
#[utoipa::path(get, path = "/api/v1/roots", tag = "sync", operation_id = "list_roots",
    responses((status = 200, body = RootList,
        description = "Every place that is watched, and how it goes there"), (status = "default", body = ErrorBody)))]
pub(super) async fn roots(State(api): State<Api>) -> Result<Json<RootList>, ApiError> {
    let status = roots_of(&api)?.status();
    let items = status.iter().map(serde_json::to_value);
    let items = items.collect::<Result<_, _>>();
    let items = items.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Json(RootList { items }))
}

/// Watches a place from now on: tables that are complete there become datasets.
#[utoipa::path(post, path = "/api/v1/roots", tag = "sync", operation_id = "add_root",
    request_body = NewRoot,
    responses((status = 201, body = NewRoot,
        description = "It is watched"), (status = "default", body = ErrorBody)))]
pub(super) async fn add_root(
    State(api): State<Api>,
    Json(new): Json<NewRoot>,
) -> Result<Response, ApiError> {
    let spec = match new.spec.clone() {
        None => RootSpec::default(),
        Some(spec) => serde_json::from_value(spec)
            .map_err(|error| ApiError::invalid(format!("spec: {error}")))?,
    };
    roots_of(&api)?.add(&new.url, spec).await?;
    Ok(with_status(StatusCode::CREATED, new))
}

/// Watches a place no more. What was published from it stays.
#[utoipa::path(delete, path = "/api/v1/roots", tag = "sync", operation_id = "remove_root",
    params(RootQuery),
    responses((status = 200, body = Removal,
        description = "It is watched no more"), (status = "default", body = ErrorBody)))]
pub(super) async fn remove_root(
    State(api): State<Api>,
    Query(query): Query<RootQuery>,
) -> Result<Json<Removal>, ApiError> {
    roots_of(&api)?.remove(&query.url).await?;
    Ok(Json(Removal {
        state: "removed".to_owned(),
        not_before_ms: None,
    }))
}

/// Why a table is published as it is, or is not.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/sync", tag = "sync",
    operation_id = "why",
    params(("dataset" = String, Path, description = "namespace.table")),
    responses((status = 200, body = serde_json::Value,
        description = "Each partition with its state, the reason, and since when"), (status = "default", body = ErrorBody)))]
pub(super) async fn why(
    State(api): State<Api>,
    Dataset(name): Dataset,
) -> Result<Json<Why>, ApiError> {
    let roots = roots_of(&api)?;
    if let Some(why) = roots.discovery().why(&name) {
        return Ok(Json(why));
    }
    // A root that cannot be opened has shown no table: what is registered says where each lies.
    if let Ok(dataset) = api.ledger().dataset(&name).await
        && let Some(trouble) = roots.trouble_at(&dataset.descriptor.source)
    {
        return Ok(Json(Why {
            dataset: name.to_string(),
            location: dataset.descriptor.source.clone(),
            version: super::versions::resolve_latest(&api, &name)
                .await?
                .map(|version| version.number),
            trouble: Some(trouble),
            ..Why::default()
        }));
    }
    let mut message = format!("no root has a table {name}");
    let closed = roots.not_open();
    if !closed.is_empty() {
        message.push_str(&format!("; not open yet: {}", closed.join(", ")));
    }
    Err(ApiError::not_found(message))
}

/// Says that a batch is written: the sync system's call. Idempotent by its id; 201 makes a version,
/// 200 says that there was nothing new, 422 that the expectations are not met and nothing was
/// published, 409 that a newer batch is published already.
#[utoipa::path(put, path = "/api/v1/datasets/{dataset}/batches/{batch}", tag = "sync",
    operation_id = "publish_batch", request_body = BatchRequest,
    params(("dataset" = String, Path, description = "namespace.table"),
        ("batch" = String, Path, description = "The caller's name of the batch")),
    responses((status = 200, body = Published,
        description = "Nothing new: the version that has it already"), (status = 201, body = Published,
        description = "The version it made"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn batch(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Json(request): Json<BatchRequest>,
) -> Result<Response, ApiError> {
    let id: BatchId = param(&params, "batch")?;
    let committed = roots_of(&api)?
        .discovery()
        .batch(&name, &id, &request)
        .await?;
    let status = match &committed {
        Committed::New(_) => StatusCode::CREATED,
        Committed::Same(_) => StatusCode::OK,
    };
    let version = super::versions::summary(&name, committed.version());
    Ok(with_status(
        status,
        Published {
            version: version.version,
            detail: version,
        },
    ))
}

fn roots_of(api: &Api) -> Result<&Arc<Roots>, ApiError> {
    let absent = || ApiError::not_found("this catalog watches no places");
    api.parts.roots.as_ref().ok_or_else(absent)
}

impl From<RootsError> for ApiError {
    fn from(error: RootsError) -> Self {
        let message = error.to_string();
        match error {
            RootsError::Invalid(_) => Self::invalid(message),
            RootsError::Exists(_) => Self::conflict(message, "remove it first to change it"),
            RootsError::Absent(_) => {
                let hint = "list the roots with GET /api/v1/roots (terrace sync list)";
                Self::new(StatusCode::NOT_FOUND, "not_found", message, hint)
            }
            RootsError::Kv(error) => error.into(),
        }
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let message = error.to_string();
        match error {
            BatchError::Invalid(_) => Self::invalid(message),
            BatchError::Stale(_) => {
                let hint = "a newer batch is published; nothing is to be done";
                Self::new(StatusCode::CONFLICT, "stale", message, hint)
            }
            BatchError::NotMet(_) => {
                let hint = "nothing was published; call again when the files are complete";
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "expectation_not_met",
                    message,
                    hint,
                )
            }
            BatchError::Unavailable(_) => Self::unavailable(message),
        }
    }
}
