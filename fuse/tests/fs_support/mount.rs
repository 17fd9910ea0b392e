//! A mount in this process, unmounted whatever happens.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of this file"
)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;
use terrace_fuse::adapter::{self, Adapter};
use terrace_fuse::fs::FileSystem;

/// Where the tests' files lie: not tmpfs, so that hot files have the disk's own reads.
pub(crate) fn base() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Says why a test cannot run here, in a line that is counted.
pub(crate) fn can_mount(test: &str) -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        "mounting needs root"
    } else if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else {
        return true;
    };
    println!("SKIP {test}: {reason}");
    false
}

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) device: Arc<adapter::Device>,
    session: Option<BackgroundSession>,
    mountpoint: TempDir,
}

impl Mounted {
    /// Mounts `fs` read-only at a fresh directory, served by two threads.
    pub(crate) fn new(fs: Arc<FileSystem>) -> Self {
        let mountpoint = tempfile::tempdir_in(base()).unwrap();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoAtime,
            MountOption::DefaultPermissions,
            MountOption::FSName("terrace-test".into()),
        ];
        config.acl = SessionACL::All;
        config.n_threads = Some(2);
        let adapter = Adapter::new(Arc::clone(&fs), Arc::default());
        let session = Session::new(adapter, mountpoint.path(), &config).unwrap();
        adapter::connect(&fs, session.as_fd()).unwrap();
        let device = session.as_fd().try_clone_to_owned().unwrap();
        let session = Some(session.spawn().unwrap());
        Self {
            fs,
            device: Arc::new(adapter::Device::new(device)),
            session,
            mountpoint,
        }
    }

    /// A path below the mount point.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mountpoint.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(self.mountpoint.path(), MntFlags::MNT_DETACH).ok();
        drop(self.session.take());
    }
}
