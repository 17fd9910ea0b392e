//! Writing a plan down: header, lists of files, notes of each partition, manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::check::Checked;
use super::fingerprint::Fingerprint;
use super::managed;
use super::publish::{Plan, PublishError, Target};
use super::table::{NOTE_FINGERPRINT, NOTE_MARKER, NOTE_PROOF, NOTE_RANGES, Published, Ready};
use crate::blobs::BlobId;
use crate::ledger::Save;
use crate::manifest::{FileEntry, Files, Header, ManifestEdit, ManifestError};
use crate::schema::history::{EPOCH, History, MIXED, NUMBERED, TYPES, types_note};
use crate::schema::{ColumnRange, Inferred, Schema};
use crate::upstream::UpFile;

/// Lists of files that are stored at the same time: each waits for a disk.
const AT_ONCE: usize = 16;
/// Longest note with ranges, bytes: the manifest takes 4096.
const RANGES_MAX: usize = 4000;
/// Name of the header's note about how sure the format is.
const NOTE_CONFIDENCE: &str = "confidence";

/// Writes the manifest of a plan; everything that it names is durable afterwards. With it the save under
/// which its copies were made, when there are any.
pub(super) async fn manifest(
    target: &Target<'_>,
    published: &Published,
    plan: &Plan,
    checked: &[Checked],
    inferred: &Inferred,
    schema: Option<Schema>,
) -> Result<(BlobId, Option<Save>), PublishError> {
    let mut edit = match &published.manifest {
        Some(manifest) => ManifestEdit::from(manifest),
        None => ManifestEdit::new(target.ledger.blobs(), Header::default()),
    };
    let history = history(edit.header_mut(), &schema, plan, checked);
    write_header(edit.header_mut(), target, inferred, schema.as_ref(), plan);
    if plan.replace_table {
        edit.clear();
    }
    for partition in &plan.removed {
        edit.remove_partition(partition);
    }
    let types = |checked: &Checked| match &schema {
        Some(schema) => type_notes(checked, schema, history.epoch()),
        None => Vec::new(),
    };
    if !target.settings.managed {
        managed::release(target, published, plan, &mut edit).await?;
        store_all(&mut edit, plan, checked, &[], &types).await?;
        return Ok((edit.finish().await?, None));
    }
    let kept = managed::keep(target, published, plan, &mut edit).await?;
    let stored = async {
        store_all(&mut edit, plan, checked, &kept.lists, &types).await?;
        if let Some(save) = &kept.save {
            managed::renew(target, save).await?;
        }
        Ok::<_, PublishError>(edit.finish().await?)
    };
    match stored.await {
        Ok(manifest) => Ok((manifest, kept.save)),
        Err(error) => {
            managed::give_up(target, kept.save.as_ref()).await;
            Err(error)
        }
    }
}

/// What a partition notes about itself.
type NotesOf<'a> = dyn Fn(&Checked) -> Vec<Note> + Sync + 'a;

/// Name and text.
type Note = (Arc<str>, Arc<str>);

/// Stores the lists of files of every ready partition; `kept` says what they are for managed tables,
/// `types` what a partition notes about its columns.
async fn store_all(
    edit: &mut ManifestEdit,
    plan: &Plan,
    checked: &[Checked],
    kept: &[Vec<FileEntry>],
    types: &NotesOf<'_>,
) -> Result<(), ManifestError> {
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let lists: Vec<BoxFuture<'_, _>> = plan
        .ready
        .iter()
        .zip(checked)
        .enumerate()
        .map(|(at, (ready, checked))| {
            store(&*edit, ready, checked, kept.get(at).map(Vec::as_slice)).boxed()
        })
        .collect();
    let lists: Vec<Files> = stream::iter(lists).buffered(AT_ONCE).try_collect().await?;
    for ((ready, checked), files) in plan.ready.iter().zip(checked).zip(lists) {
        let values = ready.values.clone();
        let mut notes = notes(ready, checked);
        notes.extend(types(checked));
        edit.set_partition(&ready.partition, values, notes, files)?;
    }
    Ok(())
}

