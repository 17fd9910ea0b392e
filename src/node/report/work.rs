//! Warm-up jobs on this node: what the catalog's answer lists is worked on, anything else ends.
//!
//! ```text
//! hot       fill every file (the engine of `terrace warm`), sync, count; again while bytes were
//!           evicted meanwhile, at most ROUNDS times
//! warm      read every file through the warm tier, wait for its copies, look for each of them
//! metadata  fetch the list of files
//! ```
//!
//! Done is said only when the count found every byte of the version; a file that cannot be had fails the
//! job with its reason. Progress is what was counted at the start, or what was filled since if that is
//! more. At most [`AT_ONCE`] jobs run; the others wait. Dropping a job cancels its fills.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use terrace_catalog::rest::wire::{JobOrder, JobReport};
use terrace_fuse::ownership::Ownership;
use terrace_fuse::snapshot::Snapshot;
use terrace_fuse::tables::TableVersion;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::count::warm_bytes;
use super::link::mounts_of;
use super::pins;
use crate::catalog::view;
use crate::control::jobs::{self, Plan};
use crate::control::proto::target::Kind;
use crate::control::proto::{MountPath, Target, WarmProgress};
use crate::control::target::{self, Found};
use crate::node::assembly::{Mounted, Node};
use crate::node::residency;

/// Jobs that run at once: one more than one, so that a small one need not wait for a large one.
const AT_ONCE: usize = 2;
/// Rounds of filling when bytes were evicted before the last one came.
const ROUNDS: usize = 3;
/// How often a version is looked for, and the pause between: a catalog may be starting.
const TRIES: usize = 5;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Progress messages on their way.
const REPORTS: usize = 8;
/// How long copies in the warm tier may take to appear after their last byte was read.
const SETTLE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// How far a job is.
#[derive(Debug, Default)]
struct Progress {
    done: AtomicU64,
    /// How it ended.
    end: Mutex<Option<Result<(), String>>>,
}

impl Progress {
    fn end(&self) -> Option<Result<(), String>> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.clone()
    }
}

struct Work {
    order: JobOrder,
    progress: Arc<Progress>,
    /// None: it waits for its turn.
    task: Option<AbortOnDropHandle<()>>,
}

/// See the module text.
pub(super) struct Works {
    node: Arc<Node>,
    catalog: String,
    all: BTreeMap<String, Work>,
    changed: Arc<Notify>,
}

