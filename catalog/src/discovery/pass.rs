//! One look at one table: list, judge, publish what is complete, explain the rest.
//!
//! ```text
//! head of the ledger -> sketch of the table -> partitions that differ from the head
//!   -> listed again -> both listings agree? complete? nothing lost without a reason? -> publish
//! ```
//!
//! A look that meets an unreachable store changes nothing: the last truth stays, `why` says since when.
//! Partitions that disappear are left out of a version only when two whole looks, [`RootSpec`]'s
//! `settle_seconds` apart, did not see them, no writer is at work and something is left.
//!
//! [`RootSpec`]: super::RootSpec

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::check::Unfit;
use super::completeness::{ManifestMatch, Missing, Proof, Seen, Verdict, judge};
use super::fingerprint::Fingerprint;
use super::follow;
use super::head::load;
use super::lost;
use super::manifest_file::{MANIFEST_MAX, ManifestFile};
use super::publish::{self, Plan, PublishError, Target};
use super::scan::{Scan, Sketch, details};
use super::table::{Ready, TableState};
use crate::ledger::{Committed, LedgerError};
use crate::upstream::{UpFile, UpstreamError, read_small};

/// Looks that follow a lost race for the head at once.
const RACES: usize = 4;

/// What a look led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// A new version of this number.
    Published(u64),
    /// Nothing is different, or nothing that is different is complete.
    Unchanged,
    /// The store or the catalog's own store did not answer; the text says what. Nothing was changed.
    Unknown(String),
}

/// Looks at a table once. Never fails: what went wrong is the outcome and, for people, in `state`.
pub(crate) async fn look(target: &Target<'_>, state: &mut TableState) -> Outcome {
    for _ in 0..RACES {
        match once(target, state).await {
            Ok(outcome) => return outcome,
            Err(PublishError::Conflict) => {}
            Err(error) => {
                let text = words(error);
                state.trouble(Some(text.clone()), Instant::now());
                return Outcome::Unknown(text);
            }
        }
    }
    Outcome::Unknown("others commit to this dataset all the time".to_owned())
}

fn words(error: PublishError) -> String {
    match error {
        PublishError::Unreachable(text) => format!("the store does not answer: {text}"),
        PublishError::Conflict => "somebody else commits".to_owned(),
        PublishError::Stale(error) => error.to_string(),
        PublishError::NotMet(missing) => super::why::words(&missing),
        PublishError::Ledger(error) => error.to_string(),
    }
}

async fn once(target: &Target<'_>, state: &mut TableState) -> Result<Outcome, PublishError> {
    let name = &target.descriptor.name;
    if let Some(reason) = unusable(target).await? {
        state.trouble(Some(reason), Instant::now());
        return Ok(Outcome::Unchanged);
    }
    state.published = load(target.ledger, name, std::mem::take(&mut state.published)).await?;
    let scan = match Scan::run(target.upstream, target.directory, &target.settings.shape).await {
        Ok(scan) => scan,
        Err(error) if error.is_not_found() => {
            let text = "its directory is gone; the last version stays".to_owned();
            state.trouble(Some(text), Instant::now());
            return Ok(Outcome::Unchanged);
        }
        Err(error) => return Err(PublishError::Unreachable(error.to_string())),
    };
    let now = Instant::now();
    let plan = match follow::plan(target, &scan, state, now).await? {
        follow::Found::Plan(plan) => *plan,
        follow::Found::Wait => {
            state.looked(&scan, now);
            return Ok(Outcome::Unchanged);
        }
        follow::Found::None => judge_all(target, &scan, state, now).await?,
    };
    let outcome = carry_out(target, state, plan, now).await;
    state.looked(&scan, now);
    outcome
}

