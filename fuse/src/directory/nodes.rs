//! Which file a node id of the kernel stands for.
//!
//! The number is the inode number of the directory's own file system (the root, which the kernel
//! calls 1, changes places with whatever has the number 1 there). A file keeps it over restarts of
//! the worker because it is its own, and the handle that opens it is in the [`Table`] before the
//! kernel learns the number.
//!
//! A file system gives the number of a deleted file to a new one. Two things keep those apart. What
//! is deleted through this mount stays open here ([`Nodes::hold`]) until the kernel has forgotten
//! it, so its number is not free before. And every answer carries a generation made of the handle;
//! where it changes under a number, the kernel gives up what it knew.
//!
//! Lookups are counted as the kernel counts them, so that a number it has forgotten goes. Those a
//! dead worker answered are not known: such numbers stay until the mount ends.
//!
//! Lock: one mutex for each shard, held over a write of the table, never over a call below.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;

use super::naming::Way;
use super::quota::Kept;
use super::sys::FileId;
use super::table::Table;
use crate::live::TableError;

/// Shards of the map, a power of two.
const SHARDS: usize = 32;

#[derive(Debug)]
struct Node {
    id: Arc<FileId>,
    /// Where it was last seen, where its handle does not last.
    way: Option<Way>,
    /// Answers of this worker that the kernel has not taken back.
    lookups: u64,
    /// Whether a dead worker may have answered it, too.
    inherited: bool,
    /// Keeps a deleted file, and with it its number.
    held: Option<Kept>,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Nodes {
    shards: Vec<Mutex<HashMap<u64, Node>>>,
    table: Table,
    /// No worker before this one has answered anything.
    fresh: bool,
}

impl Nodes {
    /// Numbers over `table`; `fresh`: it is of a mount that no kernel knows yet.
    pub(super) fn new(table: Table, fresh: bool) -> Self {
        Self {
            fresh,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            table,
        }
    }

    /// Writes a number down that is about to be answered, and counts the answer.
    ///
    /// Errors: `EIO` when it cannot be written down; the number must not be answered then.
    pub(super) fn answered(&self, number: u64, id: FileId, way: Option<Way>) -> Result<(), Errno> {
        let mut shard = self.shard(number);
        match shard.get_mut(&number) {
            Some(node) if *node.id == id && node.way == way => {
                node.lookups += 1;
                return Ok(());
            }
            known => {
                let inherited = match &known {
                    Some(node) => node.inherited,
                    None if self.fresh => false,
                    None => self.table.get(number).map_err(failed)?.is_some(),
                };
                let lookups = known.as_ref().map_or(0, |node| node.lookups);
                self.table.put(number, &id, way.as_ref()).map_err(failed)?;
                // The same file under another name is still held.
                let same = known.filter(|node| *node.id == id);
                let held = same.and_then(|node| node.held.take());
                let node = Node {
                    id: Arc::new(id),
                    way,
                    lookups: lookups + 1,
                    inherited,
                    held,
                };
                shard.insert(number, node);
            }
        }
        Ok(())
    }

    /// The file of a number that the kernel names.
    ///
    /// Errors: `ESTALE` when it was never answered, `EIO` when the table fails.
    pub(super) fn id(&self, number: u64) -> Result<Arc<FileId>, Errno> {
        self.known(number, |node| Arc::clone(&node.id))
    }

    /// The file of a number and where it was last seen.
    ///
    /// Errors: as [`Nodes::id`]; `ESTALE` also when it has no place.
    pub(super) fn way(&self, number: u64) -> Result<(Arc<FileId>, Way), Errno> {
        let known = |node: &Node| Some((Arc::clone(&node.id), node.way.clone()?));
        self.known(number, known)?.ok_or(Errno::ESTALE)
    }

    /// Notes that a file has another name now; nothing when its number is not known.
    pub(super) fn moved(&self, number: u64, parent: u64, name: &CStr) {
        if self.known(number, |_| ()).is_err() {
            return;
        }
        let mut shard = self.shard(number);
        let Some(node) = shard.get_mut(&number) else {
            return;
        };
        if let Some(way) = &mut node.way {
            way.parent = parent;
            way.name = name.into();
            if let Err(error) = self.table.put(number, &node.id, Some(way)) {
                // Its old place is no other file's: what is found there is compared.
                tracing::warn!(%error, number, "a new name is not written down");
            }
        }
    }

