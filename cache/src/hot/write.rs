//! Writing: blocks come in in any order, each once, and the last one seals the file.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::data::DataFile;
use super::error::{HotError, HotErrorKind};
use super::object::{Data, HotObject};
use super::stats::add;
use super::table::Entry;
use super::{blocks, directory, sys};

/// Whether somebody is about to read what is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteHint {
    /// Keep the bytes in the page cache.
    #[default]
    Cached,
    /// A background fill that nobody waits for: do not let it push others out of the page cache.
    Uncached,
}

impl HotObject {
    /// Stores a block and its checksum. Any order; a block that is present already is left alone.
    ///
    /// Errors: `Corrupt` for a wrong length or index, `Full`, `Io`, `Timeout`, `Closed`. Dropping
    /// the future does not stop a write that began; the block may or may not be there then.
    pub async fn write(self: &Arc<Self>, block: u32, data: Bytes) -> Result<(), HotError> {
        self.write_with(block, data, WriteHint::Cached).await
    }

    /// [`HotObject::write`] with a hint for the page cache.
    pub async fn write_with(
        self: &Arc<Self>,
        block: u32,
        data: Bytes,
        hint: WriteHint,
    ) -> Result<(), HotError> {
        self.check_block(block, data.len())?;
        let object = Arc::clone(self);
        self.shared
            .run_async("write block", move |_| {
                object.write_here(block, &data, hint)
            })
            .await
    }

    /// Reserves room for the whole object and creates its file, so that a full disk is known before
    /// anything is fetched. Optional: the first write does the same.
    pub async fn prepare(self: &Arc<Self>) -> Result<(), HotError> {
        let object = Arc::clone(self);
        self.shared
            .run_async("create object", move |_| object.data_file().map(|_| ()))
            .await
    }

    fn check_block(&self, block: u32, length: usize) -> Result<(), HotError> {
        let expected = {
            let state = self.state();
            (block < state.blocks.count()).then(|| state.blocks.span(block))
        };
        match expected {
            Some(span) if span.end - span.start == length as u64 => Ok(()),
            Some(span) => {
                let expected = span.end - span.start;
                let reason = format!("block {block} has {length} bytes instead of {expected}");
                Err(HotError::corrupt("write block", &self.path(), reason))
            }
            None => {
                let reason = format!("the object has no block {block}");
                Err(HotError::corrupt("write block", &self.path(), reason))
            }
        }
    }

    fn write_here(
        self: &Arc<Self>,
        block: u32,
        data: &[u8],
        hint: WriteHint,
    ) -> Result<(), HotError> {
        let file = self.data_file()?;
        if !self.state().blocks.missing(block..block + 1).is_empty() {
            let crc = crc32c::crc32c(data);
            let hold = self.charge_block(data.len() as u64)?;
            self.write_bytes(&file, block, data, hint)?;
            self.record_block(&file, block, crc, hold, hint);
        }
        self.note_filled()
    }

    fn write_bytes(
        &self,
        file: &Arc<DataFile>,
        block: u32,
        data: &[u8],
        hint: WriteHint,
    ) -> Result<(), HotError> {
        let offset = self.state().blocks.span(block).start;
        let write = || match hint {
            WriteHint::Cached => sys::write_all(&file.file, data, offset),
            WriteHint::Uncached => self
                .shared
                .uncached
                .write(&file.file, data, offset)
                .map(|_| ()),
        };
        let fail = |e: &std::io::Error| HotError::io("write block", &file.path, e);
        match write() {
            Ok(()) => Ok(()),
            Err(e) if fail(&e).kind == HotErrorKind::Full => {
                // The file system is fuller than statvfs(2) said: make room once and try again.
                self.shared.make_room_by_force(data.len() as u64)?;
                write().map_err(|e| fail(&e))
            }
            Err(e) => Err(fail(&e)),
        }
    }

    fn record_block(
        self: &Arc<Self>,
        file: &Arc<DataFile>,
        block: u32,
        crc: u32,
        hold: Option<super::Reservation>,
        hint: WriteHint,
    ) {
        let mut state = self.state();
        let span = state.blocks.span(block);
        let length = span.end - span.start;
        add(&self.shared.counters.written_bytes, length);
        if !state.is_current(file) {
            return;
        }
        state.blocks.insert(block, crc);
        state.uncached |= hint == WriteHint::Uncached;
        let present = state.blocks.present_bytes();
        let ready = state.is_ready();
        let mut catalogue = self.shared.catalogue();
        if !self.is_whole() {
            let charged = catalogue.table.get(&self.digest).map_or(0, Entry::charged);
            catalogue.set_charged(&self.digest, charged + length);
        }
        // Under the lock, as in `create`.
        drop(hold);
        if let Some(entry) = catalogue.table.get_mut(&self.digest) {
            entry.set_present(present);
            if !ready {
                catalogue.dirty.insert(self.digest, Arc::clone(self));
            }
        }
    }

