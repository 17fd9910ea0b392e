//! Volumes as plain directories under project quotas, of XFS and of ext4.
//!
//! The directory gets its project id and its limit while it is empty and under a name that nobody
//! looks for, so no byte is ever charged to nobody. The limit is one of blocks: a write beyond it
//! fails with EDQUOT or, where the file system says so for projects, ENOSPC.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::backend::{Backend, Limit, QuotaKind, ROOT_MODE, Usage};
use super::copy::{copy_directory, reflinks};
use super::error::ScratchError;
use super::quotactl::{self, Project};
use super::tree::make_directory;
use crate::mounts::{BindOptions, Target};

/// Project quotas of one file system.
#[derive(Debug)]
pub(crate) struct Projects {
    base: File,
    path: PathBuf,
    kind: QuotaKind,
    reflinks: bool,
}

impl Projects {
    /// The quotas of the file system that `base` lies on; `None` when it does not enforce them.
    pub(crate) fn open(base: &Path, kind: QuotaKind) -> Result<Option<Self>, ScratchError> {
        let file = File::open(base).map_err(ScratchError::io("open", base))?;
        if !quotactl::enforces(file.as_fd()) {
            return Ok(None);
        }
        let reflinks = reflinks(base)?;
        Ok(Some(Self {
            base: file,
            path: base.to_owned(),
            kind,
            reflinks,
        }))
    }

    fn limit(&self, number: u32, limit: Limit) -> Result<(), ScratchError> {
        let wanted = Project {
            byte_limit: limit.bytes,
            inode_limit: limit.inodes,
            ..Project::default()
        };
        let set = quotactl::set_limit(self.base.as_fd(), number, wanted);
        set.map_err(ScratchError::io("limit a project of", &self.path))
    }

    fn project(&self, number: u32) -> Result<Project, ScratchError> {
        let project = quotactl::project(self.base.as_fd(), number);
        project.map_err(ScratchError::io(
            "read the quota of a project of",
            &self.path,
        ))
    }
}

impl Backend for Projects {
    fn kind(&self) -> QuotaKind {
        self.kind
    }

    fn make(&self, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError> {
        make_directory(at, ROOT_MODE)?;
        let directory = File::open(at).map_err(ScratchError::io("open", at))?;
        let set = quotactl::set_project(&directory, number);
        set.map_err(ScratchError::io("set the project id of", at))?;
        self.limit(number, limit)
    }

    fn copy(&self, from: &Path, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError> {
        self.make(at, number, limit)?;
        copy_directory(from, at)
    }

    fn copies(&self) -> bool {
        self.reflinks
    }

    fn resize(&self, _at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError> {
        self.limit(number, limit)
    }

    fn usage(&self, _at: &Path, number: u32) -> Result<Usage, ScratchError> {
        let project = self.project(number)?;
        Ok(Usage {
            bytes: project.bytes,
            byte_limit: project.byte_limit,
            inodes: Some(project.inodes),
            inode_limit: (project.inode_limit > 0).then_some(project.inode_limit),
        })
    }

    fn attach(&self, at: &Path, target: &Target) -> Result<(), ScratchError> {
        Ok(target.bind(at, BindOptions::default())?)
    }

    fn release(&self, number: u32) -> Result<(), ScratchError> {
        let none = Limit {
            bytes: 0,
            inodes: 0,
        };
        self.limit(number, none)
    }

    fn unused(&self, number: u32) -> Result<bool, ScratchError> {
        Ok(self.project(number)? == Project::default())
    }
}
