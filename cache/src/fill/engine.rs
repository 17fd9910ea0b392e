//! One object's state: where each block is, and who waits for it.
//!
//! A block is in the first of these that applies:
//!
//! ```text
//! writing   arrived, on its way to the hot tier     (memory, under a budget's room)
//! window    arrived recently                        (memory, bounded)
//! hot       the hot tier says it has it             (disk)
//! flights   a part asked the source for it          (waiters)
//! absent    none of these: claim it
//! ```
//!
//! [`Engine::locate`] and [`Engine::claim`] move blocks from absent to flights and return the
//! parts to run; [`Engine::deliver`] ends a flight; [`Engine::settle`] ends the write. All are
//! short, under one lock, without I/O.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::budget::Class;
use super::cache::Shared;
use super::error::ReadError;
use super::job::Job;
use super::part::Part;
use super::stats::add;
use super::stream::StreamState;
use crate::hot::{BLOCK, HotError, HotObject, WriteHint};
use crate::identity::{DatasetKey, Digest, ObjectId};
use crate::source::Source;
use crate::store::{StoreError, StoreErrorKind};

/// What a waiter gets.
pub(super) type Landing = Result<Bytes, Lost>;

/// Why a block did not come with the part that was to bring it.
#[derive(Clone, Debug)]
pub(super) enum Lost {
    /// The source could not give it.
    Failed(ReadError),
    /// The part ended, with this error, before it came to this block: ask for the block alone.
    Again(ReadError),
}

/// Where a block is, for a reader.
#[derive(Debug)]
pub(super) enum Place {
    Memory(Bytes),
    Hot,
    Coming(oneshot::Receiver<Landing>),
}

/// State of one object while a handle or a task holds it. See the module text.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) id: ObjectId,
    pub(super) digest: Digest,
    pub(super) dataset: DatasetKey,
    pub(super) source: Arc<dyn Source>,
    /// Names this engine in the window.
    pub(super) serial: u64,
    /// Told after every delivery, settlement and failure.
    pub(super) moved: Notify,
    pub(super) filled: watch::Sender<bool>,
    /// Cancelled when the last handle is gone or the cache stops.
    pub(super) gone: CancellationToken,
    /// Somebody opened it to read it.
    pub(super) opened: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    flights: HashMap<u32, Flight>,
    writing: HashMap<u32, Bytes>,
    streams: Vec<Weak<StreamState>>,
    keeping: Keeping,
    job: Option<Job>,
    changed: Option<StoreError>,
    last_part: u64,
}

/// A block on its way from the source.
#[derive(Debug)]
struct Flight {
    part: u64,
    waiters: Vec<oneshot::Sender<Landing>>,
}

/// What the hot tier does for this object.
#[derive(Clone, Debug, Default)]
enum Keeping {
    /// Nobody asked yet.
    #[default]
    Undecided,
    /// Reads and writes.
    On(Arc<HotObject>),
    /// Reads what is there; new blocks stay in memory.
    ReadOnly(Arc<HotObject>),
    /// Everything stays in memory.
    Off,
}

impl Keeping {
    fn readable(&self) -> Option<&Arc<HotObject>> {
        match self {
            Self::On(hot) | Self::ReadOnly(hot) => Some(hot),
            Self::Undecided | Self::Off => None,
        }
    }
}

/// Answers whether the hot tier has a block of the range it was asked about.
struct HotView(Vec<Range<u32>>);

impl HotView {
    fn of(keeping: &Keeping, blocks: Range<u32>) -> Self {
        Self(match keeping.readable() {
            Some(hot) => hot.missing(blocks),
            None => vec![blocks],
        })
    }

