//! `/api/openapi.json`: rendered once, served as it is.

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::get;
use utoipa::openapi::OpenApi;

use super::Api;

/// The rendered document.
#[derive(Clone, Debug)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn new(openapi: &OpenApi) -> Self {
        Self(super::extract::encode(openapi).into())
    }
}

/// The one route that is not in the document, because it is the document. Open to everybody: it says
/// nothing about data.
pub(super) fn route(document: Document) -> Router<Api> {
    let answer = move || {
        let body = document.0.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], body) }
    };
    Router::new().route("/api/openapi.json", get(answer))
}
