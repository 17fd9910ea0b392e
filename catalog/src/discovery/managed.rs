//! Files that a version keeps for itself: `storage: managed`.
//!
//! ```text
//! pinned   the bucket keeps old versions: tokens name them, nothing is copied          location: upstream
//! copied   the catalog's own vault, one place for as long as no path gets other bytes  location: the place
//! ```
//!
//! A copy is read back and has the digest of what was read upstream, before anything names it. Files that
//! are only added go into the place that is there; a file that is replaced would be two files of one
//! path, so the table moves to a new place: links where the vault can, copies where it cannot. All
//! of it happens under a save, so a collector takes none of it before the commit, and what a crash
//! leaves is garbage. Versions before keep their own place until they are removed.

mod copies;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::check::full;
use super::head::files_of;
use super::publish::{Plan, PublishError, Target};
use super::table::Published;
use crate::ledger::Save;
use crate::manifest::{FileEntry, Header, Manifest, ManifestEdit, Partition};
use crate::saves::LEASE;
use crate::upstream::{UpFile, UpstreamError, UpstreamErrorKind};
use copies::Copies;

/// Files that are copied or pinned at the same time.
const AT_ONCE: usize = 8;
/// Partitions that are listed at once.
const PAGE: usize = 256;
/// Name of the header's note about what keeps the files.
const NOTE_STORAGE: &str = "storage";

/// What a version of a managed table is made of.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Files of each ready partition, in the order of the plan.
    pub(super) lists: Vec<Vec<FileEntry>>,
    /// The save that copies were made under.
    pub(super) save: Option<Save>,
}

impl From<UpstreamError> for PublishError {
    fn from(error: UpstreamError) -> Self {
        Self::Unreachable(error.message)
    }
}

/// Keeps the files of a plan, and makes the edit's header and other partitions agree with where.
pub(super) async fn keep(
    target: &Target<'_>,
    published: &Published,
    plan: &Plan,
    edit: &mut ManifestEdit,
) -> Result<Kept, PublishError> {
    let before = published.manifest.as_ref().map(Manifest::header);
    let copied = before.is_some_and(|header| target.vaults.holder(&header.location).is_some());
    if !copied && let Some(lists) = pin_all(target, plan).await? {
        if before.is_some_and(|header| storage(header) != Some("pinned")) {
            pin_rest(target, published, plan, edit).await?;
        }
        set_storage(edit.header_mut(), &target.location, "pinned");
        return Ok(Kept { lists, save: None });
    }
    let copies = Copies::begin(target, published, plan).await?;
    let save = copies.save().clone();
    let kept = copies.run(plan, edit).await;
    if kept.is_err() {
        give_up(target, Some(&save)).await;
    }
    kept
}

/// Ends a save whose copies nobody will name. An error leaves it to its lease.
pub(super) async fn give_up(target: &Target<'_>, save: Option<&Save>) {
    if let Some(save) = save
        && let Err(error) = target.ledger.abandon_save(save.dataset, &save.id).await
    {
        tracing::debug!(%error, save = %save.id, "a save stays until its time is over");
    }
}

/// Makes the lease of a save new: the commit follows.
pub(super) async fn renew(target: &Target<'_>, save: &Save) -> Result<(), PublishError> {
    let dataset = target.ledger.dataset(&target.descriptor.name).await?;
    let renewed = target
        .ledger
        .begin_save(&dataset, &save.id, &save.vault, LEASE);
    match renewed.await?.place == save.place {
        true => Ok(()),
        false => Err(PublishError::Unreachable("a copy was given up".to_owned())),
    }
}

/// Lets a table that is managed no more name upstream's files again, those of the partitions that stay too:
/// they must still be what was copied.
pub(super) async fn release(
    target: &Target<'_>,
    published: &Published,
    plan: &Plan,
    edit: &mut ManifestEdit,
) -> Result<(), PublishError> {
    drop_storage(edit.header_mut());
    let copied = published.manifest.as_ref().filter(|manifest| {
        let location = &manifest.header().location;
        target.vaults.holder(location).is_some()
    });
    let Some(manifest) = copied else {
        return Ok(());
    };
    let original = |entry: FileEntry| async move {
        let there = target
            .upstream
            .head(&upstream_file(target, &entry).path)
            .await?;
        if (there.size, there.mtime_ms) != (entry.size, entry.mtime_ms) {
            let text = format!("{}: not the file that was copied", entry.path);
            return Err(UpstreamError::new(UpstreamErrorKind::Changed, text));
        }
        Ok(FileEntry {
            token: there.token,
            checksum: None,
            ..entry
        })
    };
    let mut rest = Rest::of(plan);
    while let Some(partition) = rest.next(manifest).await? {
        let files = files_of(manifest, &partition).await?;
        // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
        let all: Vec<BoxFuture<'_, _>> = files
            .into_iter()
            .map(|file| original(file).boxed())
            .collect();
        let files = stream::iter(all).buffered(AT_ONCE).try_collect().await?;
        put_again(edit, &partition, files).await?;
    }
    Ok(())
}

