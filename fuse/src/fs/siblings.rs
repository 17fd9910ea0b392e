//! Prefetch of small files in the order of their directory.
//!
//! A loader that opens the files of a directory one after the other waits for the store once per
//! file. Inode numbers are given in the order of the listing, in a snapshot and in a live prefix, so
//! the files that come next are the next numbers. A [`Siblings`] follows several such walks at a
//! time (a loader has workers) and says which numbers to fetch ahead: none before [`STEPS`] misses
//! in order, then a window that doubles up to [`WINDOW`], refilled when half of it is used. Opens
//! that find their file cost nothing unless a walk is under way.
//!
//! Shuffled opens are no walk. In a small directory they come close to one another by chance, so the
//! chance has to be small there, too: with `n` files an open is near some walk with probability
//! `WALKS * REACH / n` at most. Simulated, a shuffled epoch of 256 files is asked for 0.12 files per
//! file, one of 1,000 for 0.002 and one of 20,000 for none.
//!
//! Prefetch goes into free space only, and counts what it has under way as used: what to evict for
//! whom is the policy's business, and it has not been asked. A wrong guess costs one download of a
//! small file; a walk ends when what comes next is there, or when nobody takes its steps any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use terrace_cache::hot::Residency;
use tokio::sync::Semaphore;

use super::FileSystem;
use crate::namespace::Ino;

/// Walks followed at a time: as many as a node's loaders have workers on one mount.
const WALKS: usize = 16;
/// Misses in order that make a walk.
const STEPS: u32 = 4;
/// Files fetched ahead of one walk.
const WINDOW: u64 = 64;
/// Window of a walk that has just been recognised.
const FIRST: u64 = 8;
/// An open this many numbers ahead of the last one still belongs to the walk (names that are not
/// files, workers that take turns).
const REACH: u64 = 4;
/// Looks at the walks after which one that took no step is over.
const IDLE: u64 = 512;
/// Prefetches under way at a time.
const AT_ONCE: usize = 64;
/// Prefetch stops when less than one part in this many of the budget is free.
const FREE_PART: u64 = 20;

#[derive(Clone, Copy, Debug)]
struct Walk {
    /// The number expected next.
    next: u64,
    /// The first number that was not asked for yet.
    fetched: u64,
    /// Files to keep ahead; 0 before the walk is recognised.
    window: u64,
    /// Misses in order up to now.
    steps: u32,
    used: u64,
}

/// The walks of one mount.
#[derive(Debug)]
pub(super) struct Siblings {
    walks: Mutex<Vec<Walk>>,
    /// Walks that have been recognised; 0: opens that hit need not look.
    active: AtomicU64,
    clock: AtomicU64,
    turns: Arc<Semaphore>,
    /// Bytes of prefetches under way.
    coming: Arc<AtomicU64>,
}

/// Bytes of one prefetch under way.
#[derive(Debug)]
struct Coming {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl Siblings {
    pub(super) fn new() -> Self {
        Self {
            walks: Mutex::default(),
            active: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            coming: Arc::default(),
        }
    }

    /// Notes an open; returns the numbers to fetch ahead now.
    fn opened(&self, ino: u64, missed: bool) -> Option<Range<u64>> {
        if !missed && self.active.load(Relaxed) == 0 {
            return None;
        }
        let now = self.clock.fetch_add(1, Relaxed);
        let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        let near = |walk: &&mut Walk| {
            (missed || walk.window > 0) && (walk.next..walk.next + REACH).contains(&ino)
        };
        let range = match walks.iter_mut().find(near) {
            Some(walk) => walk.step(ino, now),
            None => {
                walks.retain(|walk| now.saturating_sub(walk.used) < IDLE);
                if missed {
                    begin(&mut walks, ino, now);
                }
                None
            }
        };
        self.active.store(count(&walks), Relaxed);
        range
    }

    /// Ends the walk that asked for numbers up to `end`: what comes next is there already.
    fn end(&self, end: u64) {
        let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        walks.retain(|walk| walk.fetched != end);
        self.active.store(count(&walks), Relaxed);
    }

