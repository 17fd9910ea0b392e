//! Finds what sync systems write, and makes versions of what is complete. Nobody registers anything.
//!
//! ```text
//! names layout          what a name in a listing means               pure
//! completeness          is a partition complete?                     pure
//! shape scan            one pass over a table, a sketch (with a fingerprint) per partition
//! follow                tables with a log of their own: it is exact
//! table                 what is remembered between looks; why
//! head                  the newest version, to compare with
//! check publish write   footers, columns, policy; manifest; commit
//! pass                  one look at one table
//! lost                  published files that are gone or overwritten
//! managed               files that a version keeps for itself
//! batch                 the call of a sync system
//! root queue watch      roots, signals, and the task that looks
//! ```
//!
//! Signals are hints: a call, a timer and a store's event only ever cause a look, and a look decides by
//! what the store shows. Invariants: a version has complete partitions only; what a store does not
//! answer is never taken as deleted; whatever was complete once is published by the periodic look at
//! everything, even when every signal was lost.
//!
//! Lock order: a table's turn (held over a look), then the maps of a root. The maps' locks are never
//! held across an await.

mod batch;
mod check;
pub mod completeness;
mod fingerprint;
mod follow;
mod follow_iceberg;
mod head;
pub mod layout;
mod lost;
mod managed;
mod manifest_file;
pub mod names;
mod pass;
mod publish;
mod queue;
mod root;
mod said;
mod scan;
mod settings;
mod shape;
mod table;
mod watch;
pub mod why;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use batch::{BatchError, BatchRequest, Mode, Scope};
pub use pass::Outcome;
pub use root::RootSpec;
pub use settings::CompletionSpec;
pub(crate) use table::NOTE_RANGES;
pub use why::Why;

use crate::ledger::{BatchId, Committed, Ledger};
use crate::name::DatasetName;
use crate::upstream::Upstream;
use crate::vault::Vaults;
use tokio::task::JoinSet;
use watch::Root;

/// Something that makes a look worth while. Never trusted, only followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Look at everything.
    Timer,
    /// Look at this table: an event of its store, a notification of a metastore.
    Hint(DatasetName),
}

/// Why a root was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// A setting cannot work.
    #[error("{0}")]
    Invalid(String),
    /// There is one at this place already.
    #[error("{0} is a root already")]
    Exists(String),
}

/// A root as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatus {
    /// Its location, without credentials.
    pub url: String,
    /// What was said about it.
    pub spec: RootSpec,
    /// Tables found.
    pub tables: u64,
    /// Directories and descriptor files that are no dataset, and why.
    pub refused: BTreeMap<String, String>,
    /// Why its last listing failed; none when it was answered.
    pub trouble: Option<String>,
}

