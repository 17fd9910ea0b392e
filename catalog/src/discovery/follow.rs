//! Tables with a log of their own: the log says which files a version has, and it is exact.
//!
//! Delta logs are replayed from their newest checkpoint, or from their first version; of Iceberg tables the
//! current snapshot counts (`follow_iceberg.rs`). What cannot be followed waits with its reason: listing
//! the directory would mix files of many versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::check::full;
use super::completeness::Proof;
use super::fingerprint::Fingerprint;
use super::follow_iceberg;
use super::layout;
use super::publish::{Plan, PublishError, Target};
use super::scan::{Scan, below};
use super::table::{Published, Ready, TableState};
use crate::schema::delta::{Checkpoint, DeltaLog, checkpoints, read_checkpoint, version_of};
use crate::schema::{FileFormat, Problem};
use crate::upstream::{UpFile, UpstreamErrorKind, read_small};

/// Longest file of a log that is read, bytes.
pub(super) const LOG_MAX: u64 = 64 << 20;

/// What the log of a table asks for.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no log: judge by listing.
    None,
    /// Nothing can be published now; the state says why.
    Wait,
    /// Publish this.
    Plan(Box<Plan>),
}

pub(super) async fn plan(
    target: &Target<'_>,
    scan: &Scan,
    state: &mut TableState,
    now: Instant,
) -> Result<Found, PublishError> {
    let log = Log::of(scan);
    if log.newest().is_some() {
        return delta(target, &log, state, now).await;
    }
    if let Some(newest) = follow_iceberg::newest(scan) {
        return iceberg(target, scan, newest, state, now).await;
    }
    let metadata = |file: &UpFile| file.path.ends_with(".metadata.json");
    let reason = if scan.table_log.iter().any(metadata) {
        "the Iceberg metadata has no readable version"
    } else if scan
        .table_log
        .iter()
        .any(|file| file.path.starts_with("_delta_log/"))
    {
        "the Delta log has no readable version yet"
    } else {
        return Ok(Found::None);
    };
    state.trouble(Some(reason.to_owned()), now);
    Ok(Found::Wait)
}

/// The files of a Delta log.
struct Log<'a> {
    /// By version.
    commits: BTreeMap<u64, &'a UpFile>,
    /// Oldest first.
    checkpoints: Vec<Checkpoint>,
}

impl<'a> Log<'a> {
    fn of(scan: &'a Scan) -> Self {
        let files = || {
            let named = scan.table_log.iter();
            named.filter_map(|file| Some((file.path.strip_prefix("_delta_log/")?, file)))
        };
        let commits = files().filter_map(|(name, file)| Some((version_of(name)?, file)));
        Self {
            commits: commits.collect(),
            checkpoints: checkpoints(files()),
        }
    }

    /// Whether every version from this one to the newest has its file.
    fn reaches(&self, from: u64) -> bool {
        let newest = self.newest().unwrap_or(0);
        (from..=newest).all(|version| self.commits.contains_key(&version))
    }

    fn newest(&self) -> Option<u64> {
        let commit = self.commits.keys().next_back().copied();
        commit.max(self.checkpoints.last().map(|last| last.version))
    }
}

async fn delta(
    target: &Target<'_>,
    logs: &Log<'_>,
    state: &mut TableState,
    now: Instant,
) -> Result<Found, PublishError> {
    if let Err(reason) = replay(target, logs, state).await? {
        state.trouble(Some(reason), now);
        return Ok(Found::Wait);
    }
    let Some(log) = &state.delta else {
        return Ok(Found::Wait);
    };
    let size = |path: &str| log.files.get(path).map(|(size, _)| *size);
    let files = present(target, size).await?;
    let found = files.len();
    if found != log.files.len() {
        let text = format!(
            "version {} of the Delta log names {} files, of which {found} are there",
            log.version(),
            log.files.len()
        );
        state.trouble(Some(text), now);
        return Ok(Found::Wait);
    }
    let plan = Plan {
        cause: format!("version {} of the Delta log", log.version()),
        schema: log.schema.clone(),
        format: Some(FileFormat::Delta),
        ..Plan::default()
    };
    Ok(found_plan(
        plan_of(plan, &state.published, files),
        state,
        now,
    ))
}

async fn iceberg(
    target: &Target<'_>,
    scan: &Scan,
    newest: &UpFile,
    state: &mut TableState,
    now: Instant,
) -> Result<Found, PublishError> {
    let log = follow_iceberg::read(target, scan, newest, state.iceberg.take()).await?;
    let files = match &log {
        Ok(log) => follow_iceberg::present(target, log).await?,
        Err(reason) => Err(reason.clone()),
    };
    let plan = files.and_then(|files| {
        let log = log.as_ref().map_err(Clone::clone)?;
        let plan = Plan {
            cause: format!("snapshot {} of the Iceberg table", log.id),
            schema: log.metadata.schema.clone(),
            format: Some(FileFormat::Iceberg),
            ..Plan::default()
        };
        plan_of(plan, &state.published, files)
    });
    state.iceberg = log.ok();
    Ok(found_plan(plan, state, now))
}

