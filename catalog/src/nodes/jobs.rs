//! Jobs in the catalog's key-value store: they outlive the catalog, and every replica sees them.
//!
//! ```text
//! "wj/" id            JobRecord    one for each job
//! "wp/" id "/" node   PartRecord   once the node has said something of it
//! ```
//!
//! A part is written by the reports of its node only, a job when it is made and when it ends, each with
//! a compare, so two replicas never undo each other. Progress is written when it changed: at most once
//! for each report. Jobs that have not ended are at most [`MAX_ACTIVE`] and are remembered for
//! [`REMEMBERED`], so that a report of a node without work costs no look at the database. The memory's
//! lock is never held across an await.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::job::{Job, Part, PartReport, State, Work};
use super::name::{JobId, NodeName};
use super::record::{JobRecord, PartRecord, decode, encode};
use crate::kv::{Compare, KeyRange, Kv, KvError, MAX_OPS, MAX_PAGE, Txn, TxnOutcome, Versioned};
use crate::name::DatasetName;

const JOBS: &[u8] = b"wj/";
const PARTS: &[u8] = b"wp/";

/// Most jobs that have not ended.
const MAX_ACTIVE: usize = 128;
/// Most nodes of one job: its record stays far below the largest value of the store.
pub(super) const MAX_NODES: usize = 512;
/// Jobs that have ended are forgotten when so many newer ones have, or after so long.
const KEPT: usize = 256;
const KEPT_MS: i64 = 7 * 24 * 3600 * 1000;
/// A job whose nodes do not end it fails after so long.
const LONGEST_MS: i64 = 24 * 3600 * 1000;
/// How long the list of active jobs is believed. Another replica may have made one.
const REMEMBERED: Duration = Duration::from_secs(1);
/// How often a change is tried again when others were faster.
const RETRIES: usize = 16;

/// Why a job was not made, or not found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JobsError {
    /// There is no such job, or it was forgotten.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// Too many are under way.
    #[error("{MAX_ACTIVE} warm-up jobs are under way")]
    Full,
    /// Refused by a rule, which the text names.
    #[error("{0}")]
    Invalid(String),
    /// Others change the same job all the time.
    #[error("the job {0} is changed by others all the time")]
    Busy(JobId),
    /// The database.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// The jobs that have not ended, and when they were read.
type Memory = Option<(Instant, Vec<Job>)>;

/// See the module text.
#[derive(Debug)]
pub struct Jobs {
    kv: std::sync::Arc<dyn Kv>,
    active: Mutex<Memory>,
}

impl Jobs {
    /// Over the catalog's own store.
    pub fn new(kv: std::sync::Arc<dyn Kv>) -> Self {
        Self {
            kv,
            active: Mutex::default(),
        }
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        self.kv.as_ref()
    }

    /// Makes a job; without an id it gets one, and with one a job that exists already is left as it is.
    /// Errors with `Invalid` without nodes or with too many, with `Full`.
    pub async fn create(
        &self,
        id: Option<JobId>,
        mut work: Work,
        now_ms: i64,
    ) -> Result<Job, JobsError> {
        work.nodes.sort();
        work.nodes.dedup();
        if !(1..=MAX_NODES).contains(&work.nodes.len()) {
            let count = work.nodes.len();
            let why = format!("a job is asked of 1 to {MAX_NODES} nodes, and these are {count}");
            return Err(JobsError::Invalid(why));
        }
        if self.read_active().await?.len() >= MAX_ACTIVE {
            return Err(JobsError::Full);
        }
        let job = Job {
            id: id.unwrap_or_else(|| JobId::from_bytes(rand::random())),
            work,
            created_ms: now_ms,
            ended: None,
        };
        let key = job_key(&job.id);
        let txn = Txn::new()
            .when(Compare::Absent(key.clone()))
            .put(key, encode(&JobRecord::of(&job))?);
        let outcome = self.kv.txn(txn).await?;
        self.forget_active();
        match outcome {
            TxnOutcome::Committed { .. } => Ok(job),
            TxnOutcome::Conflict { .. } => Ok(self.head(&job.id).await?.0),
        }
    }

    /// A job and its parts, in the order of its nodes. Errors with `NoJob`.
    pub async fn get(&self, id: &JobId) -> Result<(Job, Vec<Part>), JobsError> {
        let (job, _) = self.head(id).await?;
        let parts = self.parts(&job).await?;
        Ok((job, parts))
    }

