//! Datasets: listed, shown, registered, removed.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::Api;
use super::error::ApiError;
use super::extract::{Dataset, Json, Query, body, page, with_status};
use super::policy::Caller;
use super::wire::{
    DatasetDetail, DatasetPage, DatasetQuery, DatasetSummary, ErrorBody, NamePage, NamespaceQuery,
    RemovalPlan, RemoveQuery,
};
use crate::access::Scope;
use crate::descriptor::{Descriptor, Kind};
use crate::ledger::{self, DatasetState, Ledger, LedgerError};
use crate::name::check_segment;
use crate::{DatasetName, Selector, VersionRef};

/// Usual and greatest page.
const PAGE: (usize, usize) = (100, 1000);

/// Latest versions that are looked up at a time.
const LOOKUPS: usize = 16;

/// The text of a descriptor.
#[derive(Debug)]
pub(super) struct DescriptorText(Bytes);

impl<S: Send + Sync> FromRequest<S> for DescriptorText {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        body(request).await.map(Self)
    }
}

/// The namespaces that have datasets which the caller may list.
#[utoipa::path(get, path = "/api/v1/namespaces", tag = "datasets", params(NamespaceQuery),
    operation_id = "list_namespaces",
    responses((status = 200, body = NamePage,
        description = "A page of namespaces, in order"), (status = "default", body = ErrorBody)))]
pub(super) async fn namespaces(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<NamespaceQuery>,
) -> Result<Json<NamePage>, ApiError> {
    let limit = page(query.limit, PAGE.0, PAGE.1)?;
    let items = visible_namespaces(&api, &caller, query.after.as_deref(), limit).await?;
    let next = items.last().filter(|_| items.len() == limit).cloned();
    Ok(Json(NamePage { items, next }))
}

