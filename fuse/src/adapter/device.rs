//! The descriptor of a FUSE connection, for what is not a reply.
//!
//! The ioctls and the notification are those of `linux/fuse.h` (7.40); both go to any descriptor of
//! the connection's device, so a duplicate of the session's will do. It keeps the connection alive
//! no longer than the process: the keeper has one of its own.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::fs::{FileSystem, Kernel};

/// `FUSE_NOTIFY_INVAL_ENTRY`.
const NOTIFY_INVAL_ENTRY: i32 = 3;

/// `FUSE_NOTIFY_INVAL_INODE`.
const NOTIFY_INVAL_INODE: i32 = 2;

/// `struct fuse_backing_map`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

mod ioctl {
    //! `FUSE_DEV_IOC_MAGIC` is 229.
    nix::ioctl_write_ptr!(backing_open, 229, 1, super::BackingMap);
    nix::ioctl_write_ptr!(backing_close, 229, 2, u32);
}

/// A descriptor of a FUSE device that is mounted.
#[derive(Debug)]
pub struct Device {
    device: File,
}

impl Device {
    /// Speaks through `device`, a duplicate of the session's descriptor.
    pub fn new(device: OwnedFd) -> Self {
        Self {
            device: device.into(),
        }
    }
}

/// Gives `fs` its way to the kernel: a duplicate of `device`, the mounted (not the handshake's)
/// descriptor. Call it after FUSE_INIT was answered and before requests are read.
pub fn connect(fs: &Arc<FileSystem>, device: BorrowedFd<'_>) -> io::Result<()> {
    fs.connect(Arc::new(Device::new(device.try_clone_to_owned()?)))
}

impl Kernel for Device {
    fn open_backing(&self, file: &File) -> io::Result<u32> {
        let map = BackingMap {
            fd: file.as_raw_fd(),
            flags: 0,
            padding: 0,
        };
        // SAFETY: the request takes a `fuse_backing_map`, which `map` is, and keeps nothing of it.
        let id = unsafe { ioctl::backing_open(self.device.as_raw_fd(), &raw const map) }?;
        u32::try_from(id).map_err(|_| io::Error::other("the kernel gave a negative backing id"))
    }

    fn close_backing(&self, id: u32) -> io::Result<()> {
        // SAFETY: the request takes a pointer to a backing id and keeps nothing of it.
        unsafe { ioctl::backing_close(self.device.as_raw_fd(), &raw const id) }?;
        Ok(())
    }

    fn forget_attributes(&self, node: u64) -> io::Result<()> {
        // fuse_out_header (length, code, unique 0), fuse_notify_inval_inode_out: node, offset, length.
        // An offset below 0 leaves the pages, so nothing is waited for.
        let mut message = [0; 40];
        let total = message.len() as u32;
        message[0..4].copy_from_slice(&total.to_ne_bytes());
        message[4..8].copy_from_slice(&NOTIFY_INVAL_INODE.to_ne_bytes());
        message[16..24].copy_from_slice(&node.to_ne_bytes());
        message[24..32].copy_from_slice(&(-1_i64).to_ne_bytes());
        told((&self.device).write(&message))
    }

    fn forget_name(&self, parent: u64, name: &[u8]) -> io::Result<()> {
        let length = u32::try_from(name.len()).map_err(|_| io::Error::other("name too long"))?;
        // fuse_out_header (length, code, unique 0), fuse_notify_inval_entry_out, name, NUL.
        let mut head = [0; 32];
        let total = head.len() as u32 + length + 1;
        head[0..4].copy_from_slice(&total.to_ne_bytes());
        head[4..8].copy_from_slice(&NOTIFY_INVAL_ENTRY.to_ne_bytes());
        head[16..24].copy_from_slice(&parent.to_ne_bytes());
        head[24..28].copy_from_slice(&length.to_ne_bytes());
        let parts = [IoSlice::new(&head), IoSlice::new(name), IoSlice::new(&[0])];
        told((&self.device).write_vectored(&parts))
    }
}

fn told(written: io::Result<usize>) -> io::Result<()> {
    match written {
        // The kernel does not have it: nothing to forget.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}
