//! The task of a root: looks at what is due, and at everything from time to time.
//!
//! ```text
//! queue (signals) --+
//! interval ---------+--> refresh the list of tables --> look, AT_ONCE tables at a time
//! active tables ----+    (one look at a table at a time: its turn)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RootStatus;
use super::batch::{self, BatchError, BatchRequest};
use super::check::Footers;
use super::pass::{self, Outcome};
use super::publish::Target;
use super::queue::{Due, Queue};
use super::root::{Found, FoundTable, RootSpec, location};
use super::said::Said;
use super::settings::{Settings, descriptor_of};
use super::table::TableState;
use super::why::Why;
use crate::descriptor::Descriptor;
use crate::ledger::{BatchId, Committed, Ledger, LedgerError};
use crate::name::DatasetName;
use crate::upstream::Upstream;
use crate::vault::Vaults;

/// Tables of one root that are looked at at the same time.
const AT_ONCE: usize = 4;

/// Looks at everything take one part in so many of the time at most, unless the interval wants more.
const LOOK_SHARE: u32 = 20;

/// A root and its tables.
#[derive(Debug)]
pub(super) struct Root {
    spec: RootSpec,
    pub(super) upstream: Arc<dyn Upstream>,
    ledger: Ledger,
    vaults: Vaults,
    footers: Footers,
    pub(super) queue: Queue,
    tables: Mutex<BTreeMap<DatasetName, Arc<Table>>>,
    listing: Mutex<Listing>,
    closed: CancellationToken,
}

/// What the last listing of the root said.
#[derive(Debug, Default)]
struct Listing {
    refused: BTreeMap<String, String>,
    trouble: Option<String>,
}

/// One table: its turn, and what the last look left.
#[derive(Debug)]
struct Table {
    found: FoundTable,
    /// Held over a look or a batch: one at a time.
    turn: tokio::sync::Mutex<TableState>,
    /// What the last look has to say.
    said: Mutex<Said>,
}

/// Looks until the root is removed.
pub(super) async fn run(root: Arc<Root>) {
    let interval = Duration::from_secs(root.spec.interval_seconds);
    let active = Duration::from_secs(root.spec.active_seconds);
    let mut whole = Instant::now();
    loop {
        if Instant::now() >= whole {
            let begun = Instant::now();
            root.look_at_everything().await;
            // A place that is looked at quickly is looked at often: a partition that nobody
            // announced is then published within seconds, and the store hardly notices.
            let pause = (begun.elapsed() * LOOK_SHARE).max(active).min(interval);
            whole = Instant::now() + pause;
        }
        // New tables are looked for as often as active ones: listing a root is cheap.
        let soon = (Instant::now() + active).min(whole);
        let due = tokio::select! {
            () = root.closed.cancelled() => return,
            due = root.queue.due() => Some(due),
            () = tokio::time::sleep_until(soon) => None,
        };
        match due {
            Some(Due::Everything) => whole = Instant::now(),
            Some(Due::Tables(names)) => drop(root.look_at_all(names).await),
            None if Instant::now() < whole => {
                let new = root.refresh().await;
                let names = root.active().into_iter().chain(new).collect();
                root.look_at_all(names).await;
            }
            None => {}
        }
    }
}

