//! What this node tells the catalogs of its mounts, and what they ask of it.
//!
//! ```text
//! mod.rs    one task for each catalog that a mount names; what became of their reports
//! link.rs   one catalog: report, pause, work on what the answer says
//! held.rs   what there is to report: tiers, mounts, versions
//! count.rs  how much of each version is near, without counting all the time
//! work.rs   warm-up jobs on this node
//! pins.rs   pins that move with the newest version
//! ```
//!
//! Nothing that serves an application waits for a catalog here, and a catalog never connects to a node.
//! No state is kept: a worker that takes over reports what it finds, and is told its jobs again.

mod count;
mod held;
mod link;
mod pins;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::assembly::Node;

/// How often it is looked whether mounts name other catalogs than before.
const LOOK: Duration = Duration::from_secs(1);

/// Applications that wait for a new worker go first.
const FIRST: Duration = Duration::from_secs(2);

/// Name of a node without one: what the kernel says, and if that is nothing.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
const NAMELESS: &str = "localhost";

/// What became of the reports to one catalog.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// When a report was taken last.
    taken: Option<Instant>,
    /// Why the last one was not taken.
    error: Option<String>,
    sent: u64,
    failed: u64,
    /// Jobs that are worked on.
    jobs: u64,
}

/// What became of the reports of this node, by the addresses of catalogs. One lock, held for no I/O.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    name: Mutex<String>,
    outcomes: Mutex<BTreeMap<String, Outcome>>,
}

/// Counters over all catalogs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportStats {
    /// Reports that a catalog took.
    pub(crate) taken: u64,
    /// Reports that none took.
    pub(crate) failed: u64,
    /// Warm-up jobs that are worked on now.
    pub(crate) jobs: u64,
}

impl Reporting {
    /// For `terrace status --json`.
    pub(crate) fn document(&self) -> Value {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = self.lock();
        let rows = rows.iter().map(|(catalog, outcome)| {
            json!({
                "catalog": catalog,
                "node": *name,
                "taken_seconds_ago": outcome.taken.map(|taken| taken.elapsed().as_secs()),
                "error": outcome.error,
                "jobs": outcome.jobs,
            })
        });
        rows.collect()
    }

    /// For the metrics.
    pub(crate) fn stats(&self) -> ReportStats {
        let rows = self.lock();
        let add = |sum: ReportStats, row: &Outcome| ReportStats {
            taken: sum.taken + row.sent,
            failed: sum.failed + row.failed,
            jobs: sum.jobs + row.jobs,
        };
        rows.values().fold(ReportStats::default(), add)
    }

    fn taken(&self, catalog: &str, jobs: usize) {
        let mut rows = self.lock();
        let row = rows.entry(catalog.to_owned()).or_default();
        if let Some(error) = row.error.take() {
            tracing::info!(catalog, before = error, "the catalog takes reports again");
        }
        row.taken = Some(Instant::now());
        row.sent += 1;
        row.jobs = jobs as u64;
    }

    fn failed(&self, catalog: &str, error: String) {
        let mut rows = self.lock();
        let row = rows.entry(catalog.to_owned()).or_default();
        if row.error.is_none() {
            tracing::warn!(catalog, error, "the catalog takes no report of this node");
        }
        row.error = Some(error);
        row.failed += 1;
    }

    fn keep(&self, catalogs: &BTreeSet<String>) {
        self.lock().retain(|catalog, _| catalogs.contains(catalog));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Outcome>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who this node is to catalogs.
#[derive(Clone, Debug)]
struct Identity {
    name: String,
    /// Tells this hot tier from another one whose node has the same name.
    instance: String,
}

/// Reports to every catalog that a mount of the node names, until `stop`.
pub(crate) async fn run(node: Arc<Node>, stop: CancellationToken) {
    let identity = match identity(&node) {
        Ok(identity) => identity,
        Err(error) => {
            // Mounts are served all the same.
            tracing::error!(error = %format!("{error:#}"), "this node reports to no catalog");
            return;
        }
    };
    let reporting = node.reporting();
    reporting
        .name
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone_from(&identity.name);
    let mut links: BTreeMap<String, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + FIRST, LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let mounts = node.mounts();
        let named = mounts.iter().filter_map(|m| m.options.catalog.clone());
        let catalogs: BTreeSet<String> = named.collect();
        links.retain(|catalog, _| catalogs.contains(catalog));
        reporting.keep(&catalogs);
        for catalog in catalogs {
            links.entry(catalog.clone()).or_insert_with(|| {
                let link = link::run(Arc::clone(&node), catalog, identity.clone());
                AbortOnDropHandle::new(node.sources().runtime().spawn(link))
            });
        }
    }
}

fn identity(node: &Node) -> Result<Identity> {
    let config = node.config();
    let name = config.node.name.clone().unwrap_or_else(host_name);
    Ok(Identity {
        name,
        instance: instance(&config.cache.hot.dir)?,
    })
}

/// The machine's name, as a name of a node.
pub(crate) fn host_name() -> String {
    let text = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    let name: String = text
        .trim()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(64)
        .collect();
    if name.is_empty() {
        NAMELESS.to_owned()
    } else {
        name
    }
}

/// A random text that stays with the hot directory.
fn instance(hot: &Path) -> Result<String> {
    let path = hot.join("instance");
    let what = || format!("note who this node is in {}", path.display());
    if let Ok(text) = std::fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let text = format!("{:016x}", rand::random::<u64>());
    // Whole or not at all: the next worker must read the same.
    let new = hot.join(format!("instance.{}", std::process::id()));
    std::fs::write(&new, format!("{text}\n")).with_context(what)?;
    std::fs::rename(&new, &path).with_context(what)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it two nodes of one machine would overwrite each other, or a restart would be a stranger.
    #[test]
    fn an_instance_stays_with_its_directory() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = instance(one.path()).unwrap();
        assert_eq!(instance(one.path()).unwrap(), first);
        assert_ne!(instance(two.path()).unwrap(), first);
        assert!(host_name().chars().next().unwrap().is_ascii_alphanumeric());
    }

    // Without it a catalog that is down would not be seen in the status, or be seen for ever.
    #[test]
    fn the_status_says_what_became_of_reports() {
        let reporting = Reporting::default();
        reporting.failed("http://c", "no answer".to_owned());
        assert_eq!(reporting.document()[0]["error"], "no answer");
        assert!(reporting.document()[0]["taken_seconds_ago"].is_null());
        reporting.taken("http://c", 2);
        let row = reporting.document()[0].clone();
        assert!(row["error"].is_null() && row["taken_seconds_ago"] == 0);
        let (taken, failed, jobs) = (1, 1, 2);
        assert_eq!(
            reporting.stats(),
            ReportStats {
                taken,
                failed,
                jobs
            }
        );
        reporting.keep(&BTreeSet::new());
        assert_eq!(reporting.document(), json!([]));
    }
}
