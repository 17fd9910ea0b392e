//! What changed between two versions. Reads only the blocks in which they differ.

use super::entry::{FileEntry, Partition};
use super::walk;
use super::{Manifest, ManifestError};

/// A partition that is not the same in two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionChange {
    /// Only the newer one has it.
    Added(Partition),
    /// Only the older one has it.
    Removed(Partition),
    /// Both have it, with other files, values or notes.
    Changed {
        /// As the older one has it.
        old: Partition,
        /// As the newer one has it.
        new: Partition,
    },
}

impl PartitionChange {
    /// The partition's path.
    pub fn path(&self) -> &str {
        match self {
            Self::Added(partition) | Self::Removed(partition) => &partition.path,
            Self::Changed { new, .. } => &new.path,
        }
    }
}

/// A file that is not the same in two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// Only the newer one has it.
    Added(FileEntry),
    /// Only the older one has it.
    Removed(FileEntry),
    /// Both have it, and it is another file.
    Changed {
        /// As the older one has it.
        old: FileEntry,
        /// As the newer one has it.
        new: FileEntry,
    },
}

impl Manifest {
    /// The first `limit` partitions behind `after` that differ from `older`'s, in order.
    pub async fn diff(
        &self,
        older: &Manifest,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PartitionChange>, ManifestError> {
        let from = after.map_or(String::new(), |after| Partition::key_of(after) + "\0");
        let (old, new) = (&older.root.partitions.id, &self.root.partitions.id);
        let found = walk::diff(&self.blocks, old, new, from.as_bytes(), limit).await?;
        let mut changes = Vec::with_capacity(found.len());
        for difference in found {
            let decode = |value: &bytes::Bytes| Partition::decode(&difference.key, value);
            changes.push(match (&difference.old, &difference.new) {
                (None, Some(new)) => PartitionChange::Added(decode(new)?),
                (Some(old), None) => PartitionChange::Removed(decode(old)?),
                (Some(old), Some(new)) => PartitionChange::Changed {
                    old: decode(old)?,
                    new: decode(new)?,
                },
                (None, None) => continue,
            });
        }
        Ok(changes)
    }

    /// The first `limit` files behind the whole path `after` in which two lists of one partition
    /// differ, in order. Pass the two of a [`PartitionChange::Changed`].
    pub async fn diff_files(
        &self,
        old: &Partition,
        new: &Partition,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FileChange>, ManifestError> {
        let directory = Partition::key_of(&new.path);
        let rest = after.and_then(|after| after.strip_prefix(directory.as_str()));
        let from = rest.map_or(String::new(), |rest| format!("{rest}\0"));
        let found = walk::diff(&self.blocks, &old.list, &new.list, from.as_bytes(), limit).await?;
        let mut changes = Vec::with_capacity(found.len());
        for difference in found {
            let key = &difference.key;
            let decode = |value: &bytes::Bytes| FileEntry::decode(&directory, key, value);
            changes.push(match (&difference.old, &difference.new) {
                (None, Some(new)) => FileChange::Added(decode(new)?),
                (Some(old), None) => FileChange::Removed(decode(old)?),
                (Some(old), Some(new)) => FileChange::Changed {
                    old: decode(old)?,
                    new: decode(new)?,
                },
                (None, None) => continue,
            });
        }
        Ok(changes)
    }
}
