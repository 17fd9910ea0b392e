//! What a request asks for, beside what a record promises.

use std::collections::BTreeMap;

use super::backend::Limit;
use super::error::ScratchError;
use crate::{ContentSource, RecordState, VolumeId, VolumeRecord};

/// Largest size that is taken: what file offsets can say.
const SIZE_MAX: u64 = i64::MAX as u64;

/// Parameter that limits the number of files.
pub(super) const INODES: &str = "inodes";

/// A volume that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name; the same name is the same volume.
    pub name: String,
    /// Bytes that it may have.
    pub size: u64,
    /// Parameters that do not change.
    pub parameters: BTreeMap<String, String>,
    /// Parameters that may change.
    pub mutable: BTreeMap<String, String>,
    /// Access modes by name.
    pub access: Vec<String>,
    /// What it begins as a copy of.
    pub source: Option<ContentSource>,
    /// What the node gets to know of it.
    pub context: BTreeMap<String, String>,
}

/// The volume that a name has, if it is what was asked for.
pub(super) fn same(found: VolumeRecord, asked: &NewVolume) -> Result<VolumeRecord, ScratchError> {
    let differs = if found.name != asked.name {
        Some("name")
    } else if found.size != asked.size {
        Some("size")
    } else if found.source != asked.source {
        Some("source")
    } else if found.parameters != asked.parameters {
        Some("set of parameters")
    } else {
        None
    };
    match differs {
        Some(what) => Err(ScratchError::Exists { id: found.id, what }),
        None => Ok(found),
    }
}

/// The record of a volume that is begun.
pub(super) fn record(id: VolumeId, asked: &NewVolume) -> VolumeRecord {
    VolumeRecord {
        id,
        name: asked.name.clone(),
        state: RecordState::Making,
        size: asked.size,
        parameters: asked.parameters.clone(),
        mutable: asked.mutable.clone(),
        access: asked.access.clone(),
        source: asked.source.clone(),
        context: asked.context.clone(),
    }
}

/// The limit that a record promises.
pub(super) fn limit(record: &VolumeRecord) -> Result<Limit, ScratchError> {
    let inodes = match record.parameters.get(INODES) {
        None => 0,
        Some(text) => text.parse().map_err(|_| ScratchError::Size {
            asked: record.size,
            why: "the parameter inodes is a whole number",
        })?,
    };
    Ok(Limit {
        bytes: record.size,
        inodes,
    })
}

/// Refuses sizes that no file system can have.
pub(super) fn check_size(size: u64) -> Result<(), ScratchError> {
    if size == 0 || size > SIZE_MAX {
        return Err(ScratchError::Size {
            asked: size,
            why: "it is between 1 byte and 8 EiB",
        });
    }
    Ok(())
}
