//! Project ids of directories and the quotas of projects, by system call.
//!
//! `FS_IOC_FSSETXATTR` gives an empty directory its project id, with the flag that hands it on to
//! everything made below; `quotactl_fd(2)` (Linux 5.14) limits what one id may have. The calls with
//! `X` are those of XFS; the kernel answers them for ext4 as well. Layouts: `linux/fs.h`,
//! `linux/dqblk_xfs.h`. Blocks are 512 bytes here, whatever the file system's are.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Bytes of a basic block.
const BASIC_BLOCK: u64 = 512;

/// Files made in the directory get its project id.
const PROJECT_INHERIT: u32 = 0x200;

/// Quotas of projects, beside those of users (0) and groups (1).
const PROJECT: u32 = 2;

const GET: u32 = command(3);
const SET_LIMIT: u32 = command(4);
const GET_STATE: u32 = command(8);

/// The state says that project quotas are counted, and that limits hold.
const ACCOUNTED: u16 = 1 << 4;
const ENFORCED: u16 = 1 << 5;

const fn command(number: u32) -> u32 {
    (((('X' as u32) << 8) + number) << 8) | PROJECT
}

/// `struct fsxattr`.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

nix::ioctl_read!(get_attributes, b'X', 31, Attributes);
nix::ioctl_write_ptr!(set_attributes, b'X', 32, Attributes);

/// `struct fs_disk_quota`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct DiskQuota {
    version: i8,
    flags: i8,
    mask: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime: [u64; 3],
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

/// `struct fs_quota_statv`; only the head of it is read.
#[repr(C)]
struct State {
    version: i8,
    padding: u8,
    flags: u16,
    rest: [u64; 31],
}

/// What a project has and may have. Zero as a limit is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Project {
    pub(crate) bytes: u64,
    pub(crate) byte_limit: u64,
    pub(crate) inodes: u64,
    pub(crate) inode_limit: u64,
}

/// Gives an empty directory the project id, handed on to what is made below.
pub(crate) fn set_project(directory: &File, project: u32) -> io::Result<()> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open, and the kernel writes one fsxattr, which this is.
    unsafe { get_attributes(directory.as_raw_fd(), &raw mut attributes) }?;
    attributes.project = project;
    attributes.flags |= PROJECT_INHERIT;
    // SAFETY: the descriptor is open, and the kernel reads one fsxattr, which this is.
    unsafe { set_attributes(directory.as_raw_fd(), &raw const attributes) }?;
    Ok(())
}

/// Limits what a project may have.
pub(crate) fn set_limit(base: BorrowedFd<'_>, project: u32, limit: Project) -> io::Result<()> {
    let blocks = limit.byte_limit.div_ceil(BASIC_BLOCK);
    let mut quota = DiskQuota {
        version: 1,
        flags: PROJECT as i8,
        // Soft and hard limits of inodes and blocks: those four fields are to be taken.
        mask: 0xf,
        id: project,
        block_hard: blocks,
        block_soft: blocks,
        inode_hard: limit.inode_limit,
        inode_soft: limit.inode_limit,
        ..DiskQuota::default()
    };
    call(base, SET_LIMIT, project, &mut quota)?;
    Ok(())
}

/// What a project has and may have; nothing for one that the file system does not know.
pub(crate) fn project(base: BorrowedFd<'_>, project: u32) -> io::Result<Project> {
    let mut quota = DiskQuota::default();
    match call(base, GET, project, &mut quota) {
        Ok(()) => Ok(Project {
            bytes: quota.blocks * BASIC_BLOCK,
            byte_limit: quota.block_hard * BASIC_BLOCK,
            inodes: quota.inodes,
            inode_limit: quota.inode_hard,
        }),
        Err(Errno::ENOENT) => Ok(Project::default()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the file system counts projects and makes their limits hold.
pub(crate) fn enforces(base: BorrowedFd<'_>) -> bool {
    let mut state = State {
        version: 1,
        padding: 0,
        flags: 0,
        rest: [0; 31],
    };
    let wanted = ACCOUNTED | ENFORCED;
    call(base, GET_STATE, 0, &mut state).is_ok() && state.flags & wanted == wanted
}

fn call<T>(base: BorrowedFd<'_>, command: u32, id: u32, data: &mut T) -> Result<(), Errno> {
    let data: *mut T = data;
    // SAFETY: the descriptor is open; for these commands the kernel reads or writes at most the
    // structure of that command, and every caller passes that structure, or a larger one.
    let done = unsafe { libc::syscall(libc::SYS_quotactl_fd, base.as_raw_fd(), command, id, data) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // A structure of another size than the kernel's is filled over its end.
    #[test]
    fn structures_have_the_sizes_of_the_kernel() {
        assert_eq!(size_of::<DiskQuota>(), 112);
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(std::mem::offset_of!(DiskQuota, realtime), 72);
        assert_eq!(std::mem::offset_of!(DiskQuota, realtime_timer), 96);
    }
}
