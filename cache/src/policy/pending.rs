//! Space promised to objects whose bytes are still on their way in.
//!
//! Between [`super::Admission::Keep`] and the last byte written an object takes space that the
//! residents do not show. Without counting it, every reader that opens at the same moment would be
//! promised the same free bytes, and all but one of them would then push residents out.
//! A promise ends when the object is as large as promised, when it is removed, or when it is old
//! (a fill that was given up).

use std::collections::{HashMap, VecDeque};

use super::residents::ListId;
use crate::identity::Digest;

/// Promises kept at most; the oldest is dropped for a new one.
const PROMISES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Promise {
    list: ListId,
    /// Bytes promised in all, and those that came in already.
    size: u64,
    arrived: u64,
    made_at: u64,
}

impl Promise {
    fn outstanding(&self) -> u64 {
        self.size.saturating_sub(self.arrived)
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Pending {
    promises: HashMap<Digest, Promise>,
    /// In order of promise; may name promises that ended or were made again later.
    order: VecDeque<(u64, Digest)>,
    bytes: u64,
    by_list: Vec<u64>,
    surplus: u64,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            promises: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            by_list: Vec::new(),
            surplus: 0,
        }
    }

    /// Promised bytes that are not resident yet.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What objects lately took more than was promised (rounding, sidecars): without counting it,
    /// each newcomer for the last free bytes would push a resident out.
    pub(super) fn surplus(&self) -> u64 {
        self.surplus
    }

    pub(super) fn bytes_of(&self, list: ListId) -> u64 {
        self.by_list.get(list as usize).copied().unwrap_or(0)
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.promises.contains_key(digest)
    }

    pub(super) fn promise(&mut self, digest: Digest, list: ListId, size: u64, now: u64) {
        self.cancel(&digest);
        while self.order.len() >= PROMISES_MAX {
            self.drop_oldest();
        }
        self.order.push_back((now, digest));
        self.add(
            &Promise {
                list,
                size,
                arrived: 0,
                made_at: now,
            },
            digest,
        );
    }

    /// Counts `size` resident bytes of `digest` and tells which list it was promised to.
    pub(super) fn fulfil(&mut self, digest: &Digest, size: u64) -> Option<ListId> {
        let mut promise = self.take(digest)?;
        promise.arrived = size;
        if promise.outstanding() > 0 {
            self.add(&promise, *digest);
        } else {
            let decayed = self.surplus - self.surplus.div_ceil(64);
            self.surplus = decayed.max(size - promise.size);
        }
        Some(promise.list)
    }

    pub(super) fn cancel(&mut self, digest: &Digest) {
        self.take(digest);
    }

    /// Ends promises made more than `age_max` of traffic ago.
    pub(super) fn expire(&mut self, now: u64, age_max: u64) {
        while self
            .order
            .front()
            .is_some_and(|(made_at, _)| now - made_at > age_max)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((made_at, digest)) = self.order.pop_front() else {
            return;
        };
        if self
            .promises
            .get(&digest)
            .is_some_and(|promise| promise.made_at == made_at)
        {
            self.take(&digest);
        }
    }

    fn add(&mut self, promise: &Promise, digest: Digest) {
        let list = promise.list as usize;
        if self.by_list.len() <= list {
            self.by_list.resize(list + 1, 0);
        }
        self.by_list[list] += promise.outstanding();
        self.bytes += promise.outstanding();
        self.promises.insert(digest, *promise);
    }

    fn take(&mut self, digest: &Digest) -> Option<Promise> {
        let promise = self.promises.remove(digest)?;
        self.by_list[promise.list as usize] -= promise.outstanding();
        self.bytes -= promise.outstanding();
        Some(promise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, a given-up fill would keep space reserved for ever, or a grown object would be
    // counted twice.
    #[test]
    fn promises_end_when_fulfilled_cancelled_or_old() {
        let digest = |n| Digest([n; 32]);
        let mut pending = Pending::new();
        pending.promise(digest(1), 3, 100, 10);
        pending.promise(digest(2), 2, 50, 20);
        assert_eq!((pending.bytes(), pending.bytes_of(3)), (150, 100));
        assert_eq!(pending.fulfil(&digest(1), 60), Some(3));
        assert_eq!((pending.bytes(), pending.contains(&digest(1))), (90, true));
        assert_eq!(pending.fulfil(&digest(1), 100), Some(3));
        assert_eq!((pending.bytes(), pending.contains(&digest(1))), (50, false));
        assert_eq!(pending.surplus(), 0);
        pending.promise(digest(1), 3, 7, 30);
        pending.expire(45, 20);
        assert_eq!((pending.bytes(), pending.contains(&digest(1))), (7, true));
        pending.expire(60, 20);
        assert_eq!(
            (pending.bytes(), pending.bytes_of(2), pending.bytes_of(3)),
            (0, 0, 0)
        );
    }
}