/// Why a table is not looked at: its name belongs to another place, or there is no place for its copies.
async fn unusable(target: &Target<'_>) -> Result<Option<String>, PublishError> {
    if target.settings.managed && target.vaults.find(None).is_none() {
        let text = "storage: managed needs a place for copies; start the catalog with --cold URL";
        return Ok(Some(text.to_owned()));
    }
    match target.ledger.dataset(&target.descriptor.name).await {
        Ok(dataset) if dataset.descriptor.source != target.location => {
            let text = format!("the name belongs to {}", dataset.descriptor.source);
            Ok(Some(text))
        }
        Ok(_) | Err(LedgerError::NoDataset(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Publishes a plan and takes what came of it into the state.
async fn carry_out(
    target: &Target<'_>,
    state: &mut TableState,
    plan: Plan,
    now: Instant,
) -> Result<Outcome, PublishError> {
    if plan.ready.is_empty() && plan.removed.is_empty() {
        state.trouble(None, now);
        return Ok(Outcome::Unchanged);
    }
    let partitions: Vec<Arc<str>> = plan
        .ready
        .iter()
        .map(|ready| Arc::clone(&ready.partition))
        .collect();
    let done = publish::publish(target, &state.published, plan).await?;
    state.trouble(None, now);
    let unfit: BTreeSet<Arc<str>> = done
        .unfit
        .iter()
        .map(|(partition, _)| Arc::clone(partition))
        .collect();
    for (partition, why) in done.unfit {
        match why {
            Unfit::Refused(reason) => state.refuse(&partition, reason, now),
            Unfit::Moving => {
                state.syncing(&partition, vec![Missing::StillChanging { files: 1 }], now)
            }
        }
    }
    let Some(committed) = done.version else {
        return Ok(Outcome::Unchanged);
    };
    let fit = partitions
        .iter()
        .filter(|partition| !unfit.contains(*partition));
    fit.for_each(|partition| drop(state.tracked.remove(partition)));
    state.absent.clear();
    state.warnings = done.warnings;
    let name = &target.descriptor.name;
    state.published = load(target.ledger, name, std::mem::take(&mut state.published)).await?;
    Ok(match committed {
        Committed::New(version) => Outcome::Published(version.number),
        Committed::Same(_) => Outcome::Unchanged,
    })
}

/// The partitions that are not published as they are, without those that cannot be.
fn candidates(scan: &Scan, state: &mut TableState, now: Instant) -> BTreeSet<Arc<str>> {
    let mut candidates = BTreeSet::new();
    for (partition, sketch) in &scan.partitions {
        if let Some(refusal) = &sketch.refusal {
            state.refuse(partition, refusal.to_string(), now);
        } else if !sketch.is_published(state.published.partitions.get(partition)) {
            candidates.insert(Arc::clone(partition));
        }
    }
    candidates
}

/// Judges every partition that is not published as it is.
async fn judge_all(
    target: &Target<'_>,
    scan: &Scan,
    state: &mut TableState,
    now: Instant,
) -> Result<Plan, PublishError> {
    let candidates = candidates(scan, state, now);
    let unreachable = |error: UpstreamError| PublishError::Unreachable(error.to_string());
    let mut listed = match candidates.is_empty() {
        true => BTreeMap::new(),
        false => details(
            target.upstream,
            target.directory,
            &candidates,
            &target.settings.shape,
        )
        .await
        .map_err(unreachable)?,
    };
    let manifests = manifests(target, scan, &candidates).await?;
    let mut ready = Vec::new();
    let mut unsettled = false;
    for partition in &candidates {
        let Some(sketch) = scan.partitions.get(partition) else {
            continue;
        };
        let files = listed.remove(partition).unwrap_or_default();
        let seen = observe(scan, state, &manifests, (partition, sketch), &files, now);
        if seen.changing == 0 {
            lost::mark(target, state, partition, &files).await?;
        }
        match judge(&seen, &target.settings.rule, None) {
            Verdict::Syncing(missing) => {
                unsettled |= seen.partition_marker_ms.is_none() && is_passing(&missing);
                state.syncing(partition, missing, now);
            }
            Verdict::Complete(proof) => {
                let candidate = Ready {
                    partition: Arc::clone(partition),
                    values: sketch.values.clone(),
                    files,
                    proof,
                    marker_ms: seen.partition_marker_ms.or(seen.table_marker_ms),
                    unchanged_for: seen.unchanged_for,
                };
                match lost::vanished(target, state, &candidate).await? {
                    0 => ready.push(candidate),
                    files => state.syncing(partition, vec![Missing::Vanished { files }], now),
                }
            }
        }
    }
    if unsettled {
        hold_siblings(state, &mut ready, now);
    }
    let removed = removed(target, scan, state, now);
    for partition in &removed {
        lost::mark(target, state, partition, &[]).await?;
    }
    Ok(Plan {
        cause: "found by discovery".to_owned(),
        ready,
        removed,
        ..Plan::default()
    })
}

/// Holds the two listings of a partition together, and against the look before.
fn observe(
    scan: &Scan,
    state: &mut TableState,
    manifests: &BTreeMap<Arc<str>, Option<ManifestFile>>,
    (partition, sketch): (&Arc<str>, &Sketch),
    files: &[UpFile],
    now: Instant,
) -> Seen {
    let moved = state.track(partition, files, now);
    let agrees = Fingerprint::of(files) == sketch.fingerprint;
    let broken = ManifestMatch {
        broken: true,
        ..ManifestMatch::default()
    };
    let matched = scan.manifest_of(partition).map(|(at, _)| {
        let manifest = manifests.get(at).and_then(Option::as_ref);
        manifest.map_or(broken, |manifest| manifest.compare(partition, files))
    });
    Seen {
        // Two listings that differ agree with no manifest either, whatever the counts say.
        manifest: matched.filter(|matched| agrees || *matched != ManifestMatch::default()),
        changing: moved.changing.max(u64::from(!agrees)),
        unchanged_for: moved.unchanged_for,
        ..seen(scan, partition, sketch)
    }
}

/// Whether only another look is missing, and no writer's signal.
fn is_passing(missing: &[Missing]) -> bool {
    let passing =
        |missing: &Missing| matches!(missing, Missing::Tie | Missing::StillChanging { .. });
    missing.iter().all(passing)
}

/// The marker of the table speaks for a whole job: its partitions become visible together.
fn hold_siblings(state: &mut TableState, ready: &mut Vec<Ready>, now: Instant) {
    ready.retain(|ready| {
        let alone = ready.proof != Proof::TableMarker;
        if !alone {
            state.syncing(&ready.partition, vec![Missing::Siblings], now);
        }
        alone
    });
}

fn seen(scan: &Scan, partition: &str, sketch: &Sketch) -> Seen {
    Seen {
        files: sketch.files,
        bytes: sketch.bytes,
        newest_ms: sketch.newest_ms,
        partition_marker_ms: scan.partition_marker(partition),
        table_marker_ms: scan.table_marker(),
        staging: scan.staging(partition),
        ..Seen::default()
    }
}

/// The manifest files that cover a candidate, parsed; None for one that is none.
async fn manifests(
    target: &Target<'_>,
    scan: &Scan,
    candidates: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, Option<ManifestFile>>, PublishError> {
    use crate::upstream::UpstreamErrorKind::{Throttled, Unreachable};
    let mut found = BTreeMap::new();
    for partition in candidates {
        let Some((at, file)) = scan.manifest_of(partition) else {
            continue;
        };
        if found.contains_key(at) {
            continue;
        }
        let file: UpFile = super::check::full(target.directory, file);
        let parsed = match read_small(target.upstream, &file, MANIFEST_MAX).await {
            Ok(bytes) => ManifestFile::parse(at, &bytes),
            Err(error) if matches!(error.kind, Unreachable | Throttled) => {
                return Err(PublishError::Unreachable(error.to_string()));
            }
            Err(_) => None,
        };
        found.insert(Arc::clone(at), parsed);
    }
    Ok(found)
}

/// Published partitions that may be left out of the next version.
fn removed(
    target: &Target<'_>,
    scan: &Scan,
    state: &mut TableState,
    now: Instant,
) -> Vec<Arc<str>> {
    let absent: Vec<Arc<str>> = state
        .published
        .partitions
        .keys()
        .filter(|partition| !scan.partitions.contains_key(*partition))
        .cloned()
        .collect();
    state
        .absent
        .retain(|partition, _| absent.contains(partition));
    if absent.is_empty() {
        return Vec::new();
    }
    let quiet = scan.staging_anywhere() == 0 && !scan.partitions.is_empty();
    let mut settled = Vec::new();
    for partition in absent {
        let first = state.absent.get(&partition).copied();
        let since = *state.absent.entry(Arc::clone(&partition)).or_insert(now);
        // The first look that misses it is never enough, however long the settings say.
        let agreed =
            first.is_some() && now.saturating_duration_since(since) >= target.settings.settle;
        if agreed && quiet {
            settled.push(partition);
        } else {
            let files = state.published.partitions.len() as u64;
            let missing = vec![Missing::Vanished {
                files: files.min(1),
            }];
            state.syncing(&partition, missing, now);
        }
    }
    settled
}
