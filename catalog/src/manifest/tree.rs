//! Trees of blocks whose borders follow from their content.
//!
//! A tree is a function of its entries alone: the same entries give the same blocks and the same root,
//! whatever the order of the edits that led there. So two trees share every block that is equal, and
//! an edit writes the blocks it touches and the way up to the root.
//!
//! ```text
//! a block ends behind an entry when it has
//!     MIN_ENTRIES or more, and the hash of the entry's key says so (one key in `mean` of them), or
//!     4 * mean entries, or MAX_BYTES of keys and values, or nothing follows
//! level n + 1 has an entry for each block of level n, under the block's last key
//! the root is the one block of the lowest level that has only one
//! ```
//!
//! The hash is FNV-1a over the level and the key, then mixed: stable for ever, and known to everybody.
//! Whoever picks keys against it gets blocks of MIN_ENTRIES or of the most there may be, not a wrong
//! tree. The mean is a constant of each kind of tree and a part of the format.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::ManifestError;
use super::block::{Block, Child, Entry, Sums};
use crate::blobs::{BlobId, Blobs};
use std::sync::Arc;

/// Fewest entries of a block that is not the last of its level. More than one: every level is smaller.
const MIN_ENTRIES: usize = 2;
/// A block ends when its keys and values have this many bytes.
const MAX_BYTES: usize = 1 << 20;
/// Blocks that are on their way to the store at once.
const WRITES: usize = 16;

/// What kind of entries a tree has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Entries of an average block; a power of two.
    pub(crate) mean: usize,
    /// What a value of level 0 adds to the sums.
    pub(crate) sums: fn(&[u8]) -> Result<Sums, ManifestError>,
}

impl Kind {
    /// What an entry of any level adds.
    pub(crate) fn sums_of(&self, level: u8, value: &[u8]) -> Result<Sums, ManifestError> {
        if level == 0 {
            (self.sums)(value)
        } else {
            Ok(Child::decode(value)?.sums)
        }
    }

    fn is_border(&self, level: u8, key: &[u8]) -> bool {
        hash(level, key) & (self.mean as u64 - 1) == 0
    }
}

fn hash(level: u8, key: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let start = (0xcbf2_9ce4_8422_2325 ^ u64::from(level)).wrapping_mul(PRIME);
    let folded = key.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    // The low bits of FNV-1a depend on the low bits of the bytes only.
    let mixed = (folded ^ (folded >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Blocks on their way to the store.
pub(crate) struct Writer<'a> {
    blobs: &'a Arc<dyn Blobs>,
    pending: FuturesUnordered<BoxFuture<'static, Result<(), ManifestError>>>,
    /// Blocks that were given to the store.
    pub(crate) written: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(blobs: &'a Arc<dyn Blobs>) -> Self {
        Self {
            blobs,
            pending: FuturesUnordered::new(),
            written: 0,
        }
    }

    /// Starts storing bytes; waits when too many are under way.
    pub(crate) async fn put(&mut self, bytes: Bytes) -> Result<BlobId, ManifestError> {
        let id = BlobId::of(&bytes);
        let blobs = Arc::clone(self.blobs);
        let put = async move {
            let stored = blobs.put(bytes).await?;
            if stored == id {
                Ok(())
            } else {
                Err(ManifestError::Damaged(format!(
                    "block {id} was stored as {stored}"
                )))
            }
        };
        self.pending.push(put.boxed());
        self.written += 1;
        while self.pending.len() >= WRITES {
            self.pending.next().await.transpose()?;
        }
        Ok(id)
    }

    /// Waits until everything is durable.
    pub(crate) async fn finish(&mut self) -> Result<(), ManifestError> {
        while let Some(done) = self.pending.next().await {
            done?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({} under way)", self.pending.len())
    }
}

/// Cuts the entries of one level into blocks, as they come.
#[derive(Debug)]
pub(crate) struct Splitter {
    kind: Kind,
    level: u8,
    entries: Vec<Entry>,
    bytes: usize,
    sums: Sums,
    /// Entries of the next level: one for each finished block.
    pub(crate) above: Vec<Entry>,
}

impl Splitter {
    pub(crate) fn new(kind: Kind, level: u8) -> Self {
        Self {
            kind,
            level,
            entries: Vec::new(),
            bytes: 0,
            sums: Sums::ZERO,
            above: Vec::new(),
        }
    }

    /// Whether the next entry begins a block.
    pub(crate) fn at_border(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry; its key is greater than all before.
    pub(crate) async fn push(
        &mut self,
        writer: &mut Writer<'_>,
        entry: Entry,
    ) -> Result<(), ManifestError> {
        self.sums.add(&self.kind.sums_of(self.level, &entry.1)?);
        self.bytes += entry.0.len() + entry.1.len();
        let border = self.kind.is_border(self.level, &entry.0);
        self.entries.push(entry);
        let count = self.entries.len();
        let full = count >= 4 * self.kind.mean || self.bytes >= MAX_BYTES;
        if count >= MIN_ENTRIES && (border || full) {
            self.flush(writer).await?;
        }
        Ok(())
    }

    /// Ends the block that is under way.
    pub(crate) async fn flush(&mut self, writer: &mut Writer<'_>) -> Result<(), ManifestError> {
        let entries = std::mem::take(&mut self.entries);
        let Some((last, _)) = entries.last() else {
            return Ok(());
        };
        let last = last.clone();
        let sums = std::mem::replace(&mut self.sums, Sums::ZERO);
        self.bytes = 0;
        let level = self.level;
        let id = writer.put(Block { level, entries }.encode()).await?;
        self.above.push((last, Child { id, sums }.encode()));
        Ok(())
    }
}

/// Stores the levels above `above`, which are the blocks of `level`; the root.
pub(crate) async fn build_up(
    writer: &mut Writer<'_>,
    kind: Kind,
    mut level: u8,
    mut above: Vec<Entry>,
) -> Result<Child, ManifestError> {
    loop {
        match above.as_slice() {
            [] => {
                let empty = Block {
                    level: 0,
                    entries: Vec::new(),
                };
                let id = writer.put(empty.encode()).await?;
                return Ok(Child {
                    id,
                    sums: Sums::ZERO,
                });
            }
            [(_, root)] => return Child::decode(root),
            _ => {}
        }
        level += 1;
        let mut splitter = Splitter::new(kind, level);
        for entry in above {
            splitter.push(writer, entry).await?;
        }
        splitter.flush(writer).await?;
        above = splitter.above;
    }
}

/// Builds a tree of sorted entries as they come: memory for one block of each level and an entry for
/// each block of level 0.
#[derive(Debug)]
pub(crate) struct Builder {
    splitter: Splitter,
    last: Option<Bytes>,
}

impl Builder {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            splitter: Splitter::new(kind, 0),
            last: None,
        }
    }

    /// Adds an entry. Errors with `Order` unless its key is greater than all before.
    pub(crate) async fn push(
        &mut self,
        writer: &mut Writer<'_>,
        entry: Entry,
    ) -> Result<(), ManifestError> {
        if self.last.as_ref().is_some_and(|last| *last >= entry.0) {
            let key = String::from_utf8_lossy(&entry.0).into_owned();
            return Err(ManifestError::Order(key));
        }
        self.last = Some(entry.0.clone());
        self.splitter.push(writer, entry).await
    }

    /// Stores what is left; the root. The caller still waits for the writer.
    pub(crate) async fn finish(mut self, writer: &mut Writer<'_>) -> Result<Child, ManifestError> {
        self.splitter.flush(writer).await?;
        build_up(writer, self.splitter.kind, 0, self.splitter.above).await
    }
}