/// The first `limit` namespaces behind `after` that the caller may list; fewer: there are no more.
pub(super) async fn visible_namespaces(
    api: &Api,
    caller: &Caller,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, ApiError> {
    let mut items: Vec<String> = Vec::new();
    let mut after = after.map(last_name_of).transpose()?;
    while items.len() < limit {
        // One key each: the first name behind everything a namespace can hold.
        let found = api.ledger().names(None, after.as_ref(), 1).await?;
        let Some((name, ..)) = found.into_iter().next() else {
            break;
        };
        after = Some(last_name_of(name.namespace())?);
        if caller.0.may(Scope::List, name.namespace()) {
            items.push(name.namespace().to_owned());
        }
    }
    Ok(items)
}

/// A name behind which no other name of the namespace comes.
fn last_name_of(namespace: &str) -> Result<DatasetName, ApiError> {
    check_segment(namespace)?;
    Ok(format!("{namespace}.{}", "z".repeat(64)).parse()?)
}

/// Datasets by name, kind and words, as far as the caller may list them.
#[utoipa::path(get, path = "/api/v1/datasets", tag = "datasets", params(DatasetQuery),
    operation_id = "list_datasets",
    responses((status = 200, body = DatasetPage,
        description = "A page of datasets, in the order of their names"), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<DatasetQuery>,
) -> Result<Json<DatasetPage>, ApiError> {
    let limit = page(query.limit, PAGE.0, PAGE.1)?;
    let kind = query.kind.as_deref().map(kind_of).transpose()?;
    if let Some(namespace) = &query.ns {
        check_segment(namespace)?;
        caller.require(Scope::List, namespace)?;
    }
    let mut after: Option<DatasetName> = query.after.as_deref().map(str::parse).transpose()?;
    let wanted = ledger::Query {
        namespace: query.ns,
        kind,
        text: query.q.unwrap_or_default(),
    };
    let mut found: Vec<ledger::Dataset> = Vec::new();
    let mut more = true;
    while more && found.len() < limit {
        let room = limit - found.len();
        let datasets = api.ledger().datasets(&wanted, after.as_ref(), room).await?;
        more = datasets.len() == room;
        let last = datasets.last().map(|dataset| dataset.name().clone());
        after = last.or(after);
        let visible =
            |dataset: &ledger::Dataset| caller.0.may(Scope::List, dataset.name().namespace());
        found.extend(datasets.into_iter().filter(visible));
    }
    let ledger = api.ledger();
    // Collected: a closure that lives across an await makes the handler's future borrow too much.
    let summaries: Vec<_> = found
        .iter()
        .map(|dataset| summary(ledger, dataset))
        .collect();
    let items = stream::iter(summaries)
        .buffered(LOOKUPS)
        .try_collect()
        .await?;
    let next = after.filter(|_| more).map(|name| name.to_string());
    Ok(Json(DatasetPage { items, next }))
}

fn kind_of(text: &str) -> Result<Kind, ApiError> {
    match text {
        "dataset" => Ok(Kind::Dataset),
        "model" => Ok(Kind::Model),
        _ => Err(ApiError::invalid("kind is dataset or model")),
    }
}

/// One dataset, with its descriptor and tags.
#[utoipa::path(get, path = "/api/v1/datasets/{dataset}", tag = "datasets",
    operation_id = "show_dataset",
    params(("dataset" = String, Path, description = "namespace.table")),
    responses((status = 200, body = DatasetDetail,
        description = "The dataset"), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(api): State<Api>,
    Dataset(name): Dataset,
) -> Result<Json<DatasetDetail>, ApiError> {
    let dataset = api.ledger().dataset(&name).await?;
    Ok(Json(detail(api.ledger(), &dataset).await?))
}

/// Makes a dataset (201) or replaces its descriptor (200). The body is the descriptor, as YAML or
/// JSON; the name in it is that of the path.
#[utoipa::path(put, path = "/api/v1/datasets/{dataset}", tag = "datasets",
    operation_id = "register_dataset",
    request_body(content((serde_json::Value = "application/json"), (String = "application/yaml"))),
    params(("dataset" = String, Path, description = "namespace.table")),
    responses((status = 200, body = DatasetDetail,
        description = "It was there; the descriptor is replaced"), (status = 201, body = DatasetDetail,
        description = "It is new"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn register(
    State(api): State<Api>,
    Dataset(name): Dataset,
    DescriptorText(text): DescriptorText,
) -> Result<Response, ApiError> {
    let text = std::str::from_utf8(&text);
    let text = text.map_err(|_| ApiError::invalid("the descriptor is not UTF-8"))?;
    let descriptor = Descriptor::parse(text);
    let descriptor = descriptor.map_err(|error| ApiError::invalid(error.to_string()))?;
    if descriptor.name != name {
        let own = &descriptor.name;
        let message = format!("the descriptor describes {own}, and the path names {name}");
        return Err(ApiError::conflict(message, "name the same dataset twice"));
    }
    let (status, dataset) = match api.ledger().create(descriptor.clone()).await {
        Ok(dataset) => (StatusCode::CREATED, dataset),
        Err(LedgerError::Exists(_)) => {
            (StatusCode::OK, api.ledger().update(descriptor, None).await?)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(with_status(status, detail(api.ledger(), &dataset).await?))
}

/// Removes a dataset, in two steps with a delay between them: the first call marks it and says what
/// would go, and one with the token of that answer, after the delay, removes it. `keep=true` takes the
/// mark away. Files that the catalog does not own stay where they are.
#[utoipa::path(delete, path = "/api/v1/datasets/{dataset}", tag = "datasets",
    operation_id = "remove_dataset",
    params(("dataset" = String, Path, description = "namespace.table"), RemoveQuery),
    responses((status = 200, body = RemovalPlan,
        description = "It is removed, or kept"), (status = 202, body = RemovalPlan,
        description = "It is marked; a call after the time in the answer removes it"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Dataset(name): Dataset,
    Query(query): Query<RemoveQuery>,
) -> Result<Response, ApiError> {
    super::removal::dataset(api.ledger(), &name, &query).await
}

async fn summary(ledger: &Ledger, dataset: &ledger::Dataset) -> Result<DatasetSummary, ApiError> {
    let selector = Selector::new(dataset.name().clone(), VersionRef::Latest);
    let latest = match ledger.resolve(&selector).await {
        Ok(version) => Some(version),
        Err(LedgerError::NoVersion(..) | LedgerError::NoDataset(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let totals = latest.as_ref().map(|version| version.totals);
    let removing = match dataset.state {
        DatasetState::Active => None,
        DatasetState::Removing { not_before_ms } => Some(not_before_ms),
    };
    Ok(DatasetSummary {
        name: dataset.name().to_string(),
        kind: dataset.kind().to_string(),
        description: dataset.descriptor.description.clone(),
        latest: latest.as_ref().map(|version| version.number),
        committed_ms: latest.as_ref().map(|version| version.created_ms),
        manifest: latest.as_ref().map(|version| version.manifest.to_string()),
        files: totals.map_or(0, |totals| totals.files),
        bytes: totals.map_or(0, |totals| totals.bytes),
        removing_not_before_ms: removing,
    })
}

async fn detail(ledger: &Ledger, dataset: &ledger::Dataset) -> Result<DatasetDetail, ApiError> {
    let tags = ledger.tags(dataset.name()).await?;
    let tags: BTreeMap<String, u64> = tags
        .into_iter()
        .map(|(tag, version)| (tag.to_string(), version))
        .collect();
    Ok(DatasetDetail {
        summary: summary(ledger, dataset).await?,
        descriptor: dataset.descriptor.to_value(),
        tags,
    })
}
