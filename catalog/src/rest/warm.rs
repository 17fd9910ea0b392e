//! Warm-up jobs over HTTP: asked for, looked at, cancelled.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::error::ApiError;
use super::extract::{Json, Query, page, param, with_status};
use super::policy::Caller;
use super::wire::{ErrorBody, NewWarm, WarmJob, WarmList, WarmNode, WarmQuery};
use super::{Api, now_ms};
use crate::access::Scope;
use crate::nodes::{Cause, Job, JobId, NodeName, Part, Tier, Work, percent};
use crate::{DatasetName, Selector};

/// Usual and greatest page.
const PAGE: (usize, usize) = (50, 400);
/// Jobs whose parts are looked up at a time.
const LOOKUPS: usize = 8;

/// Brings a version near to nodes, in the background. Any token that may read the version may ask.
#[utoipa::path(post, path = "/api/v1/warm", tag = "nodes", operation_id = "warm",
    request_body = NewWarm,
    responses((status = 201, body = WarmJob,
        description = "The job that was made"), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewWarm>,
) -> Result<Response, ApiError> {
    let selector: Selector = new.selector.parse()?;
    let tier = new.tier.as_deref().unwrap_or("hot");
    let unknown = || ApiError::invalid("tier is hot, warm or metadata");
    let tier = Tier::parse(tier).ok_or_else(unknown)?;
    let namespace = selector.dataset().namespace();
    caller.require(Scope::Read, namespace)?;
    if new.pin {
        if tier != Tier::Hot {
            return Err(ApiError::invalid(
                "only what is in the tier hot can be pinned",
            ));
        }
        // Pins take room from everybody until somebody ends them.
        caller.require(Scope::Publish, namespace)?;
    }
    let version = api.ledger().resolve(&selector).await?;
    let now_ms = now_ms();
    let nodes = match &new.nodes {
        Some(names) => named(names)?,
        None => {
            let presence = api.parts.nodes.presence(now_ms).await;
            let able = presence.able(&version.dataset, version.number, tier, now_ms);
            if able.is_empty() {
                let message = match tier {
                    Tier::Warm => "no node that reports has a warm tier and shows this version",
                    Tier::Hot | Tier::Metadata => "no node that reports shows this version",
                };
                let hint = "mount catalog: on a node, or name the nodes that will";
                return Err(ApiError::conflict(message, hint));
            }
            able
        }
    };
    let work = Work {
        selector: selector.to_string(),
        dataset: version.dataset.clone(),
        version: version.number,
        tier,
        pin: new.pin,
        bytes: match tier {
            Tier::Hot | Tier::Warm => version.totals.bytes,
            Tier::Metadata => 0,
        },
        nodes,
        by: caller.0.label().to_owned(),
        cause: Cause::Asked,
    };
    let jobs = api.parts.nodes.jobs();
    let job = jobs.create(None, work, now_ms).await?;
    let parts = jobs.parts(&job).await?;
    Ok(with_status(StatusCode::CREATED, item(&job, &parts)))
}

fn named(names: &[String]) -> Result<Vec<NodeName>, ApiError> {
    let nodes = names.iter().map(|name| name.parse::<NodeName>());
    let nodes = nodes.collect::<Result<_, _>>();
    nodes.map_err(|error| ApiError::invalid(error.to_string()))
}

/// A job, and how far each node is.
#[utoipa::path(get, path = "/api/v1/warm/{id}", tag = "nodes", operation_id = "show_warm",
    params(("id" = String, Path, pattern = "^[0-9a-f]{12}$", description = "12 hexadecimal digits")),
    responses((status = 200, body = WarmJob,
        description = "The job"), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    params: RawPathParams,
) -> Result<Json<WarmJob>, ApiError> {
    let (job, parts) = api.parts.nodes.jobs().get(&id(&params)?).await?;
    caller.require(Scope::List, job.work.dataset.namespace())?;
    Ok(Json(item(&job, &parts)))
}

/// Jobs, the newest first: of one dataset, or of everything that the caller may list.
#[utoipa::path(get, path = "/api/v1/warm", tag = "nodes", operation_id = "list_warm",
    params(WarmQuery),
    responses((status = 200, body = WarmList,
        description = "The jobs, the newest first"), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<WarmQuery>,
) -> Result<Json<WarmList>, ApiError> {
    let limit = page(query.limit, PAGE.0, PAGE.1)?;
    let dataset: Option<DatasetName> = query.dataset.as_deref().map(str::parse).transpose()?;
    if let Some(dataset) = &dataset {
        caller.require(Scope::List, dataset.namespace())?;
    }
    let jobs = api.parts.nodes.jobs();
    let mut found = jobs.list(dataset.as_ref(), usize::MAX).await?;
    found.retain(|job| caller.0.may(Scope::List, job.work.dataset.namespace()));
    found.truncate(limit);
    // Collected: a closure that lives across an await makes the handler's future borrow too much.
    let looking: Vec<_> = found.iter().map(|job| jobs.parts(job)).collect();
    let parts: Vec<Vec<Part>> = stream::iter(looking)
        .buffered(LOOKUPS)
        .try_collect()
        .await?;
    let items = found
        .iter()
        .zip(&parts)
        .map(|(job, parts)| item(job, parts));
    Ok(Json(WarmList {
        items: items.collect(),
    }))
}

/// Ends a job; what is near stays near. Whoever asked for it may, and whoever may publish.
#[utoipa::path(delete, path = "/api/v1/warm/{id}", tag = "nodes", operation_id = "cancel_warm",
    params(("id" = String, Path, pattern = "^[0-9a-f]{12}$", description = "12 hexadecimal digits")),
    responses((status = 200, body = WarmJob,
        description = "The job"), (status = "default", body = ErrorBody)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    params: RawPathParams,
) -> Result<Json<WarmJob>, ApiError> {
    let id = id(&params)?;
    let jobs = api.parts.nodes.jobs();
    let (job, _) = jobs.get(&id).await?;
    let namespace = job.work.dataset.namespace();
    caller.require(Scope::Read, namespace)?;
    if job.work.by != caller.0.label() {
        caller.require(Scope::Publish, namespace)?;
    }
    let (job, parts) = jobs.cancel(&id, now_ms()).await?;
    Ok(Json(item(&job, &parts)))
}

fn id(params: &RawPathParams) -> Result<JobId, ApiError> {
    param(params, "id")
}

fn item(job: &Job, parts: &[Part]) -> WarmJob {
    let state = job.state(parts);
    let total_bytes = job.work.bytes.saturating_mul(parts.len() as u64);
    let done_bytes = parts.iter().map(|part| part.done_bytes).sum();
    let nodes = parts.iter().map(|part| WarmNode {
        node: part.node.to_string(),
        state: part.state.as_str().to_owned(),
        done_bytes: part.done_bytes,
        total_bytes: job.work.bytes,
        error: part.error.clone(),
    });
    WarmJob {
        id: job.id.to_string(),
        selector: job.work.selector.clone(),
        dataset: job.work.dataset.to_string(),
        version: job.work.version,
        tier: job.work.tier.as_str().to_owned(),
        pin: job.work.pin,
        state: state.as_str().to_owned(),
        total_bytes,
        done_bytes,
        percent: percent(done_bytes, total_bytes, state),
        nodes: nodes.collect(),
        created_ms: job.created_ms,
        by: job.work.by.clone(),
    }
}
