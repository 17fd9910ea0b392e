//! What is agreed with the kernel at FUSE_INIT for a directory volume.
//!
//! Never FUSE_WRITEBACK_CACHE: it excludes passthrough, and another node would not see what an
//! application has written. FUSE_ATOMIC_O_TRUNC only with a spool, where an open that truncates decides
//! where the bytes go; otherwise opening and truncating are two requests, each of which may be repeated. No FUSE_EXPORT_SUPPORT: nodes are found through names.

use std::io;

use fuser::{InitFlags, KernelConfig};

use super::super::handshake::{MAX_REQUEST, limits};
use crate::directory::DirectoryFs;
use crate::probe::STACK_DEPTH;

/// Asks for what serves a directory that others may write, too.
pub(super) fn negotiate(fs: &DirectoryFs, config: &mut KernelConfig) -> io::Result<()> {
    let mut wanted = vec![
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_AUTO_INVAL_DATA,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_MAX_PAGES,
        InitFlags::FUSE_HAS_RESEND,
        // The umask is applied below, where a default ACL takes its place.
        InitFlags::FUSE_DONT_MASK,
    ];
    if fs.has_acl() {
        wanted.push(InitFlags::FUSE_POSIX_ACL);
    }
    if fs.truncates_at_open() {
        wanted.push(InitFlags::FUSE_ATOMIC_O_TRUNC);
    }
    if !fs.local_locks() {
        // To be asked, and to refuse.
        wanted.extend([InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS]);
    }
    for flag in wanted {
        // What a kernel does not know it does without.
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "not offered by the kernel");
        }
    }
    let passthrough = fs.wants_passthrough()
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(STACK_DEPTH).is_ok();
    if fs.wants_passthrough() && !passthrough {
        tracing::warn!("the kernel has no passthrough: data goes through the daemon");
    }
    fs.set_passthrough(passthrough);
    config
        .set_max_write(MAX_REQUEST)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    limits(config)
}
