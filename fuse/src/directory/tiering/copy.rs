//! A verified copy of what a file has, and the record that names it. The file stays as it is.
//!
//! ```text
//! sum -> upload -> read back -> with movers kept away: file unchanged? -> record copy
//! ```
//! The last step holds the lock that opens hold ([`super::lock`]) and has entered ([`super::gates`]):
//! a record `copy` over the stub that another mover has just made would be the loss of its contents.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::sys::stat::{FileStat, fstat};

use super::super::sys;
use super::cold::{self, Sum};
use super::demote::{Kept, Target, same, time, untouched};
use super::lock;
use super::record::{Record, State};
use super::{Step, TierError, Tiering, blocking};

/// What a copy has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// What the file has from the beginning of the copy to its end.
    Exact,
    /// What was read, of a file that is written all the time: each byte as it was when the copy
    /// began, or later.
    AsItIs,
}

/// A verified copy of what a file has.
pub(super) struct Copied {
    pub(super) record: Record,
    /// The file as it was when the record was written.
    pub(super) stat: FileStat,
    /// There was no object of the same contents.
    pub(super) sent: bool,
}

pub(super) fn stat(file: &File) -> Result<FileStat, TierError> {
    fstat(file).map_err(|errno| TierError::File("look at it", errno))
}

/// What a file was when its copy began.
struct Looked {
    stat: FileStat,
    /// The record of an earlier copy.
    record: Option<Record>,
    /// Checksum of what it has; none where it would be of something else a moment later.
    sum: Option<Sum>,
}

impl Tiering {
    /// Makes sure that the store has what the file has, and that its record says so.
    pub(super) async fn copy(
        self: &Arc<Self>,
        target: &Target,
        how: How,
    ) -> Result<Result<Copied, Kept>, TierError> {
        let (tiering, file) = (Arc::clone(self), Arc::clone(&target.file));
        let looked = match blocking(move || tiering.look_over(&file, how)).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(kept)) => return Ok(Err(kept)),
            Err(TierError::Changed) => return Ok(Err(Kept::Changed)),
            Err(error) => return Err(error),
        };
        let known = match looked.sum {
            Some(sum) => self.known(looked.record, &looked.stat, sum).await?,
            None => None,
        };
        let sent = known.is_none();
        let coming;
        let record = match known {
            Some(record) => record,
            None => {
                let id = sys::file_id(target.file.as_fd())
                    .map_err(|errno| TierError::File("name it", errno))?;
                coming = self.cold.new_key(&id);
                let (stat, sum) = (looked.stat, looked.sum);
                match self.upload(target, &stat, sum, &coming.key).await {
                    Err(TierError::Changed) => return Ok(Err(Kept::Changed)),
                    other => other?,
                }
            }
        };
        let (tiering, target, before) = (Arc::clone(self), target.clone(), looked.stat);
        let noted = blocking(move || tiering.note(&target, record, &before, how)).await?;
        Ok(noted.map(|(record, stat)| Copied { record, stat, sent }))
    }

    fn look_over(&self, file: &File, how: How) -> Result<Result<Looked, Kept>, TierError> {
        let before = stat(file)?;
        if before.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(TierError::NotAFile);
        }
        if before.st_size == 0 {
            return Ok(Err(Kept::Empty));
        }
        let record = self.space.read(file.as_fd())?;
        if record.as_ref().map(|record| record.state) == Some(State::Recalling) {
            return Ok(Err(Kept::Open));
        }
        let sum = match how {
            How::Exact => Some(self.cold.sum(file, before.st_size.unsigned_abs())?),
            How::AsItIs => None,
        };
        Ok(Ok(Looked {
            stat: before,
            record,
            sum,
        }))
    }

    /// The record of a copy that was made before, when both still have these bytes.
    async fn known(
        &self,
        record: Option<Record>,
        now: &FileStat,
        sum: Sum,
    ) -> Result<Option<Record>, TierError> {
        let Some(record) = record else {
            return Ok(None);
        };
        let ours = record.store == self.cold.store.url().root();
        if !ours || record.digest != sum || record.size != now.st_size.unsigned_abs() {
            return Ok(None);
        }
        let copy = Record {
            mtime: time(now),
            ..record.with(State::Copy)
        };
        match self.cold.find(&copy.key, copy.size).await {
            Ok(_) => Ok(Some(copy)),
            Err(TierError::Store(error)) if error.is_not_found() => Ok(None),
            Err(TierError::Mismatch(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn upload(
        &self,
        target: &Target,
        before: &FileStat,
        sum: Option<Sum>,
        key: &str,
    ) -> Result<Record, TierError> {
        let (size, mtime) = (before.st_size.unsigned_abs(), time(before));
        let labels = cold::labels(&target.path, size, mtime, sum.as_ref());
        let put = self.cold.put(&target.file, key, size, sum, &labels);
        let digest = put.await?;
        self.step(Step::Verified)?;
        Ok(Record {
            state: State::Copy,
            size,
            mtime,
            digest,
            store: self.cold.store.url().root().to_owned(),
            key: key.to_owned(),
        })
    }

    /// Writes the record of a copy, unless somebody has the file for himself. Blocks.
    fn note(
        &self,
        target: &Target,
        record: Record,
        before: &FileStat,
        how: How,
    ) -> Result<Result<(Record, FileStat), Kept>, TierError> {
        let file = &*target.file;
        let entered = self.gates.enter(target.number);
        if entered.is_none() || !lock::share(file).map_err(|e| TierError::File("lock it", e))? {
            return Ok(Err(Kept::Open));
        }
        let noted = self.note_alone(file, record, before, how);
        lock::give_back(file);
        noted
    }

    fn note_alone(
        &self,
        file: &File,
        record: Record,
        before: &FileStat,
        how: How,
    ) -> Result<Result<(Record, FileStat), Kept>, TierError> {
        let now = stat(file)?;
        // Emptied since, by a mover or by somebody who wants nothing of it any more.
        let usable = match how {
            How::Exact => untouched(before, &now),
            How::AsItIs => now.st_size > 0,
        };
        if !usable {
            return Ok(Err(Kept::Changed));
        }
        self.space.write(file, &record)?;
        let now = stat(file)?;
        if how == How::Exact && !same(before, &now) {
            return Ok(Err(Kept::Changed));
        }
        self.step(Step::Copied)?;
        Ok(Ok((record, now)))
    }
}
