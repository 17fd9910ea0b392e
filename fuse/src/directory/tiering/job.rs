//! Work on a tree: what would move, moving it, bringing it back, pinning.
//!
//! ```text
//! walk, on a thread -> candidates, open, at most AHEAD -> WORKERS moves at a time -> report
//! ```
//! Nothing is collected: a candidate is moved while the walk goes on. Whoever asked is told the sums
//! so far, and what was moved one by one if he wants to; when he goes away the work ends after the
//! files that are being moved.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::DirectoryFs;
use super::demote::{Kept, Moved, Target};
use super::policy::TierPolicy;
use super::{TierError, attribute, blocking, scan};

/// Candidates that are open and wait for their turn.
const AHEAD: usize = 16;

/// Files that are moved at a time.
const WORKERS: usize = 4;

/// How often whoever asked hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Count what is there and what would move.
    Scan,
    /// Move what is chosen.
    Demote,
    /// Bring everything back.
    Recall,
    /// Make a copy of everything; files stay: level `cold`.
    Copy,
}

/// Work on a tree.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub action: Action,
    /// Where, from the root of the volume; a file or a directory.
    pub path: Vec<u8>,
    /// What is chosen.
    pub policy: TierPolicy,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What a job did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Directories that were read.
    pub directories: u64,
    /// Regular files that were looked at, stubs too, and the bytes of their contents.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Those of them whose contents are in the cold store only.
    pub stubs: u64,
    /// Bytes of these.
    pub stub_bytes: u64,
    /// Files that were chosen.
    pub chosen: u64,
    /// Bytes of these.
    pub chosen_bytes: u64,
    /// Files that were moved.
    pub moved: u64,
    /// Bytes of these.
    pub moved_bytes: u64,
    /// Chosen, and left because they are open.
    pub kept_open: u64,
    /// Chosen, and left because they changed.
    pub kept_changed: u64,
    /// Left because they, or a directory above them, are pinned.
    pub kept_pinned: u64,
    /// What failed.
    pub failed: u64,
    /// The first failure, with its path.
    pub error: Option<String>,
}

/// A file that was moved, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// From the root of the volume.
    pub path: Vec<u8>,
    /// Bytes of its contents.
    pub bytes: u64,
}

/// How far a job is.
#[derive(Debug)]
pub enum Told {
    /// Sums so far.
    Sums(Report),
    /// One file.
    File(Row),
}

/// What the walk and the movers write.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Report>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, path: &[u8], why: &dyn std::fmt::Display) {
        let mut report = self.lock();
        report.failed += 1;
        if report.error.is_none() {
            let path = String::from_utf8_lossy(path);
            report.error = Some(format!("{path}: {why}"));
        }
    }
}

impl DirectoryFs {
    /// Carries a job out. `told` hears of files that would move (or, when they are to, of those that
    /// have), and of the sums now and then; it ends when nobody listens. What fails for one file is
    /// in the report.
    ///
    /// Errors: the path cannot be looked at, or the volume has no cold store.
    pub async fn run_job(
        self: &Arc<Self>,
        job: Job,
        told: &mpsc::Sender<Told>,
    ) -> Result<Report, TierError> {
        self.cold()?;
        let shared = Arc::new(Shared::default());
        let only_tell = job.dry_run || job.action == Action::Scan;
        let (candidates, mut queue) = mpsc::channel(AHEAD);
        let candidates = (!only_tell).then_some(candidates);
        let (fs, sums, rows, action) = (
            Arc::clone(self),
            Arc::clone(&shared),
            told.clone(),
            job.action,
        );
        let walk = blocking(move || {
            scan::walk(&fs, &job, &sums, candidates.as_ref(), &rows)
                .map_err(|errno| TierError::File("look at it", errno))
        });
        tokio::pin!(walk);
        let mut tick = tokio::time::interval(TELL_EVERY);
        let mut movers = JoinSet::new();
        let (mut walked, mut queued) = (None, true);
        while walked.is_none() || queued || !movers.is_empty() {
            tokio::select! {
                result = &mut walk, if walked.is_none() => {
                    walked = Some(result);
                }
                target = queue.recv(), if queued && movers.len() < WORKERS => match target {
                    Some(target) => {
                        let mover = moving(Arc::clone(self), target, action, Arc::clone(&shared), told.clone());
                        movers.spawn(mover);
                    }
                    None => queued = false,
                },
                Some(_) = movers.join_next(), if !movers.is_empty() => {}
                _ = tick.tick() => {
                    if told.is_closed() {
                        queue.close();
                    }
                    // Who is slow misses a sum, and holds up nothing.
                    told.try_send(Told::Sums(shared.lock().clone())).ok();
                }
            }
        }
        walked.unwrap_or(Err(TierError::Ending))?;
        let report = shared.lock().clone();
        Ok(report)
    }

    /// Pins what is at `path`, or ends that.
    ///
    /// Errors: the path, or a file system without `user.*`.
    pub async fn pin(self: &Arc<Self>, path: Vec<u8>, pinned: bool) -> Result<(), TierError> {
        let fs = Arc::clone(self);
        blocking(move || {
            let failed = |errno| TierError::File("pin it", errno);
            let file = fs.find_path(&path).map_err(failed)?;
            attribute::pin(file.as_fd(), pinned).map_err(failed)
        })
        .await
    }

    /// Follows the volume's policy for as long as it is not dropped; ends at once without one.
    pub async fn follow_policy(self: Arc<Self>) {
        let policy = self.cold().ok().and_then(|tiering| tiering.policy.clone());
        let Some(policy) = policy.filter(|policy| !policy.every.0.is_zero()) else {
            return;
        };
        loop {
            tokio::time::sleep(policy.every.0).await;
            let job = Job {
                action: Action::Demote,
                path: Vec::new(),
                policy: policy.clone(),
                dry_run: false,
            };
            let (told, mut rows) = mpsc::channel(AHEAD);
            let listen = async { while rows.recv().await.is_some() {} };
            let run = async {
                let result = self.run_job(job, &told).await;
                drop(told);
                result
            };
            let (result, ()) = tokio::join!(run, listen);
            match result {
                Ok(report) => tracing::info!(
                    files = report.files,
                    moved = report.moved,
                    moved_bytes = report.moved_bytes,
                    kept_open = report.kept_open,
                    failed = report.failed,
                    error = report.error,
                    "the policy was followed"
                ),
                Err(error) => tracing::warn!(%error, "the policy cannot be followed"),
            }
        }
    }
}

async fn moving(
    fs: Arc<DirectoryFs>,
    target: Target,
    action: Action,
    shared: Arc<Shared>,
    told: mpsc::Sender<Told>,
) {
    let done = match action {
        Action::Recall => fs.recall_file(&target).await.map(Moved::Away),
        Action::Copy => fs.copy_to_cold(&target).await.map(Moved::Away),
        Action::Scan | Action::Demote => fs.demote(&target).await,
    };
    match done {
        Ok(Moved::Away(bytes)) => {
            {
                let mut report = shared.lock();
                report.moved += 1;
                report.moved_bytes += bytes;
            }
            let path = target.path;
            told.send(Told::File(Row { path, bytes })).await.ok();
        }
        Ok(Moved::Kept(kept)) => {
            let mut report = shared.lock();
            match kept {
                Kept::Open => report.kept_open += 1,
                Kept::Changed | Kept::Empty => report.kept_changed += 1,
                Kept::Pinned => report.kept_pinned += 1,
            }
        }
        Err(error) => shared.fail(&target.path, &error),
    }
}
