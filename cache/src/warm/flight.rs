//! One object on its way into the tier, as its readers in this daemon see it.
//!
//! A flight begins with the first read that finds no open copy and ends when the object is
//! published, or cannot be. Readers take blocks from memory (just fetched), from the temporary
//! file (written; here or by another node) or, at the end, from the copy. Blocks that somebody
//! waits for are fetched first.
//!
//! Memory: a block is held from its arrival until it is written, within the tier's in-flight limit.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::copy::{Copy, read_block};
use super::disk::Disk;
use super::format::blocks;
use super::stats::{Cold, add};
use crate::identity::{Digest, ObjectId};

/// Pause before looking again at a block that another node has finished but that is not visible
/// here yet.
const VISIBLE_PAUSE: Duration = Duration::from_millis(50);

/// See the module text.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) object: ObjectId,
    pub(super) digest: Digest,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    end: Option<End>,
    arrived: HashMap<u32, Bytes>,
    file: Option<Arc<File>>,
    finished: Vec<Option<u32>>,
    wanted: BTreeSet<u32>,
    /// Whether the temporary file is another node's.
    following: bool,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Published(Arc<Copy>),
    /// No copy; readers go to the inner source.
    Failed,
}

/// What a flight has for a reader.
pub(super) enum Block {
    Here(Bytes),
    InCopy(Arc<Copy>),
    Nowhere(Cold),
}

/// Where a block is.
enum Place {
    Memory(Bytes),
    File(Arc<File>, u32, bool),
    Copy(Arc<Copy>),
    Nowhere,
    Failed,
}

impl Flight {
    pub(super) fn new(object: ObjectId) -> Self {
        let count = blocks(object.size()) as usize;
        Self {
            digest: object.digest(),
            object,
            state: Mutex::new(State {
                end: None,
                arrived: HashMap::new(),
                file: None,
                finished: vec![None; count],
                wanted: BTreeSet::new(),
                following: false,
            }),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> u32 {
        blocks(self.object.size())
    }

    /// One verified block, or the copy that has it; nothing when it does not come within `wait`.
    pub(super) async fn block(&self, disk: &Disk, index: u32, wait: Duration) -> Block {
        let deadline = Instant::now() + wait;
        let mut is_late = false;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls between look and wait.
            changed.as_mut().enable();
            match self.place(index) {
                Place::Memory(bytes) => {
                    add(&disk.counters.streamed_bytes, bytes.len() as u64);
                    return Block::Here(bytes);
                }
                Place::Copy(copy) => return Block::InCopy(copy),
                Place::Failed => return Block::Nowhere(Cold::Failed),
                Place::File(file, sum, following) => {
                    if let Some(bytes) = self.read_file(disk, file, index, sum, following).await {
                        return Block::Here(bytes);
                    }
                    // The lease runs ahead of the data on file systems that cache writes.
                    sleep_until((Instant::now() + VISIBLE_PAUSE).min(deadline)).await;
                }
                Place::Nowhere if !is_late => {
                    let _ = timeout_at(deadline, changed).await;
                }
                Place::Nowhere => {}
            }
            if is_late {
                add(&disk.counters.waits_expired, 1);
                return Block::Nowhere(Cold::Late);
            }
            // The block may have come while nobody polled this wait: one more look.
            is_late = Instant::now() >= deadline;
        }
    }

    async fn read_file(
        &self,
        disk: &Disk,
        file: Arc<File>,
        index: u32,
        sum: u32,
        following: bool,
    ) -> Option<Bytes> {
        let length = self.object.size();
        let read = disk.run(move || read_block(&file, index, length, sum));
        let bytes = read.await.ok()?;
        let counters = &disk.counters;
        let counter = if following {
            &counters.followed_bytes
        } else {
            &counters.streamed_bytes
        };
        add(counter, bytes.len() as u64);
        Some(bytes)
    }

    fn place(&self, index: u32) -> Place {
        let mut state = self.lock();
        if let Some(bytes) = state.arrived.get(&index) {
            return Place::Memory(bytes.clone());
        }
        match &state.end {
            Some(End::Published(copy)) => return Place::Copy(Arc::clone(copy)),
            Some(End::Failed) => return Place::Failed,
            None => {}
        }
        if let (Some(sum), Some(file)) = (state.finished[index as usize], &state.file) {
            return Place::File(Arc::clone(file), sum, state.following);
        }
        state.wanted.insert(index);
        Place::Nowhere
    }

    /// Begins anew as filler or follower of a temporary file with nothing in it.
    pub(super) fn begin(&self, file: Option<Arc<File>>, following: bool) {
        let mut state = self.lock();
        state.file = file;
        state.following = following;
        state.arrived.clear();
        state.finished.fill(None);
    }

    /// Blocks of the next part to fetch: around the first block somebody waits for, else the first
    /// one not taken. Marks it taken.
    pub(super) fn next_part(&self, taken: &mut [bool], part_blocks: u32) -> Option<Range<u32>> {
        let part_blocks = part_blocks.max(1);
        let mut state = self.lock();
        let wanted = &mut state.wanted;
        let mut part = None;
        while let Some(block) = wanted.pop_first() {
            let candidate = (block / part_blocks) as usize;
            if taken.get(candidate) == Some(&false) {
                part = Some(candidate);
                break;
            }
        }
        let part = part.or_else(|| taken.iter().position(|taken| !taken))?;
        taken[part] = true;
        let begin = part as u32 * part_blocks;
        Some(begin..(begin + part_blocks).min(self.blocks()))
    }

    /// A block came in.
    pub(super) fn arrived(&self, index: u32, bytes: Bytes) {
        self.lock().arrived.insert(index, bytes);
        self.changed.notify_waiters();
    }

    /// A block was written to the temporary file.
    pub(super) fn written(&self, index: u32, sum: u32) {
        let mut state = self.lock();
        state.arrived.remove(&index);
        state.finished[index as usize] = Some(sum);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Checksums of the blocks in the temporary file.
    pub(super) fn finished(&self) -> Vec<Option<u32>> {
        self.lock().finished.clone()
    }

    /// Another node's progress.
    pub(super) fn set_finished(&self, finished: Vec<Option<u32>>) {
        let mut state = self.lock();
        if finished.len() == state.finished.len() {
            state.finished = finished;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends the flight for its readers.
    pub(super) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        state.arrived.clear();
        state.file = None;
        drop(state);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::BLOCK;
    use crate::identity::{Token, Version};

    // Without this, a reader in the middle of a big object would wait for all that lies before.
    #[test]
    fn wanted_parts_come_first_and_each_part_once() {
        let version = Version {
            token: Token::File {
                device: 1,
                inode: 1,
            },
            size: 10 * BLOCK + 1,
            mtime_ns: 0,
        };
        let flight = Flight::new(ObjectId {
            store: "file:///".into(),
            key: "k".into(),
            version,
        });
        assert!(matches!(flight.place(9), Place::Nowhere));
        let mut taken = vec![false; 3];
        let parts: Vec<Range<u32>> =
            std::iter::from_fn(|| flight.next_part(&mut taken, 4)).collect();
        assert_eq!(parts, [8..11, 0..4, 4..8]);
    }
}
