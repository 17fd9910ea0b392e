//! Volumes as btrfs subvolumes, limited by their quota groups.
//!
//! Every subvolume has the quota group `0/<its id>`; the limit is one of the bytes that it refers to,
//! shared or not, so a copy is charged in full. Ids of subvolumes are never given out again, so the
//! limit of one that is gone limits nobody. Usage is that of the last commit (30 s at most by
//! default); the limit itself holds at once. `df` shows the file system's size: btrfs has no other
//! answer. Calls and layouts: `linux/btrfs.h`, `linux/btrfs_tree.h`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use super::backend::{Backend, Limit, QuotaKind, ROOT_MODE, Usage};
use super::error::ScratchError;
use super::tree::{remove_tree, set_mode};
use crate::mounts::{BindOptions, Target};

/// First inode of every subvolume.
const FIRST_INODE: u64 = 256;
/// The tree that quota groups lie in, and the type of what they have.
const QUOTA_TREE: u64 = 8;
const QGROUP_INFO: u32 = 242;
/// Flags: limit what is referred to; make a snapshot that cannot be written.
const LIMIT_REFERRED: u64 = 1;
const READ_ONLY: u64 = 1 << 1;
/// Command that turns quota groups on.
const QUOTA_ENABLE: u64 = 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(super) struct NameArguments {
    descriptor: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
pub(super) struct SnapshotArguments {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
pub(super) struct QuotaArguments {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`; group 0 is that of the descriptor's subvolume.
#[repr(C)]
pub(super) struct LimitArguments {
    group: u64,
    flags: u64,
    referred: u64,
    exclusive: u64,
    reserved: [u64; 2],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
pub(super) struct LookupArguments {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_search_args`: key, then items.
#[repr(C)]
pub(super) struct SearchArguments {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    types: [u32; 2],
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
    found: [u8; 3992],
}

nix::ioctl_write_ptr!(make_subvolume, 0x94, 14, NameArguments);
nix::ioctl_write_ptr!(destroy_subvolume, 0x94, 15, NameArguments);
nix::ioctl_write_ptr!(set_flags, 0x94, 26, u64);
nix::ioctl_write_ptr!(make_snapshot, 0x94, 23, SnapshotArguments);
nix::ioctl_readwrite!(search_tree, 0x94, 17, SearchArguments);
nix::ioctl_readwrite!(look_up_inode, 0x94, 18, LookupArguments);
nix::ioctl_readwrite!(control_quota, 0x94, 40, QuotaArguments);
nix::ioctl_read!(limit_group, 0x94, 43, LimitArguments);
nix::ioctl_none!(wait_for_scan, 0x94, 46);

/// Quota groups of one file system.
#[derive(Debug)]
pub(crate) struct Btrfs {
    base: File,
    path: PathBuf,
}

impl Btrfs {
    /// Opens the file system that `base` lies on and turns its quota groups on.
    pub(crate) fn open(base: &Path) -> Result<Self, ScratchError> {
        let file = open(base)?;
        let mut enable = QuotaArguments {
            command: QUOTA_ENABLE,
            status: 0,
        };
        // SAFETY: the descriptor is open, and the kernel reads and writes that structure only.
        let enabled = unsafe { control_quota(file.as_raw_fd(), &raw mut enable) };
        match enabled {
            Ok(_) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(ScratchError::io("turn on the quota groups of", base)(errno)),
        }
        // A group that was never scanned counts from nothing. No scan under way is no error.
        // SAFETY: the descriptor is open, and the call takes no argument.
        let _ = unsafe { wait_for_scan(file.as_raw_fd()) };
        Ok(Self {
            base: file,
            path: base.to_owned(),
        })
    }

    fn limit(&self, at: &Path, limit: Limit) -> Result<(), ScratchError> {
        if limit.inodes > 0 {
            return Err(ScratchError::Unsupported {
                what: "a limit of files",
                base: self.path.clone(),
                why: "btrfs limits bytes only; leave it out".to_owned(),
            });
        }
        let directory = open(at)?;
        let mut arguments = LimitArguments {
            group: 0,
            flags: LIMIT_REFERRED,
            referred: limit.bytes,
            exclusive: 0,
            reserved: [0; 2],
        };
        // SAFETY: the descriptor is open, and the kernel reads that structure only.
        let set = unsafe { limit_group(directory.as_raw_fd(), &raw mut arguments) };
        set.map(drop).map_err(ScratchError::io("limit", at))
    }

    /// Bytes that the subvolume refers to, as of the last commit.
    fn referred(&self, subvolume: u64) -> io::Result<u64> {
        let mut arguments = SearchArguments {
            tree: QUOTA_TREE,
            objects: [0, 0],
            offsets: [subvolume, subvolume],
            transactions: [0, u64::MAX],
            types: [QGROUP_INFO, QGROUP_INFO],
            items: 1,
            unused: 0,
            unused_more: [0; 4],
            found: [0; 3992],
        };
        // SAFETY: the descriptor is open, and the kernel reads and writes that structure only.
        unsafe { search_tree(self.base.as_raw_fd(), &raw mut arguments) }?;
        if arguments.items == 0 {
            return Ok(0);
        }
        // A header of 32 bytes, then generation and referred bytes, little-endian.
        let field = arguments
            .found
            .get(40..48)
            .and_then(|field| field.try_into().ok());
        Ok(u64::from_le_bytes(field.unwrap_or_default()))
    }
}

impl Backend for Btrfs {
    fn kind(&self) -> QuotaKind {
        QuotaKind::BtrfsQgroup
    }

    fn make(&self, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        let (parent, name) = parent_and_name(at)?;
        let arguments = NameArguments {
            descriptor: 0,
            name,
        };
        // SAFETY: the descriptor is open, and the kernel reads that structure only.
        let made = unsafe { make_subvolume(parent.as_raw_fd(), &raw const arguments) };
        made.map_err(ScratchError::io("make the subvolume", at))?;
        set_mode(at, ROOT_MODE)?;
        self.limit(at, limit)
    }

    fn copy(&self, from: &Path, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        let (parent, name) = parent_and_name(at)?;
        let source = open(from)?;
        let mut arguments = SnapshotArguments {
            descriptor: i64::from(source.as_raw_fd()),
            transaction: 0,
            flags: 0,
            unused: [0; 4],
            name: [0; 4040],
        };
        arguments.name.copy_from_slice(&name[..4040]);
        // SAFETY: the descriptors are open, and the kernel reads that structure only.
        let made = unsafe { make_snapshot(parent.as_raw_fd(), &raw const arguments) };
        made.map_err(ScratchError::io("make the snapshot", at))?;
        self.limit(at, limit)
    }

    fn seal(&self, at: &Path, sealed: bool) -> Result<(), ScratchError> {
        let directory = open(at)?;
        let flags = if sealed { READ_ONLY } else { 0 };
        // SAFETY: the descriptor is open, and the kernel reads one 64-bit number.
        let set = unsafe { set_flags(directory.as_raw_fd(), &raw const flags) };
        set.map(drop).map_err(ScratchError::io("seal", at))
    }

    fn copies(&self) -> bool {
        true
    }

    fn resize(&self, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        self.limit(at, limit)
    }

    fn usage(&self, at: &Path, _number: u32) -> Result<Usage, ScratchError> {
        let directory = open(at)?;
        let usage = subvolume_of(directory.as_raw_fd()).and_then(|id| self.referred(id));
        Ok(Usage {
            bytes: usage.map_err(ScratchError::io("read the quota group of", at))?,
            ..Usage::default()
        })
    }

    fn attach(&self, at: &Path, target: &Target) -> Result<(), ScratchError> {
        Ok(target.bind(at, BindOptions::default())?)
    }

    fn remove(&self, at: &Path) -> Result<(), ScratchError> {
        let (parent, name) = match parent_and_name(at) {
            Ok(found) if at.exists() => found,
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        };
        let arguments = NameArguments {
            descriptor: 0,
            name,
        };
        // SAFETY: the descriptor is open, and the kernel reads that structure only.
        let destroyed = unsafe { destroy_subvolume(parent.as_raw_fd(), &raw const arguments) };
        if destroyed.is_ok() {
            return Ok(());
        }
        // A subvolume that a user made inside keeps this one: it goes with the tree.
        remove_tree(at)
    }

    fn release(&self, _number: u32) -> Result<(), ScratchError> {
        Ok(())
    }

    fn unused(&self, _number: u32) -> Result<bool, ScratchError> {
        Ok(true)
    }
}

/// The id of the subvolume that an open directory lies in.
fn subvolume_of(directory: RawFd) -> io::Result<u64> {
    let mut arguments = LookupArguments {
        tree: 0,
        object: FIRST_INODE,
        name: [0; 4080],
    };
    // SAFETY: the descriptor is open, and the kernel reads and writes that structure only.
    unsafe { look_up_inode(directory, &raw mut arguments) }?;
    Ok(arguments.tree)
}

/// The open parent of a path, and its last name as the calls take it.
fn parent_and_name(at: &Path) -> Result<(File, [u8; 4088]), ScratchError> {
    let parent = open(at.parent().unwrap_or(Path::new("/")))?;
    let mut name = [0; 4088];
    let text = at.file_name().unwrap_or_default().as_encoded_bytes();
    match name.get_mut(..text.len()) {
        Some(place) if text.len() < 256 => place.copy_from_slice(text),
        _ => {
            return Err(ScratchError::io("name", at)(
                nix::errno::Errno::ENAMETOOLONG,
            ));
        }
    }
    Ok((parent, name))
}

fn open(path: &Path) -> Result<File, ScratchError> {
    File::open(path).map_err(ScratchError::io("open", path))
}