    fn has(&self, block: u32) -> bool {
        !self.0.iter().any(|range| range.contains(&block))
    }
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ObjectId,
        digest: Digest,
        dataset: DatasetKey,
        source: Arc<dyn Source>,
    ) -> Self {
        let serial = shared.next_serial();
        let gone = shared.stop.child_token();
        let (moved, opened, state) = (Notify::new(), AtomicBool::new(false), Mutex::default());
        let filled = watch::Sender::new(id.size() == 0);
        Self {
            shared,
            id,
            digest,
            dataset,
            source,
            serial,
            moved,
            filled,
            gone,
            opened,
            state,
        }
    }

    /// Number of blocks.
    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.id.size().div_ceil(BLOCK)).unwrap_or(u32::MAX)
    }

    /// Bytes of `blocks`.
    pub(super) fn bytes_of(&self, blocks: &Range<u32>) -> Range<u64> {
        let block = BLOCK;
        let end = (u64::from(blocks.end) * block).min(self.id.size());
        u64::from(blocks.start) * block..end
    }

    /// The object in the hot tier, for reading; opens it on first use.
    pub(super) fn hot(&self) -> Option<Arc<HotObject>> {
        let keeping = self.lock().keeping.clone();
        match keeping {
            Keeping::Undecided => self.keep().ok(),
            other => other.readable().map(Arc::clone),
        }
    }

    /// Makes new blocks go to the hot tier.
    pub(super) fn keep(&self) -> Result<Arc<HotObject>, HotError> {
        if let Keeping::On(hot) = &self.lock().keeping {
            return Ok(Arc::clone(hot));
        }
        // Opening may touch the disk, so not under the lock. Two threads get the same instance.
        let opened = self.shared.hot.object(&self.id, &self.dataset);
        let keeping = match &opened {
            Ok(hot) => Keeping::On(Arc::clone(hot)),
            Err(error) => {
                tracing::warn!(object = %self.id, %error, "serve from memory: hot tier refuses");
                Keeping::Off
            }
        };
        self.lock().keeping = keeping;
        self.note_filled();
        opened
    }

    /// Makes new blocks stay in memory, unless the object is being kept already.
    pub(super) fn bypass(&self) {
        let resident = self.shared.hot.peek(&self.digest).is_some();
        let undecided = matches!(self.lock().keeping, Keeping::Undecided);
        if undecided && resident && self.keep().is_ok() {
            self.stop_writing();
        } else if undecided {
            self.lock().keeping = Keeping::Off;
        }
    }

    /// Whether new blocks go to the hot tier.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.lock().keeping, Keeping::On(_))
    }

    fn stop_writing(&self) {
        let mut state = self.lock();
        if let Keeping::On(hot) = &state.keeping {
            state.keeping = Keeping::ReadOnly(Arc::clone(hot));
        }
    }

    /// Brings the completion flag in line with the hot tier.
    pub(super) fn note_filled(&self) {
        let hot = self.lock().keeping.readable().map(Arc::clone);
        let filled = hot.is_some_and(|hot| hot.is_filled()) || self.id.size() == 0;
        self.filled
            .send_if_modified(|was| std::mem::replace(was, filled) != filled);
    }

    /// A block in memory, without waiting.
    pub(super) fn in_memory(&self, block: u32) -> Option<Bytes> {
        let writing = self.lock().writing.get(&block).cloned();
        writing.or_else(|| self.shared.window.get(self.serial, block))
    }

    /// The error that every miss of this object answers.
    pub(super) fn changed(&self) -> Option<StoreError> {
        self.lock().changed.clone()
    }

    /// Finds each of `blocks` for a reader. Those that are nowhere are claimed; the parts that
    /// bring them are returned and must be run. `distrust_hot` fetches what the hot tier was just
    /// unable to read.
    pub(super) fn locate(
        &self,
        blocks: Range<u32>,
        distrust_hot: bool,
    ) -> Result<(Vec<Place>, Vec<Part>), ReadError> {
        let mut state = self.lock();
        let view = match distrust_hot {
            true => HotView(vec![blocks.clone()]),
            false => HotView::of(&state.keeping, blocks.clone()),
        };
        // Known before the first claim, so that an error leaves no claim behind.
        let closed = self.open_to_fetch(&state).err();
        let mut places = Vec::with_capacity(blocks.len());
        let mut claimed: Vec<Range<u32>> = Vec::new();
        for block in blocks {
            if let Some(place) = self.held(&state, block, &view) {
                places.push(place);
                continue;
            }
            let (sender, receiver) = oneshot::channel();
            if let Some(flight) = state.flights.get_mut(&block) {
                add(&self.shared.counters.joined, 1);
                flight.waiters.push(sender);
                places.push(Place::Coming(receiver));
                continue;
            }
            if let Some(error) = closed {
                return Err(error);
            }
            places.push(Place::Coming(receiver));
            match claimed.last_mut() {
                Some(run) if run.end == block => run.end += 1,
                _ => claimed.push(block..block + 1),
            }
            // Part numbers are given below; 0 is no part's number.
            state.flights.insert(
                block,
                Flight {
                    part: 0,
                    waiters: vec![sender],
                },
            );
        }
        let parts = claimed
            .into_iter()
            .flat_map(|run| self.cut(run))
            .map(|run| start_part(&mut state, run, Class::Demand, None))
            .collect();
        Ok((places, parts))
    }

    /// Claims what is absent from `blocks`, in parts of the configured length, at most `most`
    /// parts. For readahead and fills.
    pub(super) fn claim(
        &self,
        blocks: Range<u32>,
        owner: &CancellationToken,
        most: usize,
    ) -> Vec<Part> {
        let mut state = self.lock();
        if self.open_to_fetch(&state).is_err() {
            return Vec::new();
        }
        let gaps = match state.keeping.readable() {
            Some(hot) => hot.missing(blocks),
            None => vec![blocks],
        };
        let absent = |state: &State, block: u32| {
            !state.flights.contains_key(&block)
                && !state.writing.contains_key(&block)
                && !self.shared.window.has(self.serial, block)
        };
        let longest = self.shared.config.part_blocks();
        let mut parts = Vec::new();
        for gap in gaps {
            let mut block = gap.start;
            while block < gap.end && parts.len() < most {
                let start = block;
                while block < gap.end && block - start < longest && absent(&state, block) {
                    block += 1;
                }
                if block == start {
                    block += 1;
                    continue;
                }
                for claimed in start..block {
                    state.flights.insert(
                        claimed,
                        Flight {
                            part: 0,
                            waiters: Vec::new(),
                        },
                    );
                }
                let owner = Some(owner.clone());
                parts.push(start_part(&mut state, start..block, Class::Ahead, owner));
            }
        }
        parts
    }

    /// A block of `blocks` that is in memory but neither in nor on its way to the hot tier, and
    /// that the object should be kept with.
    pub(super) fn unkept(&self, blocks: Range<u32>) -> Option<(u32, Bytes, Arc<HotObject>)> {
        let mut state = self.lock();
        let Keeping::On(hot) = &state.keeping else {
            return None;
        };
        let hot = Arc::clone(hot);
        let missing = hot.missing(blocks).into_iter().flatten();
        let (block, data) = missing
            .filter(|block| !state.writing.contains_key(block))
            .find_map(|block| Some((block, self.shared.window.get(self.serial, block)?)))?;
        state.writing.insert(block, data.clone());
        Some((block, data, hot))
    }

    /// Ends the flight of a block: hands it to whoever waits. Returns the hot object it is to be
    /// written to; [`Engine::settle`] must follow.
    pub(super) fn deliver(
        &self,
        part: u64,
        block: u32,
        data: &Bytes,
    ) -> Option<(Arc<HotObject>, WriteHint)> {
        let mut state = self.lock();
        let waiters = match state.flights.get(&block) {
            Some(flight) if flight.part == part => {
                state.flights.remove(&block).map(|flight| flight.waiters)
            }
            _ => None,
        };
        let waiters = waiters.unwrap_or_default();
        let hot = match &state.keeping {
            Keeping::On(hot) => Some(Arc::clone(hot)),
            Keeping::Undecided | Keeping::ReadOnly(_) | Keeping::Off => None,
        };
        if hot.is_some() {
            state.writing.insert(block, data.clone());
        }
        let expected = || {
            let live = |stream: &Weak<StreamState>| stream.upgrade();
            state
                .streams
                .iter()
                .filter_map(live)
                .any(|stream| stream.expects(block))
        };
        let read_soon = !waiters.is_empty() || expected();
        if hot.is_none() || read_soon {
            self.shared.window.put(self.serial, block, data.clone());
        }
        drop(state);
        for waiter in waiters {
            // A reader that went away does not want it.
            let _ = waiter.send(Ok(data.clone()));
        }
        self.moved.notify_waiters();
        // A warm up, which opens nothing, leaves the page cache to others.
        let hint = match read_soon || self.opened.load(Relaxed) {
            true => WriteHint::Cached,
            false => WriteHint::Uncached,
        };
        hot.map(|hot| (hot, hint))
    }

    /// Ends the write of a block to the hot tier.
    pub(super) fn settle(&self, block: u32, result: Result<(), HotError>) {
        let data = self.lock().writing.remove(&block);
        if let Err(error) = result {
            add(&self.shared.counters.hot_refused, 1);
            if self.is_kept() {
                tracing::warn!(object = %self.id, block, %error, "serve from memory: hot tier");
            }
            self.stop_writing();
            if let Some(data) = data {
                self.shared.window.put(self.serial, block, data);
            }
        }
        self.note_filled();
        self.moved.notify_waiters();
    }

    /// Gives up the rest of a part when no reader waits for it; says whether it did.
    pub(super) fn abandon(&self, part: u64, blocks: Range<u32>) -> bool {
        let mut state = self.lock();
        let ours = |state: &State, block: &u32| {
            state
                .flights
                .get(block)
                .is_some_and(|flight| flight.part == part)
        };
        let awaited = blocks
            .clone()
            .filter(|block| ours(&state, block))
            .any(|block| {
                state.flights[&block]
                    .waiters
                    .iter()
                    .any(|waiter| !waiter.is_closed())
            });
        if awaited {
            return false;
        }
        for block in blocks {
            if ours(&state, &block) {
                state.flights.remove(&block);
            }
        }
        drop(state);
        self.moved.notify_waiters();
        true
    }

    /// Ends the rest of a part with an error. Readers of `at` get it (all readers when `None`);
    /// readers of later blocks ask again, unless nothing can come of it.
    pub(super) fn fail(&self, part: u64, blocks: Range<u32>, at: Option<u32>, error: &ReadError) {
        let mut state = self.lock();
        let mut final_for_all = at.is_none() || matches!(error, ReadError::Closed);
        if let ReadError::Store(error) = error
            && error.kind == StoreErrorKind::Changed
        {
            final_for_all = true;
            state.changed.get_or_insert_with(|| error.clone());
        }
        let mut lost = Vec::new();
        for block in blocks {
            if state
                .flights
                .get(&block)
                .is_some_and(|flight| flight.part == part)
                && let Some(flight) = state.flights.remove(&block)
            {
                lost.push((block, flight.waiters));
            }
        }
        drop(state);
        for (block, waiters) in lost {
            for waiter in waiters {
                let answer = match final_for_all || at == Some(block) {
                    true => Lost::Failed(error.clone()),
                    false => Lost::Again(error.clone()),
                };
                let _ = waiter.send(Err(answer));
            }
        }
        self.moved.notify_waiters();
    }

    /// Remembers a reader, so that what it is about to ask for stays in memory.
    pub(super) fn register(&self, stream: &Arc<StreamState>) {
        let mut state = self.lock();
        state.streams.retain(|known| known.strong_count() > 0);
        if !state
            .streams
            .iter()
            .any(|known| known.as_ptr() == Arc::as_ptr(stream))
        {
            state.streams.push(Arc::downgrade(stream));
        }
    }

    /// Where a fill begins: with what a reader will ask for next.
    pub(super) fn first_wanted(&self) -> u32 {
        let state = self.lock();
        let next = state
            .streams
            .iter()
            .filter_map(Weak::upgrade)
            .map(|stream| stream.next())
            .min();
        next.filter(|next| *next < self.total()).unwrap_or(0)
    }

    /// Runs `act` on the slot of the whole-object fill.
    pub(super) fn with_job<T>(&self, act: impl FnOnce(&mut Option<Job>) -> T) -> T {
        act(&mut self.lock().job)
    }

    fn held(&self, state: &State, block: u32, view: &HotView) -> Option<Place> {
        let memory = state.writing.get(&block).cloned();
        if let Some(data) = memory.or_else(|| self.shared.window.get(self.serial, block)) {
            return Some(Place::Memory(data));
        }
        view.has(block).then_some(Place::Hot)
    }

    fn open_to_fetch(&self, state: &State) -> Result<(), ReadError> {
        match &state.changed {
            Some(error) => Err(ReadError::Store(error.clone())),
            None if self.gone.is_cancelled() => Err(ReadError::Closed),
            None => Ok(()),
        }
    }

    fn cut(&self, run: Range<u32>) -> impl Iterator<Item = Range<u32>> + use<> {
        let longest = self.shared.config.part_blocks();
        run.clone()
            .step_by(longest as usize)
            .map(move |start| start..run.end.min(start.saturating_add(longest)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code under this lock can panic")
    }
}

/// Numbers a part whose blocks are claimed.
fn start_part(
    state: &mut State,
    blocks: Range<u32>,
    class: Class,
    owner: Option<CancellationToken>,
) -> Part {
    state.last_part += 1;
    let number = state.last_part;
    for block in blocks.clone() {
        if let Some(flight) = state.flights.get_mut(&block) {
            flight.part = number;
        }
    }
    Part {
        number,
        blocks,
        class,
        owner,
    }
}
