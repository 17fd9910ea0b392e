//! Removal of datasets, models and versions over HTTP: two calls with a delay between them, and a token
//! that the first one gives and the second one has to bring.
//!
//! ```text
//! DELETE ..                 marks it (202): what would go, not before when, and the token
//! DELETE ..?confirm=TOKEN   removes it (200), not before that time
//! DELETE ..?keep=true       takes the mark away (200)
//! ```
//!
//! The token follows from what is marked and until when, so any replica can check it and a token of an
//! earlier mark is none any more. It is no secret: it says that whoever confirms has seen what would go.
//! Models ask for `model=true` on top, at every call.

use axum::http::StatusCode;
use axum::response::Response;
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use super::extract::with_status;
use super::wire::{RemovalPlan, RemoveQuery};
use crate::DatasetName;
use crate::ledger::{Dataset, DatasetState, Ledger, Purpose, Version, VersionState};

/// Versions that are summed up at a time.
const PAGE: usize = 512;

/// Marks, removes or keeps a dataset.
pub(super) async fn dataset(
    ledger: &Ledger,
    name: &DatasetName,
    query: &RemoveQuery,
) -> Result<Response, ApiError> {
    let purpose = purpose(query);
    let found = ledger.dataset(name).await?;
    if query.keep {
        ledger.keep(name).await?;
        return Ok(answer(StatusCode::OK, "kept", RemovalPlan::default()));
    }
    if let Some(confirm) = &query.confirm {
        let DatasetState::Removing { not_before_ms } = found.state else {
            return Err(unmarked(name.as_str()));
        };
        check(confirm, &token(found.id.0, 0, not_before_ms))?;
        let plan = plan_of_dataset(ledger, &found).await?;
        ledger.finish_removal(name, purpose).await?;
        return Ok(answer(StatusCode::OK, "removed", plan));
    }
    let not_before_ms = ledger.begin_removal(name, purpose).await?;
    let mut plan = plan_of_dataset(ledger, &found).await?;
    plan.not_before_ms = Some(not_before_ms);
    plan.confirm = Some(token(found.id.0, 0, not_before_ms));
    Ok(answer(StatusCode::ACCEPTED, "marked", plan))
}

/// The same for one version.
pub(super) async fn version(
    ledger: &Ledger,
    version: &Version,
    query: &RemoveQuery,
) -> Result<Response, ApiError> {
    let purpose = purpose(query);
    let plan = RemovalPlan {
        versions: 1,
        files: version.totals.files,
        bytes: version.totals.bytes,
        ..RemovalPlan::default()
    };
    if query.keep {
        ledger.keep_version(version).await?;
        return Ok(answer(StatusCode::OK, "kept", RemovalPlan::default()));
    }
    let (id, number) = (version.id.0, version.number);
    if let Some(confirm) = &query.confirm {
        let VersionState::Removing { not_before_ms } = version.state else {
            return Err(unmarked(&format!("{}@v{number}", version.dataset)));
        };
        check(confirm, &token(id, number, not_before_ms))?;
        ledger.finish_version_removal(version, purpose).await?;
        return Ok(answer(StatusCode::OK, "removed", plan));
    }
    let not_before_ms = ledger.begin_version_removal(version, purpose).await?;
    let plan = RemovalPlan {
        not_before_ms: Some(not_before_ms),
        confirm: Some(token(id, number, not_before_ms)),
        ..plan
    };
    Ok(answer(StatusCode::ACCEPTED, "marked", plan))
}

fn purpose(query: &RemoveQuery) -> Purpose {
    match query.model {
        true => Purpose::Model,
        false => Purpose::Ordinary,
    }
}

/// What belongs to a dataset. Files that versions share are counted once for each.
async fn plan_of_dataset(ledger: &Ledger, dataset: &Dataset) -> Result<RemovalPlan, ApiError> {
    let mut plan = RemovalPlan::default();
    let mut after = 0;
    loop {
        let page = ledger.versions(dataset.name(), after, PAGE).await?;
        for version in &page {
            plan.versions += 1;
            plan.files = plan.files.saturating_add(version.totals.files);
            plan.bytes = plan.bytes.saturating_add(version.totals.bytes);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.number,
            _ => return Ok(plan),
        }
    }
}

/// The token of a mark; version 0 is the whole dataset.
fn token(dataset: u64, version: u64, not_before_ms: i64) -> String {
    let text = format!("removal {dataset:016x} {version} {not_before_ms}");
    let digest = Sha256::digest(text);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn check(given: &str, expected: &str) -> Result<(), ApiError> {
    if given == expected {
        return Ok(());
    }
    let message = "the token is not that of this mark";
    let hint = "ask for the removal without a token first: the answer has it";
    Err(ApiError::conflict(message, hint))
}

fn unmarked(what: &str) -> ApiError {
    let hint = "ask for the removal without a token first: the answer has it";
    ApiError::conflict(format!("{what} is not marked for removal"), hint)
}

fn answer(status: StatusCode, state: &str, plan: RemovalPlan) -> Response {
    let plan = RemovalPlan {
        state: state.to_owned(),
        ..plan
    };
    with_status(status, plan)
}
