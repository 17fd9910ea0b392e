//! Data files of the tier by directory descriptor and name, as many calls on many of them want.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmodat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat};

use super::LinkAttributes;
use crate::hot::data::{Fingerprint, nanoseconds};
use crate::hot::directory::{DataName, Directory};
use crate::identity::Digest;

/// The directories of data files, each opened when it is first needed.
#[derive(Debug)]
pub(super) struct HotFiles {
    paths: Vec<PathBuf>,
    open: Vec<OnceLock<File>>,
}

/// A data file by its directory and name.
pub(super) struct HotFile<'a> {
    shard: BorrowedFd<'a>,
    name: DataName,
}

impl HotFiles {
    pub(super) fn new(directory: &Directory) -> Self {
        Self {
            paths: (0..=255).map(|shard| directory.shard(shard)).collect(),
            open: (0..=255).map(|_: u8| OnceLock::new()).collect(),
        }
    }

    /// The data file of an incarnation, whether it exists or not.
    pub(super) fn file(&self, digest: &Digest, incarnation: u64) -> nix::Result<HotFile<'_>> {
        Ok(HotFile {
            shard: self.shard(digest)?,
            name: DataName::new(digest, incarnation),
        })
    }

    /// Attributes of a data file.
    pub(super) fn stat(&self, digest: &Digest, incarnation: u64) -> nix::Result<FileStat> {
        let file = self.file(digest, incarnation)?;
        fstatat(
            file.shard,
            file.name.as_c_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    }

    fn shard(&self, digest: &Digest) -> nix::Result<BorrowedFd<'_>> {
        let at = usize::from(digest.0[0]);
        if let Some(open) = self.open[at].get() {
            return Ok(open.as_fd());
        }
        let opened = open(&self.paths[at])?;
        Ok(self.open[at].get_or_init(|| opened).as_fd())
    }
}

impl HotFile<'_> {
    /// Gives it another name.
    pub(super) fn link(&self, parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
        linkat(
            self.shard,
            self.name.as_c_str(),
            parent,
            name,
            AtFlags::empty(),
        )
    }

    /// Gives it `wanted`. Changes only what differs from `before`; each change costs a journal entry.
    pub(super) fn set(&self, before: &FileStat, wanted: &LinkAttributes) -> nix::Result<()> {
        let (shard, name) = (self.shard, self.name.as_c_str());
        if (before.st_uid, before.st_gid) != wanted.owner {
            let (uid, gid) = (Uid::from_raw(wanted.owner.0), Gid::from_raw(wanted.owner.1));
            fchownat(
                shard,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        if before.st_mode & 0o7777 != wanted.mode & 0o7777 {
            let mode = Mode::from_bits_truncate(wanted.mode & 0o7777);
            fchmodat(shard, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        if nanoseconds(before.st_mtime, before.st_mtime_nsec) != wanted.mtime_ns {
            let mtime = TimeSpec::new(
                wanted.mtime_ns.div_euclid(1_000_000_000),
                wanted.mtime_ns.rem_euclid(1_000_000_000),
            );
            let flag = UtimensatFlags::NoFollowSymlink;
            utimensat(shard, name, &TimeSpec::UTIME_OMIT, &mtime, flag)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> nix::Result<File> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(nix::fcntl::open(path, flags, Mode::empty())?))
}

/// How many owners a data file with so many names has.
pub(super) fn owners(links: u64) -> u32 {
    // One name is that in the hot directory.
    u32::try_from(links.saturating_sub(1)).unwrap_or(u32::MAX)
}

pub(super) fn fingerprint(stat: &FileStat) -> Fingerprint {
    Fingerprint {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// Whether a file shows `wanted`.
pub(super) fn has(stat: &FileStat, wanted: &LinkAttributes) -> bool {
    (stat.st_uid, stat.st_gid) == wanted.owner
        && stat.st_mode & 0o7777 == wanted.mode & 0o7777
        && nanoseconds(stat.st_mtime, stat.st_mtime_nsec) == wanted.mtime_ns
}