/// A plan to follow, or the reason why there is none.
fn found_plan(plan: Result<Plan, String>, state: &mut TableState, now: Instant) -> Found {
    match plan {
        Ok(plan) => Found::Plan(Box::new(plan)),
        Err(reason) => {
            state.trouble(Some(reason), now);
            Found::Wait
        }
    }
}

/// The files below the table that a log names, with the sizes that it tells.
pub(super) async fn present(
    target: &Target<'_>,
    size: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<UpFile>, PublishError> {
    let mut found = Vec::new();
    let mut files = target.upstream.walk(target.directory);
    while let Some(file) = files.next().await {
        let file = file.map_err(|error| PublishError::Unreachable(error.to_string()))?;
        let file = below(target.directory, file);
        found.extend(file.filter(|file| size(&file.path) == Some(file.size)));
    }
    Ok(found)
}

/// Adds to a plan what is different between the files of a log and the published version.
fn plan_of(mut plan: Plan, published: &Published, files: Vec<UpFile>) -> Result<Plan, String> {
    let mut partitions: BTreeMap<Arc<str>, Vec<UpFile>> = BTreeMap::new();
    for file in files {
        let (partition, _) = layout::split_partition(&file.path);
        partitions
            .entry(Arc::from(partition))
            .or_default()
            .push(file);
    }
    let known = &published.partitions;
    let gone = known
        .keys()
        .filter(|known| !partitions.contains_key(*known));
    plan.removed = gone.cloned().collect();
    for (partition, mut files) in partitions {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let fingerprint = Some(Fingerprint::of(&files));
        if known
            .get(&partition)
            .is_some_and(|known| known.fingerprint == fingerprint)
        {
            continue;
        }
        let values = layout::partition_values(&partition).map_err(|refusal| refusal.to_string())?;
        plan.ready.push(Ready {
            partition,
            values,
            files,
            proof: Proof::TableLog,
            marker_ms: None,
            unchanged_for: Duration::ZERO,
        });
    }
    Ok(plan)
}

/// The newest state that the rest of the log goes on from. The inner error is shown by `why`.
async fn begin(
    target: &Target<'_>,
    logs: &Log<'_>,
) -> Result<Result<DeltaLog, String>, PublishError> {
    let mut refused = None;
    let usable = logs.checkpoints.iter().rev();
    for checkpoint in usable.filter(|checkpoint| logs.reaches(checkpoint.version + 1)) {
        let parts = checkpoint.parts.iter();
        let there = Checkpoint {
            parts: parts.map(|file| full(target.directory, file)).collect(),
            ..checkpoint.clone()
        };
        match read_checkpoint(target.upstream, &there).await {
            Ok(log) => return Ok(Ok(log)),
            Err(Problem::Damaged { reason, .. }) => {
                let version = checkpoint.version;
                refused.get_or_insert(format!("checkpoint {version} of the Delta log: {reason}"));
            }
            Err(Problem::Upstream(error)) => {
                return Err(PublishError::Unreachable(error.to_string()));
            }
        }
    }
    let gap = || "the Delta log has a gap, and no checkpoint behind it that can be read".to_owned();
    Ok(match logs.reaches(0) {
        true => Ok(DeltaLog::default()),
        false => Err(refused.unwrap_or_else(gap)),
    })
}

/// Replays what is new of the log. The inner error is shown by `why`.
async fn replay(
    target: &Target<'_>,
    logs: &Log<'_>,
    state: &mut TableState,
) -> Result<Result<(), String>, PublishError> {
    let newest = logs.newest().unwrap_or(0);
    // A log that is shorter than what was replayed belongs to another table of the same name.
    let known = state.delta.take().filter(|log| log.next <= newest + 1);
    let mut log = match known.filter(|log| logs.reaches(log.next)) {
        Some(log) => log,
        None => match begin(target, logs).await? {
            Ok(log) => log,
            Err(reason) => return Ok(Err(reason)),
        },
    };
    for version in log.next..=newest {
        let Some(file) = logs.commits.get(&version) else {
            return Ok(Err(format!("the Delta log lacks version {version}")));
        };
        let file = full(target.directory, file);
        let bytes = match read_small(target.upstream, &file, LOG_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == UpstreamErrorKind::Corrupt => {
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(PublishError::Unreachable(error.to_string())),
        };
        if let Err(reason) = log.apply(version, &bytes) {
            return Ok(Err(reason));
        }
    }
    state.delta = Some(log);
    Ok(Ok(()))
}
