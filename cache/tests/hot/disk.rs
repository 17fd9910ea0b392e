//! Disks that fail on demand: file systems on loop devices over memory.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod ioctl {
    //! The same request numbers work on ext4 and XFS; see linux/fs.h and fs/ext4/ext4.h.
    nix::ioctl_read!(shutdown, b'X', 125, u32);
    nix::ioctl_readwrite!(freeze, b'X', 119, i32);
    nix::ioctl_readwrite!(thaw, b'X', 120, i32);
}

/// A mounted file system; unmounted, and its image removed, on drop.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: tempfile::TempDir,
    options: Vec<String>,
    mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Disk {
    /// ext4 of `size` on a loop device over memory; `Err` says why this machine cannot.
    pub(crate) fn ext4(size: u64, options: &[&str]) -> Result<Self, String> {
        Self::looped(size, "mkfs.ext4", &[&["-q", "-F"], options].concat())
    }

    /// XFS, likewise; at least 300 MiB.
    pub(crate) fn xfs(size: u64) -> Result<Self, String> {
        Self::looped(size, "mkfs.xfs", &["-q", "-f"])
    }

    fn looped(size: u64, mkfs: &str, options: &[&str]) -> Result<Self, String> {
        Self::root_only()?;
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory
        } else {
            Path::new("/tmp")
        };
        let directory = tempfile::Builder::new()
            .prefix("hot-disk-")
            .tempdir_in(base)
            .unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(size).unwrap();
        run(mkfs, &[options, &[image.to_str().unwrap()]].concat())?;
        let options = ["-o", "loop", image.to_str().unwrap()];
        Self::mounted(directory, options.map(str::to_owned).to_vec())
    }

    /// Memory of at most `size`.
    pub(crate) fn tmpfs(size: u64) -> Result<Self, String> {
        Self::root_only()?;
        let directory = tempfile::Builder::new()
            .prefix("hot-disk-")
            .tempdir()
            .unwrap();
        let options = ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"];
        Self::mounted(directory, options.map(str::to_owned).to_vec())
    }

    fn root_only() -> Result<(), String> {
        if nix::unistd::geteuid().is_root() {
            Ok(())
        } else {
            Err("needs root to mount".to_owned())
        }
    }

    fn mounted(directory: tempfile::TempDir, options: Vec<String>) -> Result<Self, String> {
        std::fs::create_dir(directory.path().join("mnt")).unwrap();
        let mut disk = Self {
            directory,
            options,
            mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    pub(crate) fn mount(&mut self) -> Result<(), String> {
        let path = self.path();
        let mut arguments: Vec<&str> = self.options.iter().map(String::as_str).collect();
        arguments.push(path.to_str().unwrap());
        run("mount", &arguments)?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts; everything that was not on the device is gone after.
    pub(crate) fn unmount(&mut self) {
        let begun = Instant::now();
        let path = self.path();
        while let Err(error) = run("umount", &[path.to_str().unwrap()]) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.mounted = false;
    }

    /// A handle for [`shut_down`] that does not touch the disk when it is used.
    pub(crate) fn handle(&self) -> File {
        File::open(self.path()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let path = self.path();
            let path = path.to_str().unwrap();
            let _ = thaw_path(path);
            if run("umount", &[path]).is_err() {
                let _ = run("umount", &["-l", path]);
            }
        }
    }
}

/// From now on every access answers EIO, and what was not yet on the device never gets there: a
/// power cut, once the file system is mounted again.
pub(crate) fn shut_down(handle: &File) {
    let mut without_log_flush = 2;
    // SAFETY: the request takes a pointer to a u32 that lives for the call.
    unsafe { ioctl::shutdown(handle.as_raw_fd(), &mut without_log_flush) }.unwrap();
}

/// The power of a machine whose disk is one file system.
///
/// A sync that is under way when the shutdown begins may be answered with success afterwards, and its
/// bytes be gone: XFS with nothing of ours on it did so in 4 of 150 cuts, up to 2 ms after the shutdown
/// had returned. A machine without power answers nothing, so only what was answered while
/// [`Power::is_on`] has been promised.
#[derive(Debug, Default)]
pub(crate) struct Power(AtomicBool);

impl Power {
    pub(crate) fn is_on(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }

    /// See [`shut_down`].
    pub(crate) fn cut(&self, handle: &File) {
        self.0.store(true, Ordering::SeqCst);
        shut_down(handle);
    }
}

/// Every write to the file system waits until [`thaw`].
pub(crate) fn freeze(handle: &File) {
    let mut unused = 0;
    // SAFETY: the request takes a pointer to an int that lives for the call, and ignores it.
    unsafe { ioctl::freeze(handle.as_raw_fd(), &mut unused) }.unwrap();
}

pub(crate) fn thaw(handle: &File) -> nix::Result<i32> {
    let mut unused = 0;
    // SAFETY: as above.
    unsafe { ioctl::thaw(handle.as_raw_fd(), &mut unused) }
}

fn thaw_path(path: &str) -> nix::Result<i32> {
    File::open(path).map_or(Ok(0), |handle| thaw(&handle))
}
