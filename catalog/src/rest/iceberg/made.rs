//! The files that metadata points to, made from a version: for mounts, and for engines that read HTTP.

use axum::extract::{RawPathParams, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::own_address;
use crate::iceberg;
use crate::rest::Api;
use crate::rest::error::ApiError;
use crate::rest::extract::{Dataset, param};
use crate::rest::versions::of_path;
use crate::rest::wire::ErrorBody;

/// A file of a version in a warehouse of SQL engines: `WAREHOUSE.metadata.json`,
/// `WAREHOUSE.snap.avro`, `WAREHOUSE.m-0.avro` and so on. Its bytes never change.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/versions/{version}/iceberg/{file}",
    tag = "iceberg", operation_id = "iceberg_file",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("version" = String, Path, description = "v12, 12, a tag, a day or latest"),
        ("file" = String, Path, description = "As metadata names it")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>,
        description = "The file"),
        (status = "default", body = ErrorBody)))]
pub(in crate::rest) async fn made(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file: String = param(&params, "file")?;
    let version = of_path(&api, name, &params).await?;
    let catalog = own_address(&headers)?;
    let bytes = iceberg::made(api.ledger(), &api.remembered, &version, &file, &catalog);
    let bytes = bytes.await?;
    let absent = || ApiError::not_found(format!("version {} has no such file", version.number));
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes.ok_or_else(absent)?).into_response())
}
