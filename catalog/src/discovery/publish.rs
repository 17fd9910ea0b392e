//! From complete partitions to a version: check, edit the manifest, commit.
//!
//! ```text
//! ready partitions -> footers, columns, policy -> lists of files and manifest under their digests
//!                  -> one transaction: head is still the one that was read -> version
//! ```
//!
//! Everything before the transaction leaves garbage at most. A partition that turns out unfit is left
//! out, with its reason; the others go on. Calls may be dropped at any point.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{self, CheckError, Checked, Footers, Shelf, Unfit, Unreachable};
use super::completeness::{Expect, Missing, rows_missing};
use super::settings::Settings;
use super::table::{Published, Ready};
use super::write;
use crate::descriptor::Descriptor;
use crate::ledger::{BatchId, Commit, CommitError, Committed, Ledger, LedgerError, Save};
use crate::manifest::{Header, Manifest, ManifestError};
use crate::schema::evolution::{self, Policy};
use crate::schema::{Confidence, FileFormat, Inferred, Schema};
use crate::upstream::Upstream;
use crate::vault::Vaults;

/// Where a table is and what applies to it.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) vaults: &'a Vaults,
    pub(crate) upstream: &'a dyn Upstream,
    pub(crate) footers: &'a Footers,
    /// Below the root.
    pub(crate) directory: &'a str,
    /// The same as a URL.
    pub(crate) location: String,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) settings: &'a Settings,
}

/// What shall become of a table.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ready: Vec<Ready>,
    pub(crate) removed: Vec<Arc<str>>,
    /// Every published partition that is not ready goes.
    pub(crate) replace_table: bool,
    pub(crate) cause: String,
    pub(crate) batch: Option<BatchId>,
    pub(crate) source_seq: Vec<(Arc<str>, u64)>,
    /// Promised rows, checked once the files have been looked into.
    pub(crate) expect: Option<Expect>,
    /// What a table's log says about its columns.
    pub(crate) schema: Option<Schema>,
    /// What a table's log says about its format.
    pub(crate) format: Option<FileFormat>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// None: nothing was left to publish.
    pub(crate) version: Option<Committed>,
    pub(crate) unfit: Vec<(Arc<str>, Unfit)>,
    /// Changes of columns that were published all the same.
    pub(crate) warnings: Vec<String>,
}

/// Why nothing was published.
#[derive(Debug)]
pub(crate) enum PublishError {
    Unreachable(String),
    /// Somebody else has committed: look again.
    Conflict,
    Stale(CommitError),
    NotMet(Vec<Missing>),
    Ledger(LedgerError),
}

impl From<Unreachable> for PublishError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error.0)
    }
}

impl From<CheckError> for PublishError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Unreachable(why) => Self::Unreachable(why),
            CheckError::Manifest(error) => error.into(),
        }
    }
}

impl From<LedgerError> for PublishError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<ManifestError> for PublishError {
    fn from(error: ManifestError) -> Self {
        Self::Ledger(error.into())
    }
}

/// Makes a version of a plan. See the module text.
pub(crate) async fn publish(
    target: &Target<'_>,
    published: &Published,
    mut plan: Plan,
) -> Result<Done, PublishError> {
    let header = published.manifest.as_ref().map(Manifest::header);
    let Some(inferred) = format(target, header, &plan).await? else {
        return Ok(held_back(plan, Vec::new(), &Unfit::Moving));
    };
    let (checked, unfit) = check_all(target, &mut plan, inferred.format).await?;
    let judged = columns(target, header, &plan, &checked, &inferred);
    let (schema, warnings) = match judged {
        Ok(judged) => judged,
        Err(reason) => return Ok(held_back(plan, unfit, &Unfit::Refused(reason))),
    };
    if plan.batch.is_some() && !unfit.is_empty() {
        return Ok(Done {
            version: None,
            unfit,
            warnings,
        });
    }
    if let Some(expect) = &plan.expect {
        let rows = checked
            .iter()
            .try_fold(0u64, |sum, checked| sum.checked_add(checked.total_rows()?));
        if let Some(missing) = rows_missing(expect, rows) {
            return Err(PublishError::NotMet(vec![missing]));
        }
    }
    let nothing = plan.ready.is_empty() && plan.removed.is_empty() && !plan.replace_table;
    if nothing && plan.batch.is_none() {
        return Ok(Done {
            version: None,
            unfit,
            warnings,
        });
    }
    let summary = summary(&plan, published);
    // Before anything is copied: a copy belongs to a dataset.
    register(target).await?;
    let written = write::manifest(target, published, &plan, &checked, &inferred, schema).await?;
    let (manifest, save) = written;
    let commit = Commit {
        dataset: target.descriptor.name.clone(),
        expected_head: published.version,
        manifest,
        batch: plan.batch,
        source_seq: plan.source_seq,
        cause: plan.cause,
        summary,
    };
    match commit_kept(target, commit, save.as_ref()).await? {
        Ok(version) => Ok(Done {
            version: Some(version),
            unfit,
            warnings,
        }),
        Err(CommitError::Conflict { .. }) => Err(PublishError::Conflict),
        Err(error @ CommitError::Stale { .. }) => Err(PublishError::Stale(error)),
        Err(CommitError::Ledger(error)) => Err(PublishError::Ledger(error)),
    }
}

