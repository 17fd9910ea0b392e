//! The catalog as the Kubernetes controller asks it: its trait over the REST client.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use terrace_catalog::descriptor::Descriptor;
use terrace_catalog::rest::wire::{
    DatasetDetail, DatasetPage, DatasetQuery, DatasetSummary, HeatReport, NewWarm, NodeList,
    ResolveQuery, VersionDetail, WarmJob, WarmList, WarmQuery,
};
use terrace_catalog::{DatasetName, Selector};
use terrace_csi::kube::{Catalog, CatalogFault, Heat, Listed, Reporting, Resolved, WarmUpJob};

use super::client::{CatalogClient, CatalogError};

/// Datasets of a page: the most that a catalog gives.
const PAGE: usize = 1000;

/// Jobs that are listed: the most that a catalog gives, and more than are ever under way.
const JOBS: usize = 400;

/// Without events for so long, whoever waits for one looks all the same.
const QUIET: Duration = Duration::from_secs(60);

/// States of a node's part of a job that mean somebody sees to it, or has.
const SERVED: [&str; 3] = ["waiting", "running", "done"];

/// See the module text.
#[derive(Debug)]
pub(crate) struct ClusterCatalog(CatalogClient);

impl ClusterCatalog {
    /// Sends nothing yet.
    pub(crate) fn new(client: CatalogClient) -> Self {
        Self(client)
    }
}

fn fault(error: CatalogError) -> CatalogFault {
    let text = error.to_string();
    match error {
        CatalogError::Refused { status: 404, .. } => CatalogFault::Missing(text),
        // A token that counts for nothing, or a server in trouble, says nothing about the question.
        CatalogError::Refused { status, .. } if (400..500).contains(&status) && status != 401 => {
            CatalogFault::Refused(text)
        }
        _ => CatalogFault::Away(text),
    }
}

/// A name in an answer that is none: what answers is not a catalog of this version.
fn strange(error: impl std::fmt::Display) -> CatalogFault {
    CatalogFault::Away(format!(
        "an answer of the catalog is not understood: {error}"
    ))
}

fn listed(summary: &DatasetSummary) -> Result<Listed, CatalogFault> {
    Ok(Listed {
        name: summary.name.parse().map_err(strange)?,
        latest: summary.latest,
        bytes: summary.bytes,
        files: summary.files,
        committed_ms: summary.committed_ms,
        is_removing: summary.removing_not_before_ms.is_some(),
    })
}

#[async_trait]
impl Catalog for ClusterCatalog {
    async fn datasets(&self) -> Result<Vec<Listed>, CatalogFault> {
        let mut found = Vec::new();
        let mut query = DatasetQuery {
            kind: Some("dataset".to_owned()),
            limit: Some(PAGE),
            ..DatasetQuery::default()
        };
        loop {
            let page: DatasetPage = self.0.get(&["datasets"], &query).await.map_err(fault)?;
            for summary in &page.items {
                found.push(listed(summary)?);
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn resolve(&self, selector: &Selector) -> Result<Resolved, CatalogFault> {
        let query = ResolveQuery {
            selector: selector.to_string(),
        };
        let detail: VersionDetail = self.0.get(&["resolve"], &query).await.map_err(fault)?;
        let summary = detail.summary;
        Ok(Resolved {
            version: summary.version,
            state: summary.state,
            reason: summary.reason,
            bytes: summary.bytes,
        })
    }

    async fn descriptor(&self, dataset: &DatasetName) -> Result<Descriptor, CatalogFault> {
        let path = ["datasets", dataset.as_str()];
        let detail: DatasetDetail = self.0.get(&path, &()).await.map_err(fault)?;
        Descriptor::from_value(detail.descriptor).map_err(strange)
    }

    async fn register(&self, descriptor: &Descriptor) -> Result<(), CatalogFault> {
        let path = ["datasets", descriptor.name.as_str()];
        let value = descriptor.to_value();
        let made = self.0.send_json(Method::PUT, &path, &value).await;
        let _: DatasetDetail = made.map_err(fault)?;
        Ok(())
    }

    async fn heat(&self, dataset: &DatasetName) -> Result<Vec<Heat>, CatalogFault> {
        let path = ["datasets", dataset.as_str(), "heat"];
        let report: HeatReport = self.0.get(&path, &()).await.map_err(fault)?;
        let items = report.items.into_iter().map(|item| Heat {
            node: item.node,
            version: item.version,
            total_bytes: item.total_bytes,
            hot_bytes: item.tiers.hot,
            is_fresh: item.fresh,
        });
        Ok(items.collect())
    }

    async fn nodes(&self) -> Result<Vec<Reporting>, CatalogFault> {
        let list: NodeList = self.0.get(&["nodes"], &()).await.map_err(fault)?;
        let nodes = list.items.into_iter().map(|item| Reporting {
            node: item.node,
            is_fresh: item.fresh,
            hot_limit: item
                .tiers
                .iter()
                .find(|tier| tier.name == "hot")
                .and_then(|tier| tier.limit_bytes),
        });
        Ok(nodes.collect())
    }

    async fn warm_ups(&self) -> Result<Vec<WarmUpJob>, CatalogFault> {
        let query = WarmQuery {
            dataset: None,
            limit: Some(JOBS),
        };
        let list: WarmList = self.0.get(&["warm"], &query).await.map_err(fault)?;
        let jobs = list.items.into_iter().map(|job| {
            let parts = job.nodes.into_iter();
            let served = parts.filter(|part| SERVED.contains(&part.state.as_str()));
            Ok(WarmUpJob {
                dataset: job.dataset.parse().map_err(strange)?,
                version: job.version,
                tier: job.tier,
                nodes: served.map(|part| part.node).collect(),
            })
        });
        jobs.collect()
    }

    async fn warm_up(
        &self,
        selector: &Selector,
        tier: &str,
        nodes: &[String],
    ) -> Result<(), CatalogFault> {
        let new = NewWarm {
            selector: selector.to_string(),
            nodes: Some(nodes.to_vec()),
            tier: Some(tier.to_owned()),
            pin: false,
        };
        let made = self.0.send_json(Method::POST, &["warm"], &new).await;
        let _: WarmJob = made.map_err(fault)?;
        Ok(())
    }

    async fn changed(&self) {
        // Whatever ends the wait, the caller lists everything: no event can be missed for long.
        let wait = async {
            let mut events = self.0.events(None, true).await?;
            events.next().await.map(drop)
        };
        match tokio::time::timeout(QUIET, wait).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "no events");
                tokio::time::sleep(QUIET).await;
            }
        }
    }
}
