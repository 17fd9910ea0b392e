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
//! `flights.rs` moves blocks from absent through flights to writing; [`Engine::settle`] ends the
//! write. All are short, under one lock, without I/O.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::cache::Shared;
use super::flights::Flight;
use super::job::Job;
use super::stats::add;
use super::stream::StreamState;
use crate::hot::{BLOCK, HotError, HotErrorKind, HotObject};
use crate::identity::{DatasetKey, Digest, ObjectId};
use crate::source::Source;
use crate::store::StoreError;

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
    /// Somebody opened it to read it, or is about to.
    pub(super) opened: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) flights: HashMap<u32, Flight>,
    pub(super) writing: HashMap<u32, Bytes>,
    pub(super) streams: Vec<Weak<StreamState>>,
    pub(super) keeping: Keeping,
    pub(super) job: Option<Job>,
    pub(super) changed: Option<StoreError>,
    pub(super) last_part: u64,
}

/// What the hot tier does for this object.
#[derive(Clone, Debug, Default)]
pub(super) enum Keeping {
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
    pub(super) fn readable(&self) -> Option<&Arc<HotObject>> {
        match self {
            Self::On(hot) | Self::ReadOnly(hot) => Some(hot),
            Self::Undecided | Self::Off => None,
        }
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
                self.tell_refusal(error);
                Keeping::Off
            }
        };
        self.lock().keeping = keeping;
        self.note_filled();
        opened
    }

    /// Logs that the hot tier did not take something. A full tier is everyday business, and counted.
    fn tell_refusal(&self, error: &HotError) {
        if error.kind == HotErrorKind::Full {
            tracing::debug!(object = %self.id, %error, "served from memory");
        } else {
            tracing::warn!(object = %self.id, %error, "served from memory: hot tier failed");
        }
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

    /// Ends the write of a block to the hot tier.
    pub(super) fn settle(&self, block: u32, result: Result<(), HotError>) {
        let mut state = self.lock();
        let data = state.writing.remove(&block);
        if let Err(error) = result {
            add(&self.shared.counters.hot_refused, 1);
            if let Keeping::On(hot) = &state.keeping {
                self.tell_refusal(&error);
                state.keeping = Keeping::ReadOnly(Arc::clone(hot));
            }
            if let Some(data) = data {
                self.remember(&state, block, data);
            }
        }
        drop(state);
        self.note_filled();
        self.moved.notify_waiters();
    }

    /// Puts a block into the window. The state's lock orders it before or after [`Engine::leave`],
    /// so that nothing stays there for an object that is gone.
    pub(super) fn remember(&self, _: &State, block: u32, data: Bytes) {
        if !self.gone.is_cancelled() {
            self.shared.window.put(self.serial, block, data);
        }
    }

    /// The last handle is gone: tasks end, memory is given back.
    pub(super) fn leave(&self) {
        self.gone.cancel();
        let _ordered = self.lock();
        self.shared.window.forget(self.serial);
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code under this lock can panic")
    }
}
