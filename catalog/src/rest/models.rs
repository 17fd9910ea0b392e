//! Models over HTTP: the two calls of a save, and what is between them.
//!
//! ```text
//! POST   /models/{n}/versions          begin: where to write            201; 200 when it is a version already
//! PUT    /models/{n}/versions/{save}   finish: read back and commit     202 while that goes on, then 201 and 200
//! GET    ..                            how far it is
//! DELETE ..                            give it up
//! ```

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Api;
use super::error::ApiError;
use super::extract::{Dataset, Json, param, with_status};
use super::wire::{ErrorBody, FinishSave, NewSave, Removal, SaveState, SaveStatus};
use crate::blobs::BlobId;
use crate::ledger::BatchId;
use crate::saves::{LIST_NAME, Progress, SaveError, Saves, save_id};

/// Begins a save of a model, or goes on with one; makes the model when there is none of this name.
/// Files and their list are written below the answer's location by the caller, with its own
/// credentials. A save that rests for a day is given up.
#[utoipa::path(post, path = "/api/v1/models/{dataset}/versions", tag = "models",
    operation_id = "begin_save", request_body = NewSave,
    params(("dataset" = String, Path, description = "namespace.name")),
    responses((status = 200, body = SaveStatus,
        description = "It was begun before; how far it is"), (status = 201, body = SaveStatus,
        description = "It is begun"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn begin(
    State(api): State<Api>,
    Dataset(name): Dataset,
    Json(new): Json<NewSave>,
) -> Result<Response, ApiError> {
    let id = save_id(&new.save)?;
    let progress = saves(&api)?.begin(&name, &id, new.url.as_deref()).await?;
    let status = match &progress {
        Progress::Ready(_) => StatusCode::OK,
        Progress::Writing(_) | Progress::Checking { .. } => StatusCode::CREATED,
    };
    Ok(with_status(status, wire(progress)))
}

/// Reads everything back, compares each file with the list, and makes the version: 202 while that goes
/// on (call again), 201 with the first answer that has the version, 200 with later ones, 422 when what
/// is there is not what the list says (write it again, then call again).
#[utoipa::path(put, path = "/api/v1/models/{dataset}/versions/{save}", tag = "models",
    operation_id = "finish_save", request_body = FinishSave,
    params(("dataset" = String, Path, description = "namespace.name"),
        ("save" = String, Path, description = "The caller's name of the save")),
    responses((status = 200, body = SaveStatus,
        description = "It is complete and checked"), (status = 201, body = SaveStatus,
        description = "The version that it made"),
        (status = 202, body = SaveStatus,
        description = "Not yet: how far it is"), (status = "default", body = ErrorBody)))]
pub(super) async fn finish(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
    Json(finish): Json<FinishSave>,
) -> Result<Response, ApiError> {
    let id = id_of(&params)?;
    let list = finish.list.parse::<BlobId>();
    let list = list.map_err(|_| ApiError::invalid("list is no SHA-256 in hexadecimal digits"))?;
    let saves = saves(&api)?;
    let under_way = saves.status(&name, &id).await?;
    let progress = saves.finish(&name, &id, list).await?;
    let status = match (&under_way, &progress) {
        (Progress::Ready(_), Progress::Ready(_)) => StatusCode::OK,
        (_, Progress::Ready(_)) => StatusCode::CREATED,
        _ => StatusCode::ACCEPTED,
    };
    Ok(with_status(status, wire(progress)))
}

/// How far a save is.
#[utoipa::path(get, path = "/api/v1/models/{dataset}/versions/{save}", tag = "models",
    operation_id = "show_save",
    params(("dataset" = String, Path, description = "namespace.name"),
        ("save" = String, Path, description = "The caller's name of the save")),
    responses((status = 200, body = SaveStatus,
        description = "How far it is"), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
) -> Result<Json<SaveStatus>, ApiError> {
    let id = id_of(&params)?;
    Ok(Json(wire(saves(&api)?.status(&name, &id).await?)))
}

/// Gives a save up: its files are taken away by the next collection. A version stays what it is.
#[utoipa::path(delete, path = "/api/v1/models/{dataset}/versions/{save}", tag = "models",
    operation_id = "abandon_save",
    params(("dataset" = String, Path, description = "namespace.name"),
        ("save" = String, Path, description = "The caller's name of the save")),
    responses((status = 200, body = Removal,
        description = "It is given up"), (status = "default", body = ErrorBody)))]
pub(super) async fn abandon(
    State(api): State<Api>,
    Dataset(name): Dataset,
    params: RawPathParams,
) -> Result<Json<Removal>, ApiError> {
    let id = id_of(&params)?;
    saves(&api)?.abandon(&name, &id).await?;
    Ok(Json(Removal {
        state: "abandoned".to_owned(),
        not_before_ms: None,
    }))
}

fn id_of(params: &RawPathParams) -> Result<BatchId, ApiError> {
    let text: String = param(params, "save")?;
    Ok(save_id(&text)?)
}

fn saves(api: &Api) -> Result<&Saves, ApiError> {
    let absent = || ApiError::not_found("this catalog saves no models");
    api.parts.saves.as_deref().ok_or_else(absent)
}

fn wire(progress: Progress) -> SaveStatus {
    let mut status = SaveStatus {
        state: SaveState::Writing,
        location: None,
        list_name: LIST_NAME.to_owned(),
        until_ms: None,
        checked_bytes: None,
        total_bytes: None,
        version: None,
    };
    match progress {
        Progress::Ready(version) => {
            status.state = SaveState::Ready;
            status.version = Some(super::versions::summary(&version.dataset, &version));
        }
        Progress::Writing(save) => {
            status.location = Some(save.location());
            status.until_ms = Some(save.until_ms);
        }
        Progress::Checking { save, done, total } => {
            status.state = SaveState::Checking;
            status.location = Some(save.location());
            status.until_ms = Some(save.until_ms);
            status.checked_bytes = Some(done);
            status.total_bytes = Some(total);
        }
    }
    status
}

impl From<SaveError> for ApiError {
    fn from(error: SaveError) -> Self {
        let message = error.to_string();
        match error {
            SaveError::Invalid(_) => Self::invalid(message),
            SaveError::Unknown(..) => Self::not_found(message),
            SaveError::NotMet(_) => {
                let hint = "nothing was published; write the files again, then finish again";
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "save_not_met",
                    message,
                    hint,
                )
            }
            SaveError::Busy => Self::busy(),
            SaveError::Unavailable(_) => Self::unavailable(message),
            SaveError::Ledger(error) => error.into(),
        }
    }
}
