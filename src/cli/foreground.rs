//! `terrace mount --foreground`: waits until the mount is gone or a signal asks to remove it.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use terrace_fuse::keeper::kernel;

use super::umount;

/// What ends the wait.
#[derive(Debug)]
pub(super) struct Ends {
    signals: SignalFd,
    /// The kernel marks it as changed (POLLPRI) whenever something is mounted or unmounted.
    mounts: File,
}

impl Ends {
    /// Collects SIGINT and SIGTERM from now on; to be called before threads are started.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block().context("block signals")?;
        Ok(Self {
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).context("signalfd")?,
            mounts: File::open("/proc/self/mountinfo").context("watch the mount table")?,
        })
    }

    /// Waits; unmounts when a signal came.
    pub(super) fn wait(mut self, mountpoint: &Path, run_base: &Path) -> anyhow::Result<()> {
        loop {
            if kernel::find_mount(mountpoint)?.is_none_or(|entry| entry.fs_type != kernel::FS_TYPE)
            {
                return Ok(());
            }
            // A change is only reported to who has read the present table.
            self.mounts.rewind()?;
            self.mounts.read_to_end(&mut Vec::new())?;
            let mut polled = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI),
            ];
            match poll(&mut polled, PollTimeout::from(5000_u16)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait"),
            }
            if polled[0].any().unwrap_or(false) {
                umount::umount(mountpoint, run_base)?;
                return Ok(());
            }
        }
    }
}
