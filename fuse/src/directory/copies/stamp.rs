//! One version of a file of the directory: what changes with every change of its contents.
//!
//! Asked of the file system's server ([`Stamp::now`], `AT_STATX_FORCE_SYNC`), not of what a client of
//! it remembers. Asking brings the client up to date; but an answer that is overtaken by another one, asked
//! for at the same time, is dropped by a client that is a FUSE file system (`fuse_change_attributes` of the
//! kernel), which then cuts what is read at the length of the version before. So it is asked
//! again until both agree ([`ASKED`]). Two changes within one tick of the server's clock have one stamp, so a stamp is
//! trusted for a copy only after it stood still for longer than a tick (`fill.rs`).

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use terrace_cache::identity::{ObjectId, Token, Version};

use crate::directory::sys;

/// See the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::directory) struct Stamp {
    /// Inode number below.
    number: u64,
    size: u64,
    /// Nanoseconds since the epoch.
    mtime: i64,
    ctime: i64,
}

/// How often the server is asked at most, until the client has its answer. That they differ again and again
/// takes a file which others change all the time; of such a one no version is the last.
const ASKED: usize = 16;

const BILLION: i64 = 1_000_000_000;

fn nanoseconds(seconds: i64, part: i64) -> i64 {
    seconds.saturating_mul(BILLION).saturating_add(part)
}

impl Stamp {
    /// The version that the file system's server has now.
    pub(in crate::directory) fn now(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::with_names(fd).map(|(stamp, _)| stamp)
    }

    /// The version that the file system's server has now, and how many names the file has there. Its client
    /// knows the length of this version or of a later one then.
    pub(in crate::directory) fn with_names(fd: BorrowedFd<'_>) -> Result<(Self, u32), Errno> {
        let mut answer = Self::asked(fd, libc::AT_STATX_FORCE_SYNC)?;
        for _ in 1..ASKED {
            if Self::asked(fd, libc::AT_STATX_DONT_SYNC)?.0 == answer.0 {
                break;
            }
            answer = Self::asked(fd, libc::AT_STATX_FORCE_SYNC)?;
        }
        Ok(answer)
    }

    fn asked(fd: BorrowedFd<'_>, whom: i32) -> Result<(Self, u32), Errno> {
        let found = sys::stat_by(fd, whom)?;
        let time = |at: libc::statx_timestamp| nanoseconds(at.tv_sec, i64::from(at.tv_nsec));
        let stamp = Self {
            number: found.stx_ino,
            size: found.stx_size,
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
        };
        Ok((stamp, found.stx_nlink))
    }

    /// The version that these attributes are of; `number`: the inode number below.
    pub(in crate::directory) fn of(stat: &FileStat, number: u64) -> Self {
        Self {
            number,
            size: stat.st_size.unsigned_abs(),
            mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Length in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What this version of a file in `store` is called in the hot tier. The number of the device is
    /// no part of it: a network file system has another one after each mount.
    pub(super) fn object(&self, store: &Arc<str>) -> ObjectId {
        ObjectId {
            store: Arc::clone(store),
            key: format!("{:x}/{:x}", self.number, self.ctime).into(),
            version: Version {
                token: Token::File {
                    device: 0,
                    inode: self.number,
                },
                size: self.size,
                mtime_ns: self.mtime,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use nix::sys::stat::fstat;

    use super::*;

    // Without it two versions of a file would have one name in the hot tier, or one version two.
    #[test]
    fn a_version_has_one_name() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"one", 0).unwrap();
        let stamp = Stamp::now(file.as_fd()).unwrap();
        let stat = fstat(&file).unwrap();
        assert_eq!(stamp, Stamp::of(&stat, stat.st_ino));
        let store: Arc<str> = "file:///x".into();
        let digest = |stamp: &Stamp| stamp.object(&store).digest();
        assert_eq!(digest(&stamp), digest(&Stamp::now(file.as_fd()).unwrap()));
        for change in [
            Stamp { number: 7, ..stamp },
            Stamp { size: 4, ..stamp },
            Stamp {
                mtime: stamp.mtime + 1,
                ..stamp
            },
            Stamp {
                ctime: stamp.ctime + 1,
                ..stamp
            },
        ] {
            assert_ne!(digest(&stamp), digest(&change), "{change:?}");
        }
        assert!(Stamp::now(File::open("/").unwrap().as_fd()).is_ok());
    }
}
