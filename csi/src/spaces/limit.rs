//! Limits that the file system keeps: project quotas of XFS and ext4, one project for each space.
//!
//! The project is set while the directory is empty and under a name that nobody looks for, so no byte is
//! charged to nobody. Numbers lie in a range of their own, beside those of scratch volumes.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::Path;

use super::record::{SpaceLimits, SpaceUsage};
use crate::VolumeId;
use crate::scratch::ScratchError;
use crate::scratch::ids::Ids;
use crate::scratch::quotactl::{self, Project};

/// Numbers of spaces' projects.
const PROJECT_IDS: RangeInclusive<u32> = 2_001_000_000..=2_001_999_999;

/// The project quotas of one file system.
#[derive(Debug)]
pub(super) struct Projects {
    base: File,
    ids: Ids,
}

impl Projects {
    /// Those of the file system that `base` lies on; `None` where it enforces none.
    pub(super) fn open(base: &Path, private: &Path) -> Result<Option<Self>, ScratchError> {
        let file = File::open(base).map_err(ScratchError::io("open", base))?;
        let ids = Ids::new(private, PROJECT_IDS);
        Ok(quotactl::enforces(file.as_fd()).then_some(Self { base: file, ids }))
    }

    /// Whether the kernel lets this process look at projects and limit them (CAP_SYS_ADMIN). What else may
    /// go wrong is told by who limits one.
    pub(super) fn may_limit(&self) -> bool {
        let asked = quotactl::project(self.base.as_fd(), *PROJECT_IDS.start());
        !asked.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// The number of a space: the one that it has, or one that nobody is charged for.
    pub(super) fn number(&self, id: &VolumeId) -> Result<u32, ScratchError> {
        self.ids.take(&id.hash(), |number| {
            Ok(self.read(number)? == Project::default())
        })
    }

    /// Makes an empty directory the top of a project.
    pub(super) fn mark(&self, at: &Path, number: u32) -> Result<(), ScratchError> {
        let directory = File::open(at).map_err(ScratchError::io("open", at))?;
        let set = quotactl::set_project(&directory, number);
        set.map_err(ScratchError::io("set the project id of", at))
    }

    /// Limits a project.
    pub(super) fn limit(&self, number: u32, limits: SpaceLimits) -> Result<(), ScratchError> {
        let wanted = Project {
            byte_limit: limits.bytes.unwrap_or(0),
            // The top directory is one of the project's inodes and none of the space's files.
            inode_limit: limits.files.map_or(0, |files| files.saturating_add(1)),
            ..Project::default()
        };
        let set = quotactl::set_limit(self.base.as_fd(), number, wanted);
        set.map_err(ScratchError::io(
            "limit a project of",
            Path::new("the base"),
        ))
    }

    /// What a project takes now.
    pub(super) fn usage(&self, id: &VolumeId, number: u32) -> Result<SpaceUsage, ScratchError> {
        let project = self.read(number)?;
        Ok(SpaceUsage {
            id: id.clone(),
            bytes: project.bytes,
            files: project.inodes.saturating_sub(1),
            at: None,
        })
    }

    /// Ends a project whose files are gone.
    pub(super) fn release(&self, id: &VolumeId, number: u32) -> Result<(), ScratchError> {
        self.limit(number, SpaceLimits::default())?;
        self.ids.free(&id.hash())
    }

    /// Ends the project of what was never finished, if it has one. Its files are gone.
    pub(super) fn forget(&self, id: &VolumeId) -> Result<(), ScratchError> {
        match self.ids.of(&id.hash())? {
            Some(number) => self.release(id, number),
            None => Ok(()),
        }
    }

    fn read(&self, number: u32) -> Result<Project, ScratchError> {
        let read = quotactl::project(self.base.as_fd(), number);
        read.map_err(ScratchError::io(
            "read the quota of a project of",
            Path::new("the base"),
        ))
    }
}
