//! Resident objects and the order of their last opens, in little memory.
//!
//! One slab of 64-byte nodes threaded into doubly linked lists (most recent first), found through a
//! table of slab positions hashed by the digest itself, which is uniform. The slab grows by an
//! eighth at a time, so an object costs at most about 83 bytes. Every operation is O(1).
//!
//! Invariant: a node in use is in exactly one list, and a list's `bytes` is the sum of its sizes.

use hashbrown::HashTable;

use crate::identity::Digest;

/// End of a list, and of the chain of free nodes.
const NONE: u32 = u32::MAX;

/// Position of a resident in the slab. Valid until that resident is removed.
pub(super) type Id = u32;

/// Position of a list.
pub(super) type ListId = u32;

/// One resident object.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) digest: Digest,
    /// Bytes it takes in the tier.
    pub(super) size: u64,
    /// Access counter at its last open.
    pub(super) last: u64,
    newer: Id,
    older: Id,
    pub(super) list: ListId,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: Id,
    oldest: Id,
    bytes: u64,
    count: usize,
}

const EMPTY: List = List {
    newest: NONE,
    oldest: NONE,
    bytes: 0,
    count: 0,
};

/// See the module text.
#[derive(Debug)]
pub(super) struct Residents {
    index: HashTable<Id>,
    nodes: Vec<Node>,
    free: Id,
    lists: Vec<List>,
    bytes: u64,
}

/// The first eight bytes of a SHA-256 are as good as any hash of it.
pub(super) fn key(digest: &Digest) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&digest.0[..8]);
    u64::from_le_bytes(head)
}

