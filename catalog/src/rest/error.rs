//! How a request fails: one shape for every error, with what to try.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{ErrorBody, ErrorDetail};
use crate::NameError;
use crate::access::AccessError;
use crate::blobs::BlobError;
use crate::kv::KvError;
use crate::ledger::LedgerError;
use crate::manifest::ManifestError;

/// The answer to a request that did not succeed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint,
        }
    }

    /// The request is not understood.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        let hint = "see /api/openapi.json for what this route takes";
        Self::new(StatusCode::BAD_REQUEST, "invalid", message, hint)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        let hint = "list what there is with GET /api/v1/datasets";
        Self::new(StatusCode::NOT_FOUND, "not_found", message, hint)
    }

    pub(super) fn conflict(message: impl Into<String>, hint: &'static str) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message, hint)
    }

    pub(super) fn unauthenticated(message: impl Into<String>) -> Self {
        let hint = "send Authorization: Bearer and a token; terrace catalog token create makes one";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message, hint)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        let hint = "use a token that grants it; terrace catalog token create makes one";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message, hint)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        let hint = "send less in one request";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, hint)
    }

    pub(super) fn busy() -> Self {
        let message = "too many such requests are under way";
        let hint = "try again after the time in Retry-After";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, hint)
    }

    pub(super) fn timeout() -> Self {
        let message = "the request took too long and was given up";
        let hint = "ask for a smaller page; changes may have happened: look before trying again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message, hint)
    }

    /// The part behind this server does not answer; nothing is wrong with the request.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        let hint = "try again; if it stays, look at the catalog's log and /readyz";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            message,
            hint,
        )
    }

    /// A fault of this program or of its data. Logs it, because nobody else will.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::error!(%message, "a request failed");
        let hint = "look at the catalog's log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, hint)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let (code, message) = (self.code, self.message);
        let body = ErrorBody {
            error: ErrorDetail {
                code: code.to_owned(),
                message: message.clone(),
                hint: self.hint.to_owned(),
            },
        };
        let mut response = Response::new(Body::from(super::extract::encode(&body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Code(code));
        response.extensions_mut().insert(Said(message));
        response
    }
}

/// Carries the kind of an error to the audit log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// Carries the words of an error to faces that have a shape of their own for it.
#[derive(Clone, Debug)]
pub(super) struct Said(pub(super) String);

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Unavailable(_) | KvError::Unknown(_) => Self::unavailable(error.to_string()),
            KvError::Limit { .. } => Self::too_large(error.to_string()),
            KvError::Corrupt(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unknown | AccessError::Refused(_) => {
                Self::unauthenticated(error.to_string())
            }
            AccessError::Unchecked(_) => Self::unavailable(error.to_string()),
            AccessError::NoSuchToken(_) => Self::not_found(error.to_string()),
            AccessError::Invalid(_) | AccessError::Grant(_) => Self::invalid(error.to_string()),
            AccessError::Kv(error) => error.into(),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Unavailable { .. } => Self::unavailable(error.to_string()),
            // A manifest that a version names is there, or something was lost.
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Path(_) => Self::invalid(error.to_string()),
            ManifestError::Blob(error) => error.into(),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        let message = error.to_string();
        match error {
            LedgerError::NoDataset(_) | LedgerError::NoVersion(..) => Self::not_found(message),
            LedgerError::Exists(_) => Self::conflict(message, "choose another name"),
            LedgerError::Removing(_) => {
                Self::conflict(message, "DELETE it with keep=true to keep it")
            }
            LedgerError::Trimmed(_) => {
                let hint = "list what there is, then follow the events from now on";
                Self::new(StatusCode::GONE, "trimmed", message, hint)
            }
            LedgerError::Refused(_) => Self::conflict(message, "the message says which rule"),
            LedgerError::Busy(_) => Self::conflict(message, "try again"),
            LedgerError::Damaged(_) => Self::internal(message),
            LedgerError::Kv(error) => error.into(),
            LedgerError::Blob(error) => error.into(),
            LedgerError::Manifest(error) => error.into(),
        }
    }
}