fn write_header(
    header: &mut Header,
    target: &Target<'_>,
    inferred: &Inferred,
    schema: Option<&Schema>,
    plan: &Plan,
) {
    header.location = target.location.as_str().into();
    header.format = inferred.format.as_str().into();
    header.schema = schema.map(|schema| schema.to_text().into());
    if let Some(ready) = plan.ready.first() {
        let text: Arc<str> = Arc::from("string");
        let column =
            |(name, _): &(Arc<str>, Option<Arc<str>>)| (Arc::clone(name), Arc::clone(&text));
        header.columns = ready.values.iter().map(column).collect();
    }
    let confidence = serde_json::to_value(inferred.confidence).ok();
    if let Some(confidence) = confidence.as_ref().and_then(|value| value.as_str()) {
        header.notes.retain(|(name, _)| &**name != NOTE_CONFIDENCE);
        header
            .notes
            .push((NOTE_CONFIDENCE.into(), confidence.into()));
        header.notes.sort();
    }
}

/// Notes in the header which types the columns had before this version; what it says afterwards.
fn history(
    header: &mut Header,
    schema: &Option<Schema>,
    plan: &Plan,
    checked: &[Checked],
) -> History {
    let mut history = match plan.replace_table {
        true => History::default(),
        false => {
            let mut history = History::of(&header.notes);
            let old = header.schema.as_deref().and_then(Schema::from_text);
            if let (Some(old), Some(new)) = (&old, schema) {
                history.change(old, new);
            }
            history
        }
    };
    let others = |checked: &Checked| {
        let table = schema.as_ref();
        table.is_some_and(|table| !type_notes(checked, table, 0).is_empty())
    };
    if checked.iter().any(others) {
        history.mark();
    }
    history.write(&mut header.notes);
    history
}

/// What a partition has to say about its types in a table of these columns.
fn type_notes(checked: &Checked, table: &Schema, epoch: u64) -> Vec<(Arc<str>, Arc<str>)> {
    let mut notes: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    if epoch > 0 {
        notes.push((EPOCH.into(), epoch.to_string().into()));
    }
    let own = checked.schema.as_ref();
    let types = match checked {
        Checked { numbered: true, .. } => Some(NUMBERED.to_owned()),
        Checked { mixed: true, .. } => Some(MIXED.to_owned()),
        _ => own.and_then(|own| types_note(own, table)),
    };
    notes.extend(types.map(|text| (Arc::from(TYPES), Arc::from(text))));
    notes
}

/// Stores the list of files of one partition.
async fn store(
    edit: &ManifestEdit,
    ready: &Ready,
    checked: &Checked,
    kept: Option<&[FileEntry]>,
) -> Result<Files, ManifestError> {
    if let Some(kept) = kept {
        let entries = kept
            .iter()
            .zip(&checked.rows)
            .map(|(file, rows)| FileEntry {
                rows: *rows,
                ..file.clone()
            });
        return edit
            .store_files(&ready.partition, entries.collect::<Vec<_>>())
            .await;
    }
    let entry = |(file, rows): (&UpFile, &Option<u64>)| FileEntry {
        path: Arc::clone(&file.path),
        size: file.size,
        mtime_ms: file.mtime_ms,
        token: Arc::clone(&file.token),
        rows: *rows,
        checksum: None,
    };
    let files = ready.files.iter().zip(&checked.rows);
    let entries: Vec<FileEntry> = files.map(entry).collect();
    edit.store_files(&ready.partition, entries).await
}

/// What discovery has to say about a partition.
fn notes(ready: &Ready, checked: &Checked) -> BTreeMap<Arc<str>, Arc<str>> {
    let mut notes: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let fingerprint = Fingerprint::of(&ready.files).to_text();
    notes.insert(NOTE_FINGERPRINT.into(), fingerprint.into());
    if let Some(marker) = ready.marker_ms {
        notes.insert(NOTE_MARKER.into(), marker.to_string().into());
    }
    let proof = serde_json::to_value(ready.proof).ok();
    if let Some(proof) = proof.as_ref().and_then(|proof| proof.as_str()) {
        notes.insert(NOTE_PROOF.into(), proof.into());
    }
    if let Some(ranges) = ranges_note(&checked.ranges) {
        notes.insert(NOTE_RANGES.into(), ranges.into());
    }
    notes.extend(checked.details.clone());
    notes
}

/// The ranges of as many leading columns as a note can hold.
fn ranges_note(ranges: &[ColumnRange]) -> Option<String> {
    let mut kept: Vec<&ColumnRange> = ranges
        .iter()
        .filter(|range| range.min.is_some() || range.max.is_some() || range.nulls.is_some())
        .collect();
    loop {
        if kept.is_empty() {
            return None;
        }
        let text = serde_json::to_string(&kept).ok()?;
        if text.len() <= RANGES_MAX {
            return Some(text);
        }
        kept.truncate(kept.len() * RANGES_MAX / text.len());
    }
}