impl Root {
    pub(super) fn new(
        spec: RootSpec,
        upstream: Arc<dyn Upstream>,
        ledger: Ledger,
        vaults: Vaults,
    ) -> Self {
        Self {
            spec,
            upstream,
            ledger,
            vaults,
            footers: Footers::default(),
            queue: Queue::default(),
            tables: Mutex::default(),
            listing: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Ends the root's task.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<DatasetName, Arc<Table>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listing(&self) -> MutexGuard<'_, Listing> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the root; the tables that are new. A listing that fails forgets nothing.
    pub(super) async fn refresh(&self) -> BTreeSet<DatasetName> {
        let found = match self.spec.find(self.upstream.as_ref()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(root = self.upstream.url(), %error, "list a root");
                self.listing().trouble = Some(error.to_string());
                return BTreeSet::new();
            }
        };
        let Found {
            tables: found,
            refused,
            broken,
        } = found;
        let refused = refused
            .into_iter()
            .map(|(path, refusal)| (path, refusal.to_string()));
        *self.listing() = Listing {
            refused: refused.chain(broken).collect(),
            trouble: None,
        };
        let mut new = BTreeSet::new();
        let mut tables = self.tables();
        for (name, found) in found {
            let known = tables.get(&name).is_some_and(|table| {
                table.found.directory == found.directory
                    && table.found.descriptor == found.descriptor
            });
            if !known {
                let source = location(self.upstream.url(), &found.directory);
                new.insert(name.clone());
                tables.insert(name, Arc::new(Table::new(found, source)));
            }
        }
        // Tables whose directory is gone stay: their last version does, and `why` says so.
        new
    }

    pub(super) async fn look_at_everything(&self) -> BTreeMap<DatasetName, Outcome> {
        self.refresh().await;
        let names = self.tables().keys().cloned().collect();
        self.look_at_all(names).await
    }

    async fn look_at_all(&self, names: BTreeSet<DatasetName>) -> BTreeMap<DatasetName, Outcome> {
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let looks: Vec<BoxFuture<'_, _>> = names
            .into_iter()
            .map(|name| self.look(name).boxed())
            .collect();
        let outcomes: Vec<_> = stream::iter(looks)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        outcomes.into_iter().flatten().collect()
    }

    async fn look(&self, name: DatasetName) -> Option<(DatasetName, Outcome)> {
        let outcome = self.look_at(&name).await?;
        Some((name, outcome))
    }

    /// Looks at one table; none when this root does not have it.
    pub(super) async fn look_at(&self, name: &DatasetName) -> Option<Outcome> {
        let table = self.table(name)?;
        let mut state = table.turn.lock().await;
        let outcome = match self.descriptor(&table.found).await {
            Ok(descriptor) => {
                let settings = Settings::of(&self.spec, &descriptor);
                let target = self.target(&table.found, &descriptor, &settings);
                pass::look(&target, &mut state).await
            }
            Err(error) => {
                state.trouble(Some(error.to_string()), Instant::now());
                Outcome::Unknown(error.to_string())
            }
        };
        if let Outcome::Published(version) = outcome {
            tracing::info!(dataset = %name, version, "published");
        }
        table.say(&state, &self.location(&table.found));
        Some(outcome)
    }

    /// Publishes a batch of a table of this root.
    pub(super) async fn batch(
        &self,
        name: &DatasetName,
        id: &BatchId,
        request: &BatchRequest,
    ) -> Result<Committed, BatchError> {
        let unknown = || BatchError::Invalid(format!("no root has {name}"));
        let table = self.table(name).ok_or_else(unknown)?;
        let location = self.location(&table.found);
        let asked = request
            .source
            .as_deref()
            .map(|source| source.trim_end_matches('/'));
        if asked.is_some_and(|asked| asked != location) {
            return Err(BatchError::Invalid(format!("{name} lies at {location}")));
        }
        let mut state = table.turn.lock().await;
        let descriptor = self.descriptor(&table.found).await;
        let descriptor = descriptor.map_err(|error| BatchError::Unavailable(error.to_string()))?;
        if descriptor.source != location {
            return Err(BatchError::Invalid(format!(
                "the name belongs to {}",
                descriptor.source
            )));
        }
        let settings = Settings::of(&self.spec, &descriptor);
        let target = self.target(&table.found, &descriptor, &settings);
        let committed = batch::run(&target, id, request).await?;
        state.forget_published();
        table.say(&state, &location);
        Ok(committed)
    }

    /// Makes a table known that a caller names and that no listing has shown yet.
    pub(super) fn adopt(&self, name: &DatasetName, source: &str) -> Result<(), BatchError> {
        let url = self.upstream.url().trim_end_matches('/');
        let below = source
            .trim_end_matches('/')
            .strip_prefix(url)
            .map(|rest| rest.trim_start_matches('/'));
        let directory = below.unwrap_or_default();
        if !directory.is_empty() && super::names::check_path(directory).is_err() {
            return Err(BatchError::Invalid(
                "the source is not a directory below a root".to_owned(),
            ));
        }
        let found = FoundTable {
            name: name.clone(),
            directory: directory.into(),
            descriptor: None,
        };
        let source = self.location(&found);
        self.tables()
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Table::new(found, source)));
        Ok(())
    }

    /// The path below the root of a location that lies at it or below it.
    pub(super) fn below<'a>(&self, location: &'a str) -> Option<&'a str> {
        let rest = location.strip_prefix(self.upstream.url().trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
    }

    pub(super) fn has(&self, name: &DatasetName) -> bool {
        self.tables().contains_key(name)
    }

    pub(super) fn why(&self, name: &DatasetName) -> Option<Why> {
        let table = self.table(name)?;
        let said = table.said().clone();
        Some(said.aged(Instant::now()))
    }

    pub(super) fn status(&self) -> RootStatus {
        let tables = self.tables().len() as u64;
        let listing = self.listing();
        RootStatus {
            url: self.upstream.url().to_owned(),
            spec: self.spec.clone(),
            tables,
            refused: listing.refused.clone(),
            trouble: listing.trouble.clone(),
        }
    }

    fn table(&self, name: &DatasetName) -> Option<Arc<Table>> {
        self.tables().get(name).map(Arc::clone)
    }

    /// Tables that somebody is writing.
    fn active(&self) -> BTreeSet<DatasetName> {
        let tables = self.tables();
        let active = tables.iter().filter(|(_, table)| table.said().active);
        active.map(|(name, _)| name.clone()).collect()
    }

    fn location(&self, found: &FoundTable) -> String {
        location(self.upstream.url(), &found.directory)
    }

    /// The registered descriptor, or the one the table will be registered with.
    async fn descriptor(&self, found: &FoundTable) -> Result<Descriptor, LedgerError> {
        match self.ledger.dataset(&found.name).await {
            Ok(dataset) => Ok(dataset.descriptor.as_ref().clone()),
            Err(LedgerError::NoDataset(_)) => {
                Ok(descriptor_of(&self.spec, self.upstream.url(), found))
            }
            Err(error) => Err(error),
        }
    }

    fn target<'a>(
        &'a self,
        found: &'a FoundTable,
        descriptor: &'a Descriptor,
        settings: &'a Settings,
    ) -> Target<'a> {
        Target {
            ledger: &self.ledger,
            vaults: &self.vaults,
            upstream: self.upstream.as_ref(),
            footers: &self.footers,
            directory: &found.directory,
            location: self.location(found),
            descriptor,
            settings,
        }
    }
}

impl Table {
    fn new(found: FoundTable, source: String) -> Self {
        let why = Why {
            dataset: found.name.to_string(),
            location: source,
            ..Why::default()
        };
        Self {
            found,
            turn: tokio::sync::Mutex::default(),
            said: Mutex::new(Said {
                why,
                at: Instant::now(),
                active: true,
            }),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, state: &TableState, location: &str) {
        let at = Instant::now();
        let why = state.why(self.found.name.as_str(), location, at);
        let active = state.is_active();
        *self.said() = Said { why, at, active };
    }
}