impl Residents {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
            nodes: Vec::new(),
            free: NONE,
            lists: Vec::new(),
            bytes: 0,
        }
    }

    /// Makes lists up to and including `list` exist.
    pub(super) fn ensure_list(&mut self, list: ListId) {
        let wanted = list as usize + 1;
        if self.lists.len() < wanted {
            self.lists.resize(wanted, EMPTY);
        }
    }

    /// Makes room for exactly so many more residents.
    pub(super) fn reserve(&mut self, residents: usize) {
        self.nodes.reserve_exact(residents);
        let nodes = &self.nodes;
        self.index
            .reserve(residents, |id| key(&nodes[*id as usize].digest));
    }

    /// Bytes of all residents.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one list; 0 for a list that never held anything.
    pub(super) fn list_bytes(&self, list: ListId) -> u64 {
        self.lists.get(list as usize).map_or(0, |list| list.bytes)
    }

    /// Residents of one list.
    pub(super) fn list_count(&self, list: ListId) -> usize {
        self.lists.get(list as usize).map_or(0, |list| list.count)
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<Id> {
        let found = self
            .index
            .find(key(digest), |id| self.nodes[*id as usize].digest == *digest);
        found.copied()
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn newest(&self, list: ListId) -> Option<Id> {
        self.lists
            .get(list as usize)
            .and_then(|list| some(list.newest))
    }

    pub(super) fn oldest(&self, list: ListId) -> Option<Id> {
        self.lists
            .get(list as usize)
            .and_then(|list| some(list.oldest))
    }

    /// The neighbour opened later.
    pub(super) fn newer(&self, id: Id) -> Option<Id> {
        some(self.nodes[id as usize].newer)
    }

    /// The neighbour opened earlier.
    pub(super) fn older(&self, id: Id) -> Option<Id> {
        some(self.nodes[id as usize].older)
    }

    /// Adds an object that is not resident as the newest of `list`.
    pub(super) fn insert(&mut self, digest: Digest, size: u64, list: ListId, now: u64) -> Id {
        let node = Node {
            digest,
            size,
            last: now,
            newer: NONE,
            older: NONE,
            list,
        };
        let id = match some(self.free) {
            Some(id) => {
                self.free = self.nodes[id as usize].older;
                self.nodes[id as usize] = node;
                id
            }
            None => {
                if self.nodes.len() == self.nodes.capacity() {
                    self.nodes.reserve_exact((self.nodes.len() / 8).max(64));
                }
                self.nodes.push(node);
                (self.nodes.len() - 1) as Id
            }
        };
        let nodes = &self.nodes;
        self.index
            .insert_unique(key(&digest), id, |id| key(&nodes[*id as usize].digest));
        self.bytes += size;
        self.link(id);
        id
    }

    /// Corrects the size of a resident.
    pub(super) fn resize(&mut self, id: Id, size: u64) {
        let node = &mut self.nodes[id as usize];
        let before = std::mem::replace(&mut node.size, size);
        let list = &mut self.lists[node.list as usize];
        list.bytes = list.bytes - before + size;
        self.bytes = self.bytes - before + size;
    }

    /// Makes a resident the newest of its list.
    pub(super) fn touch(&mut self, id: Id, now: u64) {
        self.unlink(id);
        self.nodes[id as usize].last = now;
        self.link(id);
    }

    /// Makes a resident the newest of another list.
    pub(super) fn promote(&mut self, id: Id, list: ListId, now: u64) {
        self.unlink(id);
        let node = &mut self.nodes[id as usize];
        (node.last, node.list) = (now, list);
        self.link(id);
    }

    /// Takes a resident out; its node is reused by a later [`Residents::insert`].
    pub(super) fn remove(&mut self, digest: &Digest) {
        let nodes = &self.nodes;
        let entry = self
            .index
            .find_entry(key(digest), |id| nodes[*id as usize].digest == *digest);
        let Ok(entry) = entry else { return };
        let id = *entry.get();
        entry.remove();
        self.bytes -= self.nodes[id as usize].size;
        self.unlink(id);
        self.nodes[id as usize].older = self.free;
        self.free = id;
    }

    fn link(&mut self, id: Id) {
        let at = self.nodes[id as usize].list;
        self.ensure_list(at);
        let list = &mut self.lists[at as usize];
        let second = std::mem::replace(&mut list.newest, id);
        list.bytes += self.nodes[id as usize].size;
        list.count += 1;
        match some(second) {
            Some(second) => self.nodes[second as usize].newer = id,
            None => list.oldest = id,
        }
        let node = &mut self.nodes[id as usize];
        node.newer = NONE;
        node.older = second;
    }

    fn unlink(&mut self, id: Id) {
        let Node {
            newer,
            older,
            list,
            size,
            ..
        } = self.nodes[id as usize];
        let list = &mut self.lists[list as usize];
        list.bytes -= size;
        list.count -= 1;
        match some(newer) {
            Some(newer) => self.nodes[newer as usize].older = older,
            None => list.newest = older,
        }
        match some(older) {
            Some(older) => self.nodes[older as usize].newer = newer,
            None => list.oldest = newer,
        }
    }
}

fn some(id: Id) -> Option<Id> {
    (id != NONE).then_some(id)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    // Without this, evictions would name wrong objects or leak nodes after removals.
    #[test]
    fn lists_keep_order_bytes_and_reuse_nodes() {
        let mut residents = Residents::new();
        for n in 0..4 {
            residents.insert(digest(n), 10 + u64::from(n), u32::from(n % 2), u64::from(n));
        }
        assert_eq!(
            (
                residents.bytes(),
                residents.list_bytes(0),
                residents.index.len()
            ),
            (46, 22, 4)
        );
        residents.touch(residents.find(&digest(0)).unwrap(), 9);
        let oldest = residents.oldest(0).unwrap();
        assert_eq!(residents.node(oldest).digest, digest(2));
        assert_eq!(residents.newer(oldest), residents.find(&digest(0)));

        residents.remove(&digest(2));
        residents.remove(&digest(2));
        assert_eq!(residents.oldest(0), residents.newest(0));
        residents.insert(digest(7), 5, 1, 10);
        assert_eq!(residents.nodes.len(), 4);
        residents.resize(residents.find(&digest(7)).unwrap(), 50);
        assert_eq!(residents.list_bytes(1), 11 + 13 + 50);
    }

    // Without this, a million objects could cost more memory than the design allows.
    #[test]
    fn a_resident_takes_less_than_a_hundred_bytes() {
        assert_eq!(size_of::<Node>(), 64);
        let mut residents = Residents::new();
        for n in 0..100_000_u64 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            residents.insert(Digest(bytes), 1, 0, n);
        }
        let index = residents.index.allocation_size();
        let total = residents.nodes.capacity() * 64 + index;
        assert!(
            total / residents.index.len() <= 100,
            "{}",
            total / residents.index.len()
        );
    }
}
