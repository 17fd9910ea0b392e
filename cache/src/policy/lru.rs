//! Least recently opened goes first; everything is admitted.
//!
//! The base line that the simulator compares other policies with, and a sound choice where no
//! dataset is larger than the tier. It knows nothing of epochs: a dataset somewhat larger than the
//! budget, read in a fixed order, gets no hit at all.

use lru::LruCache;

use super::{Access, Admission, Policy};
use crate::identity::{DatasetKey, Digest};

/// See the module text.
#[derive(Debug)]
pub struct Lru {
    sizes: LruCache<Digest, u64>,
}

impl Lru {
    /// A policy that knows no object yet.
    pub fn new() -> Self {
        Self {
            sizes: LruCache::unbounded(),
        }
    }
}

impl Default for Lru {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for Lru {
    fn open(&mut self, access: &Access<'_>) -> Admission {
        self.sizes.promote(access.digest);
        Admission::Keep
    }

    fn inserted(&mut self, _dataset: &DatasetKey, digest: Digest, size: u64) {
        self.sizes.put(digest, size);
    }

    fn removed(&mut self, digest: &Digest) {
        self.sizes.pop(digest);
    }

    fn victims(&mut self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        let mut freed = 0;
        let mut victims = Vec::new();
        for (digest, size) in self.sizes.iter().rev() {
            if freed >= need {
                break;
            }
            if evictable(digest) {
                freed += size;
                victims.push(*digest);
            }
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    // Without this, the tier would evict what was just used, or something pinned.
    #[test]
    fn the_least_recently_opened_goes_first_and_pins_are_passed_over() {
        let dataset = DatasetKey("d".into());
        let mut policy = Lru::new();
        for n in 1..=4 {
            policy.inserted(&dataset, digest(n), 10);
        }
        let one = digest(1);
        policy.open(&Access {
            dataset: &dataset,
            digest: &one,
            size: 10,
            resident: true,
        });

        assert_eq!(policy.victims(15, &|_| true), [digest(2), digest(3)]);
        assert_eq!(
            policy.victims(15, &|d| *d != digest(2)),
            [digest(3), digest(4)]
        );

        policy.removed(&digest(2));
        assert_eq!(
            policy.victims(1000, &|_| true),
            [digest(3), digest(4), digest(1)]
        );
    }
}
