//! Blocks on their way: who claims one, who waits for it, and how its flight ends.
//!
//! Part of [`Engine`]. [`Engine::locate`] and [`Engine::claim`] move blocks from absent to in flight
//! and return the parts to run; [`Engine::deliver`], [`Engine::abandon`] and [`Engine::fail`] end
//! the flight. A block in flight belongs to the part with its number, so the end of an old part
//! cannot touch the flight of a newer one.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::budget::Class;
use super::engine::{Engine, Keeping, State};
use super::error::ReadError;
use super::part::Part;
use super::stats::add;
use super::stream::StreamState;
use crate::hot::{HotObject, WriteHint};
use crate::store::StoreErrorKind;

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

/// A block on its way from the source.
#[derive(Debug)]
pub(super) struct Flight {
    part: u64,
    waiters: Vec<oneshot::Sender<Landing>>,
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
            self.remember(&state, block, data.clone());
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

    /// Waits until every block is in memory or in the hot tier.
    pub(super) async fn arrived(&self) {
        loop {
            // Before the look, so that no movement after it is missed.
            let moved = self.moved.notified();
            if self.is_at_hand() {
                return;
            }
            moved.await;
        }
    }

    fn is_at_hand(&self) -> bool {
        let state = self.lock();
        let view = HotView::of(&state.keeping, 0..self.total());
        (0..self.total()).all(|block| {
            state.writing.contains_key(&block)
                || self.shared.window.has(self.serial, block)
                || view.has(block)
        })
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
