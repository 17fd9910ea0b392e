//! What is in a manifest, page by page: partitions, files, directories.

use std::sync::Arc;

use super::entry::{FileEntry, Partition, check_path};
use super::walk::{self, Walk};
use super::{Manifest, ManifestError};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryEntry {
    /// A directory, by its name in the one above.
    Directory(Arc<str>),
    /// A file, with its whole path.
    File(FileEntry),
}

impl Manifest {
    /// The first `limit` partitions whose path comes behind `after` (None: from the beginning), in
    /// the order of their files' paths. Fewer than `limit`: there are no more.
    pub async fn partitions(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Partition>, ManifestError> {
        let after = after.map(Partition::key_of);
        let from = after
            .as_deref()
            .map_or(Vec::new(), |key| behind(key.as_bytes()));
        let mut walk = Walk::begin(&self.blocks, &self.root.partitions.id, &from).await?;
        let mut found = Vec::new();
        while found.len() < limit {
            let Some((key, value)) = walk.next().await? else {
                break;
            };
            found.push(Partition::decode(&key, &value)?);
        }
        Ok(found)
    }

    /// The partition with exactly this path.
    pub async fn partition(&self, path: &str) -> Result<Option<Partition>, ManifestError> {
        let key = Partition::key_of(path);
        let value = walk::get(&self.blocks, &self.root.partitions.id, key.as_bytes()).await?;
        value
            .map(|value| Partition::decode(key.as_bytes(), &value))
            .transpose()
    }

    /// The first `limit` files of a partition whose whole path comes behind `after`.
    pub async fn files_of(
        &self,
        partition: &Partition,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FileEntry>, ManifestError> {
        let directory = Partition::key_of(&partition.path);
        let from = match after {
            None => Vec::new(),
            Some(after) if *after < *directory => Vec::new(),
            Some(after) => match after.strip_prefix(&directory) {
                Some(rest) => behind(rest.as_bytes()),
                None => return Ok(Vec::new()),
            },
        };
        let mut walk = Walk::begin(&self.blocks, &partition.list, &from).await?;
        let mut found = Vec::new();
        while found.len() < limit {
            let Some((key, value)) = walk.next().await? else {
                break;
            };
            found.push(FileEntry::decode(&directory, &key, &value)?);
        }
        Ok(found)
    }

    /// The first `limit` files whose path begins with `prefix` and comes behind `after`, in the order
    /// of their paths. Fewer than `limit`: there are no more.
    pub async fn files(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FileEntry>, ManifestError> {
        let after = after.filter(|after| *after >= prefix);
        let from = after.unwrap_or(prefix);
        let mut found = Vec::new();
        // The partition that holds `from`, if one does, comes before the first one behind it.
        if let Some(holder) = self.holder(from).await? {
            self.collect(&holder, prefix, after, limit, &mut found)
                .await?;
        }
        let mut walk = Walk::begin(&self.blocks, &self.root.partitions.id, from.as_bytes()).await?;
        while found.len() < limit {
            let Some((key, value)) = walk.next().await? else {
                break;
            };
            // Partitions under the prefix begin with it; the prefix may also end inside one.
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let partition = Partition::decode(&key, &value)?;
            if from.starts_with(&Partition::key_of(&partition.path)) {
                // The holder, again: its key is the whole of `from`.
                continue;
            }
            self.collect(&partition, prefix, after, limit, &mut found)
                .await?;
        }
        Ok(found)
    }

    /// Adds the files of one partition that [`Manifest::files`] is to answer.
    async fn collect(
        &self,
        partition: &Partition,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        found: &mut Vec<FileEntry>,
    ) -> Result<(), ManifestError> {
        let directory = Partition::key_of(&partition.path);
        let below = |text: &str| text.strip_prefix(directory.as_str()).map(str::to_owned);
        let from = match after.and_then(below) {
            Some(after) => behind(after.as_bytes()),
            None => below(prefix).unwrap_or_default().into_bytes(),
        };
        let mut walk = Walk::begin(&self.blocks, &partition.list, &from).await?;
        while found.len() < limit {
            let Some((key, value)) = walk.next().await? else {
                break;
            };
            let file = FileEntry::decode(&directory, &key, &value)?;
            if !file.path.starts_with(prefix) {
                break;
            }
            found.push(file);
        }
        Ok(())
    }

    /// The partition in whose directory a path lies.
    async fn holder(&self, path: &str) -> Result<Option<Partition>, ManifestError> {
        let slashes = path.rmatch_indices('/').map(|(at, _)| &path[..at]);
        for directory in slashes.chain([""]) {
            if let Some(partition) = self.partition(directory).await? {
                return Ok(Some(partition));
            }
        }
        Ok(None)
    }

    /// The file with this path.
    pub async fn file(&self, path: &str) -> Result<Option<FileEntry>, ManifestError> {
        check_path(path)?;
        let Some(partition) = self.holder(path).await? else {
            return Ok(None);
        };
        let directory = Partition::key_of(&partition.path);
        let Some(key) = path.strip_prefix(directory.as_str()) else {
            return Ok(None);
        };
        let value = walk::get(&self.blocks, &partition.list, key.as_bytes()).await?;
        value
            .map(|value| FileEntry::decode(&directory, key.as_bytes(), &value))
            .transpose()
    }

    /// The first `limit` names in a directory that come behind the name `after`; directories and files
    /// in one order. The top is the empty path. A directory that is not there is empty.
    ///
    /// The order is that of the paths below (`a-b` before `a`, when `a` is a directory).
    pub async fn directory(
        &self,
        directory: &str,
        after: Option<&DirectoryEntry>,
        limit: usize,
    ) -> Result<Vec<DirectoryEntry>, ManifestError> {
        let prefix = if directory.is_empty() {
            String::new()
        } else {
            check_path(directory)?;
            format!("{directory}/")
        };
        // Everything below a directory "d/" comes before "d0": '0' follows '/'.
        let past = |name: &str| format!("{prefix}{name}0");
        let (mut from, mut including) = match after {
            None => (prefix.clone(), true),
            Some(DirectoryEntry::Directory(name)) => (past(name), true),
            Some(DirectoryEntry::File(file)) => (file.path.to_string(), false),
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(file) = self.first_from(&prefix, &from, including).await? else {
                break;
            };
            let rest = &file.path[prefix.len()..];
            match rest.split_once('/') {
                Some((name, _)) => {
                    (from, including) = (past(name), true);
                    found.push(DirectoryEntry::Directory(name.into()));
                }
                None => {
                    (from, including) = (file.path.to_string(), false);
                    found.push(DirectoryEntry::File(file));
                }
            }
        }
        Ok(found)
    }

    /// The first file at or behind `from` that is below `prefix`.
    async fn first_from(
        &self,
        prefix: &str,
        from: &str,
        including: bool,
    ) -> Result<Option<FileEntry>, ManifestError> {
        if including && from == prefix {
            return Ok(self.files(prefix, None, 1).await?.pop());
        }
        if including {
            match self.file(from).await {
                Ok(None) | Err(ManifestError::Path(_)) => {}
                found => return found,
            }
        }
        Ok(self.files(prefix, Some(from), 1).await?.pop())
    }
}

/// The first key behind `key`.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
