//! Removal of a dataset over HTTP: two calls with a delay between them.

use axum::http::StatusCode;
use axum::response::Response;

use super::error::ApiError;
use super::extract::with_status;
use super::wire::Removal;
use crate::DatasetName;
use crate::ledger::{DatasetState, Ledger, Purpose};

/// The first call marks (202), one after the delay removes (200), and `keep` takes the mark away. A
/// second call before its time says until when to wait, and changes nothing.
pub(super) async fn dataset(
    ledger: &Ledger,
    name: &DatasetName,
    keep: bool,
    now_ms: i64,
) -> Result<Response, ApiError> {
    if keep {
        ledger.keep(name).await?;
        return Ok(answer(StatusCode::OK, "kept", None));
    }
    let found = ledger.dataset(name).await?;
    if let DatasetState::Removing { not_before_ms } = found.state
        && not_before_ms <= now_ms
    {
        ledger.finish_removal(name, Purpose::Ordinary).await?;
        return Ok(answer(StatusCode::OK, "removed", None));
    }
    let not_before_ms = ledger.begin_removal(name, Purpose::Ordinary).await?;
    Ok(answer(StatusCode::ACCEPTED, "marked", Some(not_before_ms)))
}

fn answer(status: StatusCode, state: &str, not_before_ms: Option<i64>) -> Response {
    let removal = Removal {
        state: state.to_owned(),
        not_before_ms,
    };
    with_status(status, removal)
}
