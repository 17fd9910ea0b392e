//! What a file system holds per open object, and how a read goes through the tiers.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::engine::Engine;
use super::error::ReadError;
use super::flights::{Lost, Place};
use super::job::Interest;
use super::part::{self, Part};
use super::sniff;
use super::stream::ReadStream;
use crate::hot::{BLOCK, Backing, Residency};
use crate::identity::ObjectId;
use crate::policy::Admission;

/// Times a block is asked for again after its part ended before it, or the hot tier lost it.
const ATTEMPTS: u32 = 4;

/// Smallest object whose first bytes are looked at for a reader that wants all of it.
const SNIFF_FROM: u64 = 4 * BLOCK;

/// One immutable object, while somebody holds it. Dropping the last handle cancels what is being
/// fetched for it.
#[derive(Debug)]
pub struct Object {
    pub(super) engine: Arc<Engine>,
    /// Keeps a fill in the background going.
    pub(super) background: Mutex<Option<(Arc<Interest>, Instant)>>,
}

impl Object {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            background: Mutex::default(),
        }
    }

    /// What it is.
    pub fn id(&self) -> &ObjectId {
        &self.engine.id
    }

    /// Counts one open with the policy and follows its answer: whether bytes that come in now are
    /// written to the hot tier. An object that nobody opened this way is kept.
    pub fn opened(&self) -> Admission {
        let engine = &self.engine;
        engine.opened.store(true, Relaxed);
        let (id, dataset) = (&engine.id, &engine.dataset);
        let admission = engine.shared.hot.opened(&engine.digest, id.size(), dataset);
        match admission {
            // A refusal of the hot tier is logged there; the object is then read from memory.
            Admission::Keep => drop(engine.keep()),
            Admission::Bypass => engine.bypass(),
        }
        admission
    }

    /// Tells that somebody is about to read it, before it is opened: what comes in stays in the page
    /// cache, where a fill that nobody reads leaves nothing. Not an open to the policy.
    pub fn expect_reader(&self) {
        self.engine.opened.store(true, Relaxed);
    }

    /// The bytes of `range`, if they can be had without waiting for the source: from memory, or
    /// from the hot tier with one read on the calling thread. `None`: call [`Object::read`]. The
    /// range is cut at the end of the object.
    pub fn read_now(
        &self,
        stream: &ReadStream,
        range: Range<u64>,
    ) -> Option<Result<Bytes, ReadError>> {
        let range = self.clip(range);
        if range.is_empty() {
            return Some(Ok(Bytes::new()));
        }
        let bytes = self
            .memory_hit(&range)
            .or_else(|| self.hot_hit_now(&range))?;
        self.read_ahead(stream, blocks_of(&range));
        self.sniff(&range, &bytes);
        Some(Ok(bytes))
    }

    /// The bytes of `range`, cut at the end of the object; fewer only there. Blocks that are
    /// nowhere on this node are fetched at once, before any readahead. The caller bounds the
    /// range: the answer is one buffer.
    ///
    /// Errors: of the source, for the blocks of this range; never of the hot tier. Dropping the
    /// future gives up waiting; the blocks still come in.
    pub async fn read(&self, stream: &ReadStream, range: Range<u64>) -> Result<Bytes, ReadError> {
        let range = self.clip(range);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = match self.memory_hit(&range) {
            Some(bytes) => {
                self.read_ahead(stream, blocks_of(&range));
                bytes
            }
            None => self.gather(stream, &range).await?,
        };
        self.sniff(&range, &bytes);
        Ok(bytes)
    }

    /// The complete file for kernel passthrough, when the hot tier has all of the object and
    /// vouches for it. May read the file to verify it.
    pub fn backing(&self) -> Option<Backing> {
        let hot = self.engine.hot()?;
        let backing = match hot.backing() {
            Ok(backing) => backing,
            Err(error) => {
                tracing::warn!(object = %self.engine.id, %error, "no passthrough: hot tier");
                None
            }
        };
        if backing.is_none() {
            self.engine.note_filled();
        }
        backing
    }

    /// Tells whether all of the object is in the hot tier, and when that changes.
    pub fn filled(&self) -> watch::Receiver<bool> {
        self.engine.hot();
        self.engine.filled.subscribe()
    }

    /// Bytes in the hot tier, and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        let size = self.engine.id.size();
        if *self.engine.filled.borrow() {
            return (size, size);
        }
        let present = match self.engine.shared.hot.peek(&self.engine.digest) {
            Some(Residency::Complete) => size,
            Some(Residency::Partial { present_bytes }) => present_bytes.min(size),
            None => 0,
        };
        (present, size)
    }

    fn clip(&self, range: Range<u64>) -> Range<u64> {
        range.start..range.end.min(self.engine.id.size())
    }

    /// All of `range` from blocks in memory.
    fn memory_hit(&self, range: &Range<u64>) -> Option<Bytes> {
        let blocks = blocks_of(range);
        let first = self.engine.in_memory(blocks.start)?;
        let bytes = if blocks.len() == 1 {
            slice(&first, blocks.start, range)
        } else {
            let rest = (blocks.start + 1)..blocks.end;
            let rest: Option<Vec<Bytes>> = rest.map(|block| self.engine.in_memory(block)).collect();
            let all = std::iter::once(first).chain(rest?);
            join(
                range,
                blocks
                    .zip(all)
                    .map(|(block, data)| slice(&data, block, range)),
            )
        };
        self.engine.shared.counters.window_hit(bytes.len());
        Some(bytes)
    }

    fn hot_hit_now(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = Instant::now();
        // An error of the hot tier is a miss; the read that follows logs what it cannot do.
        let bytes = self.engine.hot()?.read_now(range.clone()).ok().flatten()?;
        let counters = &self.engine.shared.counters;
        counters.hot.waited_since(start);
        counters.hot_hit(bytes.len());
        Some(bytes)
    }

    /// Reads with whatever waiting it takes.
    async fn gather(&self, stream: &ReadStream, range: &Range<u64>) -> Result<Bytes, ReadError> {
        let blocks = blocks_of(range);
        self.engine.hot();
        let (places, parts) = self.engine.locate(blocks.clone(), false)?;
        self.start(parts);
        // After the parts this read waits for, so that they are first at the source.
        self.read_ahead(stream, blocks.clone());
        if places.iter().all(|place| matches!(place, Place::Hot))
            && let Some(bytes) = self.hot_hit(range).await
        {
            return Ok(bytes);
        }
        let mut pieces = Vec::with_capacity(places.len());
        for (block, place) in blocks.zip(places) {
            pieces.push(self.arrive(block, place, range).await?);
        }
        Ok(match pieces.len() {
            1 => pieces.swap_remove(0),
            _ => join(range, pieces.into_iter()),
        })
    }

    /// The part of `range` that lies in `block`.
    async fn arrive(
        &self,
        block: u32,
        mut place: Place,
        range: &Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let counters = &self.engine.shared.counters;
        let mut last = ReadError::Closed;
        for _ in 0..ATTEMPTS {
            let mut distrust_hot = false;
            match place {
                Place::Memory(data) => {
                    let bytes = slice(&data, block, range);
                    counters.window_hit(bytes.len());
                    return Ok(bytes);
                }
                Place::Hot => {
                    let within = self.engine.bytes_of(&(block..block + 1));
                    let part = range.start.max(within.start)..range.end.min(within.end);
                    if let Some(bytes) = self.hot_hit(&part).await {
                        return Ok(bytes);
                    }
                    distrust_hot = true;
                }
                Place::Coming(landing) => {
                    let start = Instant::now();
                    let landed = landing.await;
                    counters.store.waited_since(start);
                    match landed {
                        Ok(Ok(data)) => {
                            let bytes = slice(&data, block, range);
                            counters.store_hit(bytes.len());
                            return Ok(bytes);
                        }
                        Ok(Err(Lost::Failed(error))) => return Err(error),
                        Ok(Err(Lost::Again(error))) => last = error,
                        Err(_) => return Err(ReadError::Closed),
                    }
                }
            }
            let (mut places, parts) = self.engine.locate(block..block + 1, distrust_hot)?;
            self.start(parts);
            place = places.pop().expect("one place per block");
        }
        Err(last)
    }

    async fn hot_hit(&self, range: &Range<u64>) -> Option<Bytes> {
        let counters = &self.engine.shared.counters;
        let start = Instant::now();
        let result = self.engine.hot()?.read(range.clone()).await;
        counters.hot.waited_since(start);
        match result {
            Ok(bytes) => {
                let bytes = bytes?;
                counters.hot_hit(bytes.len());
                Some(bytes)
            }
            Err(error) => {
                tracing::warn!(object = %self.engine.id, %error, "fetch again: hot tier");
                None
            }
        }
    }

    /// Notes where the reader is, fetches ahead of it, and fetches everything for a reader that
    /// has read a long way in sequence.
    fn read_ahead(&self, stream: &ReadStream, blocks: Range<u32>) {
        if *self.engine.filled.borrow() {
            return;
        }
        let shared = &self.engine.shared;
        let limit = shared.config.ahead_blocks(shared.active.count());
        let total = self.engine.total();
        let advance = stream.inner.advance(blocks, total, &shared.active, limit);
        for block in advance.behind {
            shared.window.demote(self.engine.serial, block);
        }
        if let Some(ahead) = advance.ahead {
            self.engine.register(&stream.inner);
            self.start(self.engine.claim(ahead, &stream.inner.gone, usize::MAX));
        }
        if advance.run >= shared.config.whole_after_blocks() {
            self.fill_in_background();
        }
    }

    /// Fetches everything when the first bytes say that readers of such a file want it.
    fn sniff(&self, range: &Range<u64>, bytes: &Bytes) {
        let size = self.engine.id.size();
        if range.start == 0 && size >= SNIFF_FROM && sniff::wants_whole(bytes, size) {
            self.fill_in_background();
        }
    }

    fn start(&self, parts: Vec<Part>) {
        for part in parts {
            let engine = Arc::clone(&self.engine);
            self.engine.shared.spawn(async move {
                // Readers got the error; what a reader did not ask for is nobody's error.
                part::run(engine, part).await;
            });
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.engine.leave();
        self.engine.shared.forget(&self.engine.digest, self);
    }
}

/// The blocks that a non-empty range touches.
fn blocks_of(range: &Range<u64>) -> Range<u32> {
    let block = BLOCK;
    let number = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    number(range.start / block)..number(range.end.div_ceil(block))
}

/// The part of `range` that lies in `block`, whose bytes are `data`.
fn slice(data: &Bytes, block: u32, range: &Range<u64>) -> Bytes {
    let base = u64::from(block) * BLOCK;
    let start = range.start.saturating_sub(base) as usize;
    let end = (range.end - base).min(data.len() as u64) as usize;
    data.slice(start..end)
}

fn join(range: &Range<u64>, pieces: impl Iterator<Item = Bytes>) -> Bytes {
    let mut all = BytesMut::with_capacity((range.end - range.start) as usize);
    for piece in pieces {
        all.extend_from_slice(&piece);
    }
    all.freeze()
}