/// Discovery of all roots. Owns one task per root; they end when this is dropped.
#[derive(Debug)]
pub struct Discovery {
    ledger: Ledger,
    vaults: Vaults,
    roots: Mutex<BTreeMap<String, Arc<Root>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Discovery {
    /// Without any root yet, and without a place for managed copies.
    pub fn new(ledger: Ledger) -> Self {
        Self::with_vaults(ledger, Vaults::default())
    }

    /// Without any root yet; files of managed datasets are copied to the first of these.
    pub fn with_vaults(ledger: Ledger, vaults: Vaults) -> Self {
        Self {
            ledger,
            vaults,
            roots: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Adds a root and begins to watch it. Must be called inside a tokio runtime.
    pub fn add_root(&self, spec: RootSpec, upstream: Arc<dyn Upstream>) -> Result<(), RootError> {
        let root = self.insert(spec, upstream)?;
        self.tasks().spawn(watch::run(root));
        Ok(())
    }

    /// Adds a root that is only looked at when somebody asks.
    pub fn add_root_on_demand(
        &self,
        spec: RootSpec,
        upstream: Arc<dyn Upstream>,
    ) -> Result<(), RootError> {
        self.insert(spec, upstream).map(drop)
    }

    fn insert(&self, spec: RootSpec, upstream: Arc<dyn Upstream>) -> Result<Arc<Root>, RootError> {
        spec.check().map_err(RootError::Invalid)?;
        let url = upstream.url().to_owned();
        let mut roots = self.roots();
        if roots.contains_key(&url) {
            return Err(RootError::Exists(url));
        }
        let (ledger, vaults) = (self.ledger.clone(), self.vaults.clone());
        let root = Arc::new(Root::new(spec, upstream, ledger, vaults));
        roots.insert(url, Arc::clone(&root));
        Ok(root)
    }

    /// Forgets a root; its datasets stay. False when there is none at this place.
    pub fn remove_root(&self, url: &str) -> bool {
        let removed = self.roots().remove(url.trim_end_matches('/'));
        removed.inspect(|root| root.close()).is_some()
    }

    /// What is known of each root.
    pub fn roots_status(&self) -> Vec<RootStatus> {
        self.roots().values().map(|root| root.status()).collect()
    }

    /// Takes a signal in. Returns at once; a look follows.
    pub fn signal(&self, signal: &Signal) {
        let roots: Vec<Arc<Root>> = self.roots().values().cloned().collect();
        for root in roots {
            match signal {
                Signal::Timer => root.queue.push_everything(),
                Signal::Hint(name) => root.queue.push(name.clone()),
            }
        }
    }

    /// Looks at every table of every root now, one after the other, and says what came of each. Roots
    /// that do not answer are left out; their status says why. Dropped, it stops between two steps.
    pub async fn look_at_everything(&self) -> BTreeMap<DatasetName, Outcome> {
        let roots: Vec<Arc<Root>> = self.roots().values().cloned().collect();
        let mut outcomes = BTreeMap::new();
        for root in roots {
            outcomes.extend(root.look_at_everything().await);
        }
        outcomes
    }

    /// Looks at one table now. None when no root has it.
    pub async fn reconcile(&self, name: &DatasetName) -> Option<Outcome> {
        let root = self.root_of(name).await?;
        root.look_at(name).await
    }

    /// Publishes a batch. The table is one that was found, or lies at the request's source below a root.
    pub async fn batch(
        &self,
        name: &DatasetName,
        id: &BatchId,
        request: &BatchRequest,
    ) -> Result<Committed, BatchError> {
        if let Some(root) = self.root_of(name).await {
            return root.batch(name, id, request).await;
        }
        let unknown = || BatchError::Invalid(format!("no root has {name}; say its source"));
        let source = request.source.as_deref().ok_or_else(unknown)?;
        let root = self
            .roots()
            .values()
            .find(|root| root.below(source).is_some())
            .cloned();
        let outside = || BatchError::Invalid(format!("{source} is below no root"));
        let root = root.ok_or_else(outside)?;
        root.adopt(name, source)?;
        root.batch(name, id, request).await
    }

    /// Reads files at a location: the upstream of a root that holds it, and the location's path below
    /// that root. None when no root holds it: the catalog reads nowhere else.
    pub fn reader(&self, location: &str) -> Option<(Arc<dyn Upstream>, String)> {
        let roots = self.roots();
        roots.values().find_map(|root| {
            let path = root.below(location)?.to_owned();
            Some((Arc::clone(&root.upstream), path))
        })
    }

    /// Why a table is, or is not, published. None when no root has it.
    pub fn why(&self, name: &DatasetName) -> Option<Why> {
        let roots: Vec<Arc<Root>> = self.roots().values().cloned().collect();
        roots.iter().find_map(|root| root.why(name))
    }

    /// The root that has a table. Lists roots once when nobody has looked at them yet.
    async fn root_of(&self, name: &DatasetName) -> Option<Arc<Root>> {
        let roots: Vec<Arc<Root>> = self.roots().values().cloned().collect();
        if let Some(root) = roots.iter().find(|root| root.has(name)) {
            return Some(Arc::clone(root));
        }
        for root in roots {
            root.refresh().await;
            if root.has(name) {
                return Some(root);
            }
        }
        None
    }

    fn roots(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Root>>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