    /// The newest `limit` jobs, the newest first; of one dataset, or of all.
    pub async fn list(
        &self,
        dataset: Option<&DatasetName>,
        limit: usize,
    ) -> Result<Vec<Job>, JobsError> {
        let mut jobs = self.all().await?;
        jobs.retain(|job| dataset.is_none_or(|dataset| job.work.dataset == *dataset));
        jobs.truncate(limit);
        Ok(jobs)
    }

    /// The parts of a job, in the order of its nodes. Those of a job that was cancelled, or that has
    /// failed for its age, have ended with it.
    pub async fn parts(&self, job: &Job) -> Result<Vec<Part>, JobsError> {
        let keys: Vec<Bytes> = (job.work.nodes.iter())
            .map(|node| part_key(&job.id, node))
            .collect();
        let found = self.kv.get_many(&keys).await?;
        let mut parts = Vec::with_capacity(keys.len());
        for (node, stored) in job.work.nodes.iter().zip(&found) {
            let mut part = part_of(node, stored.as_ref())?;
            if let Some((state, _)) = job.ended
                && !part.state.has_ended()
            {
                part.state = state;
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Ends a job that nobody wants any more. One that has ended stays as it is.
    pub async fn cancel(&self, id: &JobId, now_ms: i64) -> Result<(Job, Vec<Part>), JobsError> {
        let job = self.end(id, State::Cancelled, now_ms).await?;
        let parts = self.parts(&job).await?;
        Ok((job, parts))
    }

    /// Takes in what a node says of its jobs; what it shall work on from now on. `refused` says why
    /// a node may not have a job's version, if it may not.
    pub async fn exchange(
        &self,
        node: &NodeName,
        said: &[(JobId, PartReport)],
        refused: impl Fn(&Job) -> Option<String>,
        now_ms: i64,
    ) -> Result<Vec<Job>, JobsError> {
        let mut orders = Vec::new();
        for job in self.active().await? {
            if job.work.nodes.binary_search(node).is_err() {
                continue;
            }
            let refusal = refused(&job).map(|why| PartReport {
                state: State::Failed,
                done_bytes: 0,
                error: Some(why),
            });
            let report = said.iter().find(|(id, _)| *id == job.id);
            let report = refusal.as_ref().or(report.map(|(_, report)| report));
            if self.take_in(&job, node, report, now_ms).await? {
                orders.push(job);
            }
        }
        Ok(orders)
    }

    /// Applies a report to a part. Returns whether the node shall go on.
    async fn take_in(
        &self,
        job: &Job,
        node: &NodeName,
        report: Option<&PartReport>,
        now_ms: i64,
    ) -> Result<bool, JobsError> {
        let key = part_key(&job.id, node);
        let stored = self.kv.get(&key).await?;
        let mut part = part_of(node, stored.as_ref())?;
        if report.is_some_and(|report| part.apply(report, job.work.bytes)) {
            let txn = Txn::new()
                .unchanged(key.clone(), stored.as_ref())
                .put(key, encode(&PartRecord::of(&part))?);
            if let TxnOutcome::Conflict { .. } = self.kv.txn(txn).await? {
                // Another report of the same node was faster; the next one says it again.
                return Ok(true);
            }
        }
        if part.state.has_ended() {
            // Also when the part had ended before: a crash may have come between the two.
            self.settle(job, now_ms).await?;
        }
        Ok(!part.state.has_ended())
    }

    /// Ends a job whose parts have all ended.
    async fn settle(&self, job: &Job, now_ms: i64) -> Result<(), JobsError> {
        let state = job.state(&self.parts(job).await?);
        if state.has_ended() {
            self.end(&job.id, state, now_ms).await?;
        }
        Ok(())
    }

    /// Fails jobs that are too old, and forgets what ended long ago. Returns how many were failed.
    pub async fn tidy(&self, now_ms: i64) -> Result<usize, JobsError> {
        let (mut failed, mut ended) = (0, 0);
        for job in self.all().await? {
            match job.ended {
                None if now_ms - job.created_ms > LONGEST_MS => {
                    self.expire(&job, now_ms).await?;
                    failed += 1;
                }
                None => {}
                Some((_, at_ms)) => {
                    ended += 1;
                    if ended > KEPT || now_ms - at_ms > KEPT_MS {
                        self.remove(&job).await?;
                    }
                }
            }
        }
        Ok(failed)
    }

    /// Fails the parts that have not ended, and with them the job.
    async fn expire(&self, job: &Job, now_ms: i64) -> Result<(), JobsError> {
        let late = PartReport {
            state: State::Failed,
            done_bytes: 0,
            error: Some("the node did not say within a day that it was done".to_owned()),
        };
        for node in &job.work.nodes {
            self.take_in(job, node, Some(&late), now_ms).await?;
        }
        Ok(())
    }

    async fn remove(&self, job: &Job) -> Result<(), JobsError> {
        // The job last: what a crash leaves is found again.
        let mut keys: Vec<Bytes> = (job.work.nodes.iter())
            .map(|node| part_key(&job.id, node))
            .collect();
        keys.push(job_key(&job.id));
        for some in keys.chunks(MAX_OPS) {
            let txn = some.iter().cloned().fold(Txn::new(), Txn::delete);
            self.kv.txn(txn).await?;
        }
        Ok(())
    }

    async fn end(&self, id: &JobId, state: State, now_ms: i64) -> Result<Job, JobsError> {
        for _ in 0..RETRIES {
            let (mut job, stored) = self.head(id).await?;
            if job.ended.is_some() {
                return Ok(job);
            }
            job.ended = Some((state, now_ms));
            let key = job_key(id);
            let txn = Txn::new()
                .unchanged(key.clone(), Some(&stored))
                .put(key, encode(&JobRecord::of(&job))?);
            if let TxnOutcome::Committed { .. } = self.kv.txn(txn).await? {
                self.forget_active();
                return Ok(job);
            }
        }
        Err(JobsError::Busy(id.clone()))
    }

    async fn head(&self, id: &JobId) -> Result<(Job, Versioned), JobsError> {
        let stored = self.kv.get(&job_key(id)).await?;
        let stored = stored.ok_or_else(|| JobsError::NoJob(id.clone()))?;
        let record: JobRecord = decode(&stored.value)?;
        Ok((record.job(id.clone())?, stored))
    }

    /// Every job, the newest first.
    async fn all(&self) -> Result<Vec<Job>, JobsError> {
        // The limits above keep them to one page.
        let found = self.kv.scan(KeyRange::prefix(JOBS), MAX_PAGE).await?;
        let mut jobs = Vec::with_capacity(found.len());
        for (key, stored) in found {
            let id = std::str::from_utf8(&key[JOBS.len()..]).unwrap_or_default();
            let damaged = |_| KvError::Corrupt("a job has no id".to_owned());
            let record: JobRecord = decode(&stored.value)?;
            jobs.push(record.job(id.parse().map_err(damaged)?)?);
        }
        jobs.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        Ok(jobs)
    }

    /// The jobs that have not ended, the oldest first; as they were a moment ago.
    pub(super) async fn active(&self) -> Result<Vec<Job>, JobsError> {
        {
            let memory = self.memory();
            if let Some((read, jobs)) = &*memory
                && read.elapsed() < REMEMBERED
            {
                return Ok(jobs.clone());
            }
        }
        self.read_active().await
    }

    async fn read_active(&self) -> Result<Vec<Job>, JobsError> {
        let read = Instant::now();
        let mut jobs = self.all().await?;
        jobs.retain(|job| job.ended.is_none());
        jobs.reverse();
        *self.memory() = Some((read, jobs.clone()));
        Ok(jobs)
    }

    fn forget_active(&self) {
        *self.memory() = None;
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn job_key(id: &JobId) -> Bytes {
    [JOBS, id.as_str().as_bytes()].concat().into()
}

fn part_key(id: &JobId, node: &NodeName) -> Bytes {
    let (id, node) = (id.as_str().as_bytes(), node.as_str().as_bytes());
    [PARTS, id, b"/", node].concat().into()
}

fn part_of(node: &NodeName, stored: Option<&Versioned>) -> Result<Part, KvError> {
    match stored {
        None => Ok(Part::new(node.clone())),
        Some(stored) => decode::<PartRecord>(&stored.value)?.part(node.clone()),
    }
}

#[cfg(test)]
mod tests;
