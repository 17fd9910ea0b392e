//! A bounded map of what was used recently.
//!
//! Two generations: entries go into the young one; when it is full, it becomes the old one and the
//! old one is dropped. So it holds the last `capacity` entries at least and twice as many at most,
//! and an insertion never walks anything.

use std::collections::HashMap;
use std::hash::Hash;

/// See the module text.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.insert(key.clone(), value);
        }
        self.young.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a walk over a large tree would grow memory without end.
    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut recent = Recent::new(10);
        for number in 0..1000 {
            recent.insert(number, number);
            assert_eq!(recent.get(&0), Some(&0), "used all the time");
        }
        assert!(recent.young.len() + recent.old.len() <= 20);
        assert_eq!(recent.get(&999), Some(&999));
        assert_eq!(recent.get(&1), None);
    }
}
