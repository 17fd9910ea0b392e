//! The call with which a sync system says that a batch is finished.
//!
//! Idempotent by the batch's id, ordered by `source_seq` for each partition, all or nothing: what is
//! expected and not found refuses the whole batch, and the caller tries again. A call does not wait for
//! markers or quiescence: who calls, knows. Only the partitions of its scope are listed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::check::Unfit;
use super::completeness::{Expect, Missing, Proof, Seen, Verdict, judge};
use super::head::{files_of, open_latest};
use super::layout;
use super::names::check_path;
use super::publish::{self, Plan, PublishError, Target};
use super::scan::{Scan, details};
use super::table::{Published, PublishedPartition, Ready};
use super::why::words;
use crate::ledger::{BatchId, Committed, LedgerError};
use crate::manifest::ManifestError;

/// Most partitions that one batch may name.
const PARTITIONS_MAX: usize = 10_000;
/// How often a batch that lost a race for the head is made again.
const RACES: usize = 8;

/// What a batch does to its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BatchMode)]
pub enum Mode {
    /// Adds files; published files of the scope must still be there.
    Append,
    /// The partitions of the scope are what is there now.
    ReplacePartitions,
    /// The whole table is what is there now.
    ReplaceTable,
    /// The partitions of the scope are left out from now on, whether their files are there or not.
    DeletePartitions,
}

/// Which part of a table a batch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = BatchScope)]
pub struct Scope {
    /// Partition directories below the table; empty: the whole table.
    pub partitions: Vec<String>,
}

/// The body of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// Where the table lies; only needed for a dataset that is not known yet.
    #[serde(default)]
    pub source: Option<String>,
    /// Which part of it.
    #[serde(default)]
    pub scope: Scope,
    /// What the batch does.
    pub mode: Mode,
    /// What was written, together: the new files of an append, else all files of the scope.
    #[serde(default)]
    pub expect: Expect,
    /// Place of the batch in its source's order.
    #[serde(default)]
    pub source_seq: Option<u64>,
}

/// Why a batch was not published. Nothing of it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// Expectations are not met, or files are damaged (422).
    #[error("{0}")]
    NotMet(String),
    /// A newer batch of a partition is published already (409).
    #[error("{0}")]
    Stale(String),
    /// The request makes no sense (400).
    #[error("{0}")]
    Invalid(String),
    /// The store or the catalog does not answer; the same call may succeed later (503).
    #[error("{0}")]
    Unavailable(String),
}

impl From<PublishError> for BatchError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unreachable(text) => Self::Unavailable(text),
            PublishError::Conflict => {
                Self::Unavailable("others commit to this dataset all the time".to_owned())
            }
            PublishError::Stale(error) => Self::Stale(error.to_string()),
            PublishError::NotMet(missing) => Self::NotMet(words(&missing)),
            PublishError::Ledger(LedgerError::Refused(text)) => Self::Invalid(text),
            PublishError::Ledger(error) => Self::Unavailable(error.to_string()),
        }
    }
}

/// Publishes a batch, or says why not.
pub(crate) async fn run(
    target: &Target<'_>,
    id: &BatchId,
    request: &BatchRequest,
) -> Result<Committed, BatchError> {
    let scope = scope(request)?;
    for _ in 0..RACES {
        let known = target
            .ledger
            .batch_version(&target.descriptor.name, id)
            .await;
        match known {
            Ok(Some(version)) => return Ok(Committed::Same(version)),
            Ok(None) | Err(LedgerError::NoDataset(_)) => {}
            Err(error) => return Err(PublishError::from(error).into()),
        }
        match once(target, id, request, &scope).await {
            Err(Lost::Race) => {}
            Err(Lost::Error(error)) => return Err(error),
            Ok(committed) => return Ok(committed),
        }
    }
    Err(PublishError::Conflict.into())
}

enum Lost {
    Race,
    Error(BatchError),
}

impl From<PublishError> for Lost {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Conflict => Self::Race,
            error => Self::Error(error.into()),
        }
    }
}

impl From<LedgerError> for Lost {
    fn from(error: LedgerError) -> Self {
        PublishError::from(error).into()
    }
}

