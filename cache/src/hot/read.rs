//! Reading: only bytes of verified blocks leave this file.

use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::BLOCK;
use super::data::DataFile;
use super::error::{HotError, HotErrorKind};
use super::health::DiskState;
use super::object::{HotObject, State};
use super::stats::add;

/// What a read found out under the state lock.
struct Plan {
    file: Arc<DataFile>,
    /// Every block of the range was checked before.
    verified: bool,
}

impl HotObject {
    /// The bytes of `range`, cut off at the end of the object. `None`: a block is missing or was
    /// just quarantined, so fetch it. Errors of any kind are a miss. Cancelled by dropping.
    pub async fn read(self: &Arc<Self>, range: Range<u64>) -> Result<Option<Bytes>, HotError> {
        let range = self.clip(range);
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        if self.plan(&range).is_none() {
            return Ok(None);
        }
        let object = Arc::clone(self);
        self.shared
            .run_async("read block", move |_| object.read_here(range))
            .await
    }

    /// Like [`HotObject::read`], on the calling thread and without ever waiting for the disk.
    /// `None` also when the bytes are present but not in the page cache, or not yet verified: a
    /// caller that may wait asks [`HotObject::read`] before it fetches.
    pub fn read_now(&self, range: Range<u64>) -> Result<Option<Bytes>, HotError> {
        let range = self.clip(range);
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let Some(plan) = self.plan(&range).filter(|plan| plan.verified) else {
            return Ok(None);
        };
        if self.shared.health.state() == DiskState::Down {
            return Ok(None);
        }
        let mut buffer = vec![0; (range.end - range.start) as usize];
        if !super::sys::read_cached(&plan.file.file, &mut buffer, range.start) {
            return Ok(None);
        }
        add(&self.shared.counters.read_bytes, buffer.len() as u64);
        Ok(Some(Bytes::from(buffer)))
    }

    fn clip(&self, range: Range<u64>) -> Range<u64> {
        range.start..range.end.min(self.id.size())
    }

    fn plan(&self, range: &Range<u64>) -> Option<Plan> {
        let state = self.state();
        let file = Arc::clone(state.file()?);
        let mut verified = true;
        for block in blocks_of(range) {
            if !state.blocks.is_present(block) {
                return None;
            }
            verified &= state.blocks.is_verified(block);
        }
        Some(Plan { file, verified })
    }

    /// Reads on a thread that may hang.
    fn read_here(self: &Arc<Self>, range: Range<u64>) -> Result<Option<Bytes>, HotError> {
        let Some(plan) = self.plan(&range) else {
            return Ok(None);
        };
        let mut buffer = vec![0; (range.end - range.start) as usize];
        if plan.verified {
            if !self.read_exact(&plan.file, &mut buffer, range.start)? {
                return Ok(None);
            }
        } else {
            for block in blocks_of(&range) {
                let Some(data) = self.checked_block(&plan.file, block)? else {
                    return Ok(None);
                };
                let start = u64::from(block) * BLOCK;
                let from = range.start.max(start);
                let to = range.end.min(start + data.len() as u64);
                buffer[(from - range.start) as usize..(to - range.start) as usize]
                    .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
            }
            self.note_filled()?;
        }
        add(&self.shared.counters.read_bytes, buffer.len() as u64);
        Ok(Some(Bytes::from(buffer)))
    }

    /// Reads and checks one block; `None` when it failed and was quarantined.
    fn checked_block(
        self: &Arc<Self>,
        file: &Arc<DataFile>,
        block: u32,
    ) -> Result<Option<Vec<u8>>, HotError> {
        let (span, crc) = {
            let state = self.state();
            if !state.is_current(file) || !state.blocks.is_present(block) {
                return Ok(None);
            }
            (state.blocks.span(block), state.blocks.crc(block))
        };
        let mut data = vec![0; (span.end - span.start) as usize];
        if !self.read_exact(file, &mut data, span.start)? {
            return Ok(None);
        }
        add(&self.shared.counters.verified_blocks, 1);
        if crc32c::crc32c(&data) != crc {
            self.quarantine(file, block, Some(&data));
            return Ok(None);
        }
        let mut state = self.state();
        if state.is_current(file) && state.blocks.is_present(block) {
            state.blocks.mark_verified(block);
        }
        Ok(Some(data))
    }

    /// Fills `buffer`; `false` when the file is too short, which forgets the object. A disk error
    /// is returned, and quarantines the blocks unless the whole disk is failing.
    fn read_exact(
        self: &Arc<Self>,
        file: &Arc<DataFile>,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<bool, HotError> {
        match file.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                self.discard(file, "data file was truncated");
                add(&self.shared.counters.quarantined_blocks, 1);
                Ok(false)
            }
            Err(e) => {
                let error = HotError::io("read block", &file.path, &e);
                if error.kind == HotErrorKind::Io
                    && self.shared.health.state() == DiskState::Healthy
                {
                    for block in blocks_of(&(offset..offset + buffer.len() as u64)) {
                        self.quarantine(file, block, None);
                    }
                }
                Err(error)
            }
        }
    }

    /// Checks one block on a thread that may hang.
    pub(super) fn verify_block(self: &Arc<Self>, block: u32) -> Result<(), HotError> {
        let file = self.state().file().map(Arc::clone);
        if let Some(file) = file {
            self.checked_block(&file, block)?;
            self.note_filled()?;
        }
        Ok(())
    }

    /// Checks every block of a small object on a thread that may hang.
    pub(super) fn verify_now(self: &Arc<Self>) -> Result<(), HotError> {
        let mut from = 0;
        loop {
            let Some(block) = self.state().blocks.first_unverified(from) else {
                return self.note_filled();
            };
            from = block + 1;
            self.verify_block(block)?;
        }
    }

    /// Takes a bad block out of use. A sealed file is left as it is and the object moves on.
    pub(super) fn quarantine(&self, file: &Arc<DataFile>, block: u32, data: Option<&[u8]>) {
        add(&self.shared.counters.quarantined_blocks, 1);
        tracing::error!(object = %self.id, block, "block fails its checksum and is quarantined");
        if let Some(data) = data {
            self.shared
                .keep_evidence(&self.digest, file.incarnation, block, data);
        }
        if file.sealed.load(Ordering::Acquire) {
            self.discard(file, "a block of the sealed file is bad");
            return;
        }
        let mut state = self.state();
        if state.is_current(file) {
            state.blocks.remove(block);
            state.filled = false;
        }
    }
}

/// Blocks that `range` touches.
pub(super) fn blocks_of(range: &Range<u64>) -> Range<u32> {
    let first = range.start / BLOCK;
    let last = range.end.div_ceil(BLOCK);
    // Ranges are clipped to the object, whose block count fits.
    first as u32..last as u32
}

impl State {
    /// Whether the object can become filled now.
    pub(super) fn is_ready(&self) -> bool {
        !self.filled && self.file().is_some() && self.blocks.all_verified()
    }
}