/// Forgets what kept the files of a version.
fn drop_storage(header: &mut Header) {
    header.notes.retain(|(name, _)| &**name != NOTE_STORAGE);
}

fn storage(header: &Header) -> Option<&str> {
    let note = header
        .notes
        .iter()
        .find(|(name, _)| &**name == NOTE_STORAGE);
    note.map(|(_, text)| &**text)
}

fn set_storage(header: &mut Header, location: &str, text: &str) {
    header.location = location.into();
    drop_storage(header);
    header.notes.push((NOTE_STORAGE.into(), text.into()));
    header.notes.sort();
}

/// The file that an entry of a table was, with its path below the root.
fn upstream_file(target: &Target<'_>, entry: &FileEntry) -> UpFile {
    let file = UpFile {
        path: Arc::clone(&entry.path),
        size: entry.size,
        mtime_ms: entry.mtime_ms,
        token: Arc::clone(&entry.token),
    };
    full(target.directory, &file)
}

fn entry_of(file: &UpFile) -> FileEntry {
    FileEntry {
        path: Arc::clone(&file.path),
        size: file.size,
        mtime_ms: file.mtime_ms,
        token: Arc::clone(&file.token),
        rows: None,
        checksum: None,
    }
}

/// Every file under a token that stays; none when the store keeps no old versions.
async fn pin_all(
    target: &Target<'_>,
    plan: &Plan,
) -> Result<Option<Vec<Vec<FileEntry>>>, PublishError> {
    let mut lists = Vec::with_capacity(plan.ready.len());
    for ready in &plan.ready {
        let entries: Vec<FileEntry> = ready.files.iter().map(entry_of).collect();
        match pin(target, entries).await? {
            Some(list) => lists.push(list),
            None => return Ok(None),
        }
    }
    Ok(Some(lists))
}

async fn pin(
    target: &Target<'_>,
    entries: Vec<FileEntry>,
) -> Result<Option<Vec<FileEntry>>, UpstreamError> {
    let one = |entry: FileEntry| async move {
        let kept = target.upstream.keep(&upstream_file(target, &entry)).await?;
        Ok::<_, UpstreamError>(kept.map(|kept| FileEntry {
            token: kept.token,
            ..entry
        }))
    };
    // Boxed: the compiler cannot name the lifetimes of a stream of borrowing futures.
    let all: Vec<BoxFuture<'_, _>> = entries
        .into_iter()
        .map(|entry| one(entry).boxed())
        .collect();
    let pinned: Vec<Option<FileEntry>> = stream::iter(all).buffered(AT_ONCE).try_collect().await?;
    Ok(pinned.into_iter().collect())
}

/// Pins what was published by reference, when the table becomes managed.
async fn pin_rest(
    target: &Target<'_>,
    published: &Published,
    plan: &Plan,
    edit: &mut ManifestEdit,
) -> Result<(), PublishError> {
    let Some(manifest) = &published.manifest else {
        return Ok(());
    };
    let mut rest = Rest::of(plan);
    while let Some(partition) = rest.next(manifest).await? {
        let files = files_of(manifest, &partition).await?;
        let unkept = || PublishError::Unreachable("the bucket keeps no old versions".to_owned());
        let files = pin(target, files).await?.ok_or_else(unkept)?;
        put_again(edit, &partition, files).await?;
    }
    Ok(())
}

/// Stores a partition's files anew; everything else about it stays.
async fn put_again(
    edit: &mut ManifestEdit,
    partition: &Partition,
    files: Vec<FileEntry>,
) -> Result<(), PublishError> {
    let files = edit.store_files(&partition.path, files).await?;
    let notes = partition.notes.iter().cloned().collect();
    edit.set_partition(&partition.path, partition.values.clone(), notes, files)?;
    Ok(())
}

/// The published partitions that a plan leaves as they are, one by one.
struct Rest<'a> {
    plan: &'a Plan,
    page: std::vec::IntoIter<Partition>,
    after: Option<Option<Arc<str>>>,
}

impl<'a> Rest<'a> {
    fn of(plan: &'a Plan) -> Self {
        Self {
            plan,
            page: Vec::new().into_iter(),
            after: (!plan.replace_table).then_some(None),
        }
    }

    async fn next(&mut self, manifest: &Manifest) -> Result<Option<Partition>, PublishError> {
        loop {
            for partition in self.page.by_ref() {
                let ready = self.plan.ready.iter();
                let changed = ready
                    .map(|ready| &ready.partition)
                    .chain(&self.plan.removed);
                let mut changed = changed.into_iter();
                if !changed.any(|path| *path == partition.path) {
                    return Ok(Some(partition));
                }
            }
            let Some(after) = self.after.take() else {
                return Ok(None);
            };
            let page = manifest.partitions(after.as_deref(), PAGE).await?;
            if page.len() == PAGE {
                self.after = page.last().map(|last| Some(Arc::clone(&last.path)));
            }
            self.page = page.into_iter();
        }
    }
}
