//! Everything that a manifest needs: the blobs it is made of, and its files.
//!
//! Versions share most of their blocks, so whoever walks all of them says of each block whether it was
//! there before; what lies below a known block is not read again. Blocks are read one at a time and
//! not kept: memory is that of one path through the tree.

use std::sync::Arc;

use super::block::{Block, Child};
use super::entry::{FileEntry, Partition};
use super::{Manifest, ManifestError};
use crate::blobs::{BlobError, BlobId, Blobs};

/// Who is told.
pub(crate) trait Reached: Send {
    /// A blob that is needed. False: it was reached before, with everything below it.
    fn blob(&mut self, id: &BlobId) -> bool;

    /// Whether it wants to be told of files; blocks that hold nothing else are not read then.
    fn wants_files(&self) -> bool;

    /// A file, by its path below the location.
    fn file(&mut self, path: &str);
}

impl Manifest {
    /// Tells of the manifest, every block and every file. Dropped, it has told of some.
    pub(crate) async fn reach(&self, to: &mut dyn Reached) -> Result<(), ManifestError> {
        to.blob(&self.id);
        let blobs = self.blocks.blobs();
        let mut left = vec![self.root.partitions.id];
        while let Some(id) = left.pop() {
            if !to.blob(&id) {
                continue;
            }
            let block = block(blobs, &id).await?;
            for (key, value) in &block.entries {
                if block.level > 0 {
                    left.push(Child::decode(value)?.id);
                    continue;
                }
                let partition = Partition::decode(key, value)?;
                let directory = Partition::key_of(&partition.path);
                tree(blobs, &partition.list, Some(&directory), to).await?;
                let Some((details, _)) = partition.details() else {
                    continue;
                };
                match tree(blobs, &details, None, to).await {
                    // An older catalog has collected them; nothing depends on them.
                    Err(ManifestError::Blob(BlobError::NotFound(_))) => {}
                    reached => reached?,
                }
            }
        }
        Ok(())
    }
}

/// Tells of every block of a tree, and of its files where it is the list of a `directory`.
async fn tree(
    blobs: &Arc<dyn Blobs>,
    root: &BlobId,
    directory: Option<&str>,
    to: &mut dyn Reached,
) -> Result<(), ManifestError> {
    let mut left = vec![*root];
    while let Some(id) = left.pop() {
        if !to.blob(&id) {
            continue;
        }
        let block = block(blobs, &id).await?;
        for (key, value) in &block.entries {
            if block.level == 0 {
                if let Some(directory) = directory
                    && to.wants_files()
                {
                    to.file(&FileEntry::decode(directory, key, value)?.path);
                }
                continue;
            }
            let child = Child::decode(value)?.id;
            // What is below level 1 are files and nothing else.
            match block.level == 1 && !to.wants_files() {
                true => {
                    to.blob(&child);
                }
                false => left.push(child),
            }
        }
    }
    Ok(())
}

/// Tells of every block of a map of numbers (`map.rs`).
pub(crate) async fn reach_map(
    blobs: &Arc<dyn Blobs>,
    root: &BlobId,
    to: &mut dyn Reached,
) -> Result<(), ManifestError> {
    tree(blobs, root, None, to).await
}

async fn block(blobs: &Arc<dyn Blobs>, id: &BlobId) -> Result<Arc<Block>, ManifestError> {
    Block::decode(&blobs.get(id).await?)
}
