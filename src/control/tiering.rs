//! Work on the cold store of a directory volume, for a client that watches it.
//!
//! The work belongs to the call: when the client goes away it ends, after what is being moved then.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use terrace_fuse::directory::{
    Action, Collection, DirectoryFs, Job, TierError, TierPolicy, TierRow, Told,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::proto::{TieringAction, TieringReport, TieringRequest, TieringRow};
use crate::node::assembly::Node;

/// Rows of a job on their way.
const ROWS: usize = 64;

/// Shortest grace period that a caller may ask for: longer than any upload on any node takes.
const LEAST_GRACE: Duration = Duration::from_secs(60 * 60);

/// Reports of one call.
pub(super) type Reports = mpsc::Sender<Result<TieringReport, Status>>;

/// Starts the work; `reports` ends with a message that is `finished`.
///
/// Errors: a mount that is no directory volume with a cold store, a policy that cannot be meant.
pub(super) fn start(
    node: &Arc<Node>,
    request: TieringRequest,
    reports: Reports,
) -> Result<(), Status> {
    let action = request.action();
    let place = request
        .target
        .ok_or_else(|| Status::invalid_argument("name a path below a mount"))?;
    let volume = node.volume_at(&place.mountpoint).ok_or_else(|| {
        Status::failed_precondition(format!(
            "{} is no directory volume; mount one with terrace mount file:///DIR MOUNT --rw",
            place.mountpoint
        ))
    })?;
    let fs = Arc::clone(&volume.fs);
    if fs.tier_status().is_none() {
        let mountpoint = &place.mountpoint;
        return Err(Status::failed_precondition(format!(
            "{mountpoint} has no cold store; mount it with --cold URL"
        )));
    }
    let policy = policy(&fs, &request.policy)?;
    let job = |action| Job {
        action,
        path: place.path.clone(),
        policy,
        dry_run: request.dry_run,
    };
    let grace = Duration::from_secs(request.grace_seconds);
    if action == TieringAction::Collect && grace < LEAST_GRACE {
        return Err(Status::invalid_argument(format!(
            "the grace period is {}s; at least {}s, as another node may be writing",
            grace.as_secs(),
            LEAST_GRACE.as_secs()
        )));
    }
    let collection = Collection {
        grace,
        dry_run: request.dry_run,
    };
    match action {
        TieringAction::Scan => node.spawn(run(fs, job(Action::Scan), reports)),
        TieringAction::Demote => node.spawn(run(fs, job(Action::Demote), reports)),
        TieringAction::Recall => node.spawn(run(fs, job(Action::Recall), reports)),
        TieringAction::Pin => node.spawn(pin(fs, place.path, true, reports)),
        TieringAction::Unpin => node.spawn(pin(fs, place.path, false, reports)),
        TieringAction::Collect => node.spawn(collect(fs, collection, reports)),
        TieringAction::Unspecified => return Err(Status::invalid_argument("say what to do")),
    }
    Ok(())
}

/// What is asked for, or what the volume was mounted with.
fn policy(fs: &DirectoryFs, asked: &str) -> Result<TierPolicy, Status> {
    if asked.is_empty() {
        return Ok(fs.tier_policy().cloned().unwrap_or_default());
    }
    let policy: TierPolicy =
        serde_json::from_str(asked).map_err(|error| Status::invalid_argument(error.to_string()))?;
    policy
        .check()
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(policy)
}

fn sums(sums: &impl Serialize) -> String {
    serde_json::to_string(sums).unwrap_or_default()
}

/// One message of all that waits: a message for each file costs more than finding it.
fn report(waiting: impl Iterator<Item = Told>) -> TieringReport {
    let mut report = TieringReport::default();
    for told in waiting {
        match told {
            Told::File(TierRow { path, bytes }) => report.rows.push(TieringRow { path, bytes }),
            Told::Sums(so_far) => report.sums = sums(&so_far),
        }
    }
    report
}

fn row(path: Vec<u8>, bytes: u64) -> Result<TieringReport, Status> {
    Ok(TieringReport {
        rows: vec![TieringRow { path, bytes }],
        ..TieringReport::default()
    })
}

async fn finish<T: Serialize + Default>(reports: &Reports, done: Result<T, TierError>) {
    let (result, error) = match done {
        Ok(result) => (result, String::new()),
        Err(error) => (T::default(), error.to_string()),
    };
    let last = TieringReport {
        sums: sums(&result),
        finished: true,
        error,
        ..TieringReport::default()
    };
    reports.send(Ok(last)).await.ok();
}

async fn run(fs: Arc<DirectoryFs>, job: Job, reports: Reports) {
    let (told, mut heard) = mpsc::channel(ROWS);
    let work = async {
        let done = fs.run_job(job, &told).await;
        drop(told);
        done
    };
    let tell = async {
        let mut waiting = Vec::with_capacity(ROWS);
        while heard.recv_many(&mut waiting, ROWS).await > 0 {
            if reports.send(Ok(report(waiting.drain(..)))).await.is_err() {
                break; // closes the way of what is told: the work ends
            }
        }
        drop(heard);
    };
    let (done, ()) = tokio::join!(work, tell);
    finish(&reports, done).await;
}

async fn pin(fs: Arc<DirectoryFs>, path: Vec<u8>, pinned: bool, reports: Reports) {
    finish(&reports, fs.pin(path, pinned).await).await;
}

async fn collect(fs: Arc<DirectoryFs>, wanted: Collection, reports: Reports) {
    let (told, mut heard) = mpsc::channel(ROWS);
    let work = async {
        let done = fs.collect(wanted, &told).await;
        drop(told);
        done
    };
    let tell = async {
        while let Some((key, bytes)) = heard.recv().await {
            if reports.send(row(key.into_bytes(), bytes)).await.is_err() {
                break;
            }
        }
        drop(heard);
    };
    let (done, ()) = tokio::join!(work, tell);
    finish(&reports, done).await;
}
