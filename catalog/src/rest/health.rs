//! Whether the server lives, can serve, and what it counts.

use axum::extract::State;
use axum::http::{HeaderName, header};

use super::Api;
use super::error::ApiError;
use super::extract::Json;
use super::wire::Health;

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "server",
    responses((status = 200, body = Health,
        description = "It answers"), (status = "default", body = super::wire::ErrorBody)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The catalog's database answers, so requests can be served.
#[utoipa::path(get, path = "/readyz", tag = "server",
    responses((status = 200, body = Health,
        description = "It can serve"), (status = "default", body = super::wire::ErrorBody)))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Json<Health>, ApiError> {
    // The cheapest question that only the database can answer.
    api.ledger().names(None, None, 1).await?;
    Ok(healthz().await)
}

/// Counters in the text format of OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, content_type = "application/openmetrics-text", body = String,
        description = "The counters"),
        (status = "default", body = super::wire::ErrorBody)))]
pub(super) async fn metrics(
    State(api): State<Api>,
) -> Result<([(HeaderName, &'static str); 1], String), ApiError> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let now_ms = super::now_ms();
    let nodes = api.parts.nodes.presence(now_ms).await.fresh(now_ms);
    let text = api.metrics.render(super::maintain::totals(&api), nodes);
    let text = text.map_err(|error| ApiError::internal(format!("render the counters: {error}")))?;
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