/// Commits, and ends the save under which copies were made.
async fn commit_kept(
    target: &Target<'_>,
    commit: Commit,
    save: Option<&Save>,
) -> Result<Result<Committed, CommitError>, LedgerError> {
    let Some(save) = save else {
        return Ok(target.ledger.commit(commit).await);
    };
    let committed = target.ledger.commit_saved(commit, save).await;
    if !matches!(committed, Ok(Committed::New(_))) {
        target.ledger.abandon_save(save.dataset, &save.id).await?;
    }
    Ok(committed)
}

/// Nothing is published: every partition of the plan is unfit, for one reason.
fn held_back(plan: Plan, mut unfit: Unfits, why: &Unfit) -> Done {
    let all = plan.ready.into_iter();
    unfit.extend(all.map(|ready| (ready.partition, why.clone())));
    Done {
        version: None,
        unfit,
        warnings: Vec::new(),
    }
}

/// The format: a person's word, the log's, that of the version before, or what the files look like. None when
/// they change while they are looked at.
async fn format(
    target: &Target<'_>,
    header: Option<&Header>,
    plan: &Plan,
) -> Result<Option<Inferred>, Unreachable> {
    let told = target.settings.told.or(plan.format);
    let before = header.and_then(|header| {
        serde_json::from_value::<FileFormat>(serde_json::Value::String(header.format.to_string()))
            .ok()
    });
    let known = told.or(before.filter(|format| *format != FileFormat::Files));
    // Footers tell everything about these; a sample would only be read twice.
    if let Some(format) = known.filter(|format| format.has_footer()) {
        let confidence = match target.settings.told {
            Some(_) => Confidence::Told,
            None => Confidence::Certain,
        };
        return Ok(Some(Inferred {
            format,
            confidence,
            schema: None,
        }));
    }
    let found = check::format_of(target.upstream, target.directory, &plan.ready, known).await?;
    let Some(mut found) = found else {
        return Ok(None);
    };
    // The version before is no person's word.
    if target.settings.told.is_none() && known.is_some() {
        found.confidence = Confidence::Likely;
    }
    Ok(Some(found))
}

type Unfits = Vec<(Arc<str>, Unfit)>;

/// Checks every ready partition; unfit ones leave the plan.
async fn check_all(
    target: &Target<'_>,
    plan: &mut Plan,
    format: FileFormat,
) -> Result<(Vec<Checked>, Unfits), CheckError> {
    let (mut checked, mut unfit, mut fit) = (Vec::new(), Vec::new(), Vec::new());
    let shelf = Shelf {
        upstream: target.upstream,
        footers: target.footers,
        blobs: target.ledger.blobs(),
    };
    for ready in plan.ready.drain(..) {
        match check::check(shelf, target.directory, &ready, format).await? {
            Ok(found) => {
                checked.push(found);
                fit.push(ready);
            }
            Err(why) => unfit.push((ready.partition, why)),
        }
    }
    plan.ready = fit;
    Ok((checked, unfit))
}

/// The columns of the new version and what changed against the policy; Err is the reason of a refusal.
fn columns(
    target: &Target<'_>,
    header: Option<&Header>,
    plan: &Plan,
    checked: &[Checked],
    inferred: &Inferred,
) -> Result<(Option<Schema>, Vec<String>), String> {
    let old = header.and_then(|header| Schema::from_text(header.schema.as_deref()?));
    let of_files = checked.iter().filter_map(|checked| checked.schema.clone());
    let new = plan
        .schema
        .clone()
        .or_else(|| of_files.reduce(|one, other| evolution::union(&one, &other)))
        .or_else(|| inferred.schema.clone());
    let (Some(old), Some(new)) = (&old, &new) else {
        return Ok((new.or(old), Vec::new()));
    };
    let incompatible: Vec<String> = evolution::changes(old, new)
        .iter()
        .filter(|change| !change.is_compatible())
        .map(ToString::to_string)
        .collect();
    if target.settings.evolution == Policy::Refuse && !incompatible.is_empty() {
        return Err(format!("the columns changed: {}", incompatible.join(", ")));
    }
    let merged = match plan.replace_table || plan.schema.is_some() {
        true => new.clone(),
        false => evolution::union(old, new),
    };
    Ok((Some(merged), incompatible))
}

fn summary(plan: &Plan, published: &Published) -> BTreeMap<String, String> {
    let known = |ready: &&Ready| published.partitions.contains_key(&ready.partition);
    let changed = plan.ready.iter().filter(known).count();
    let mut summary = BTreeMap::new();
    let mut count = |name: &str, count: usize| {
        if count > 0 {
            summary.insert(name.to_owned(), count.to_string());
        }
    };
    count("partitions_added", plan.ready.len() - changed);
    count("partitions_changed", changed);
    count("partitions_removed", plan.removed.len());
    summary
}

/// Makes sure that the dataset exists. A dataset of another source keeps its name.
async fn register(target: &Target<'_>) -> Result<(), LedgerError> {
    match target.ledger.create(target.descriptor.clone()).await {
        Ok(_) | Err(LedgerError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