    /// Counts a prefetch as under way until the answer is dropped.
    fn coming(&self, bytes: u64) -> Coming {
        self.coming.fetch_add(bytes, Relaxed);
        Coming {
            all: Arc::clone(&self.coming),
            bytes,
        }
    }
}

impl Walk {
    /// Goes on to `ino`; returns the numbers to fetch ahead now.
    fn step(&mut self, ino: u64, now: u64) -> Option<Range<u64>> {
        self.next = ino + 1;
        self.used = now;
        self.steps = self.steps.saturating_add(1);
        let left = self.fetched.saturating_sub(self.next);
        if self.steps < STEPS || left > self.window / 2 {
            return None;
        }
        self.window = (self.window * 2).clamp(FIRST, WINDOW);
        let range = self.fetched.max(self.next)..self.next + self.window;
        self.fetched = range.end;
        Some(range)
    }
}

/// Begins a walk after `ino`, in place of the one that has been idle for longest.
fn begin(walks: &mut Vec<Walk>, ino: u64, now: u64) {
    let walk = Walk {
        next: ino + 1,
        fetched: ino + 1,
        window: 0,
        steps: 1,
        used: now,
    };
    if walks.len() < WALKS {
        walks.push(walk);
    } else if let Some(oldest) = walks.iter_mut().min_by_key(|walk| walk.used) {
        *oldest = walk;
    }
}

/// Walks with a window, as opposed to single misses.
fn count(walks: &[Walk]) -> u64 {
    walks.iter().filter(|walk| walk.window > 0).count() as u64
}

impl FileSystem {
    /// Follows the walks of loaders; called at each open of a file that open(2) fetches whole.
    pub(super) fn fetch_siblings(self: &Arc<Self>, ino: Ino, missed: bool) {
        let Some(range) = self.siblings.opened(ino.0, missed) else {
            return;
        };
        let usage = self.cache.hot().usage();
        let limit = usage.limit_bytes - usage.limit_bytes / FREE_PART;
        let coming = self.siblings.coming.load(Relaxed);
        let mut free = limit.saturating_sub(usage.used_bytes + coming);
        let (mut files, mut missing) = (0, 0);
        for number in range.clone() {
            let Ok(id) = self.namespace.object(Ino(number)) else {
                continue;
            };
            if id.size() == 0 || id.size() > self.config.fill_on_open {
                continue;
            }
            files += 1;
            if self.cache.hot().peek(&id.digest()) == Some(Residency::Complete) {
                continue;
            }
            missing += 1;
            if id.size() > free {
                break;
            }
            free -= id.size();
            let object = self
                .cache
                .object(&id, &self.source, &self.dataset_of(Ino(number)));
            // Written past the page cache, it would have to come back from the disk at once.
            object.expect_reader();
            let turns = Arc::clone(&self.siblings.turns);
            let coming = self.siblings.coming(id.size());
            let stop = self.stop.clone();
            self.tasks.spawn_on(
                async move {
                    let fetch = async {
                        let _turn = turns.acquire().await;
                        // An error is the opener's to see, when there is one.
                        object.fill().await.ok();
                    };
                    tokio::select! { () = fetch => {}, () = stop.cancelled() => {} }
                    drop(coming);
                },
                &self.runtime,
            );
        }
        if files > 0 && missing == 0 {
            self.siblings.end(range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(siblings: &Siblings, numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
        numbers
            .filter_map(|number| siblings.opened(number, true))
            .collect()
    }

    // Without it a loader that reads a directory in order waits for the store once per file.
    #[test]
    fn a_walk_is_fetched_ahead_without_gaps() {
        let siblings = Siblings::new();
        let ranges = walk(&siblings, 100..400);
        assert_eq!(ranges[0].start, 104, "the fourth miss in order is a walk");
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "each number is asked for once");
        }
        assert!(ranges.iter().all(|range| range.end - range.start <= WINDOW));
        assert!(ranges.last().is_some_and(|range| range.end >= 400));
    }

    // Without it shuffled reads would download files that nobody asked for.
    #[test]
    fn scattered_opens_fetch_nothing() {
        let siblings = Siblings::new();
        assert!(walk(&siblings, (0..500).map(|n| (n * 7919) % 100_003 * 20)).is_empty());
    }

    // Without it a data set that is read shuffled would be taken for a walk when it is small, and
    // files would be fetched for nobody.
    #[test]
    fn a_small_shuffled_directory_is_hardly_ever_a_walk() {
        let mut numbers: Vec<u64> = (100..356).collect();
        let mut random = 1_u64;
        let mut fetched = 0;
        for _ in 0..20 {
            let siblings = Siblings::new();
            for place in (1..numbers.len()).rev() {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                numbers.swap(place, (random >> 33) as usize % (place + 1));
            }
            fetched += walk(&siblings, numbers.iter().copied()).len();
        }
        assert!(
            fetched <= 20 * 8,
            "{fetched} windows in 20 epochs of 256 files"
        );
    }

    // Without it one worker's walk would end the walks of the others.
    #[test]
    fn several_walks_go_on_side_by_side() {
        let siblings = Siblings::new();
        let turns = (0..200).flat_map(|step| (0..4).map(move |worker| worker * 10_000 + step));
        let ranges = walk(&siblings, turns);
        for worker in 0..4 {
            let last = ranges
                .iter()
                .map(|r| r.end)
                .filter(|end| end / 10_000 == worker)
                .max();
            assert!(last >= Some(worker * 10_000 + 200));
        }
    }

    // Without it every open of a warm epoch would look for walks.
    #[test]
    fn hits_cost_nothing_without_a_walk() {
        let siblings = Siblings::new();
        assert!((0..100).all(|number| siblings.opened(number, false).is_none()));
        assert_eq!(siblings.clock.load(Relaxed), 0);
        let ranges = walk(&siblings, 0..20);
        siblings.end(ranges.last().map_or(0, |range| range.end));
        assert_eq!(siblings.active.load(Relaxed), 0);
    }
}
