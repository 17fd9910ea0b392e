//! How much room is left: what can still be promised, so that every promise can be kept.

use std::collections::BTreeMap;

use nix::sys::statvfs::statvfs;

use super::error::ScratchError;
use super::store::Scratch;
use crate::RecordState;

/// What the volumes of a base directory come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Volumes that were answered and not removed.
    pub volumes: u64,
    /// Their sizes, together.
    pub promised_bytes: u64,
    /// Bytes that can still be promised.
    pub capacity_bytes: u64,
    /// Deleted volumes whose files are still there.
    pub deleted: u64,
}

impl Scratch {
    /// Counts the volumes. Reads every record.
    pub fn summary(&self) -> Result<Summary, ScratchError> {
        let mut summary = Summary {
            capacity_bytes: self.capacity()?,
            ..Summary::default()
        };
        for record in self.volumes.list()? {
            match record.state {
                RecordState::Ready => {
                    summary.volumes += 1;
                    summary.promised_bytes = summary.promised_bytes.saturating_add(record.size);
                }
                RecordState::Deleting => summary.deleted += 1,
                RecordState::Making => {}
            }
        }
        Ok(summary)
    }

    /// Bytes that can still be promised: free ones, less what volumes were promised and have not
    /// taken, less what is kept free.
    pub fn capacity(&self) -> Result<u64, ScratchError> {
        let failed = ScratchError::io("look at", &self.base);
        let found = statvfs(&self.base).map_err(failed)?;
        let mut free = found.blocks_available() * found.fragment_size();
        free = free.saturating_sub(self.keep_free);
        let numbers: BTreeMap<String, u32> = self
            .ids
            .all()?
            .into_iter()
            .map(|(number, owner)| (owner, number))
            .collect();
        for record in self.volumes.list()? {
            let number = numbers.get(&record.id.hash()).copied().unwrap_or_default();
            let outstanding = match record.state {
                RecordState::Deleting => 0,
                RecordState::Making => record.size,
                // One that goes away meanwhile is promised nothing.
                RecordState::Ready => {
                    let at = self.volume_path(&record.id);
                    let outstanding = self.backend.outstanding(&at, number, record.size);
                    outstanding.unwrap_or(record.size)
                }
            };
            free = free.saturating_sub(outstanding);
        }
        Ok(free)
    }

    pub(super) fn room(&self, asked: u64) -> Result<(), ScratchError> {
        let free = self.capacity()?;
        if asked > free {
            return Err(ScratchError::Full {
                asked,
                free,
                base: self.base.clone(),
            });
        }
        Ok(())
    }
}
