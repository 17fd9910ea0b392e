//! Tokens: made, listed and revoked over HTTP, by whoever has admin over every namespace.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::error::ApiError;
use super::extract::{Json, param, with_status};
use super::wire::{ErrorBody, IssuedToken, NewToken, TokenEntry, TokenList};
use super::{Api, now_ms};
use crate::access::{Grants, TokenId, TokenInfo, TokenRequest};

/// Longest life of a token, in seconds: 100 years, which no clock is asked about.
const MAX_LIFE: u64 = 3_155_760_000;

/// Every token, without its secret.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    operation_id = "list_tokens",
    responses((status = 200, body = TokenList,
        description = "Every token, without its secret"), (status = "default", body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<TokenList>, ApiError> {
    let mut items: Vec<TokenEntry> = api.access().list().await?.iter().map(entry).collect();
    items.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Json(TokenList { items }))
}

/// Makes a token. The answer is the only place where its secret ever appears.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access",
    operation_id = "create_token", request_body = NewToken,
    responses((status = 201, body = IssuedToken,
        description = "The token; its secret is nowhere else"), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Json(new): Json<NewToken>,
) -> Result<Response, ApiError> {
    let now = now_ms();
    let grants = Grants::parse(&new.grants);
    let request = TokenRequest {
        name: new.name,
        grants: grants.map_err(|error| ApiError::invalid(error.to_string()))?,
        expires_ms: new
            .expires_seconds
            .map(|seconds| end(seconds, now))
            .transpose()?,
    };
    let (token, info) = api.access().issue(request, now).await?;
    let issued = IssuedToken {
        token: token.reveal(),
        entry: entry(&info),
    };
    Ok(with_status(StatusCode::CREATED, issued))
}

/// Ends a token with the next request that uses it.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access",
    operation_id = "revoke_token",
    params(("id" = String, Path, pattern = "^[0-9a-f]{12}$",
        description = "As the list names it: 12 hexadecimal digits")),
    responses((status = 200, body = TokenEntry,
        description = "The token that has ended"), (status = "default", body = ErrorBody)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    params: RawPathParams,
) -> Result<Json<TokenEntry>, ApiError> {
    let id: TokenId = param(&params, "id")?;
    let info = api.access().revoke(&id).await?;
    Ok(Json(entry(&info)))
}

/// When a token ends that lives for so long from now.
fn end(seconds: u64, now_ms: i64) -> Result<i64, ApiError> {
    if seconds > MAX_LIFE {
        let message = format!("expires_seconds is {seconds}, and may be 1 to {MAX_LIFE}");
        return Err(ApiError::invalid(message));
    }
    Ok(now_ms.saturating_add(seconds.cast_signed() * 1000))
}

fn entry(info: &TokenInfo) -> TokenEntry {
    TokenEntry {
        id: info.id.to_string(),
        name: info.name.clone(),
        grants: info.grants.texts(),
        created_ms: info.created_ms,
        expires_ms: info.expires_ms,
    }
}
