//! Where one reader is in an object, and how far ahead of it to fetch.
//!
//! A [`ReadStream`] belongs to one open handle. It starts with the block asked for and nothing
//! ahead; the next block in sequence starts at a distance of [`FIRST`], and each further one
//! doubles it up to a limit that all readers share; a seek resets it. So a random reader fetches the blocks it asks for and no more.
//!
//! The kernel sends the requests of its own readahead in parallel and they arrive a little out of
//! order, so a request within [`SLACK`] blocks of the expected place is still in sequence. New
//! readahead is asked for when half of the distance is used up, so that parts stay long.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;

/// Blocks by which a request may miss the expected place and still be in sequence.
const SLACK: u32 = 2;

/// Distance after the second block in sequence: enough for the store's round trips to overlap.
const FIRST: u32 = 4;

/// Readahead state of one reader (one open handle). Dropping it cancels its readahead.
#[derive(Debug, Default)]
pub struct ReadStream {
    pub(super) inner: Arc<StreamState>,
}

/// What is shared between the handle and the object's engine.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    position: Mutex<Position>,
    /// Cancelled when the handle is gone.
    pub(super) gone: CancellationToken,
}

/// Readers that read ahead now, over all objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Active(Arc<AtomicUsize>);

/// Membership in [`Active`].
#[derive(Debug)]
struct Lease(Arc<AtomicUsize>);

#[derive(Debug, Default)]
struct Position {
    /// Block after the last one asked for in sequence.
    next: u32,
    /// End of what was asked ahead; never below `next`.
    ahead: u32,
    /// Distance to keep ahead, in blocks.
    distance: u32,
    /// Blocks asked for in sequence since the last seek.
    run: u32,
    started: bool,
    lease: Option<Lease>,
}

/// What a request means for the reader's future.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Advance {
    /// Blocks to fetch ahead now.
    pub(super) ahead: Option<Range<u32>>,
    /// Length of the sequential run so far, in blocks, when this request made it longer.
    pub(super) run: u32,
    /// Blocks that a reader in sequence has left behind with this request.
    pub(super) behind: Range<u32>,
}

impl ReadStream {
    /// A reader that has not read yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Drop for ReadStream {
    fn drop(&mut self) {
        self.inner.gone.cancel();
        self.inner.lock().lease = None;
    }
}

