//! Errors as clients of this protocol read them.
//!
//! ```text
//! {"error": {"message": "..", "type": "NoSuchTableException", "code": 404}}
//! ```
//!
//! Handlers and policies make the errors that they make everywhere; here the body is written anew.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::rest::error::Said;
use crate::rest::extract::with_status;
use crate::rest::policy::decided;

/// Gives errors their shape.
pub(super) async fn errors(request: Request, next: Next) -> Response {
    let of_table = request.uri().path().contains("/tables/");
    let response = next.run(request).await;
    let Some(Said(message)) = response.extensions().get().cloned() else {
        return response;
    };
    let status = response.status();
    let error = json!({
        "message": message,
        "type": kind(status, of_table),
        "code": status.as_u16(),
    });
    let mut shaped = decided(with_status(status, json!({"error": error})).into_response());
    // What tells a client how to go on: which scheme of authentication, when to try again.
    for name in [header::WWW_AUTHENTICATE, header::RETRY_AFTER] {
        let value: Option<HeaderValue> = response.headers().get(&name).cloned();
        if let Some(value) = value {
            shaped.headers_mut().insert(name, value);
        }
    }
    shaped
}

/// The names that clients tell errors by.
fn kind(status: StatusCode, of_table: bool) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "NotAuthorizedException",
        StatusCode::FORBIDDEN => "ForbiddenException",
        StatusCode::NOT_FOUND if of_table => "NoSuchTableException",
        StatusCode::NOT_FOUND => "NoSuchNamespaceException",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
        status if status.is_server_error() => "InternalServerError",
        _ => "BadRequestException",
    }
}
