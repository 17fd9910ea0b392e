//! Long work on many objects: warming up with honest progress.
//!
//! Progress is counted in bytes that are at rest in the tier, those of files that are still on their way
//! included; totals grow while the listing runs and
//! are final when `listed` is set, and the job is `finished` only after the last file. At most
//! [`FILES_AT_ONCE`] files are on their way; the fill engine bounds their bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use terrace_cache::Source;
use terrace_cache::fill::Object;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tonic::Status;

use super::proto::WarmProgress;
use super::target::Found;
use crate::node::assembly::Node;

/// Files filled at once: enough to hide the latency of a store behind small files.
const FILES_AT_ONCE: usize = 64;
/// Pins written at once: each write is a sync of the index.
pub(super) const PIN_BATCH: usize = 1024;
/// How often a waiting client hears of progress, and how long a pin waits for others at most.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// What to do with each file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Exempt from eviction once filled.
    pub(crate) pin: bool,
    /// Into the warm tier only.
    pub(crate) warm_only: bool,
}

/// Progress as a client sees it.
pub(crate) type Reports = mpsc::Sender<Result<WarmProgress, Status>>;

/// Fills every object of `found`. Ends early when `reports` is given and its client has gone.
pub(crate) async fn warm(node: Arc<Node>, mut found: Found, plan: Plan, reports: Option<Reports>) {
    let mut job = Job {
        progress: WarmProgress::default(),
        running: JoinSet::new(),
        coming: HashMap::new(),
        to_pin: Vec::new(),
    };
    let mut tick = tokio::time::interval(REPORT_EVERY);
    let mut listed = false;
    while !listed || !job.running.is_empty() {
        let room = job.running.len() < FILES_AT_ONCE;
        tokio::select! {
            next = found.next(&node), if room && !listed => match next {
                Some(Ok(object)) => job.begin(&found, object, plan),
                Some(Err(error)) => job.fail(error),
                None => listed = true,
            },
            Some(done) = job.running.join_next_with_id(), if !job.running.is_empty() => match job.landed(done) {
                Ok(object) => {
                    job.progress.files_done += 1;
                    job.progress.bytes_done += object.id().size();
                    if plan.pin && !plan.warm_only {
                        job.to_pin.push(object);
                    }
                    if job.to_pin.len() == PIN_BATCH {
                        job.pin(&node).await;
                    }
                }
                Err(error) => job.fail(error),
            },
            _ = tick.tick() => {
                job.pin(&node).await;
                job.progress.listed = listed;
                if let Some(reports) = &reports {
                    if reports.is_closed() {
                        return;
                    }
                    // A slow client misses a report, never blocks the job.
                    reports.try_send(Ok(job.so_far())).ok();
                }
            }
        }
    }
    job.pin(&node).await;
    job.progress.listed = true;
    job.progress.finished = true;
    if let Some(reports) = reports {
        reports.send(Ok(job.progress)).await.ok();
    }
}

struct Job {
    progress: WarmProgress,
    running: JoinSet<Result<Arc<Object>, String>>,
    /// Files on their way into the hot tier, by their task.
    coming: HashMap<Id, Arc<Object>>,
    /// Filled and not pinned yet; not evicted, as they are held here.
    to_pin: Vec<Arc<Object>>,
}

impl Job {
    fn begin(&mut self, found: &Found, object: Arc<Object>, plan: Plan) {
        self.progress.files_total += 1;
        self.progress.bytes_total += object.id().size();
        let source = Arc::clone(&found.source);
        let coming = (!plan.warm_only).then(|| Arc::clone(&object));
        let task = self.running.spawn(async move {
            if plan.warm_only {
                fill_warm(&object, &source).await?;
            } else {
                object.fill().await.map_err(|error| error.to_string())?;
            }
            Ok(object)
        });
        self.coming.extend(coming.map(|object| (task.id(), object)));
    }

    /// What became of a file, which is on its way no more.
    fn landed(
        &mut self,
        done: Result<(Id, Result<Arc<Object>, String>), JoinError>,
    ) -> Result<Arc<Object>, String> {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.coming.remove(&id);
        done.map_err(|error| error.to_string())?.1
    }

    /// Progress with what is there of the files on their way.
    fn so_far(&self) -> WarmProgress {
        let coming = self.coming.values().map(|object| object.progress().0);
        let mut progress = self.progress.clone();
        progress.bytes_done += coming.sum::<u64>();
        progress
    }

    /// Pins what waits for it.
    async fn pin(&mut self, node: &Node) {
        let objects = std::mem::take(&mut self.to_pin);
        if objects.is_empty() {
            return;
        }
        let digests = objects.iter().map(|object| object.id().digest());
        let pinned = node.cache().hot().pin_all(digests.collect(), true);
        if let Err(error) = pinned.await {
            self.fail(error.to_string());
        }
    }

    fn fail(&mut self, error: String) {
        self.progress.files_failed += 1;
        if self.progress.error.is_empty() {
            self.progress.error = error;
        }
    }
}

/// Reads an object through the warm tier, which keeps a copy; the bytes are dropped here.
async fn fill_warm(object: &Object, source: &Arc<dyn Source>) -> Result<(), String> {
    let size = object.id().size();
    if size == 0 {
        return Ok(());
    }
    let mut bytes = source
        .read(object.id(), 0..size)
        .await
        .map_err(|error| error.to_string())?;
    while let Some(piece) = bytes.next().await {
        piece.map_err(|error| error.to_string())?;
    }
    Ok(())
}
