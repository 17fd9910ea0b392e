//! Nodes over HTTP: who is there, who has what, and the report by which nodes say so.

use std::collections::BTreeSet;

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;

use super::error::ApiError;
use super::extract::{Dataset, Json, param};
use super::policy::Caller;
use super::wire::{
    ErrorBody, HeatItem, HeatReport, HeatTiers, HoldItem, JobOrder, JobReport, NodeItem, NodeList,
    NodeReport, ReportAnswer, TierItem,
};
use super::{Api, now_ms};
use crate::access::Scope;
use crate::nodes::{
    self, Heat, JobId, JobsError, MAX_VERSIONS, Mounted, NodeName, PartReport, PresenceError, Said,
    TierUse,
};
use crate::{DatasetName, Selector, VersionRef};

/// Most tiers, mounts and jobs in one report.
const MAX_ITEMS: usize = 256;
/// Most bytes of a mount point that is kept.
const MAX_PATH: usize = 4096;
/// Most bytes of the names of tiers and of programs that are kept.
const MAX_TEXT: usize = 64;
/// Most versions whose holds are looked up, the newest; and most holds of each.
const MAX_HELD: usize = 64;
const MAX_HOLDS: usize = 64;

/// Nodes that mount tables of this catalog, as they said last.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", operation_id = "list_nodes",
    responses((status = 200, body = NodeList,
        description = "The nodes, as they said last"), (status = "default", body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Json<NodeList> {
    let visible = |dataset: &DatasetName| caller.0.may(Scope::List, dataset.namespace());
    let now_ms = now_ms();
    let presence = api.parts.nodes.presence(now_ms).await;
    let nodes = presence.nodes(now_ms, visible);
    let items = nodes.iter().map(|node| {
        let datasets: BTreeSet<_> = node.said.heat.iter().map(|heat| &heat.dataset).collect();
        NodeItem {
            node: node.name.to_string(),
            seen_ms: node.seen_ms,
            fresh: node.is_fresh,
            version: node.said.version.clone(),
            tiers: node.said.tiers.iter().map(tier_item).collect(),
            mounts: node
                .said
                .mounts
                .iter()
                .map(|m| m.mountpoint.clone())
                .collect(),
            datasets: datasets.len() as u64,
        }
    });
    Json(NodeList {
        items: items.collect(),
    })
}

fn tier_item(tier: &TierUse) -> TierItem {
    TierItem {
        name: tier.name.clone(),
        used_bytes: tier.used_bytes,
        limit_bytes: tier.limit_bytes,
    }
}

/// Who has how much of a dataset near, version by version, and who holds which version.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}/heat", tag = "nodes",
    operation_id = "dataset_heat",
    params(("dataset" = String, Path, description = "namespace.table")),
    responses((status = 200, body = HeatReport,
        description = "Who has what, and who holds it"), (status = "default", body = ErrorBody)))]
pub(super) async fn heat(
    State(api): State<Api>,
    Dataset(name): Dataset,
) -> Result<Json<HeatReport>, ApiError> {
    let holds = holds(&api, &name).await?;
    let now_ms = now_ms();
    let presence = api.parts.nodes.presence(now_ms).await;
    let nodes = presence.nodes(now_ms, |own| *own == name);
    let mut items = Vec::new();
    for node in &nodes {
        let mut own: Vec<&Heat> = node.said.heat.iter().collect();
        own.sort_by_key(|heat| heat.version);
        items.extend(own.into_iter().map(|heat| HeatItem {
            node: node.name.to_string(),
            version: heat.version,
            total_bytes: heat.total_bytes,
            tiers: HeatTiers {
                hot: heat.hot_bytes,
                warm: heat.warm_bytes,
            },
            seen_ms: node.seen_ms,
            fresh: node.is_fresh,
        }));
    }
    Ok(Json(HeatReport {
        dataset: name.to_string(),
        items,
        holds,
    }))
}

async fn holds(api: &Api, name: &DatasetName) -> Result<Vec<HoldItem>, ApiError> {
    let held = api.ledger().held_versions(name).await?;
    let mut items = Vec::new();
    for number in held.iter().rev().take(MAX_HELD).rev() {
        let selector = Selector::new(name.clone(), VersionRef::Number(*number));
        let version = api.ledger().resolve(&selector).await?;
        for hold in api.ledger().holds(&version, MAX_HOLDS).await? {
            let holder = hold.holder.as_str();
            let (kind, _) = holder.split_once(':').unwrap_or((holder, ""));
            items.push(HoldItem {
                holder: holder.to_owned(),
                kind: kind.to_owned(),
                version: *number,
                since_ms: hold.since_ms,
            });
        }
    }
    Ok(items)
}

/// What a node has, and how far it is; the answer is what it shall work on. For nodes only: each
/// reports every few seconds, with the token of its mounts, and of what that token may read.
#[utoipa::path(post, path = "/api/v1/nodes/{node}/report", tag = "nodes",
    operation_id = "report_node", request_body = NodeReport,
    params(("node" = String, Path, description = "The node's name")),
    responses((status = 200, body = ReportAnswer,
        description = "What the node shall work on"), (status = "default", body = ErrorBody)))]
