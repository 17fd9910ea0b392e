//! One object version in the hot tier.
//!
//! An instance exists once per digest while anybody holds it (`HotTier::object`), and while it
//! does, the object is not evicted. Its state lock is the first of the order in `mod.rs`; it is
//! held for moments, never during I/O. Reading is in `read.rs`, writing in `write.rs`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::backing::Backing;
use super::blocks::{BlockTable, block_count};
use super::data::DataFile;
use super::error::HotError;
use super::record::EMBEDDED_BLOCKS;
use super::shared::Shared;
use crate::identity::{DatasetKey, Digest, ObjectId};

/// See the module text.
#[derive(Debug)]
pub struct HotObject {
    pub(super) id: ObjectId,
    pub(super) digest: Digest,
    pub(super) dataset: DatasetKey,
    pub(super) shared: Arc<Shared>,
    /// Woken when the creation of the data file has ended.
    pub(super) created: Condvar,
    state: Mutex<State>,
}

/// What changes about an object.
#[derive(Debug)]
pub(super) struct State {
    pub(super) blocks: BlockTable,
    pub(super) data: Data,
    /// Every block is present and checked, and the fingerprint was taken.
    pub(super) filled: bool,
    /// Some of it was written past the page cache, or should have been.
    pub(super) uncached: bool,
}

/// The data file of an object.
#[derive(Debug)]
pub(super) enum Data {
    Absent,
    /// One thread creates it, the others wait.
    Creating,
    Open(Arc<DataFile>),
}

impl State {
    pub(super) fn empty(size: u64) -> Self {
        Self {
            blocks: BlockTable::empty(size),
            data: Data::Absent,
            filled: false,
            uncached: false,
        }
    }

    pub(super) fn file(&self) -> Option<&Arc<DataFile>> {
        match &self.data {
            Data::Open(file) => Some(file),
            _ => None,
        }
    }

    /// Whether `file` still is the file of this object.
    pub(super) fn is_current(&self, file: &Arc<DataFile>) -> bool {
        self.file().is_some_and(|own| Arc::ptr_eq(own, file))
    }
}

impl HotObject {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: &ObjectId,
        digest: Digest,
        dataset: &DatasetKey,
        state: State,
    ) -> Self {
        Self {
            id: id.clone(),
            digest,
            dataset: dataset.clone(),
            shared: Arc::clone(shared),
            created: Condvar::new(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its block table lives in a sidecar.
    pub(super) fn has_sidecar(&self) -> bool {
        block_count(self.id.size()) > EMBEDDED_BLOCKS
    }

    pub(super) fn path(&self) -> PathBuf {
        match self.state().file() {
            Some(file) => file.path.clone(),
            None => self.shared.directory.root.clone(),
        }
    }

    /// The object version this is.
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// All blocks are present and checked. An object found after an unclean boot is present but not
    /// checked; [`HotObject::verify`], or reading all of it, makes it filled.
    pub fn is_filled(&self) -> bool {
        self.id.size() == 0 || self.state().filled
    }

    /// Runs of blocks inside `blocks` that have to be fetched.
    pub fn missing(&self, blocks: Range<u32>) -> Vec<Range<u32>> {
        self.state().blocks.missing(blocks)
    }

    /// Reads and checks every present block that was not checked yet, one by one. Returns whether
    /// the object is filled then; bad blocks are missing afterwards. Dropping it keeps what was
    /// checked so far.
    pub async fn verify(self: &Arc<Self>) -> Result<bool, HotError> {
        let mut from = 0;
        loop {
            let Some(block) = self.state().blocks.first_unverified(from) else {
                return Ok(self.is_filled());
            };
            from = block + 1;
            let object = Arc::clone(self);
            self.shared
                .run_async("verify block", move |_| object.verify_block(block))
                .await?;
        }
    }

    /// The file for passthrough, when the object is filled and the file has its length and
    /// fingerprint. `None`: not filled (yet), or it was just found damaged and has to be fetched.
    ///
    /// After an unclean boot, objects of at most 16 MiB are verified before this returns; larger
    /// ones give `None` until [`HotObject::verify`] was called.
    pub fn backing(self: &Arc<Self>) -> Result<Option<Backing>, HotError> {
        let (filled, waits, present) = {
            let state = self.state();
            let waits = matches!(state.data, Data::Absent) && self.id.size() == 0;
            (state.filled, waits, state.blocks.all_present())
        };
        if waits {
            let object = Arc::clone(self);
            self.shared
                .run("create object", move |_| object.create_empty())?;
        } else if !filled {
            if !present || self.has_sidecar() {
                return Ok(None);
            }
            let object = Arc::clone(self);
            self.shared
                .run("verify object", move |_| object.verify_now())?;
        }
        let state = self.state();
        let Some(file) = state.file().filter(|_| state.filled) else {
            return Ok(None);
        };
        debug_assert!(file.sealed.load(Ordering::Acquire));
        if file.is_untouched() {
            return Ok(Some(Backing::new(Arc::clone(file))));
        }
        let file = Arc::clone(file);
        drop(state);
        self.distrust(&file);
        Ok(None)
    }

    /// Somebody touched the file: its blocks have to prove themselves again, or all of it goes.
    fn distrust(self: &Arc<Self>, file: &Arc<DataFile>) {
        tracing::warn!(object = %self.id, "data file changed behind the hot tier");
        let same_length = file.current().is_ok_and(|now| {
            file.set_fingerprint(now);
            now.size == self.id.size()
        });
        let mut state = self.state();
        if !state.is_current(file) {
            return;
        }
        state.filled = false;
        state.blocks.distrust();
        drop(state);
        if !same_length {
            self.discard(file, "data file has another length");
        }
    }

    /// Forgets all of the object that lies in `file`; the next write begins a new file.
    pub(super) fn discard(&self, file: &Arc<DataFile>, reason: &str) {
        let before = {
            let mut state = self.state();
            if !state.is_current(file) {
                return;
            }
            std::mem::replace(&mut *state, State::empty(self.id.size()))
        };
        tracing::warn!(object = %self.id, reason, "object is forgotten by the hot tier");
        self.shared.forget(&self.digest, Some(file.incarnation));
        drop(before);
    }
}