impl From<ManifestError> for Lost {
    fn from(error: ManifestError) -> Self {
        PublishError::from(error).into()
    }
}

fn not_met(text: String) -> Lost {
    Lost::Error(BatchError::NotMet(text))
}

/// The partitions of a request, checked.
fn scope(request: &BatchRequest) -> Result<BTreeSet<Arc<str>>, BatchError> {
    let invalid = |text: String| Err(BatchError::Invalid(text));
    let named = &request.scope.partitions;
    if named.len() > PARTITIONS_MAX {
        return invalid(format!(
            "{} partitions, and at most {PARTITIONS_MAX}",
            named.len()
        ));
    }
    match request.mode {
        Mode::DeletePartitions if named.is_empty() => {
            return invalid("delete_partitions names no partition".to_owned());
        }
        Mode::ReplaceTable if !named.is_empty() => {
            return invalid("replace_table takes no partitions".to_owned());
        }
        _ => {}
    }
    for partition in named {
        let (_, rest) = layout::split_partition(partition);
        let whole = rest.contains('=') && !rest.contains('/') && !rest.starts_with('=');
        if check_path(partition).is_err() || !whole || layout::partition_values(partition).is_err()
        {
            return invalid(format!(
                "{:?} is not a partition directory",
                crate::name::shortened(partition)
            ));
        }
    }
    Ok(named
        .iter()
        .map(|partition| Arc::from(partition.as_str()))
        .collect())
}

async fn once(
    target: &Target<'_>,
    id: &BatchId,
    request: &BatchRequest,
    scope: &BTreeSet<Arc<str>>,
) -> Result<Committed, Lost> {
    let name = &target.descriptor.name;
    let mut published = open_latest(target.ledger, name).await?;
    let mut plan = Plan {
        cause: format!("batch {id}"),
        batch: Some(id.clone()),
        source_seq: sequences(request, scope),
        replace_table: request.mode == Mode::ReplaceTable,
        ..Plan::default()
    };
    if request.mode == Mode::DeletePartitions {
        plan.removed = scope.iter().cloned().collect();
    } else {
        plan.ready = listed(target, scope).await?;
        remember(&mut published, &plan.ready).await?;
        hold_against(target, request, scope, &published, &mut plan).await?;
    }
    let done = publish::publish(target, &published, plan).await?;
    if let Some((partition, why)) = done.unfit.into_iter().next() {
        return Err(not_met(match why {
            Unfit::Refused(reason) => format!("{partition}: {reason}"),
            Unfit::Moving => format!("{partition}: files are still changing"),
        }));
    }
    done.version
        .ok_or_else(|| not_met("nothing to publish".to_owned()))
}

/// A batch's place, for each partition of its scope or for the whole table.
fn sequences(request: &BatchRequest, scope: &BTreeSet<Arc<str>>) -> Vec<(Arc<str>, u64)> {
    let Some(sequence) = request.source_seq else {
        return Vec::new();
    };
    if scope.is_empty() {
        return vec![(Arc::from(""), sequence)];
    }
    scope
        .iter()
        .map(|partition| (Arc::clone(partition), sequence))
        .collect()
}

/// The partitions of the scope as they are in the store.
async fn listed(target: &Target<'_>, scope: &BTreeSet<Arc<str>>) -> Result<Vec<Ready>, Lost> {
    let unreachable =
        |error: crate::upstream::UpstreamError| PublishError::Unreachable(error.to_string());
    let shape = &target.settings.shape;
    let wanted = if scope.is_empty() {
        let scan = match Scan::run(target.upstream, target.directory, shape).await {
            Ok(scan) => scan,
            Err(error) if error.is_not_found() => Scan::default(),
            Err(error) => return Err(unreachable(error).into()),
        };
        let refused = scan
            .partitions
            .iter()
            .find_map(|(_, sketch)| sketch.refusal.as_ref());
        if let Some(refusal) = refused.or(scan.refused.first()) {
            return Err(not_met(refusal.to_string()));
        }
        scan.partitions.into_keys().collect()
    } else {
        scope.clone()
    };
    let found = match wanted.is_empty() {
        true => Default::default(),
        false => details(target.upstream, target.directory, &wanted, shape)
            .await
            .map_err(unreachable)?,
    };
    let ready = found.into_iter().map(|(partition, files)| {
        let values =
            layout::partition_values(&partition).map_err(|refusal| not_met(refusal.to_string()))?;
        Ok(Ready {
            partition,
            values,
            files,
            proof: Proof::Call,
            marker_ms: None,
            unchanged_for: Duration::ZERO,
        })
    });
    ready.collect()
}

