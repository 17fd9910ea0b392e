//! Reading a tree in order, from any key on; and what differs between two trees.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::block::{Block, Child, Entry};
use super::blocks::Blocks;
use crate::blobs::BlobId;

/// A place among the entries of a tree.
#[derive(Debug)]
pub(crate) struct Walk {
    blocks: Blocks,
    /// From the root down: a block and which of its entries is next.
    path: Vec<(Arc<Block>, usize)>,
}

impl Walk {
    /// Begins at the first entry whose key is not less than `from`.
    pub(crate) async fn begin(
        blocks: &Blocks,
        root: &BlobId,
        from: &[u8],
    ) -> Result<Self, ManifestError> {
        let mut walk = Self {
            blocks: blocks.clone(),
            path: Vec::new(),
        };
        let mut block = blocks.get(root).await?;
        loop {
            let at = block.position(from);
            let below = match block.entries.get(at) {
                Some((_, value)) if block.level > 0 => Some(value.clone()),
                _ => None,
            };
            let level = block.level;
            walk.path.push((block, at));
            let Some(value) = below else {
                return Ok(walk);
            };
            (_, block) = blocks.below(level, &value).await?;
        }
    }

    /// The next entry of level 0.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>, ManifestError> {
        loop {
            if let Some((block, at)) = self.path.last_mut()
                && block.level == 0
                && let Some(entry) = block.entries.get(*at)
            {
                *at += 1;
                return Ok(Some(entry.clone()));
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }

    /// From a finished block to the next one.
    async fn advance(&mut self) -> Result<bool, ManifestError> {
        loop {
            let Some((block, at)) = self.path.last_mut() else {
                return Ok(false);
            };
            if block.level == 0 {
                self.path.pop();
                // The entry above that led here is done.
                if let Some((_, at)) = self.path.last_mut() {
                    *at += 1;
                }
                continue;
            }
            let Some((_, value)) = block.entries.get(*at) else {
                self.path.pop();
                if let Some((_, at)) = self.path.last_mut() {
                    *at += 1;
                }
                continue;
            };
            let (level, value) = (block.level, value.clone());
            let (_, below) = self.blocks.below(level, &value).await?;
            let leaf = below.level == 0;
            self.path.push((below, 0));
            if leaf {
                return Ok(true);
            }
        }
    }

    /// What the walk stands at: the next entry of the lowest block on the path, which may be a whole
    /// block that has not been opened. None at the end.
    fn head(&mut self) -> Option<Head> {
        while let Some((block, at)) = self.path.last() {
            if let Some((key, value)) = block.entries.get(*at) {
                return Some(Head {
                    level: block.level,
                    key: key.clone(),
                    value: value.clone(),
                });
            }
            self.path.pop();
            if let Some((_, at)) = self.path.last_mut() {
                *at += 1;
            }
        }
        None
    }

    fn skip(&mut self) {
        if let Some((_, at)) = self.path.last_mut() {
            *at += 1;
        }
    }

    async fn open(&mut self, head: &Head) -> Result<(), ManifestError> {
        let (_, below) = self.blocks.below(head.level, &head.value).await?;
        self.path.push((below, 0));
        Ok(())
    }
}

struct Head {
    level: u8,
    key: Bytes,
    value: Bytes,
}

/// The value of one key.
pub(crate) async fn get(
    blocks: &Blocks,
    root: &BlobId,
    key: &[u8],
) -> Result<Option<Bytes>, ManifestError> {
    let mut block = blocks.get(root).await?;
    loop {
        let Some((found, value)) = block.entries.get(block.position(key)) else {
            return Ok(None);
        };
        if block.level == 0 {
            return Ok((found == key).then(|| value.clone()));
        }
        let value = value.clone();
        (_, block) = blocks.below(block.level, &value).await?;
    }
}

/// What two trees have under a key, when it is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: Bytes,
    pub(crate) old: Option<Bytes>,
    pub(crate) new: Option<Bytes>,
}

/// The first `limit` keys from `from` on whose values differ, in order. Blocks that both trees have
/// are not read.
pub(crate) async fn diff(
    blocks: &Blocks,
    old: &BlobId,
    new: &BlobId,
    from: &[u8],
    limit: usize,
) -> Result<Vec<Difference>, ManifestError> {
    let mut found = Vec::new();
    if old == new {
        return Ok(found);
    }
    let mut old = Walk::begin(blocks, old, from).await?;
    let mut new = Walk::begin(blocks, new, from).await?;
    while found.len() < limit {
        let (one, other) = match (old.head(), new.head()) {
            (None, None) => break,
            (one, other) => (one, other),
        };
        // The higher of two blocks is opened first, so that equal blocks meet on one level.
        match (&one, &other) {
            (Some(one), Some(other)) if one.level == other.level && one.level > 0 => {
                if same_block(one, other)? {
                    old.skip();
                    new.skip();
                } else if one.key <= other.key {
                    old.open(one).await?;
                } else {
                    new.open(other).await?;
                }
                continue;
            }
            (Some(one), other) if one.level > other.as_ref().map_or(0, |other| other.level) => {
                old.open(one).await?;
                continue;
            }
            (_, Some(other)) if other.level > 0 => {
                new.open(other).await?;
                continue;
            }
            _ => {}
        }
        let order = match (&one, &other) {
            (Some(one), Some(other)) => one.key.cmp(&other.key),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let old_entry = one.filter(|_| order.is_le());
        let new_entry = other.filter(|_| order.is_ge());
        if old_entry.is_some() {
            old.skip();
        }
        if new_entry.is_some() {
            new.skip();
        }
        let Some(key) = old_entry
            .as_ref()
            .or(new_entry.as_ref())
            .map(|head| head.key.clone())
        else {
            break;
        };
        let (old, new) = (
            old_entry.map(|head| head.value),
            new_entry.map(|head| head.value),
        );
        if old != new {
            found.push(Difference { key, old, new });
        }
    }
    Ok(found)
}

fn same_block(one: &Head, other: &Head) -> Result<bool, ManifestError> {
    Ok(Child::decode(&one.value)?.id == Child::decode(&other.value)?.id)
}
