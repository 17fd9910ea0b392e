//! First in, first out, plain and with three queues; the simulator compares others with them.
//!
//! [`S3Fifo`] (Yang et al., SOSP 2023): newcomers pass through a small queue (a tenth of the bytes)
//! and reach the main queue only if they were opened again on the way or are remembered as evicted
//! lately; the main queue gives opened objects further rounds. Good for skewed loads without
//! epochs; a loop larger than the budget gets nothing from either.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Access, Admission, Policy};
use crate::identity::{DatasetKey, Digest};

/// Opens remembered per object: more than three make no difference.
const OPENS_MAX: u8 = 3;

/// Share of the bytes in the queue of newcomers: one part in ten.
const SMALL_PART: u64 = 10;

/// Evicts what came in first.
#[derive(Debug, Default)]
pub struct Fifo {
    order: VecDeque<Digest>,
    sizes: HashMap<Digest, u64>,
}

impl Policy for Fifo {
    fn open(&mut self, _access: &Access<'_>) -> Admission {
        Admission::Keep
    }

    fn inserted(&mut self, _dataset: &DatasetKey, digest: Digest, size: u64) {
        if self.sizes.insert(digest, size).is_none() {
            self.order.push_back(digest);
        }
    }

    fn removed(&mut self, digest: &Digest) {
        if self.sizes.remove(digest).is_none() {
            return;
        }
        if self.order.front() == Some(digest) {
            self.order.pop_front();
        } else {
            self.order.retain(|other| other != digest);
        }
    }

    fn victims(&mut self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        let mut freed = 0;
        let mut victims = Vec::new();
        for digest in &self.order {
            if freed >= need {
                break;
            }
            if evictable(digest) {
                freed += self.sizes.get(digest).copied().unwrap_or(0);
                victims.push(*digest);
            }
        }
        victims
    }
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    size: u64,
    opens: u8,
    in_main: bool,
}

/// See the module text.
#[derive(Debug, Default)]
pub struct S3Fifo {
    cached: HashMap<Digest, Cached>,
    small: VecDeque<Digest>,
    main: VecDeque<Digest>,
    small_bytes: u64,
    main_bytes: u64,
    /// Evicted from `small` lately, at most as many as there are objects in `main`.
    ghosts: HashSet<Digest>,
    ghost_order: VecDeque<Digest>,
}

impl S3Fifo {
    fn remember(&mut self, digest: Digest) {
        if self.ghosts.insert(digest) {
            self.ghost_order.push_back(digest);
        }
        while self.ghost_order.len() > self.main.len().max(64) {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
    }

    /// Moves the front of `small` on: to `main` if it was opened again, else it is a candidate.
    fn next_of_small(&mut self) -> Option<Digest> {
        while let Some(digest) = self.small.pop_front() {
            let Some(cached) = self
                .cached
                .get_mut(&digest)
                .filter(|cached| !cached.in_main)
            else {
                continue;
            };
            if cached.opens == 0 {
                self.small.push_back(digest);
                return Some(digest);
            }
            *cached = Cached {
                opens: 0,
                in_main: true,
                ..*cached
            };
            self.small_bytes -= cached.size;
            self.main_bytes += cached.size;
            self.main.push_back(digest);
        }
        None
    }

    /// Gives opened objects of `main` another round until one was not opened.
    fn next_of_main(&mut self) -> Option<Digest> {
        while let Some(digest) = self.main.pop_front() {
            let Some(cached) = self.cached.get_mut(&digest).filter(|cached| cached.in_main) else {
                continue;
            };
            self.main.push_back(digest);
            if cached.opens == 0 {
                return Some(digest);
            }
            cached.opens -= 1;
        }
        None
    }
}

impl Policy for S3Fifo {
    fn open(&mut self, access: &Access<'_>) -> Admission {
        if let Some(cached) = self.cached.get_mut(access.digest) {
            cached.opens = (cached.opens + 1).min(OPENS_MAX);
        }
        Admission::Keep
    }

    fn inserted(&mut self, _dataset: &DatasetKey, digest: Digest, size: u64) {
        if let Some(cached) = self.cached.get_mut(&digest) {
            let bytes = if cached.in_main {
                &mut self.main_bytes
            } else {
                &mut self.small_bytes
            };
            *bytes = *bytes - cached.size + size;
            cached.size = size;
            return;
        }
        let in_main = self.ghosts.remove(&digest);
        self.cached.insert(
            digest,
            Cached {
                size,
                opens: 0,
                in_main,
            },
        );
        if in_main {
            self.main.push_back(digest);
            self.main_bytes += size;
        } else {
            self.small.push_back(digest);
            self.small_bytes += size;
        }
    }

    fn removed(&mut self, digest: &Digest) {
        let Some(cached) = self.cached.remove(digest) else {
            return;
        };
        // A victim was moved to the back of its queue when it was chosen.
        let queue = if cached.in_main {
            &mut self.main
        } else {
            &mut self.small
        };
        match queue.iter().rposition(|other| other == digest) {
            Some(at) => drop(queue.remove(at)),
            None => return,
        }
        if cached.in_main {
            self.main_bytes -= cached.size;
        } else {
            self.small_bytes -= cached.size;
            self.remember(*digest);
        }
    }

    fn victims(&mut self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        let mut chosen = HashSet::new();
        let mut victims = Vec::new();
        let mut freed = 0;
        // Each object is looked at once per possible count of opens in either queue, not for ever.
        let mut looks = 2 * (self.cached.len() + 1) * (usize::from(OPENS_MAX) + 2);
        let mut from_small = 0;
        // Set when the queue whose turn it is offers what may not be evicted: the other one's turn.
        let mut swap = false;
        while freed < need && looks > 0 {
            looks -= 1;
            let total = self.small_bytes + self.main_bytes - freed;
            let small_is_large = self.small_bytes - from_small > total / SMALL_PART;
            let next = if small_is_large != swap {
                self.next_of_small().or_else(|| self.next_of_main())
            } else {
                self.next_of_main().or_else(|| self.next_of_small())
            };
            let Some(digest) = next else { break };
            if !evictable(&digest) || !chosen.insert(digest) {
                swap = !swap;
                continue;
            }
            swap = false;
            let cached = self.cached[&digest];
            freed += cached.size;
            if !cached.in_main {
                from_small += cached.size;
            }
            victims.push(digest);
        }
        victims
    }
}
