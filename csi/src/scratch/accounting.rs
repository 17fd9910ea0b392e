//! Volumes as plain directories that are counted and not limited: for file systems that can do no
//! better, when somebody asked for it by name.
//!
//! Usage is found by walking the tree, so it costs as much as the tree has files; hard links are
//! counted once for each name.

use std::path::{Path, PathBuf};

use super::backend::{Backend, Limit, QuotaKind, ROOT_MODE, Usage};
use super::copy::{copy_directory, reflinks};
use super::error::ScratchError;
use super::tree::{count, make_directory};
use crate::mounts::{BindOptions, Target};

/// Plain directories.
#[derive(Debug)]
pub(crate) struct Accounting {
    base: PathBuf,
}

impl Accounting {
    pub(crate) fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
        }
    }
}

impl Backend for Accounting {
    fn kind(&self) -> QuotaKind {
        QuotaKind::Accounting
    }

    fn make(&self, at: &Path, _number: u32, _limit: Limit) -> Result<(), ScratchError> {
        make_directory(at, ROOT_MODE)
    }

    fn copy(&self, from: &Path, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError> {
        self.make(at, number, limit)?;
        copy_directory(from, at)
    }

    fn copies(&self) -> bool {
        reflinks(&self.base).unwrap_or(false)
    }

    fn resize(&self, _at: &Path, _number: u32, _limit: Limit) -> Result<(), ScratchError> {
        Ok(())
    }

    fn usage(&self, at: &Path, _number: u32) -> Result<Usage, ScratchError> {
        let (bytes, inodes) = count(at)?;
        Ok(Usage {
            bytes,
            byte_limit: 0,
            inodes: Some(inodes),
            inode_limit: None,
        })
    }

    fn attach(&self, at: &Path, target: &Target) -> Result<(), ScratchError> {
        Ok(target.bind(at, BindOptions::default())?)
    }

    fn outstanding(&self, _at: &Path, _number: u32, _size: u64) -> Result<u64, ScratchError> {
        // Nothing is promised, and to count every tree for an answer would cost too much.
        Ok(0)
    }

    fn release(&self, _number: u32) -> Result<(), ScratchError> {
        Ok(())
    }

    fn unused(&self, _number: u32) -> Result<bool, ScratchError> {
        Ok(true)
    }
}
