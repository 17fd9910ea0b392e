//! What differs between two versions, as one list of files over all partitions, page by page.
//!
//! ```text
//! cursor = the partition's path, a line feed, the last file's path (empty: the partition is done)
//! ```
//!
//! No path has a line feed that could be mistaken: the first one ends the partition's path, and one
//! in a partition's path only makes the page after it start there again.

use super::error::ApiError;
use super::wire::{Change, DiffItem};
use crate::manifest::{FileChange, FileEntry, Manifest, ManifestError, Partition, PartitionChange};

/// Partitions that are compared at a time.
const AT_ONCE: usize = 64;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    partition: String,
    /// None: every file of the partition was shown.
    file: Option<String>,
}

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let refused = || ApiError::invalid("after is not the next of another page");
        let (partition, file) = text.split_once('\n').ok_or_else(refused)?;
        Ok(Self {
            partition: partition.to_owned(),
            file: (!file.is_empty()).then(|| file.to_owned()),
        })
    }

    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.partition, self.file.as_deref().unwrap_or(""))
    }
}

/// The files behind `cursor` that differ, at most `limit`, and where to go on.
pub(super) async fn page(
    old: &Manifest,
    new: &Manifest,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<DiffItem>, Option<Cursor>), ManifestError> {
    let mut items = Vec::new();
    let mut done: Option<String> = None;
    if let Some(Cursor { partition, file }) = cursor {
        if let (Some(file), Some(change)) = (file, again(old, new, &partition).await?) {
            let ended = files(old, new, &change, Some(&file), limit, &mut items).await?;
            if let Some(file) = ended {
                return Ok((
                    items,
                    Some(Cursor {
                        partition,
                        file: Some(file),
                    }),
                ));
            }
        }
        done = Some(partition);
    }
    loop {
        let changes = new.diff(old, done.as_deref(), AT_ONCE).await?;
        for change in &changes {
            let partition = change.path().to_owned();
            let ended = files(old, new, change, None, limit, &mut items).await?;
            if ended.is_some() {
                return Ok((
                    items,
                    Some(Cursor {
                        partition,
                        file: ended,
                    }),
                ));
            }
            if items.len() == limit {
                return Ok((
                    items,
                    Some(Cursor {
                        partition,
                        file: None,
                    }),
                ));
            }
            done = Some(partition);
        }
        if changes.len() < AT_ONCE {
            return Ok((items, None));
        }
    }
}

/// How one partition differs.
async fn again(
    old: &Manifest,
    new: &Manifest,
    path: &str,
) -> Result<Option<PartitionChange>, ManifestError> {
    let found = (old.partition(path).await?, new.partition(path).await?);
    Ok(match found {
        (None, None) => None,
        (Some(old), None) => Some(PartitionChange::Removed(old)),
        (None, Some(new)) => Some(PartitionChange::Added(new)),
        (Some(old), Some(new)) => Some(PartitionChange::Changed { old, new }),
    })
}

/// Adds the files of one partition behind `after`, up to `limit` items in all. The path of the last
/// one when there may be more.
async fn files(
    old: &Manifest,
    new: &Manifest,
    change: &PartitionChange,
    after: Option<&str>,
    limit: usize,
    items: &mut Vec<DiffItem>,
) -> Result<Option<String>, ManifestError> {
    let room = limit - items.len();
    let found = match change {
        PartitionChange::Added(partition) => {
            whole(new, partition, after, room, Change::Added).await?
        }
        PartitionChange::Removed(partition) => {
            whole(old, partition, after, room, Change::Removed).await?
        }
        PartitionChange::Changed { old, new: now } => {
            let changes = new.diff_files(old, now, after, room).await?;
            changes.iter().map(item).collect()
        }
    };
    let full = found.len() == room;
    items.extend(found);
    Ok(items.last().filter(|_| full).map(|item| item.path.clone()))
}

async fn whole(
    manifest: &Manifest,
    partition: &Partition,
    after: Option<&str>,
    limit: usize,
    change: Change,
) -> Result<Vec<DiffItem>, ManifestError> {
    let files = manifest.files_of(partition, after, limit).await?;
    let shown = files.iter().map(|file| one(file, change.clone()));
    Ok(shown.collect())
}

fn item(change: &FileChange) -> DiffItem {
    match change {
        FileChange::Added(file) => one(file, Change::Added),
        FileChange::Removed(file) => one(file, Change::Removed),
        FileChange::Changed { old, new } => DiffItem {
            path: new.path.to_string(),
            change: Change::Changed,
            from_size: Some(old.size),
            to_size: Some(new.size),
        },
    }
}

fn one(file: &FileEntry, change: Change) -> DiffItem {
    let size = Some(file.size);
    let added = change == Change::Added;
    DiffItem {
        path: file.path.to_string(),
        change,
        from_size: size.filter(|_| !added),
        to_size: size.filter(|_| added),
    }
}
