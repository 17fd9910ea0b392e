//! Tables with a log of their own: the log says which files a version has, and it is exact.
//!
//! Delta logs are replayed from their first version. Iceberg tables are recognised and refused with
//! their reason: listing their directory would mix files of many versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::check::full;
use super::completeness::Proof;
use super::fingerprint::Fingerprint;
use super::layout;
use super::publish::{Plan, PublishError, Target};
use super::scan::{Scan, below};
use super::table::{Published, Ready, TableState};
use crate::schema::FileFormat;
use crate::schema::delta::{DeltaLog, version_of};
use crate::upstream::{UpFile, UpstreamErrorKind, read_small};

/// Longest file of a log that is read, bytes.
const LOG_MAX: u64 = 64 << 20;

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
    let logs: BTreeMap<u64, &UpFile> = scan
        .table_log
        .iter()
        .filter_map(|file| Some((version_of(file.path.strip_prefix("_delta_log/")?)?, file)))
        .collect();
    if !logs.is_empty() {
        return delta(target, &logs, state, now).await;
    }
    let iceberg = |file: &UpFile| file.path.ends_with(".metadata.json");
    let reason = if scan.table_log.iter().any(iceberg) {
        "an Iceberg table: recognised, and its log is not followed yet"
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

async fn delta(
    target: &Target<'_>,
    logs: &BTreeMap<u64, &UpFile>,
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
    let mut partitions: BTreeMap<Arc<str>, Vec<UpFile>> = BTreeMap::new();
    let mut found = 0;
    let mut files = target.upstream.walk(target.directory);
    while let Some(file) = files.next().await {
        let file = file.map_err(|error| PublishError::Unreachable(error.to_string()))?;
        let Some(file) = below(target.directory, file) else {
            continue;
        };
        if log
            .files
            .get(&*file.path)
            .is_some_and(|(size, _)| *size == file.size)
        {
            found += 1;
            let (partition, _) = layout::split_partition(&file.path);
            partitions
                .entry(Arc::from(partition))
                .or_default()
                .push(file);
        }
    }
    if found != log.files.len() {
        let text = format!(
            "version {} of the Delta log names {} files, of which {found} are there",
            log.version,
            log.files.len()
        );
        state.trouble(Some(text), now);
        return Ok(Found::Wait);
    }
    match plan_of(log, &state.published, partitions) {
        Ok(plan) => Ok(Found::Plan(Box::new(plan))),
        Err(reason) => {
            state.trouble(Some(reason), now);
            Ok(Found::Wait)
        }
    }
}

/// What is different between the log and the published version.
fn plan_of(
    log: &DeltaLog,
    published: &Published,
    partitions: BTreeMap<Arc<str>, Vec<UpFile>>,
) -> Result<Plan, String> {
    let mut plan = Plan {
        cause: format!("version {} of the Delta log", log.version),
        schema: log.schema.clone(),
        format: Some(FileFormat::Delta),
        ..Plan::default()
    };
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

/// Replays what is new of the log. The inner error is shown by `why`.
async fn replay(
    target: &Target<'_>,
    logs: &BTreeMap<u64, &UpFile>,
    state: &mut TableState,
) -> Result<Result<(), String>, PublishError> {
    let newest = logs.keys().next_back().copied().unwrap_or(0);
    // A log that is shorter than what was replayed belongs to another table of the same name.
    let mut log = state.delta.take().filter(|log| log.version <= newest);
    let first = log.as_ref().map_or(0, |log| log.version + 1);
    for version in first..=newest {
        let Some(file) = logs.get(&version) else {
            let text =
                format!("the Delta log begins behind version {version}: checkpoints are not read");
            return Ok(Err(text));
        };
        let bytes = match read_small(target.upstream, &full(target.directory, file), LOG_MAX).await
        {
            Ok(bytes) => bytes,
            Err(error) if error.kind == UpstreamErrorKind::Corrupt => {
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(PublishError::Unreachable(error.to_string())),
        };
        if let Err(reason) = log
            .get_or_insert_with(DeltaLog::default)
            .apply(version, &bytes)
        {
            return Ok(Err(reason));
        }
    }
    state.delta = log;
    Ok(Ok(()))
}