    fn known<T>(&self, number: u64, get: impl FnOnce(&Node) -> T) -> Result<T, Errno> {
        let mut shard = self.shard(number);
        if let Some(node) = shard.get(&number) {
            return Ok(get(node));
        }
        let (id, way) = self
            .table
            .get(number)
            .map_err(failed)?
            .ok_or(Errno::ESTALE)?;
        let node = Node {
            id: Arc::new(id),
            way,
            lookups: 0,
            inherited: true,
            held: None,
        };
        let got = get(&node);
        shard.insert(number, node);
        Ok(got)
    }

    /// Keeps a deleted file until the kernel has forgotten its number.
    pub(super) fn hold(&self, number: u64, file: Kept) {
        if let Some(node) = self.shard(number).get_mut(&number) {
            node.held = Some(file);
        }
    }

    /// Whether a node is one that [`Nodes::hold`] keeps.
    pub(super) fn is_held(&self, number: u64) -> bool {
        let shard = self.shard(number);
        shard.get(&number).is_some_and(|node| node.held.is_some())
    }

    /// The kernel takes `count` answers back; whether it does not know the number any more.
    pub(super) fn forgotten(&self, number: u64, count: u64) -> bool {
        let mut shard = self.shard(number);
        let Some(node) = shard.get_mut(&number) else {
            return false;
        };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups > 0 {
            return false;
        }
        if node.inherited {
            // The count of the dead worker is not known, so the number stays; its file need not.
            node.held = None;
            return false;
        }
        let gone = shard.remove(&number);
        if let Err(error) = self.table.remove(number) {
            tracing::warn!(%error, number, "a forgotten number stays in the table");
        }
        drop(shard);
        drop(gone); // may delete a large file
        true
    }

    /// Numbers known in memory.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Node>> {
        lock(&self.shards[number as usize % SHARDS])
    }
}

fn failed(error: TableError) -> Errno {
    tracing::error!(%error, "node table");
    Errno::EIO
}

/// A thread that panicked here has changed one entry or none.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn id(byte: u8) -> FileId {
        FileId {
            kind: 1,
            bytes: [byte].into(),
        }
    }

    // Without it the table would grow with every file ever seen, or lose one the kernel still has.
    #[test]
    fn a_number_goes_when_the_kernel_has_given_back_every_answer() {
        let place = tempfile::tempdir().unwrap();
        let nodes = Nodes::new(Table::open(place.path(), true).unwrap(), true);
        nodes.answered(9, id(1), None).unwrap();
        nodes.answered(9, id(1), None).unwrap();
        nodes.forgotten(9, 1);
        assert_eq!(*nodes.id(9).unwrap(), id(1));
        nodes.forgotten(9, 1);
        assert_eq!(nodes.id(9), Err(Errno::ESTALE));
        // A new file under the number of a deleted one.
        nodes.answered(9, id(1), None).unwrap();
        nodes.answered(9, id(2), None).unwrap();
        assert_eq!(*nodes.id(9).unwrap(), id(2));
        nodes.forgotten(9, 1);
        assert_eq!(*nodes.id(9).unwrap(), id(2));
        // A file that moved is found by its new name, also by the next worker.
        let way = |parent, name: &CStr| Way {
            parent,
            name: name.into(),
            handle: None,
        };
        let numbered = FileId {
            kind: crate::directory::naming::NUMBERED,
            bytes: [7; 12].into(),
        };
        nodes.answered(7, numbered, Some(way(1, c"old"))).unwrap();
        nodes.moved(7, 9, c"new");
        assert_eq!(nodes.way(7).unwrap().1, way(9, c"new"));
        drop(nodes);
        // The next worker cannot know how often the dead one answered.
        let nodes = Nodes::new(Table::open(place.path(), false).unwrap(), false);
        nodes.answered(9, id(2), None).unwrap();
        nodes.forgotten(9, 1);
        assert_eq!(*nodes.id(9).unwrap(), id(2));
        assert_eq!(nodes.way(7).unwrap().1, way(9, c"new"));
        assert_eq!(nodes.way(9), Err(Errno::ESTALE));
    }
}
