//! From an index record to the state of an object: what of it can be believed.

use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blocks::BlockTable;
use super::data::DataFile;
use super::error::{HotError, HotErrorKind};
use super::object::{Data, State};
use super::record::Record;
use super::shared::Shared;
use super::sidecar;
use crate::identity::Digest;

impl Shared {
    /// The state of a resident object. What cannot be believed is forgotten, and the state empty.
    /// `held` is its data file if a backing still has it open.
    pub(super) fn load(
        &self,
        digest: &Digest,
        size: u64,
        held: Option<Arc<DataFile>>,
    ) -> Result<State, HotError> {
        let record = match self.recorded(digest) {
            Ok(record) => record,
            Err(error) if error.kind == HotErrorKind::Corrupt => {
                tracing::warn!(%error, "object is forgotten by the hot tier");
                None
            }
            Err(error) => return Err(error),
        };
        let Some(record) = record.filter(|record| record.size == size) else {
            self.forget(digest, None);
            return Ok(State::empty(size));
        };
        match self.believe(digest, &record, held) {
            Ok(state) => Ok(state),
            Err(error) if error.kind == HotErrorKind::Corrupt => {
                tracing::warn!(%error, "object is forgotten by the hot tier");
                self.forget(digest, Some(record.incarnation));
                Ok(State::empty(size))
            }
            Err(error) => Err(error),
        }
    }

    fn believe(
        &self,
        digest: &Digest,
        record: &Record,
        held: Option<Arc<DataFile>>,
    ) -> Result<State, HotError> {
        let held = held.filter(|file| file.incarnation == record.incarnation);
        let file = match held {
            Some(file) => file,
            None => Arc::new(self.open_data(digest, record)?),
        };
        let now = file
            .current()
            .map_err(|e| HotError::io("stat object", &file.path, &e))?;
        if now.size > record.size || (record.stage.is_sealed() && now.size != record.size) {
            let reason = format!("file has {} bytes instead of {}", now.size, record.size);
            return Err(HotError::corrupt("open object", &file.path, reason));
        }
        let mut blocks = match &record.table {
            Some(table) => table.clone(),
            None => self.read_sidecar(digest, record)?,
        };
        let mut filled = false;
        if record.stage.is_sealed() {
            if !blocks.all_present() {
                let reason = "the record says filled and the block table does not";
                return Err(HotError::corrupt("open object", &file.path, reason));
            }
            filled = self.trust.believes(record.epoch) && now == record.fingerprint;
            // Another worker may have handed it out, so it is never written to again.
            file.sealed.store(true, Ordering::Release);
        }
        file.written
            .store(!record.stage.is_sealed(), Ordering::Release);
        file.set_fingerprint(now);
        if filled {
            blocks.trust();
        }
        Ok(State {
            blocks,
            data: Data::Open(file),
            filled,
            uncached: false,
        })
    }

    fn open_data(&self, digest: &Digest, record: &Record) -> Result<DataFile, HotError> {
        let path = self.directory.data(digest, record.incarnation);
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(!record.stage.is_sealed());
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NOATIME);
        match options.open(&path) {
            Ok(file) => Ok(DataFile::new(file, path, record.incarnation, &self.ledger)),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(HotError::corrupt("open object", &path, "data file is gone"))
            }
            Err(e) => Err(HotError::io("open object", &path, &e)),
        }
    }

    /// The block table of a large object. Errors: `Corrupt` when it cannot be believed.
    pub(super) fn read_sidecar(
        &self,
        digest: &Digest,
        record: &Record,
    ) -> Result<BlockTable, HotError> {
        let path = self.directory.sidecar(digest, record.incarnation);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(HotError::corrupt("read sidecar", &path, "sidecar is gone"));
            }
            Err(e) => return Err(HotError::io("read sidecar", &path, &e)),
        };
        sidecar::decode(&bytes, digest, record.incarnation, record.size)
            .map_err(|reason| HotError::corrupt("read sidecar", &path, reason))
    }
}