    /// Room for one block of an object that is too large to be charged as a whole.
    fn charge_block(&self, length: u64) -> Result<Option<super::Reservation>, HotError> {
        if self.is_whole() {
            return Ok(None);
        }
        self.shared.reserve_here(length, 0).map(Some)
    }

    /// Whether its space is reserved as a whole on creation. An object of more than a quarter of
    /// the budget is not: somebody may only want a part of it.
    fn is_whole(&self) -> bool {
        self.id.size() <= self.shared.config.limit_bytes / 4
    }

    /// The data file; created by the first caller while others wait.
    pub(super) fn data_file(self: &Arc<Self>) -> Result<Arc<DataFile>, HotError> {
        let mut state = self.state();
        loop {
            match &state.data {
                Data::Open(file) => return Ok(Arc::clone(file)),
                Data::Absent => break,
                Data::Creating => {
                    let limit = self.shared.config.operation_timeout;
                    let waited = self.created.wait_timeout(state, limit);
                    let (guard, result) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
                    state = guard;
                    if result.timed_out() && matches!(state.data, Data::Creating) {
                        drop(state);
                        let reason = "the data file was not created in time";
                        let kind = HotErrorKind::Timeout;
                        return Err(HotError::new(kind, "create object", &self.path(), reason));
                    }
                }
            }
        }
        state.data = Data::Creating;
        drop(state);
        let result = self.create();
        let mut state = self.state();
        state.data = match &result {
            Ok(file) => Data::Open(Arc::clone(file)),
            Err(_) => Data::Absent,
        };
        drop(state);
        self.created.notify_all();
        result
    }

    fn create(&self) -> Result<Arc<DataFile>, HotError> {
        let shared = &self.shared;
        let size = self.id.size();
        let sidecar = if self.has_sidecar() {
            blocks::BlockTable::encoded_length(blocks::block_count(size)) as u64
        } else {
            0
        };
        let charge = if self.is_whole() { size } else { 0 } + sidecar;
        let hold = shared.reserve_here(charge, 1 + u64::from(self.has_sidecar()))?;
        shared.wait_until_left(&self.digest)?;
        let file = match self.create_file(size) {
            Err(error) if error.kind == HotErrorKind::Full => {
                shared.make_room_by_force(charge)?;
                self.create_file(size)?
            }
            other => other?,
        };
        let file = Arc::new(file);
        let mut entry = Entry::new(self.digest, charge);
        entry.used_at = sys::now_seconds();
        entry.dirty = true;
        let takes = entry.charged().max(size);
        let mut catalogue = shared.catalogue();
        catalogue.insert(entry);
        catalogue.set_file(self.digest, &file);
        // Under the lock: whoever looks for room must not count this object twice.
        drop(hold);
        drop(catalogue);
        shared.policy().inserted(&self.dataset, self.digest, takes);
        Ok(file)
    }

    fn create_file(&self, size: u64) -> Result<DataFile, HotError> {
        let shared = &self.shared;
        let (incarnation, path, file) = loop {
            let incarnation = shared.next_incarnation();
            let path = shared.directory.data(&self.digest, incarnation);
            match directory::new_file().open(&path) {
                Ok(file) => break (incarnation, path, file),
                // Left behind by a run whose index is lost. The sweep will come to it.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(HotError::io("create object", &path, &e)),
            }
        };
        if self.has_sidecar() {
            let sized = if self.is_whole() {
                sys::allocate(&file, size)
            } else {
                file.set_len(size)
            };
            if let Err(e) = sized {
                directory::remove(&path)?;
                return Err(HotError::io("allocate object", &path, &e));
            }
        }
        let file = DataFile::new(file, path, incarnation, &shared.ledger);
        file.written.store(true, Ordering::Release);
        Ok(file)
    }

    /// An object without bytes still needs a file to be handed out.
    pub(super) fn create_empty(self: &Arc<Self>) -> Result<(), HotError> {
        self.data_file()?;
        self.note_filled()
    }

    /// Seals the file, records it and queues it for the group sync, once every block is verified.
    pub(super) fn note_filled(self: &Arc<Self>) -> Result<(), HotError> {
        let mut state = self.state();
        if !state.is_ready() {
            return Ok(());
        }
        let Some(file) = state.file().map(Arc::clone) else {
            return Ok(());
        };
        let now = file
            .current()
            .map_err(|e| HotError::io("stat object", &file.path, &e))?;
        if now.size != self.id.size() {
            drop(state);
            self.discard(&file, "data file has another length");
            return Ok(());
        }
        if !file.written.load(Ordering::Acquire) && now != file.fingerprint() {
            // Touched while it was being verified: begin again with what is there now.
            file.set_fingerprint(now);
            state.blocks.distrust();
            return Ok(());
        }
        file.set_fingerprint(now);
        file.sealed.store(true, Ordering::Release);
        state.filled = true;
        drop(state);
        self.shared.record_filled(self);
        self.shared.queue_commit(self);
        Ok(())
    }
}
