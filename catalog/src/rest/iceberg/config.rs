//! What a client asks first: under which prefix, and what it may ask at all.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::iceberg::{Warehouse, WarehouseError};
use crate::rest::Api;
use crate::rest::error::ApiError;
use crate::rest::extract::{Json, Query};
use crate::rest::wire::{IcebergConfig, IcebergError};

/// Every route of this protocol that there is, as clients compare them.
const ENDPOINTS: [&str; 7] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
];

/// Which warehouse.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ConfigQuery {
    /// `file:///MOUNTPOINT`, `store`, or nothing for the mount of `terrace up`.
    warehouse: Option<String>,
}

/// How to go on for a warehouse.
#[utoipa::path(get, path = "/iceberg/v1/config", tag = "iceberg", params(ConfigQuery),
    operation_id = "iceberg_config",
    responses((status = 200, body = IcebergConfig,
        description = "The prefix to go on with, and what may be asked"), (status = "default", body = IcebergError)))]
pub(super) async fn config(
    State(api): State<Api>,
    Query(query): Query<ConfigQuery>,
) -> Result<Json<IcebergConfig>, ApiError> {
    let asked = query.warehouse.as_deref().filter(|asked| !asked.is_empty());
    let asked = match asked {
        Some("mount") | None => api.parts.mount.as_deref(),
        asked => asked,
    };
    let Some(asked) = asked else {
        let message = "no mount of the tables is known here; name the warehouse \
                       file:///MOUNTPOINT, or store";
        return Err(ApiError::invalid(message));
    };
    let refused = |error: WarehouseError| ApiError::invalid(error.to_string());
    let warehouse = Warehouse::asked(asked).map_err(refused)?;
    Ok(Json(IcebergConfig {
        defaults: BTreeMap::new(),
        overrides: BTreeMap::from([("prefix".to_owned(), warehouse.to_string())]),
        endpoints: ENDPOINTS.map(str::to_owned).to_vec(),
    }))
}
