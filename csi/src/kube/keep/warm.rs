//! Warm-up on scheduling: a pod that uses a dataset is bound, and its node starts to warm it.
//!
//! ```text
//! pod: has a node, is Pending, has a volume of data.terrace.io (inline, or by a claim)
//!   -> dataset at a version, on a node
//!   -> unless the node has all of it, or a job of the catalog serves it already
//!   -> one job for each version, for all nodes that lack it
//! ```
//!
//! Between the binding of a pod and its first read lie the pull of its image and the staging of its
//! volumes: seconds to minutes in which the disk would wait. A dataset larger than a node's hot tier gets
//! its lists of files only, because filling it would push out what others read. `warm: none` in the
//! volume's attributes means none. Nothing waits for a warm-up, and one that fails costs only time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use terrace_catalog::{DatasetName, Selector, VersionRef};
use tokio::time::Instant;

use super::{CatalogView, Keeper, Trouble};
use crate::kube::api::{CacheSet, Pod, PodVolume};
use crate::kube::catalog::{Catalog, CatalogFault, Heat, Reporting};
use crate::kube::names::DATA_DRIVER;
use crate::{VolumeRequest, VolumeSource, WarmUp};

/// Most nodes of one job.
const NODES_MAX: usize = 512;

/// Most jobs that one pass asks for: the catalog keeps 128 under way, and others ask too.
const JOBS_MAX: usize = 32;

/// What was asked for is asked for again after so long, if a pod still waits for it.
const AGAIN: Duration = Duration::from_secs(600);

/// A version in a tier, on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Need {
    dataset: DatasetName,
    version: u64,
    /// `hot` or `metadata`.
    tier: &'static str,
    node: String,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct WarmKeeper {
    caches: CacheSet,
    catalog: Arc<dyn Catalog>,
    view: CatalogView,
    /// What was asked for: saves questions, and is forgotten with the pods.
    asked: BTreeMap<Need, Instant>,
}

impl Keeper for WarmKeeper {
    const NAME: &'static str = "warm-up";
    const EVERY: Duration = Duration::from_secs(5);

    async fn pass(&mut self) -> Result<(), Trouble> {
        let Some(pods) = self.caches.pods.all() else {
            return Ok(());
        };
        let mut selected: BTreeSet<(Selector, &'static str, &str)> = BTreeSet::new();
        for pod in pods.iter().filter(|pod| is_waiting(pod)) {
            let volumes = pod.spec.volumes.iter();
            let datasets = volumes.filter_map(|volume| self.dataset(pod, volume));
            selected.extend(datasets.map(|(what, tier)| (what, tier, pod.spec.node_name.as_str())));
        }
        let needs = self.needs(selected).await?;
        self.asked
            .retain(|need, at| needs.contains(need) && at.elapsed() < AGAIN);
        let open: Vec<Need> = needs
            .into_iter()
            .filter(|need| !self.asked.contains_key(need))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        self.ask(open).await
    }
}

/// Whether a pod is between its binding and its start.
fn is_waiting(pod: &Pod) -> bool {
    let phase = pod.status.phase.as_str();
    let waits = matches!(phase, "Pending" | "");
    waits && !pod.spec.node_name.is_empty() && !pod.metadata.is_ending()
}

impl WarmKeeper {
    pub(crate) fn new(caches: CacheSet, catalog: Arc<dyn Catalog>, view: CatalogView) -> Self {
        Self {
            caches,
            catalog,
            view,
            asked: BTreeMap::new(),
        }
    }

    /// What a volume shows, and what of it is warmed; none for a volume of something else.
    fn dataset(&self, pod: &Pod, volume: &PodVolume) -> Option<(Selector, &'static str)> {
        let by_claim = || {
            let claim = volume.persistent_volume_claim.as_ref()?;
            let namespace = &pod.metadata.namespace;
            let claim = self.caches.claims.get(namespace, &claim.claim_name)?;
            let volume = self.caches.volumes.get("", &claim.spec.volume_name)?;
            volume.spec.csi.clone()
        };
        let csi = volume.csi.clone().or_else(by_claim)?;
        if csi.driver != DATA_DRIVER {
            return None;
        }
        let request = VolumeRequest::parse(&csi.volume_attributes).ok()?;
        let VolumeSource::Dataset(selector) = request.source else {
            return None;
        };
        let is_said = csi.volume_attributes.contains_key("warm");
        match request.warm {
            WarmUp::None if is_said => None,
            WarmUp::Metadata => Some((selector, "metadata")),
            WarmUp::None | WarmUp::Full => Some((selector, "hot")),
        }
    }

