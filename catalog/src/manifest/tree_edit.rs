//! Changes of a tree: reads and writes only the blocks that change, and the way up to the root.
//!
//! Level by level. On each level, from the block in which the next change falls, old entries and
//! changes are merged and cut anew, until the cut falls on an old border again: from there on the old
//! blocks are what cutting would give, because where a block begins says all about where it ends. The
//! blocks that were replaced are the changes of the level above.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::block::{Block, Child, Entry};
use super::blocks::Blocks;
use super::tree::{Kind, Splitter, Writer, build_up};
use crate::blobs::BlobId;

/// New value of a key, or its removal.
pub(crate) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Applies changes; the new root. Everything is durable when it returns.
pub(crate) async fn edit(
    blocks: &Blocks,
    writer: &mut Writer<'_>,
    kind: Kind,
    root: &BlobId,
    changes: Changes,
) -> Result<Child, ManifestError> {
    let root = blocks.get(root).await?;
    let mut changes = changes;
    for level in 0..=root.level {
        let cursor = Cursor::new(blocks, &root, level);
        changes = edit_level(cursor, writer, kind, level, changes).await?;
    }
    let above: Vec<Entry> = changes
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let mut found = build_up(writer, kind, root.level, above).await?;
    writer.finish().await?;
    // What is left of a level may be a single block by now: then that is the root.
    loop {
        let block = blocks.get(&found.id).await?;
        match block.entries.as_slice() {
            [(_, only)] if block.level > 0 => found = Child::decode(only)?,
            _ => return Ok(found),
        }
    }
}

/// Applies changes to one level; the changes of the level above.
async fn edit_level(
    mut cursor: Cursor<'_>,
    writer: &mut Writer<'_>,
    kind: Kind,
    level: u8,
    changes: Changes,
) -> Result<Changes, ManifestError> {
    let mut above = Changes::new();
    let mut changes = changes.into_iter().peekable();
    while let Some((key, _)) = changes.peek() {
        let mut block = cursor.seek(key).await?;
        let mut splitter = Splitter::new(kind, level);
        loop {
            let last_block = cursor.is_last();
            let mut end: &[u8] = &[];
            for (key, value) in &block.entries {
                while let Some((changed, new)) = changes.next_if(|(changed, _)| changed < key) {
                    if let Some(new) = new {
                        splitter.push(writer, (changed, new)).await?;
                    }
                }
                match changes.next_if(|(changed, _)| changed == key) {
                    None => splitter.push(writer, (key.clone(), value.clone())).await?,
                    Some((_, None)) => {}
                    Some((_, Some(new))) => splitter.push(writer, (key.clone(), new)).await?,
                }
                end = key;
            }
            above.insert(Bytes::copy_from_slice(end), None);
            if last_block {
                for (changed, new) in changes.by_ref() {
                    if let Some(new) = new {
                        splitter.push(writer, (changed, new)).await?;
                    }
                }
                break;
            }
            if splitter.at_border() {
                break;
            }
            block = cursor.next().await?;
        }
        splitter.flush(writer).await?;
        above.extend(
            splitter
                .above
                .into_iter()
                .map(|(key, value)| (key, Some(value))),
        );
    }
    Ok(above)
}

/// A place among the blocks of one level.
struct Cursor<'a> {
    blocks: &'a Blocks,
    root: &'a Arc<Block>,
    level: u8,
    /// From the root down to the level above `level`: a block and which of its entries.
    path: Vec<(Arc<Block>, usize)>,
}

impl<'a> Cursor<'a> {
    fn new(blocks: &'a Blocks, root: &'a Arc<Block>, level: u8) -> Self {
        Self {
            blocks,
            root,
            level,
            path: Vec::new(),
        }
    }

    /// The block in which `key` is or would be; the last one for a key behind all.
    async fn seek(&mut self, key: &[u8]) -> Result<Arc<Block>, ManifestError> {
        self.path.clear();
        let root = Arc::clone(self.root);
        self.descend(root, |block| {
            block.position(key).min(block.entries.len() - 1)
        })
        .await
    }

    /// The next block. Only if this was not the last.
    async fn next(&mut self) -> Result<Arc<Block>, ManifestError> {
        while let Some((block, at)) = self.path.pop() {
            if at + 1 < block.entries.len() {
                let (_, below) = self
                    .blocks
                    .below(block.level, &block.entries[at + 1].1)
                    .await?;
                self.path.push((block, at + 1));
                return self.descend(below, |_| 0).await;
            }
        }
        Err(ManifestError::Damaged("a tree ends early".into()))
    }

    fn is_last(&self) -> bool {
        self.path
            .iter()
            .all(|(block, at)| at + 1 == block.entries.len())
    }

    /// Down to the level, taking at each block the entry that `choose` says.
    async fn descend(
        &mut self,
        mut block: Arc<Block>,
        choose: impl Fn(&Block) -> usize,
    ) -> Result<Arc<Block>, ManifestError> {
        while block.level > self.level {
            // Blocks above level 0 are never empty: `below` and `edit` have checked it.
            let at = choose(&block);
            let Some((_, value)) = block.entries.get(at) else {
                return Err(ManifestError::Damaged("a block is empty".into()));
            };
            let (_, below) = self.blocks.below(block.level, value).await?;
            self.path.push((block, at));
            block = below;
        }
        Ok(block)
    }
}
