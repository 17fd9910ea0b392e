//! What the controller asks of a catalog, as a trait: its REST interface is spoken elsewhere.
//!
//! Every call has a deadline of the implementation's and may be dropped. An error is one line.

use std::fmt::Debug;

use async_trait::async_trait;
use terrace_catalog::descriptor::Descriptor;
use terrace_catalog::{DatasetName, Selector};

/// Why the catalog did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CatalogFault {
    /// There is no such dataset, version or tag.
    #[error("{0}")]
    Missing(String),
    /// It answered, and refuses.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or not as a catalog.
    #[error("{0}")]
    Away(String),
}

/// A dataset in the list of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: DatasetName,
    /// Number of its latest version; none before the first.
    pub latest: Option<u64>,
    /// Bytes of that version.
    pub bytes: u64,
    /// Files of that version.
    pub files: u64,
    /// When that version was committed, milliseconds since 1970.
    pub committed_ms: Option<i64>,
    /// It is marked for removal.
    pub is_removing: bool,
}

/// A version that a selector means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its number.
    pub version: u64,
    /// `committed`, `degraded` or `removing`.
    pub state: String,
    /// Why it is degraded.
    pub reason: Option<String>,
    /// Bytes of all files.
    pub bytes: u64,
}

/// How much of a version a node has near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heat {
    /// The node.
    pub node: String,
    /// Number of the version.
    pub version: u64,
    /// Bytes of the version.
    pub total_bytes: u64,
    /// How many of them are on the node's own disk.
    pub hot_bytes: u64,
    /// Whether the node said so a moment ago.
    pub is_fresh: bool,
}

/// A node that reports to the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// Its name.
    pub node: String,
    /// Whether it spoke a moment ago.
    pub is_fresh: bool,
    /// Budget of its hot tier; none where there is none.
    pub hot_limit: Option<u64>,
}

/// A warm-up job, as far as it says who is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpJob {
    /// The dataset.
    pub dataset: DatasetName,
    /// Number of the version.
    pub version: u64,
    /// `hot`, `warm` or `metadata`.
    pub tier: String,
    /// Nodes and whether each is done, waiting or at work: those that failed are not here.
    pub nodes: Vec<String>,
}

/// A catalog.
#[async_trait]
pub trait Catalog: Send + Sync + Debug + 'static {
    /// Every dataset that the controller's token may list, in the order of names.
    async fn datasets(&self) -> Result<Vec<Listed>, CatalogFault>;

    /// What a selector means now.
    async fn resolve(&self, selector: &Selector) -> Result<Resolved, CatalogFault>;

    /// The descriptor of a dataset.
    async fn descriptor(&self, dataset: &DatasetName) -> Result<Descriptor, CatalogFault>;

    /// Registers a dataset, or replaces its descriptor.
    async fn register(&self, descriptor: &Descriptor) -> Result<(), CatalogFault>;

    /// Who has what of a dataset near.
    async fn heat(&self, dataset: &DatasetName) -> Result<Vec<Heat>, CatalogFault>;

    /// The nodes that report.
    async fn nodes(&self) -> Result<Vec<Reporting>, CatalogFault>;

    /// Warm-up jobs, the newest first, as many as the catalog lists at once.
    async fn warm_ups(&self) -> Result<Vec<WarmUpJob>, CatalogFault>;

    /// Brings a version near to nodes, in the background.
    async fn warm_up(
        &self,
        selector: &Selector,
        tier: &str,
        nodes: &[String],
    ) -> Result<(), CatalogFault>;

    /// Returns when something has happened in the catalog, or after a while all the same.
    async fn changed(&self);
}