    /// The same with numbers of versions. What has none is left out: the mount will say so.
    async fn needs(
        &self,
        selected: BTreeSet<(Selector, &'static str, &str)>,
    ) -> Result<BTreeSet<Need>, Trouble> {
        let view = self.view.current();
        let mut numbers: BTreeMap<Selector, Option<u64>> = BTreeMap::new();
        let mut needs = BTreeSet::new();
        for (selector, tier, node) in selected {
            let number = match selector.version() {
                VersionRef::Number(number) => Some(*number),
                VersionRef::Latest => {
                    let view = view.as_ref();
                    let listed = view.and_then(|view| view.datasets.get(selector.dataset()));
                    listed.and_then(|listed| listed.latest)
                }
                VersionRef::Tag(_) | VersionRef::Day { .. } => match numbers.get(&selector) {
                    Some(number) => *number,
                    None => {
                        let number = known(self.catalog.resolve(&selector).await)?;
                        let number = number.map(|found| found.version);
                        numbers.insert(selector.clone(), number);
                        number
                    }
                },
            };
            needs.extend(number.map(|version| Need {
                dataset: selector.dataset().clone(),
                version,
                tier,
                node: node.to_owned(),
            }));
        }
        Ok(needs)
    }

    /// Makes jobs for what is neither there nor on its way.
    async fn ask(&mut self, open: Vec<Need>) -> Result<(), Trouble> {
        let reporting: BTreeMap<String, Reporting> = self
            .catalog
            .nodes()
            .await?
            .into_iter()
            .filter(|node| node.is_fresh)
            .map(|node| (node.node.clone(), node))
            .collect();
        let jobs = self.catalog.warm_ups().await?;
        let served = |need: &Need, tier: &str| {
            jobs.iter().any(|job| {
                job.dataset == need.dataset
                    && job.version == need.version
                    && job.tier == tier
                    && job.nodes.contains(&need.node)
            })
        };
        let mut groups: BTreeMap<(DatasetName, u64, &'static str), Vec<Need>> = BTreeMap::new();
        let mut heats: BTreeMap<DatasetName, Vec<Heat>> = BTreeMap::new();
        for need in open {
            // A node that does not report yet is looked at again with the next pass.
            let Some(node) = reporting.get(&need.node) else {
                continue;
            };
            if !heats.contains_key(&need.dataset) {
                let heat = known(self.catalog.heat(&need.dataset).await)?;
                heats.insert(need.dataset.clone(), heat.unwrap_or_default());
            }
            let heat = heats[&need.dataset].iter();
            let mut heat = heat.filter(|heat| heat.version == need.version);
            let near = heat.clone().find(|heat| heat.node == need.node);
            let is_complete = near.is_some_and(|heat| heat.hot_bytes >= heat.total_bytes);
            let bytes = heat.next().map(|heat| heat.total_bytes);
            let bytes = bytes.or_else(|| self.bytes(&need)).unwrap_or(0);
            let too_large = node.hot_limit.is_some_and(|limit| bytes > limit);
            let tier = if too_large { "metadata" } else { need.tier };
            if is_complete || served(&need, tier) {
                self.asked.insert(need, Instant::now());
                continue;
            }
            let group = (need.dataset.clone(), need.version, tier);
            groups.entry(group).or_default().push(need);
        }
        for ((dataset, version, tier), mut needs) in groups.into_iter().take(JOBS_MAX) {
            needs.truncate(NODES_MAX);
            let nodes: Vec<String> = needs.iter().map(|need| need.node.clone()).collect();
            let selector = Selector::new(dataset, VersionRef::Number(version));
            if known(self.catalog.warm_up(&selector, tier, &nodes).await)?.is_some() {
                tracing::info!(%selector, tier, nodes = nodes.len(), "warmed for pods that were bound");
            }
            let now = Instant::now();
            self.asked.extend(needs.into_iter().map(|need| (need, now)));
        }
        Ok(())
    }

    /// Bytes of the latest version, if that is the one.
    fn bytes(&self, need: &Need) -> Option<u64> {
        let view = self.view.current()?;
        let listed = view.datasets.get(&need.dataset)?;
        (listed.latest == Some(need.version)).then_some(listed.bytes)
    }
}

/// Lets a pass go on when the catalog refuses one thing.
fn known<T>(answer: Result<T, CatalogFault>) -> Result<Option<T>, CatalogFault> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CatalogFault::Away(why)) => Err(CatalogFault::Away(why)),
        Err(error) => {
            tracing::debug!(%error, "not warmed");
            Ok(None)
        }
    }
}
