//! How a volume's limit is kept: one trait, and the choice of who implements it.
//!
//! | kind | directory | limit | `df` shows it | copies |
//! | --- | --- | --- | --- | --- |
//! | `xfs-project`, `ext4-project` | plain | project quota | yes | reflink (XFS) |
//! | `btrfs-qgroup` | subvolume | qgroup | no: btrfs has no such answer | snapshot |
//! | `image-ext4`, `image-xfs` | an image file | size of the image | yes | reflink of the image, or a copy of one that is not mounted |
//! | `accounting` | plain | **none**: it is only counted | no | reflink where it is |
//!
//! Detection asks the file system what it enforces, and never falls back to `accounting` by itself: a
//! limit that does not hold must have been asked for.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::accounting::Accounting;
use super::btrfs::Btrfs;
use super::error::ScratchError;
use super::image::{Image, ImageFormat};
use super::project::Projects;
use super::tree::remove_tree;
use crate::mounts::{MountEntry, Target, mounts_showing};

/// Mode of a volume's top directory: every user of a pod may write, as in an `emptyDir`. Who else
/// may is decided by the directories above it, which nobody else may enter.
pub(super) const ROOT_MODE: u32 = 0o777;

/// Who keeps the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// Project quotas of XFS.
    XfsProject,
    /// Project quotas of ext4.
    Ext4Project,
    /// Quota groups of btrfs subvolumes.
    BtrfsQgroup,
    /// A file for each volume, with a file system of its own in it.
    Image(ImageFormat),
    /// Nobody: usage is counted, no limit holds.
    Accounting,
}

/// Not the name of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write xfs-project, ext4-project, btrfs-qgroup, image-ext4, image-xfs or accounting")]
pub struct QuotaKindError;

/// What a volume may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files and directories; 0 is no limit.
    pub(crate) inodes: u64,
}

/// What a volume has, and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that it occupies.
    pub bytes: u64,
    /// Bytes that it may occupy.
    pub byte_limit: u64,
    /// Files and directories that it has, when somebody counts them.
    pub inodes: Option<u64>,
    /// Files and directories that it may have, when there is a limit.
    pub inode_limit: Option<u64>,
}

/// Keeps limits. Every call may be repeated after a crash in its middle. Paths are directories that
/// only the caller names; each call blocks for system calls.
pub(crate) trait Backend: Send + Sync + fmt::Debug {
    fn kind(&self) -> QuotaKind;

    /// Makes `at`, which does not exist, as an empty volume with that number and limit.
    fn make(&self, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError>;

    /// Makes `at` as a copy of the volume `from`.
    fn copy(&self, from: &Path, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError>;

    /// Makes a snapshot that has its name read-only, or writable again before it loses it.
    fn seal(&self, _at: &Path, _sealed: bool) -> Result<(), ScratchError> {
        Ok(())
    }

    /// Whether [`Backend::copy`] works here.
    fn copies(&self) -> bool;

    /// Whether it does of a volume that is mounted.
    fn copies_in_use(&self) -> bool {
        true
    }

    /// Bytes that the disk must be able to give, now or when both sides are written, for a copy of a volume
    /// of that size.
    fn copy_needs(&self, _size: u64) -> u64 {
        0
    }

    /// Raises the limit of a volume.
    fn resize(&self, at: &Path, number: u32, limit: Limit) -> Result<(), ScratchError>;

    /// What a volume has.
    fn usage(&self, at: &Path, number: u32) -> Result<Usage, ScratchError>;

    /// Shows the volume at a target; again is no error.
    fn attach(&self, at: &Path, target: &Target) -> Result<(), ScratchError>;

    /// Removes a volume with everything in it. One that is gone is no error.
    fn remove(&self, at: &Path) -> Result<(), ScratchError> {
        remove_tree(at)
    }

    /// Ends the limit of a number whose files are gone.
    fn release(&self, number: u32) -> Result<(), ScratchError>;

    /// Whether nobody is charged for the number.
    fn unused(&self, number: u32) -> Result<bool, ScratchError>;

    /// Bytes of a volume's size that the disk still has to give.
    fn outstanding(&self, at: &Path, number: u32, size: u64) -> Result<u64, ScratchError> {
        Ok(size.saturating_sub(self.usage(at, number)?.bytes))
    }

    /// Where a volume is mounted.
    fn mounts(&self, at: &Path) -> Result<Vec<MountEntry>, ScratchError> {
        Ok(mounts_showing(at)?)
    }
}

/// The one that fits the file system of a base directory, or the one that was asked for.
pub(crate) fn choose(
    base: &Path,
    fs_type: &str,
    asked: Option<QuotaKind>,
) -> Result<Box<dyn Backend>, ScratchError> {
    let refused = |why: &str| ScratchError::Unsupported {
        what: "a hard limit",
        base: base.to_owned(),
        why: why.to_owned(),
    };
    let projects = |kind: QuotaKind| -> Result<Box<dyn Backend>, ScratchError> {
        match Projects::open(base, kind)? {
            Some(projects) => Ok(Box::new(projects)),
            None => Err(refused(
                "project quotas are not enforced: mount it with -o prjquota (ext4 also needs the \
                 features quota and project), or choose image-ext4",
            )),
        }
    };
    let kind = match (asked, fs_type) {
        (Some(kind), _) => kind,
        (None, "xfs") => QuotaKind::XfsProject,
        (None, "ext4") => QuotaKind::Ext4Project,
        (None, "btrfs") => QuotaKind::BtrfsQgroup,
        (None, _) => {
            return Err(refused(
                "its file system has no quotas for directories; choose image-ext4, or accounting \
                 for volumes without a hard limit",
            ));
        }
    };
    match kind {
        QuotaKind::XfsProject if fs_type == "xfs" => projects(kind),
        QuotaKind::Ext4Project if fs_type == "ext4" => projects(kind),
        QuotaKind::BtrfsQgroup if fs_type == "btrfs" => Ok(Box::new(Btrfs::open(base)?)),
        QuotaKind::Image(format) => Ok(Box::new(Image::new(base, format)?)),
        QuotaKind::Accounting => Ok(Box::new(Accounting::new(base))),
        _ => Err(refused(&format!(
            "its file system is {fs_type}, not that of {kind}"
        ))),
    }
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XfsProject => "xfs-project",
            Self::Ext4Project => "ext4-project",
            Self::BtrfsQgroup => "btrfs-qgroup",
            Self::Image(ImageFormat::Ext4) => "image-ext4",
            Self::Image(ImageFormat::Xfs) => "image-xfs",
            Self::Accounting => "accounting",
        })
    }
}

impl FromStr for QuotaKind {
    type Err = QuotaKindError;

    fn from_str(text: &str) -> Result<Self, QuotaKindError> {
        let all = [
            Self::XfsProject,
            Self::Ext4Project,
            Self::BtrfsQgroup,
            Self::Image(ImageFormat::Ext4),
            Self::Image(ImageFormat::Xfs),
            Self::Accounting,
        ];
        let found = all.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or(QuotaKindError)
    }
}