pub(super) async fn report(
    State(api): State<Api>,
    caller: Caller,
    params: RawPathParams,
    Json(report): Json<NodeReport>,
) -> Result<Json<ReportAnswer>, ApiError> {
    let node: NodeName = param(&params, "node")?;
    let said = said(&report)?;
    let jobs = report.jobs.iter().map(part_report);
    let jobs = jobs.collect::<Result<Vec<_>, ApiError>>()?;
    let now_ms = now_ms();
    let all = &api.parts.nodes;
    all.hear(&node, caller.0.clone(), said, now_ms).await?;
    let refused = |job: &nodes::Job| {
        let namespace = job.work.dataset.namespace();
        let may = caller.0.may(Scope::Read, namespace);
        (!may).then(|| format!("the token of the node does not grant read over {namespace}"))
    };
    let orders = all.jobs().exchange(&node, &jobs, refused, now_ms).await?;
    // What is open is held by the next report if not by this one.
    if let Err(error) = all.renew_holds(&node, now_ms).await {
        tracing::warn!(%error, %node, "open versions are not held");
    }
    let jobs = orders.iter().map(|job| JobOrder {
        id: job.id.to_string(),
        dataset: job.work.dataset.to_string(),
        version: job.work.version,
        tier: job.work.tier.as_str().to_owned(),
        pin: job.work.pin,
        unpin_older: job.work.pin && job.work.cause == nodes::Cause::Policy,
        total_bytes: job.work.bytes,
    });
    Ok(Json(ReportAnswer {
        jobs: jobs.collect(),
    }))
}

/// The report as the catalog keeps it. Errors at what is no name, or too much.
fn said(report: &NodeReport) -> Result<Said, ApiError> {
    let counts = [report.tiers.len(), report.mounts.len(), report.jobs.len()];
    if counts.iter().any(|count| *count > MAX_ITEMS) || report.datasets.len() > MAX_VERSIONS {
        return Err(ApiError::too_large(format!(
            "a report has at most {MAX_ITEMS} tiers, mounts and jobs, and {MAX_VERSIONS} versions"
        )));
    }
    let tiers = report.tiers.iter().map(|tier| {
        Ok(TierUse {
            name: short(&tier.name, MAX_TEXT)?,
            used_bytes: tier.used_bytes,
            limit_bytes: tier.limit_bytes,
        })
    });
    let mounts = report.mounts.iter().map(|mount| {
        let version = match (&mount.dataset, mount.version) {
            (Some(dataset), Some(version)) => Some((dataset.parse()?, version)),
            (None, None) => None,
            _ => {
                return Err(ApiError::invalid(
                    "a mount has a dataset and a version, or none",
                ));
            }
        };
        Ok(Mounted {
            mountpoint: short(&mount.mountpoint, MAX_PATH)?,
            version,
        })
    });
    let heat = report.datasets.iter().map(|version| {
        let total = version.total_bytes;
        Ok(Heat {
            dataset: version.dataset.parse()?,
            version: version.version,
            total_bytes: total,
            hot_bytes: version.hot_bytes.min(total),
            warm_bytes: version.warm_bytes.map(|bytes| bytes.min(total)),
            is_open: version.open,
        })
    });
    Ok(Said {
        version: short(&report.version, MAX_TEXT)?,
        instance: short(&report.instance, MAX_TEXT)?,
        tiers: tiers.collect::<Result<_, ApiError>>()?,
        mounts: mounts.collect::<Result<_, ApiError>>()?,
        heat: heat.collect::<Result<_, ApiError>>()?,
    })
}

fn short(text: &str, most: usize) -> Result<String, ApiError> {
    if text.len() > most || text.contains(char::is_control) {
        let message = format!("a text has at most {most} bytes and no control characters");
        return Err(ApiError::invalid(message));
    }
    Ok(text.to_owned())
}

fn part_report(report: &JobReport) -> Result<(JobId, PartReport), ApiError> {
    let id: Result<JobId, _> = report.id.parse();
    let id = id.map_err(|error| ApiError::invalid(error.to_string()))?;
    let state = nodes::State::parse(&report.state);
    let unknown = || ApiError::invalid("the state of a job is running, done or failed");
    Ok((
        id,
        PartReport {
            state: state.ok_or_else(unknown)?,
            done_bytes: report.done_bytes,
            error: report.error.clone(),
        },
    ))
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        let message = error.to_string();
        match error {
            PresenceError::Taken(_) | PresenceError::Twin(_) => {
                let hint = "give each node a name of its own: node.name in its configuration";
                Self::conflict(message, hint)
            }
            PresenceError::Full => {
                let hint = "wait until nodes that are gone are forgotten, within the hour";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, hint)
            }
        }
    }
}

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> Self {
        let message = error.to_string();
        match error {
            JobsError::NoJob(_) => {
                let hint = "list what there is with GET /api/v1/warm";
                Self::new(StatusCode::NOT_FOUND, "not_found", message, hint)
            }
            JobsError::Full => Self::conflict(message, "wait until some end, or cancel some"),
            JobsError::Invalid(_) => Self::invalid(message),
            JobsError::Busy(_) => Self::conflict(message, "try again"),
            JobsError::Kv(error) => error.into(),
        }
    }
}