impl Works {
    pub(super) fn new(node: Arc<Node>, catalog: String) -> Self {
        Self {
            node,
            catalog,
            all: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    /// Jobs that are worked on or wait for it.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns when a job has ended.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How far each job is; those that have not begun say nothing.
    pub(super) fn reports(&self) -> Vec<JobReport> {
        let begun = self.all.values().filter(|work| work.task.is_some());
        let report = |work: &Work| {
            let done_bytes = work.progress.done.load(Relaxed).min(work.order.total_bytes);
            let (state, error) = match work.progress.end() {
                None => ("running", None),
                Some(Ok(())) => ("done", None),
                Some(Err(error)) => ("failed", Some(error)),
            };
            JobReport {
                id: work.order.id.clone(),
                state: state.to_owned(),
                done_bytes,
                error,
            }
        };
        begun.map(report).collect()
    }

    /// Works on these jobs, in their order, and on no others.
    pub(super) fn follow(&mut self, orders: Vec<JobOrder>) {
        self.all
            .retain(|id, _| orders.iter().any(|order| order.id == *id));
        for order in &orders {
            self.all.entry(order.id.clone()).or_insert_with(|| Work {
                order: order.clone(),
                progress: Arc::default(),
                task: None,
            });
        }
        let runs = |work: &&Work| work.task.is_some() && work.progress.end().is_none();
        let mut room = AT_ONCE.saturating_sub(self.all.values().filter(runs).count());
        for order in &orders {
            if let Some(work) = self.all.get_mut(&order.id)
                && work.task.is_none()
                && room > 0
            {
                room -= 1;
                let job = Job {
                    node: Arc::clone(&self.node),
                    catalog: self.catalog.clone(),
                    order: order.clone(),
                    progress: Arc::clone(&work.progress),
                };
                let task = job.run(Arc::clone(&self.changed));
                let task = self.node.sources().runtime().spawn(task);
                work.task = Some(AbortOnDropHandle::new(task));
            }
        }
    }
}

/// One job under way.
struct Job {
    node: Arc<Node>,
    catalog: String,
    order: JobOrder,
    progress: Arc<Progress>,
}

/// A mount that shows the version, and where in it.
struct Place {
    mounted: Arc<Mounted>,
    target: Target,
    path: Vec<u8>,
}

impl Job {
    async fn run(self, changed: Arc<Notify>) {
        let (id, dataset, version) = (&self.order.id, &self.order.dataset, self.order.version);
        tracing::info!(
            job = id,
            dataset,
            version,
            tier = self.order.tier,
            "warming begins"
        );
        let end = match self.order.tier.as_str() {
            "hot" => self.hot().await,
            "warm" => self.warm().await,
            "metadata" => self.snapshot().await.map(drop),
            other => Err(format!(
                "this release knows no tier {other:?}; upgrade the node"
            )),
        };
        match &end {
            Ok(()) => tracing::info!(job = id, dataset, version, "warming is done"),
            Err(error) => tracing::warn!(job = id, dataset, version, error, "warming failed"),
        }
        let mut slot = (self.progress.end.lock()).unwrap_or_else(PoisonError::into_inner);
        *slot = Some(end);
        drop(slot);
        changed.notify_one();
    }

    async fn hot(&self) -> Result<(), String> {
        let total = self.order.total_bytes;
        let snapshot = self.snapshot().await?;
        let before = self.count(&snapshot).await?.present_bytes;
        self.progress.done.store(before, Relaxed);
        let mut there = 0;
        for _ in 0..ROUNDS {
            let plan = Plan {
                pin: self.order.pin,
                warm_only: false,
            };
            self.fill(plan, before).await?;
            let hot = self.node.cache().hot().clone();
            let synced = tokio::task::spawn_blocking(move || hot.sync()).await;
            let synced = synced.map_err(|error| error.to_string())?;
            synced.map_err(|error| format!("sync the hot tier: {error}"))?;
            there = self.count(&snapshot).await?.complete_bytes;
            if there == total && self.order.unpin_older {
                let hot = self.node.cache().hot();
                pins::move_to(&snapshot, self.older()?, hot).await?;
                there = self.count(&snapshot).await?.complete_bytes;
            }
            self.progress.done.store(there, Relaxed);
            if there == total {
                return Ok(());
            }
        }
        let limit = self.node.cache().hot().usage().limit_bytes;
        Err(format!(
            "{there} of {total} bytes stay in the hot tier, whose budget is {limit}; enlarge it \
             (--hot-size), or warm less"
        ))
    }

    /// Lists of files of older versions of the dataset, where this node has them.
    fn older(&self) -> Result<Vec<PathBuf>, String> {
        let Some(tree) = self.place()?.mounted.tree.clone() else {
            return Ok(Vec::new());
        };
        let directory = view::directory(&self.node.config().cache.hot.dir);
        let mut all = tree.local_versions(usize::MAX);
        all.retain(|version| {
            let same = version.dataset.as_str() == self.order.dataset;
            same && version.number < self.order.version
        });
        let file = |version: &TableVersion| view::snapshot_file(&directory, &version.manifest);
        Ok(all.iter().map(file).collect())
    }

    async fn warm(&self) -> Result<(), String> {
        let total = self.order.total_bytes;
        let place = self.place()?;
        let named = place.mounted.options.warm.clone();
        let dir = named.or_else(|| self.node.sources().configured_warm());
        let dir = dir.ok_or("the mount has no warm tier; mount it with --warm DIR")?;
        let tier = self.node.sources().warm_tier(&dir);
        let tier = tier.map_err(|error| format!("{error:#}"))?;
        let path = self.snapshot_file().await?;
        let plan = Plan {
            pin: false,
            warm_only: true,
        };
        self.fill(plan, 0).await?;
        let began = tokio::time::Instant::now();
        loop {
            let there = warm_bytes(path.clone(), tier.clone()).await;
            if there == Some(total) {
                self.progress.done.store(total, Relaxed);
                return Ok(());
            }
            if began.elapsed() > SETTLE || !tier.is_busy() && began.elapsed() > LOOK * 10 {
                let there = there.map_or("none that can be counted".to_owned(), |n| n.to_string());
                let dir = dir.display();
                return Err(format!(
                    "{there} of {total} bytes have copies in {dir}; look at its space and its health"
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fills every file once. `before` bytes were there at the start.
    async fn fill(&self, plan: Plan, before: u64) -> Result<(), String> {
        let place = self.place()?;
        let mut tries = 0;
        let found: Found = loop {
            match target::find(&self.node, Some(place.target.clone())).await {
                Ok(found) => break found,
                Err(_) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(status) => return Err(status.message().to_owned()),
            }
        };
        if plan.warm_only && !found.has_warm {
            return Err("the mount has no warm tier; mount it with --warm DIR".to_owned());
        }
        let (reports, mut progress) = mpsc::channel(REPORTS);
        let filling = jobs::warm(Arc::clone(&self.node), found, plan, Some(reports));
        let watching = async {
            let mut last = WarmProgress::default();
            while let Some(Ok(report)) = progress.recv().await {
                let done = report.bytes_done.max(before);
                self.progress.done.store(done, Relaxed);
                last = report;
            }
            last
        };
        let ((), last) = tokio::join!(filling, watching);
        let total = self.order.total_bytes;
        if last.files_failed > 0 {
            let (failed, files) = (last.files_failed, last.files_total);
            return Err(format!("{failed} of {files} files: {}", last.error));
        }
        if !last.finished {
            return Err("the fill ended early; see worker.log".to_owned());
        }
        if last.bytes_total != total {
            return Err(format!(
                "the mount shows {} of {total} bytes: some files have names that no path can have",
                last.bytes_total
            ));
        }
        Ok(())
    }

    /// Where the version is shown on this node.
    fn place(&self) -> Result<Place, String> {
        let mounts = mounts_of(&self.node, &self.catalog);
        let (dataset, number) = (&self.order.dataset, self.order.version);
        let pinned = mounts.iter().find(|mount| {
            let version = mount.options.version.as_ref();
            version.is_some_and(|own| own.dataset == *dataset && own.number == number)
        });
        let tree = mounts.iter().find(|mount| mount.tree.is_some());
        let (mounted, path) = match (pinned, tree) {
            (Some(mounted), _) => (mounted, String::new()),
            (None, Some(mounted)) => {
                let (namespace, table) = dataset.split_once('.').unwrap_or((dataset, ""));
                (mounted, format!("{namespace}/{table}@v{number}"))
            }
            (None, None) => {
                let hint = "terrace mount catalog: DIR on it";
                return Err(format!(
                    "the node shows neither catalog: nor this version; {hint}"
                ));
            }
        };
        let path = path.into_bytes();
        let kind = Kind::Mount(MountPath {
            mountpoint: mounted.spec.mountpoint.to_string_lossy().into_owned(),
            path: path.clone(),
        });
        Ok(Place {
            mounted: Arc::clone(mounted),
            target: Target { kind: Some(kind) },
            path,
        })
    }

    /// The version's list of files, fetched when it is not here.
    async fn snapshot_file(&self) -> Result<PathBuf, String> {
        let mut tries = 0;
        loop {
            let place = self.place()?;
            let found = match &place.mounted.tree {
                Some(tree) if !place.path.is_empty() => {
                    match target::resolve(tree, &place.path).await {
                        Ok(attr) => (tree.snapshot_file(attr.ino).await).map_err(|e| e.to_string()),
                        Err(status) => Err(status.message().to_owned()),
                    }
                }
                _ => Ok(self.node.sources().snapshot_of(&place.mounted.spec)),
            };
            match found {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                found => return found,
            }
        }
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, String> {
        let path = self.snapshot_file().await?;
        let opening = move || Snapshot::open(&path, Ownership::default());
        let opened = tokio::task::spawn_blocking(opening).await;
        let opened = opened.map_err(|error| error.to_string())?;
        opened.map(Arc::new).map_err(|error| error.to_string())
    }

    async fn count(&self, snapshot: &Arc<Snapshot>) -> Result<residency::Present, String> {
        let (snapshot, hot) = (Arc::clone(snapshot), self.node.cache().hot().clone());
        let counting = tokio::task::spawn_blocking(move || residency::count(&snapshot, &hot));
        counting.await.map_err(|error| error.to_string())
    }
}
