//! Inodes with open handles or a registered backing id, and the readers of cached handles.
//!
//! Lock order: one inode shard -> handle table -> idle list. Readers have their own lock, taken
//! alone. Nothing here waits or does I/O under a lock except the two backing ioctls and fstat,
//! which do not leave memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use terrace_cache::fill::{Object, ReadStream};
use terrace_cache::hot::{Backing, Eviction};
use terrace_cache::{Digest, ObjectId};
use tokio::task::AbortHandle;

use super::lock;
use super::modes::Modes;
use super::node::Node;
use crate::namespace::Ino;

const SHARDS: usize = 64;

/// One inode that is open, or was and keeps an id.
#[derive(Debug, Default)]
pub(super) struct OpenInode {
    /// Who has it open how.
    pub(super) modes: Modes<Backing>,
    /// What it is; `None` until asked for after a take-over.
    pub(super) known: Option<Known>,
    /// Its bytes, while it is open in cached mode and not longer: the hot tier does not evict what
    /// somebody holds, and an idle backing id must not keep its object there.
    pub(super) object: Option<Arc<Object>>,
    /// Counts the bytes as held for handles that a dead worker opened in passthrough mode. Not the
    /// proof that their id is good: the object may have been fetched anew since.
    pub(super) inherited: Option<Backing>,
    /// Waits for the object to become complete, while open in cached mode.
    pub(super) watch: Option<AbortHandle>,
}

/// What every open tells the hot tier about an object. Its name is worked out once, not at each open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Known {
    pub(super) fn of(id: &ObjectId) -> Self {
        Self {
            digest: id.digest(),
            size: id.size(),
        }
    }
}

type Shard = HashMap<Ino, OpenInode>;

/// All of them, by inode number.
#[derive(Debug)]
pub(super) struct Files {
    shards: Vec<Mutex<Shard>>,
    readers: Vec<Mutex<HashMap<u64, Arc<Reader>>>>,
}

/// What a cached handle reads with.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) object: Arc<Object>,
    pub(super) stream: ReadStream,
}

impl Reader {
    pub(super) fn new(object: Arc<Object>) -> Self {
        Self {
            object,
            stream: ReadStream::new(),
        }
    }
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            readers: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// The shard that has `ino`, locked.
    pub(super) fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        // Neighbours in a directory have neighbouring numbers: this spreads them well.
        lock(&self.shards[ino.0 as usize % SHARDS])
    }

    /// Inodes that anything is known of now.
    pub(super) fn inodes(&self) -> Vec<Ino> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).keys().copied());
        }
        all
    }

    pub(super) fn reader(&self, fh: u64) -> Option<Arc<Reader>> {
        lock(self.readers_of(fh)).get(&fh).map(Arc::clone)
    }

    pub(super) fn add_reader(&self, fh: u64, reader: Arc<Reader>) {
        lock(self.readers_of(fh)).insert(fh, reader);
    }

    pub(super) fn remove_reader(&self, fh: u64) -> Option<Arc<Reader>> {
        lock(self.readers_of(fh)).remove(&fh)
    }

    fn readers_of(&self, fh: u64) -> &Mutex<HashMap<u64, Arc<Reader>>> {
        &self.readers[fh as usize % SHARDS]
    }
}

/// Backing ids that no handle uses, longest idle first.
#[derive(Debug)]
pub(super) struct Idle {
    list: Mutex<IdleList>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct IdleList {
    ticks: u64,
    /// By tick.
    nodes: BTreeMap<u64, (Node, Eviction)>,
}

impl Idle {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            list: Mutex::default(),
            capacity,
        }
    }

    /// Adds a node, with the sign that its object was evicted; returns its tick, which names it in
    /// the list.
    pub(super) fn add(&self, node: Node, eviction: Eviction) -> u64 {
        let mut list = lock(&self.list);
        list.ticks += 1;
        let tick = list.ticks;
        list.nodes.insert(tick, (node, eviction));
        tick
    }

    /// Takes a node off the list.
    pub(super) fn remove(&self, tick: u64) {
        lock(&self.list).nodes.remove(&tick);
    }

    /// The node that has been idle for longest, when there are more than the limit, or too many in
    /// all mounts of this process (`crowded`).
    pub(super) fn surplus(&self, crowded: bool) -> Option<(u64, Node)> {
        let mut list = lock(&self.list);
        if crowded || list.nodes.len() > self.capacity {
            list.nodes.pop_first().map(|(tick, (node, _))| (tick, node))
        } else {
            None
        }
    }

    /// Those whose objects were evicted.
    pub(super) fn evicted(&self) -> Vec<(u64, Node)> {
        let list = lock(&self.list);
        let evicted = list
            .nodes
            .iter()
            .filter(|(_, (_, eviction))| eviction.happened());
        evicted.map(|(tick, (node, _))| (*tick, *node)).collect()
    }
}
