//! Recently fetched blocks in memory, least recently used out first.
//!
//! It lets a sequential reader go on without waiting for the disk, and it is the only home of
//! blocks that the hot tier does not take. One window for all objects, bounded in bytes; an object
//! is known by the serial number its engine gave it, so a later object cannot meet an earlier one's
//! blocks.

use std::sync::Mutex;

use bytes::Bytes;
use lru::LruCache;

/// Serial number of an object's engine and number of the block.
type Place = (u64, u32);

/// See the module text.
#[derive(Debug)]
pub(super) struct Window {
    limit: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    blocks: LruCache<Place, Bytes>,
    bytes: u64,
}

impl Window {
    /// An empty window of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            inner: Mutex::new(Inner {
                blocks: LruCache::unbounded(),
                bytes: 0,
            }),
        }
    }

    /// The block, when it is here; now the most recently used.
    pub(super) fn get(&self, object: u64, block: u32) -> Option<Bytes> {
        self.lock().blocks.get(&(object, block)).cloned()
    }

    /// Whether the block is here; does not count as use.
    pub(super) fn has(&self, object: u64, block: u32) -> bool {
        self.lock().blocks.contains(&(object, block))
    }

    /// Keeps a block and lets the least recently used ones go.
    pub(super) fn put(&self, object: u64, block: u32, data: Bytes) {
        let mut freed = Vec::new();
        let mut inner = self.lock();
        inner.bytes += data.len() as u64;
        if let Some(old) = inner.blocks.put((object, block), data) {
            inner.bytes -= old.len() as u64;
            freed.push(old);
        }
        while inner.bytes > self.limit {
            let Some((_, old)) = inner.blocks.pop_lru() else {
                break;
            };
            inner.bytes -= old.len() as u64;
            freed.push(old);
        }
        // Buffers go back to the pool after the lock.
        drop(inner);
    }

    /// Makes a block the first to go: who read it in sequence does not come back to it.
    pub(super) fn demote(&self, object: u64, block: u32) {
        self.lock().blocks.demote(&(object, block));
    }

    /// Forgets all blocks of an object that nobody holds any more.
    pub(super) fn forget(&self, object: u64) {
        let mut inner = self.lock();
        let gone: Vec<Place> = inner
            .blocks
            .iter()
            .map(|(place, _)| *place)
            .filter(|(o, _)| *o == object)
            .collect();
        let mut freed = Vec::with_capacity(gone.len());
        for place in gone {
            if let Some(old) = inner.blocks.pop(&place) {
                inner.bytes -= old.len() as u64;
                freed.push(old);
            }
        }
        drop(inner);
    }

    /// Bytes held now.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code under this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    // Without it the window would grow without bound, or throw out what is read right now.
    #[test]
    fn the_limit_holds_and_the_least_recent_goes_first() {
        let window = Window::new(300);
        for number in 0..3 {
            window.put(1, number, block(100));
        }
        assert!(window.get(1, 0).is_some());
        window.put(1, 3, block(150));
        assert_eq!(window.bytes(), 250);
        assert!(window.get(1, 1).is_none() && window.get(1, 2).is_none());
        assert!(window.get(1, 0).is_some() && window.get(1, 3).is_some());
        window.put(1, 0, block(50));
        assert_eq!(window.bytes(), 200);
        window.demote(1, 0);
        window.put(1, 4, block(150));
        assert!(window.get(1, 0).is_none() && window.get(1, 3).is_some());
    }

    // Without it blocks of closed objects would push out those of open ones.
    #[test]
    fn a_dropped_object_leaves_nothing() {
        let window = Window::new(1000);
        window.put(1, 0, block(100));
        window.put(2, 0, block(100));
        window.forget(1);
        assert_eq!(window.bytes(), 100);
        assert!(window.get(1, 0).is_none() && window.get(2, 0).is_some());
    }
}
