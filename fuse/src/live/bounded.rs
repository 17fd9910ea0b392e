//! A map with a limit: the entry used longest ago goes first.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// At most `limit` entries, by time of use.
pub(crate) struct Bounded<K: Hash + Eq, V>(LruCache<K, V>);

impl<K: Hash + Eq, V> fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounded({} of {})", self.0.len(), self.0.cap())
    }
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty map for `limit` (at least 1) entries. Memory grows with use.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        let mut map = LruCache::unbounded();
        map.resize(limit);
        Self(map)
    }

    /// The value, now the one used last.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    /// Puts a value in; what had to go comes back.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.push(key, value).map(|(_, old)| old)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.pop(key)
    }

    /// Takes out the entry used longest ago.
    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.0.pop_lru()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
