//! The Iceberg REST catalog, read only: tables of Parquet files by name, for SQL engines.
//!
//! ```text
//! GET        /iceberg/v1/config?warehouse=                            which prefix to ask under
//! GET        /iceberg/v1/{prefix}/namespaces
//! GET, HEAD  /iceberg/v1/{prefix}/namespaces/{namespace}
//! GET        /iceberg/v1/{prefix}/namespaces/{namespace}/tables
//! GET, HEAD  /iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}
//! POST       /iceberg/v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics
//! ```
//!
//! The prefix is the token of a warehouse (`iceberg::Warehouse`). Lists ask for the scope `list`, tables
//! for `read`. Errors have the shape of that protocol ([`shape`]), whoever makes them. What metadata
//! points to is made by [`made()`], a route of the catalog's own interface.
//!
//! Source: the REST catalog of the Iceberg project (`rest-catalog-open-api.yaml`).

mod config;
mod made;
mod namespaces;
mod shape;
mod tables;

use axum::http::{HeaderMap, header};
use axum::middleware;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::error::ApiError;
use super::policy::{Policy, guard};
use crate::access::Scope;
pub(super) use made::{__path_made, made};

/// Its routes.
pub(super) fn router(api: &Api) -> OpenApiRouter<Api> {
    let (list, read) = (
        Policy::Namespace(Scope::List),
        Policy::Namespace(Scope::Read),
    );
    let any = Policy::Some(Scope::List);
    OpenApiRouter::new()
        .routes(guard(api, any, routes!(config::config)))
        .routes(guard(api, any, routes!(namespaces::list)))
        .routes(guard(
            api,
            list,
            routes!(namespaces::show, namespaces::exists),
        ))
        .routes(guard(api, list, routes!(tables::list)))
        .routes(guard(api, read, routes!(tables::load, tables::exists)))
        .routes(guard(api, read, routes!(tables::report)))
        .layer(middleware::from_fn(shape::errors))
}

/// The address of this catalog as the client wrote it: metadata points back to here.
fn own_address(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    if host.is_empty() || !host.bytes().all(good) {
        return Err(ApiError::invalid("the Host header names no host"));
    }
    // What ends TLS before this server says so in this header.
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    Ok(format!("{scheme}://{host}"))
}
