//! A catalog that a test writes: in memory, and away when the test says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use terrace_catalog::descriptor::Descriptor;
use terrace_catalog::{DatasetName, Selector, VersionRef};
use terrace_csi::kube::{Catalog, CatalogFault, Heat, Listed, Reporting, Resolved, WarmUpJob};

#[derive(Debug, Default)]
struct Tables {
    datasets: BTreeMap<DatasetName, Listed>,
    descriptors: BTreeMap<DatasetName, Descriptor>,
    tags: BTreeMap<String, u64>,
    heat: Vec<(DatasetName, Heat)>,
    nodes: Vec<Reporting>,
    jobs: Vec<WarmUpJob>,
}

/// Cheap to clone: all clones are one catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestCatalog {
    tables: Arc<Mutex<Tables>>,
    is_away: Arc<AtomicBool>,
    /// Calls that were not answered.
    unanswered: Arc<AtomicU64>,
}

impl TestCatalog {
    fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(&mut self.tables.lock().unwrap())
    }

    fn here(&self) -> Result<(), CatalogFault> {
        if self.is_away.load(Ordering::SeqCst) {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            return Err(CatalogFault::Away("the catalog does not answer".to_owned()));
        }
        Ok(())
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// Commits a version of 1000 bytes.
    pub(crate) fn commit(&self, name: &str, version: u64) {
        let name: DatasetName = name.parse().unwrap();
        let listed = Listed {
            name: name.clone(),
            latest: Some(version),
            bytes: 1000,
            files: 2,
            committed_ms: Some(1_700_000_000_000),
            is_removing: false,
        };
        self.change(|tables| tables.datasets.insert(name, listed));
    }

    pub(crate) fn remove(&self, name: &str) {
        let name: DatasetName = name.parse().unwrap();
        self.change(|tables| tables.datasets.remove(&name));
    }

    /// Lets a tag name a version.
    pub(crate) fn tag(&self, selector: &str, version: u64) {
        self.change(|tables| tables.tags.insert(selector.to_owned(), version));
    }

    /// A node that reports, with a hot tier of so many bytes.
    pub(crate) fn node(&self, name: &str, hot_limit: u64) {
        let node = Reporting {
            node: name.to_owned(),
            is_fresh: true,
            hot_limit: Some(hot_limit),
        };
        self.change(|tables| tables.nodes.push(node));
    }

    /// A node has so many of the 1000 bytes of a version.
    pub(crate) fn heat(&self, dataset: &str, version: u64, node: &str, hot_bytes: u64) {
        let heat = Heat {
            node: node.to_owned(),
            version,
            total_bytes: 1000,
            hot_bytes,
            is_fresh: true,
        };
        self.change(|tables| tables.heat.push((dataset.parse().unwrap(), heat)));
    }

    /// Jobs so far, as `ads.clicks@v12 hot n1 n2`.
    pub(crate) fn jobs(&self) -> Vec<String> {
        let text = |job: &WarmUpJob| {
            let nodes = job.nodes.join(" ");
            format!("{}@v{} {} {nodes}", job.dataset, job.version, job.tier)
        };
        self.change(|tables| tables.jobs.iter().map(text).collect())
    }

    pub(crate) fn descriptor_of(&self, name: &str) -> Option<Descriptor> {
        let name: DatasetName = name.parse().unwrap();
        self.change(|tables| tables.descriptors.get(&name).cloned())
    }
}

#[async_trait]
impl Catalog for TestCatalog {
    async fn datasets(&self) -> Result<Vec<Listed>, CatalogFault> {
        self.here()?;
        Ok(self.change(|tables| tables.datasets.values().cloned().collect()))
    }

    async fn resolve(&self, selector: &Selector) -> Result<Resolved, CatalogFault> {
        self.here()?;
        let missing = || CatalogFault::Missing(format!("there is no {selector}"));
        let found = self.change(|tables| match selector.version() {
            VersionRef::Number(number) => Some(*number),
            VersionRef::Latest => tables.datasets.get(selector.dataset())?.latest,
            _ => tables.tags.get(&selector.to_string()).copied(),
        });
        Ok(Resolved {
            version: found.ok_or_else(missing)?,
            state: "committed".to_owned(),
            reason: None,
            bytes: 1000,
        })
    }

    async fn descriptor(&self, dataset: &DatasetName) -> Result<Descriptor, CatalogFault> {
        self.here()?;
        let found = self.change(|tables| tables.descriptors.get(dataset).cloned());
        found.ok_or_else(|| CatalogFault::Missing(format!("there is no {dataset}")))
    }

    async fn register(&self, descriptor: &Descriptor) -> Result<(), CatalogFault> {
        self.here()?;
        let name = descriptor.name.clone();
        self.change(|tables| {
            let fresh = Listed {
                name: name.clone(),
                latest: None,
                bytes: 0,
                files: 0,
                committed_ms: None,
                is_removing: false,
            };
            tables.datasets.entry(name.clone()).or_insert(fresh);
            tables.descriptors.insert(name, descriptor.clone());
        });
        Ok(())
    }

    async fn heat(&self, dataset: &DatasetName) -> Result<Vec<Heat>, CatalogFault> {
        self.here()?;
        Ok(self.change(|tables| {
            let of = tables.heat.iter().filter(|(name, _)| name == dataset);
            of.map(|(_, heat)| heat.clone()).collect()
        }))
    }

    async fn nodes(&self) -> Result<Vec<Reporting>, CatalogFault> {
        self.here()?;
        Ok(self.change(|tables| tables.nodes.clone()))
    }

    async fn warm_ups(&self) -> Result<Vec<WarmUpJob>, CatalogFault> {
        self.here()?;
        Ok(self.change(|tables| tables.jobs.clone()))
    }

    async fn warm_up(
        &self,
        selector: &Selector,
        tier: &str,
        nodes: &[String],
    ) -> Result<(), CatalogFault> {
        self.here()?;
        let VersionRef::Number(version) = selector.version() else {
            return Err(CatalogFault::Refused("no number".to_owned()));
        };
        let job = WarmUpJob {
            dataset: selector.dataset().clone(),
            version: *version,
            tier: tier.to_owned(),
            nodes: nodes.to_vec(),
        };
        self.change(|tables| tables.jobs.push(job));
        Ok(())
    }

    async fn changed(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
