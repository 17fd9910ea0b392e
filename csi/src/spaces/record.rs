//! What was promised about a space, and what it took when a node last said so. Both are kept as
//! `records.rs` says; fields that are not known are refused.

use serde::{Deserialize, Serialize};

use super::name::SpaceName;
use crate::{Record, RecordState, VolumeId};

/// What a space may take. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceLimits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Files, directories and all else.
    pub files: Option<u64>,
}

/// Who keeps a space's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcer {
    /// The file system, for the project of this number.
    Project(u32),
    /// The daemon that serves the mount.
    Daemon,
}

/// What was promised about one space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceRecord {
    /// Its id, made of the name.
    pub id: VolumeId,
    /// Its name.
    pub name: SpaceName,
    /// How far it has come. "Deleting": it lies in the trash.
    pub state: RecordState,
    /// User that its top directory belongs to.
    pub uid: u32,
    /// Group that its top directory belongs to.
    pub gid: u32,
    /// What it may take.
    pub limits: SpaceLimits,
    /// Who keeps that.
    pub enforcer: Enforcer,
    /// Whose budgets its mounts use, when they do not say.
    pub tenant: Option<String>,
    /// Inode number of its top directory.
    pub inode: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When its files may go, in seconds since 1970; while it lies in the trash.
    pub due: Option<u64>,
}

/// What a space took at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceUsage {
    /// The space's id.
    pub id: VolumeId,
    /// Bytes.
    pub bytes: u64,
    /// Files, directories and all else.
    pub files: u64,
    /// When, in seconds since 1970; `None`: now.
    pub at: Option<u64>,
}

impl Record for SpaceRecord {
    const KIND: &'static str = "space";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}

impl Record for SpaceUsage {
    const KIND: &'static str = "usage";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}
