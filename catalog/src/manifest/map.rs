//! A stored map of texts to numbers, as a tree like those of a manifest: large, shared, cheap to edit.
//!
//! The value of an entry is a varint. About 256 entries to a block.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::ManifestError;
use super::block::Sums;
use super::blocks::Blocks;
use super::codec::{Reader, put_varint};
use super::tree::{Kind, Writer, build_up};
use super::tree_edit::{Changes, edit};
use super::walk;
use crate::blobs::{BlobId, Blobs};

const NUMBERS: Kind = Kind {
    mean: 256,
    sums: |_| Ok(Sums::ZERO),
};

/// A map that is open for reading and for making another one from it.
#[derive(Debug)]
pub(crate) struct NumberMap {
    blocks: Blocks,
    root: Option<BlobId>,
}

impl NumberMap {
    /// The map with this root; None is the empty one.
    pub(crate) fn open(blobs: &Arc<dyn Blobs>, root: Option<BlobId>) -> Self {
        Self {
            blocks: Blocks::new(blobs),
            root,
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<u64>, ManifestError> {
        let Some(root) = &self.root else {
            return Ok(None);
        };
        let Some(value) = walk::get(&self.blocks, root, key.as_bytes()).await? else {
            return Ok(None);
        };
        let mut reader = Reader::new("a number", &value);
        let number = reader.varint()?;
        reader.finish()?;
        Ok(Some(number))
    }

    /// Stores the map with these entries set; its root.
    pub(crate) async fn with(
        &self,
        entries: &BTreeMap<Arc<str>, u64>,
    ) -> Result<BlobId, ManifestError> {
        let mut writer = Writer::new(self.blocks.blobs());
        let root = match self.root {
            Some(root) => root,
            None => build_up(&mut writer, NUMBERS, 0, Vec::new()).await?.id,
        };
        writer.finish().await?;
        let changes: Changes = entries
            .iter()
            .map(|(key, number)| {
                let mut value = Vec::new();
                put_varint(&mut value, *number);
                let key = Bytes::copy_from_slice(key.as_bytes());
                (key, Some(Bytes::from(value)))
            })
            .collect();
        Ok(edit(&self.blocks, &mut writer, NUMBERS, &root, changes)
            .await?
            .id)
    }
}
