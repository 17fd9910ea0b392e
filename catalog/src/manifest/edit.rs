//! Making a manifest: from nothing, or from another one and what is different.
//!
//! The edit stores lists of files as they are given, keeps one entry for each changed partition in
//! memory, and writes the blocks on the way to the root in [`ManifestEdit::finish`]. An edit that is
//! dropped leaves blobs that nothing names; garbage collection finds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Child, Sums};
use super::blocks::Blocks;
use super::entry::{FILES, FileEntry, PARTITIONS, Partition, check_path};
use super::root::{Header, Root};
use super::tree::{Builder, Writer, build_up};
use super::tree_edit::{Changes, edit};
use super::walk::{self, Walk};
use super::{Manifest, ManifestError};
use crate::blobs::{BlobId, Blobs};

/// Columns of a partition and their values, as in [`Partition::values`].
type Values = Vec<(Arc<str>, Option<Arc<str>>)>;

/// See the module text.
#[derive(Debug)]
pub struct ManifestEdit {
    blocks: Blocks,
    header: Header,
    base: Option<Child>,
    changes: BTreeMap<String, Option<Partition>>,
}

/// The stored list of a partition's files, and the sums over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    list: BlobId,
    sums: Sums,
}

impl Files {
    /// Root of the list.
    pub fn list(&self) -> &BlobId {
        &self.list
    }

    /// Number of files.
    pub fn count(&self) -> u64 {
        self.sums.files
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.sums.bytes
    }
}

impl ManifestEdit {
    /// Begins with no files.
    pub fn new(blobs: &Arc<dyn Blobs>, header: Header) -> Self {
        Self {
            blocks: Blocks::new(blobs),
            header,
            base: None,
            changes: BTreeMap::new(),
        }
    }

    /// Begins with everything that a manifest has.
    pub fn from(previous: &Manifest) -> Self {
        Self {
            blocks: previous.blocks.clone(),
            header: previous.root.header.clone(),
            base: Some(previous.root.partitions),
            changes: BTreeMap::new(),
        }
    }

    /// Location, format, schema and columns of the result.
    pub fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// Stores the files of a partition, without adding them: see [`ManifestEdit::set_partition`].
    /// The files' paths begin with the partition's; they come in the order of their paths, each once.
    pub async fn store_files(
        &self,
        partition: &str,
        files: impl IntoIterator<Item = FileEntry>,
    ) -> Result<Files, ManifestError> {
        let mut writer = Writer::new(self.blocks.blobs());
        let mut builder = Builder::new(FILES);
        for file in files {
            let key = key_in(partition, &file.path)?;
            builder.push(&mut writer, (key, file.encode()?)).await?;
        }
        let root = builder.finish(&mut writer).await?;
        writer.finish().await?;
        Ok(Files {
            list: root.id,
            sums: root.sums,
        })
    }

    /// Changes some files of a partition's stored list (None removes): for long lists.
    pub async fn patch_files(
        &self,
        partition: &Partition,
        changes: impl IntoIterator<Item = (Arc<str>, Option<FileEntry>)>,
    ) -> Result<Files, ManifestError> {
        let mut keys = Changes::new();
        for (path, file) in changes {
            let value = file.as_ref().map(FileEntry::encode).transpose()?;
            keys.insert(key_in(&partition.path, &path)?, value);
        }
        let mut writer = Writer::new(self.blocks.blobs());
        let root = edit(&self.blocks, &mut writer, FILES, &partition.list, keys).await?;
        Ok(Files {
            list: root.id,
            sums: root.sums,
        })
    }

    /// Adds a partition, or replaces the one with this path. Errors with `Path`.
    pub fn set_partition(
        &mut self,
        path: &str,
        values: Values,
        notes: BTreeMap<Arc<str>, Arc<str>>,
        files: Files,
    ) -> Result<(), ManifestError> {
        if !path.is_empty() {
            check_path(path)?;
        }
        let partition = Partition {
            path: path.into(),
            values,
            files: files.sums.files,
            bytes: files.sums.bytes,
            rows: files.sums.rows,
            list: files.list,
            notes: notes.into_iter().collect(),
        };
        self.changes
            .insert(Partition::key_of(path), Some(partition));
        Ok(())
    }

    /// Stores files and adds or replaces their partition: the two calls above in one.
    pub async fn put_partition(
        &mut self,
        path: &str,
        values: Values,
        files: impl IntoIterator<Item = FileEntry>,
    ) -> Result<(), ManifestError> {
        let files = self.store_files(path, files).await?;
        self.set_partition(path, values, BTreeMap::new(), files)
    }

    /// Removes a partition; no error when there is none.
    pub fn remove_partition(&mut self, path: &str) {
        self.changes.insert(Partition::key_of(path), None);
    }

    /// Removes every partition that the edit began with.
    pub fn clear(&mut self) {
        self.base = None;
        self.changes.retain(|_, change| change.is_some());
    }

    /// Stores the manifest; its digest. Everything it names is durable when this returns. Errors with
    /// `Nested` when a changed partition lies inside another one.
    pub async fn finish(self) -> Result<BlobId, ManifestError> {
        let mut writer = Writer::new(self.blocks.blobs());
        let mut added = Vec::new();
        let mut changes = Changes::new();
        for (key, change) in self.changes {
            let value = change.as_ref().map(Partition::encode).transpose()?;
            if value.is_some() {
                added.push(key.clone());
            }
            changes.insert(Bytes::from(key), value);
        }
        let base = match self.base {
            Some(base) => base.id,
            None => build_up(&mut writer, PARTITIONS, 0, Vec::new()).await?.id,
        };
        writer.finish().await?;
        let partitions = edit(&self.blocks, &mut writer, PARTITIONS, &base, changes).await?;
        for key in &added {
            check_nesting(&self.blocks, &partitions.id, key).await?;
        }
        let root = Root {
            header: self.header,
            partitions,
        };
        let id = writer.put(root.encode()?).await?;
        writer.finish().await?;
        Ok(id)
    }
}

/// A file's key in the list of a partition.
pub(super) fn key_in(partition: &str, path: &str) -> Result<Bytes, ManifestError> {
    check_path(path)?;
    let directory = Partition::key_of(partition);
    match path.strip_prefix(directory.as_str()) {
        Some(name) => Ok(Bytes::copy_from_slice(name.as_bytes())),
        None => Err(ManifestError::Path(crate::name::shortened(path))),
    }
}

/// Refuses a partition that has another one above or below it: a path would be in both.
async fn check_nesting(blocks: &Blocks, root: &BlobId, key: &str) -> Result<(), ManifestError> {
    let nested = |inner: &str, outer: &str| {
        let text = |key: &str| crate::name::shortened(key.trim_end_matches('/'));
        Err(ManifestError::Nested(text(inner), text(outer)))
    };
    let path = key.trim_end_matches('/');
    let above = path.match_indices('/').map(|(at, _)| &path[..=at]);
    for outer in above.chain([""]).filter(|outer| *outer != key) {
        if walk::get(blocks, root, outer.as_bytes()).await?.is_some() {
            return nested(key, outer);
        }
    }
    let behind = [key.as_bytes(), &[0]].concat();
    let mut walk = Walk::begin(blocks, root, &behind).await?;
    match walk.next().await? {
        Some((next, _)) if next.starts_with(key.as_bytes()) => {
            nested(&String::from_utf8_lossy(&next), key)
        }
        _ => Ok(()),
    }
}
