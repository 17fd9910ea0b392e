//! Tags: movable names of versions.

use axum::extract::{RawPathParams, State};

use super::Api;
use super::error::ApiError;
use super::extract::{Dataset, Json, param};
use super::wire::{ErrorBody, Removal, TagItem, TagRequest};
use crate::{Selector, TagName, VersionRef};

/// Lets a tag name a version from now on.
#[utoipa::path(put, path = "/api/v1/datasets/{dataset}/tags/{tag}", tag = "versions",
    operation_id = "set_tag", request_body = TagRequest,
    params(("dataset" = String, Path, description = "namespace.table"),
        ("tag" = String, Path, description = "a letter, then letters, digits, '_', '.' or '-'")),
    responses((status = 200, body = TagItem,
        description = "The tag and what it names now"), (status = "default", body = ErrorBody)))]
pub(super) async fn set(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Json(request): Json<TagRequest>,
) -> Result<Json<TagItem>, ApiError> {
    let tag: TagName = param(&params, "tag")?;
    let number = VersionRef::Number(request.version);
    let version = api.ledger().resolve(&Selector::new(name, number)).await?;
    api.ledger().tag(&version, &tag, None).await?;
    Ok(Json(TagItem {
        tag: tag.to_string(),
        version: request.version,
    }))
}

/// Removes a tag; the version stays. Removing one that is not there is no error.
#[utoipa::path(delete, path = "/api/v1/datasets/{dataset}/tags/{tag}", tag = "versions",
    operation_id = "remove_tag",
    params(("dataset" = String, Path, description = "namespace.table"),
        ("tag" = String, Path, description = "The tag")),
    responses((status = 200, body = Removal,
        description = "There is no such tag any more"), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
) -> Result<Json<Removal>, ApiError> {
    let tag: TagName = param(&params, "tag")?;
    api.ledger().untag(&name, &tag).await?;
    Ok(Json(Removal {
        state: "removed".to_owned(),
        not_before_ms: None,
    }))
}
