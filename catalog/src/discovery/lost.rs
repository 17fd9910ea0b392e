//! Published files that are not there any more, or not as they were.
//!
//! Two consequences: a version that lacks them needs more proof than an old marker ([`vanished`]), and the
//! version that names them is marked as degraded ([`mark`]): its readers get ESTALE for those files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::completeness::Proof;
use super::head::{files_of, latest};
use super::publish::{PublishError, Target};
use super::table::{Ready, TableState};
use crate::ledger::LedgerError;
use crate::manifest::Manifest;
use crate::upstream::UpFile;

/// Files of a published partition that a listing does not show, or shows with other bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    gone: u64,
    overwritten: u64,
}

async fn compare(
    manifest: &Manifest,
    partition: &str,
    files: &[UpFile],
) -> Result<Lost, LedgerError> {
    let mut lost = Lost::default();
    let Some(partition) = manifest.partition(partition).await? else {
        return Ok(lost);
    };
    let there: BTreeMap<&str, &UpFile> = files.iter().map(|file| (&*file.path, file)).collect();
    for file in files_of(manifest, &partition).await? {
        match there.get(&*file.path) {
            None => lost.gone += 1,
            Some(now) if now.size == file.size && now.token == file.token => {}
            Some(_) => lost.overwritten += 1,
        }
    }
    Ok(lost)
}

/// Published files of a complete partition that are gone without anything that says it is meant: a new
/// marker, a manifest, or that they have stayed away for long enough. 0 when all is well.
pub(super) async fn vanished(
    target: &Target<'_>,
    state: &TableState,
    ready: &Ready,
) -> Result<u64, PublishError> {
    let Some(manifest) = &state.published.manifest else {
        return Ok(0);
    };
    let Some(known) = state.published.partitions.get(&ready.partition) else {
        return Ok(0);
    };
    let marked = matches!(ready.proof, Proof::PartitionMarker | Proof::TableMarker)
        && ready.marker_ms != known.marker_ms;
    if ready.proof == Proof::Manifest || marked || ready.unchanged_for >= target.settings.settle {
        return Ok(0);
    }
    Ok(compare(manifest, &ready.partition, &ready.files)
        .await?
        .gone)
}

/// Marks the newest version as degraded when `files`, which two listings agreed on, lack some of its own.
/// Once for each version.
pub(super) async fn mark(
    target: &Target<'_>,
    state: &mut TableState,
    partition: &Arc<str>,
    files: &[UpFile],
) -> Result<(), PublishError> {
    let Some(manifest) = &state.published.manifest else {
        return Ok(());
    };
    let known = state.published.partitions.contains_key(partition);
    // What upstream does to its files does not touch a version that has files of its own.
    if target.settings.managed || !known || state.degraded == state.published.version {
        return Ok(());
    }
    let lost = compare(manifest, partition, files).await?;
    if lost.gone + lost.overwritten == 0 {
        return Ok(());
    }
    let version = latest(target.ledger, &target.descriptor.name).await?;
    let Some(version) = version.filter(|version| Some(version.number) == state.published.version)
    else {
        return Ok(());
    };
    let reason = format!(
        "{partition}: {} files overwritten and {} gone in the store",
        lost.overwritten, lost.gone
    );
    target.ledger.mark_degraded(&version, &reason).await?;
    state.degraded = Some(version.number);
    Ok(())
}
