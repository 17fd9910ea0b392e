//! Namespaces, which have one level here.

use std::collections::BTreeMap;

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::tables::prefix;
use crate::rest::Api;
use crate::rest::datasets::visible_namespaces;
use crate::rest::error::ApiError;
use crate::rest::extract::{Json, Query, namespace};
use crate::rest::policy::Caller;
use crate::rest::wire::{IcebergError, IcebergNamespace, IcebergNamespaces};

/// Namespaces that are read at a time.
const PAGE: usize = 1000;

/// Which namespaces.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Those below this one, of which there are none.
    parent: Option<String>,
}

/// The namespaces whose tables the caller may list.
#[utoipa::path(get, path = "/iceberg/v1/{prefix}/namespaces", tag = "iceberg",
    operation_id = "iceberg_list_namespaces",
    params(("prefix" = String, Path, description = "As the configuration said"), ListQuery),
    responses((status = 200, body = IcebergNamespaces,
        description = "The namespaces"), (status = "default", body = IcebergError)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    params: RawPathParams,
    Query(query): Query<ListQuery>,
) -> Result<Json<IcebergNamespaces>, ApiError> {
    prefix(&params)?;
    let mut all: Vec<Vec<String>> = Vec::new();
    if query.parent.is_none_or(|parent| parent.is_empty()) {
        let mut after: Option<String> = None;
        loop {
            let page = visible_namespaces(&api, &caller, after.as_deref(), PAGE).await?;
            after = page.last().cloned();
            let full = page.len() == PAGE;
            all.extend(page.into_iter().map(|namespace| vec![namespace]));
            if !full {
                break;
            }
        }
    }
    Ok(Json(IcebergNamespaces { namespaces: all }))
}

/// One namespace.
#[utoipa::path(get, path = "/iceberg/v1/{prefix}/namespaces/{namespace}", tag = "iceberg",
    operation_id = "iceberg_show_namespace",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its name")),
    responses((status = 200, body = IcebergNamespace,
        description = "The namespace"), (status = "default", body = IcebergError)))]
pub(super) async fn show(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<Json<IcebergNamespace>, ApiError> {
    let name = found(&api, &params).await?;
    Ok(Json(IcebergNamespace {
        namespace: vec![name],
        properties: BTreeMap::new(),
    }))
}

/// Whether there is such a namespace.
#[utoipa::path(head, path = "/iceberg/v1/{prefix}/namespaces/{namespace}", tag = "iceberg",
    operation_id = "iceberg_namespace_exists",
    params(("prefix" = String, Path, description = "As the configuration said"),
        ("namespace" = String, Path, description = "Its name")),
    responses((status = 204, description = "There is"), (status = "default", body = IcebergError)))]
pub(super) async fn exists(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<StatusCode, ApiError> {
    found(&api, &params).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The route's namespace, if something is in it.
async fn found(api: &Api, params: &RawPathParams) -> Result<String, ApiError> {
    prefix(params)?;
    let name = namespace(params)?;
    let first = api.ledger().names(Some(&name), None, 1).await?;
    match first.is_empty() {
        true => Err(ApiError::not_found(format!("there is no namespace {name}"))),
        false => Ok(name),
    }
}