impl Active {
    pub(super) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn join(&self) -> Lease {
        self.0.fetch_add(1, Relaxed);
        Lease(Arc::clone(&self.0))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl StreamState {
    /// Notes a request for `blocks` of an object of `total` blocks. `limit` is the longest
    /// distance allowed at this moment.
    pub(super) fn advance(
        &self,
        blocks: Range<u32>,
        total: u32,
        active: &Active,
        limit: u32,
    ) -> Advance {
        let mut position = self.lock();
        let advance = position.advance(blocks, total, limit);
        match (position.distance > 0, position.lease.is_some()) {
            (true, false) => position.lease = Some(active.join()),
            (false, true) => position.lease = None,
            _ => {}
        }
        advance
    }

    /// Whether the reader is expected to ask for `block` soon. Twice the distance, because a fill
    /// of the whole object runs further ahead.
    pub(super) fn expects(&self, block: u32) -> bool {
        let position = self.lock();
        let end = position.next.saturating_add(position.distance * 2);
        (position.next..end).contains(&block)
    }

    /// The block the reader is expected to ask for next.
    pub(super) fn next(&self) -> u32 {
        self.lock().next
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.position
            .lock()
            .expect("no code under this lock can panic")
    }
}

impl Position {
    fn advance(&mut self, blocks: Range<u32>, total: u32, limit: u32) -> Advance {
        let behind = blocks.start.saturating_add(SLACK) < self.next;
        let beyond = blocks.start > self.ahead.max(self.next).saturating_add(SLACK);
        if !self.started || behind || beyond {
            self.started = true;
            self.next = blocks.end;
            self.ahead = blocks.end;
            self.distance = 0;
            self.run = blocks.end - blocks.start;
            return Advance {
                run: self.run,
                ..Advance::default()
            };
        }
        if blocks.end <= self.next {
            return Advance::default();
        }
        self.run = self.run.saturating_add(blocks.end - self.next);
        let behind = self.next.saturating_sub(SLACK + 1)..blocks.end.saturating_sub(SLACK + 1);
        self.next = blocks.end;
        self.ahead = self.ahead.max(self.next);
        self.distance = (self.distance * 2).max(FIRST).min(limit);
        let target = self.next.saturating_add(self.distance).min(total);
        let room = target.saturating_sub(self.ahead);
        let ahead = (room > 0 && (room >= self.distance.div_ceil(2) || target == total))
            .then_some(self.ahead..target);
        self.ahead = ahead.as_ref().map_or(self.ahead, |range| range.end);
        Advance {
            ahead,
            run: self.run,
            behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(position: &mut Position, block: u32) -> Option<Range<u32>> {
        position.advance(block..block + 1, 1000, 32).ahead
    }

    // Without it a sequential reader would wait for the store at every block, or the first blocks
    // of a file would cost a full window.
    #[test]
    fn the_distance_doubles_up_to_the_limit() {
        let mut position = Position::default();
        let asked: Vec<_> = (0..9).map(|block| step(&mut position, block)).collect();
        let expected = [
            None,
            Some(2..6),
            Some(6..11),
            Some(11..20),
            Some(20..37),
            None,
            None,
            None,
            None,
        ];
        assert_eq!(asked, expected);
        let all: u32 = (9..500)
            .filter_map(|b| step(&mut position, b))
            .map(|r| r.end - r.start)
            .sum();
        assert_eq!(
            37 + all,
            position.ahead,
            "no block is asked twice or left out"
        );
        assert!((16..=32).contains(&(position.ahead - position.next)));
    }

    // Without it every random 4 KiB read of a large file would fetch megabytes around it.
    #[test]
    fn a_seek_resets_and_random_reads_stay_alone() {
        let mut position = Position::default();
        for block in 0..20 {
            step(&mut position, block);
        }
        assert_eq!(step(&mut position, 700), None);
        assert_eq!(position.distance, 0);
        assert_eq!(step(&mut position, 701), Some(702..706));
        for block in [10, 400, 90, 333, 2] {
            assert_eq!(step(&mut position, block), None, "block {block}");
            assert_eq!(
                step(&mut position, block),
                None,
                "again within block {block}"
            );
        }
    }

    // Without it the kernel's own readahead, whose requests overtake each other, would look like
    // random access.
    #[test]
    fn requests_a_little_out_of_order_are_in_sequence() {
        let mut position = Position::default();
        for block in [0, 2, 1, 3, 5, 4, 7, 6, 8, 10, 9] {
            step(&mut position, block);
        }
        assert!(position.distance >= 16);
        assert_eq!(position.next, 11);
    }

    // Without it readahead would ask for blocks that do not exist, or stop short of the end.
    #[test]
    fn readahead_ends_with_the_object() {
        let mut position = Position::default();
        let mut end = 0;
        for block in 0..10 {
            if let Some(range) = position.advance(block..block + 1, 10, 32).ahead {
                end = range.end;
            }
        }
        assert_eq!(end, 10);
    }

    // Without it the share of each reader would shrink for ever.
    #[test]
    fn only_readers_that_read_ahead_count() {
        let active = Active::default();
        let stream = ReadStream::new();
        stream.inner.advance(0..1, 100, &active, 32);
        assert_eq!(active.count(), 0);
        stream.inner.advance(1..2, 100, &active, 32);
        assert_eq!(active.count(), 1);
        stream.inner.advance(50..51, 100, &active, 32);
        assert_eq!(active.count(), 0);
        stream.inner.advance(51..52, 100, &active, 32);
        drop(stream);
        assert_eq!(active.count(), 0);
    }
}
