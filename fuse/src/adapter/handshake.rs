//! What is agreed with the kernel at FUSE_INIT.
//!
//! The same for every worker of a mount, as the kernel asks only the first. Never
//! FUSE_WRITEBACK_CACHE: it excludes passthrough. No FUSE_EXPORT_SUPPORT: node ids of files that
//! were re-incarnated do not outlive their handles.

use std::io;

use fuser::{InitFlags, KernelConfig};

use crate::fs::FileSystem;
use crate::probe::{NoPassthrough, STACK_DEPTH};

/// Largest READ the kernel sends, in bytes.
pub const MAX_REQUEST: u32 = 1 << 20;

/// Background requests (readahead) the kernel keeps under way, and when it holds back new ones.
const MAX_BACKGROUND: u16 = 64;
const CONGESTION: u16 = 48;

/// Asks for what the kernel offers of all that serves a read-only tree.
pub(super) fn negotiate(fs: &FileSystem, config: &mut KernelConfig) -> io::Result<()> {
    let wanted = [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_MAX_PAGES,
        InitFlags::FUSE_CACHE_SYMLINKS,
        InitFlags::FUSE_NO_OPEN_SUPPORT,
        InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        InitFlags::FUSE_HAS_RESEND,
    ];
    for flag in wanted {
        // What a kernel does not know it does without.
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "not offered by the kernel");
        }
    }
    if fs.wants_passthrough() {
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
            config
                .set_max_stack_depth(STACK_DEPTH)
                .map_err(|_| io::ErrorKind::InvalidInput)?;
        } else {
            fs.refuse_passthrough(NoPassthrough::NotOffered);
        }
    }
    let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
    config.set_max_write(MAX_REQUEST).map_err(refused)?;
    limits(config)
}

/// Requests at a time and readahead, as for every mount.
pub(super) fn limits(config: &mut KernelConfig) -> io::Result<()> {
    let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
    config
        .set_max_background(MAX_BACKGROUND)
        .and_then(|_| config.set_congestion_threshold(CONGESTION))
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // The largest the kernel offers; beyond it, readahead is set per backing device.
    if let Err(largest) = config.set_max_readahead(u32::MAX) {
        config.set_max_readahead(largest).map_err(refused)?;
    }
    Ok(())
}
