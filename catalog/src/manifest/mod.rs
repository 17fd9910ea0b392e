//! The canonical list of a version's files: a tree of blocks under their digests. Knows no name.
//!
//! ```text
//! manifest   root.rs    header, sums, root of the partitions' tree   one blob; its digest is the version
//!   partitions  tree of `Partition` by path                          blocks under their digests
//!     files     for each a tree of `FileEntry` by path               blocks under their digests
//!     details   for some a tree of what files say, by path           blocks under their digests
//! ```
//!
//! The encodings are specified in `root.rs`, `entry.rs`, `details.rs`, `block.rs`, `codec.rs`, the cutting of a tree
//! into blocks in `tree.rs`. Invariants: equal content has one digest, however it came about; a
//! partition that did not change costs a new version nothing; whatever bytes a store answers with, the
//! reader says `Damaged` or the truth, and takes no more memory than a few blocks.

mod block;
mod blocks;
pub(crate) mod codec;
mod details;
mod diff;
mod edit;
mod entry;
mod listing;
mod map;
mod reach;
mod root;
mod tree;
mod tree_edit;
mod walk;

use std::sync::Arc;

use crate::blobs::{BlobError, BlobId, Blobs};
use blocks::Blocks;
pub(crate) use details::DetailsWriter;
pub use diff::{FileChange, PartitionChange};
pub use edit::{Files, ManifestEdit};
pub use entry::{Checksum, FileEntry, MAX_PATH, MAX_TEXT, Partition};
pub use listing::DirectoryEntry;
pub(crate) use map::NumberMap;
pub(crate) use reach::{Reached, reach_map};
use root::Root;
pub use root::{Header, Totals};

/// What went wrong with a manifest.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ManifestError {
    /// Stored bytes are not what this program writes.
    #[error("a manifest is damaged: {0}")]
    Damaged(String),
    /// Not a path below the dataset.
    #[error("{0:?} is not a path below a dataset")]
    Path(String),
    /// Two entries with one name, or not in order.
    #[error("{0:?} comes twice or out of order")]
    Order(String),
    /// A partition inside another one.
    #[error("partition {0:?} lies inside partition {1:?}")]
    Nested(String, String),
    /// More bytes than allowed.
    #[error("{0} has {1} bytes, which is too many")]
    TooLong(&'static str, usize),
    /// The store.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A manifest that is open for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Manifest {
    id: BlobId,
    root: Arc<Root>,
    blocks: Blocks,
}

impl Manifest {
    /// Reads the root. Cancel at will, as every call here.
    pub async fn open(blobs: &Arc<dyn Blobs>, id: &BlobId) -> Result<Self, ManifestError> {
        let blocks = Blocks::new(blobs);
        let root = Arc::new(Root::decode(&blocks.raw(id).await?)?);
        Ok(Self {
            id: *id,
            root,
            blocks,
        })
    }

    /// The digest that names it.
    pub fn id(&self) -> &BlobId {
        &self.id
    }

    /// Location, format, schema and columns.
    pub fn header(&self) -> &Header {
        &self.root.header
    }

    /// Sums over it.
    pub fn totals(&self) -> Totals {
        self.root.totals()
    }
}