/// Loads what is published of the partitions of a batch, and of no others.
async fn remember(published: &mut Published, ready: &[Ready]) -> Result<(), Lost> {
    let Some(manifest) = &published.manifest else {
        return Ok(());
    };
    for ready in ready {
        if let Some(partition) = manifest.partition(&ready.partition).await? {
            let known = PublishedPartition::of(&partition);
            published
                .partitions
                .insert(Arc::clone(&ready.partition), known);
        }
    }
    Ok(())
}

/// Checks files and bytes, and what the mode allows; rows are checked when the files are looked into.
async fn hold_against(
    target: &Target<'_>,
    request: &BatchRequest,
    scope: &BTreeSet<Arc<str>>,
    published: &Published,
    plan: &mut Plan,
) -> Result<(), Lost> {
    let mut seen = Seen::default();
    // Rows that an append found there; none when somebody has not told.
    let mut rows_before = Some(0u64);
    for ready in &plan.ready {
        let mut old = Vec::new();
        if let (Mode::Append, Some(manifest)) = (request.mode, &published.manifest)
            && let Some(partition) = manifest.partition(&ready.partition).await?
        {
            old = files_of(manifest, &partition).await?;
            rows_before = rows_before
                .zip(partition.rows)
                .map(|(sum, rows)| sum.saturating_add(rows));
        }
        let there: BTreeSet<&str> = ready.files.iter().map(|file| &*file.path).collect();
        if let Some(lost) = old.iter().find(|file| !there.contains(&*file.path)) {
            return Err(not_met(format!(
                "an append lost the published file {}",
                lost.path
            )));
        }
        // A copy has a token of its own, and the time of its original.
        let managed = target.settings.managed;
        let identity = |token: &Arc<str>, mtime_ms: i64| match managed {
            true => Arc::from(mtime_ms.to_string()),
            false => Arc::clone(token),
        };
        let old: BTreeSet<(&str, u64, Arc<str>)> = old
            .iter()
            .map(|file| (&*file.path, file.size, identity(&file.token, file.mtime_ms)))
            .collect();
        for file in &ready.files {
            if !old.contains(&(&*file.path, file.size, identity(&file.token, file.mtime_ms))) {
                seen.files += 1;
                seen.bytes = seen.bytes.saturating_add(file.size);
                seen.newest_ms = seen.newest_ms.max(Some(file.mtime_ms));
            }
        }
    }
    if let Verdict::Syncing(missing) = judge(&seen, &target.settings.rule, Some(&request.expect)) {
        return Err(not_met(words(&missing)));
    }
    let there: BTreeSet<Arc<str>> = plan
        .ready
        .iter()
        .map(|ready| Arc::clone(&ready.partition))
        .collect();
    let empty: Vec<Arc<str>> = scope.difference(&there).cloned().collect();
    // A replaced partition without files is meant only when the caller has said "0 files".
    match (request.mode, empty.first()) {
        (Mode::ReplacePartitions, Some(_)) if request.expect.files.is_some() => {
            plan.removed = empty
        }
        (_, Some(partition)) => {
            return Err(not_met(format!("{partition}: {}", Missing::Files)));
        }
        _ => {}
    }
    if plan.replace_table && plan.ready.is_empty() && request.expect.files != Some(0) {
        return Err(not_met(Missing::Files.to_string()));
    }
    let rows = request
        .expect
        .rows
        .map(|rows| rows.saturating_add(rows_before.unwrap_or(u64::MAX)));
    plan.expect = Some(Expect {
        rows,
        ..request.expect
    });
    Ok(())
}
