//! Decoded blocks of trees, kept while they are likely to be asked for again.
//!
//! First in, first out, bounded by the encoded bytes of what is kept. Lock order: the one lock is held
//! for a look-up only, never while a block is fetched; two who miss at once both fetch.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::ManifestError;
use super::block::{Block, Child};
use crate::blobs::{BlobId, Blobs};

/// Bytes that are kept for each manifest that is open.
const KEPT: usize = 8 << 20;

#[derive(Default)]
struct Kept {
    blocks: HashMap<BlobId, Arc<Block>>,
    order: VecDeque<(BlobId, usize)>,
    bytes: usize,
}

/// See the module text. Cheap to clone; clones share what is kept.
#[derive(Clone)]
pub(crate) struct Blocks {
    blobs: Arc<dyn Blobs>,
    kept: Arc<Mutex<Kept>>,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({:?})", self.blobs)
    }
}

impl Blocks {
    pub(crate) fn new(blobs: &Arc<dyn Blobs>) -> Self {
        Self {
            blobs: Arc::clone(blobs),
            kept: Arc::default(),
        }
    }

    pub(crate) fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    /// The bytes of a blob that is no block; not kept.
    pub(crate) async fn raw(&self, id: &BlobId) -> Result<Bytes, ManifestError> {
        Ok(self.blobs.get(id).await?)
    }

    /// A block of any level.
    pub(crate) async fn get(&self, id: &BlobId) -> Result<Arc<Block>, ManifestError> {
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(block) = kept.blocks.get(id) {
                return Ok(Arc::clone(block));
            }
        }
        let bytes = self.blobs.get(id).await?;
        let block = Block::decode(&bytes)?;
        self.keep(*id, &block, bytes.len());
        Ok(block)
    }

    /// The block that an entry of a block of `level` refers to.
    pub(crate) async fn below(
        &self,
        level: u8,
        value: &[u8],
    ) -> Result<(Child, Arc<Block>), ManifestError> {
        let child = Child::decode(value)?;
        let block = self.get(&child.id).await?;
        if block.level + 1 != level || block.entries.is_empty() {
            let what = format!("block {} is not where it belongs", child.id);
            return Err(ManifestError::Damaged(what));
        }
        Ok((child, block))
    }

    fn keep(&self, id: BlobId, block: &Arc<Block>, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.blocks.insert(id, Arc::clone(block)).is_some() {
            return;
        }
        kept.order.push_back((id, bytes));
        kept.bytes += bytes;
        while kept.bytes > KEPT {
            let Some((oldest, bytes)) = kept.order.pop_front() else {
                return;
            };
            kept.blocks.remove(&oldest);
            kept.bytes -= bytes;
        }
    }
}
