//! Volumes as images: a file of the volume's size with a file system of its own in it.
//!
//! ```text
//! volumes/<hash>/image    allocated in full, so that what was promised is there; of a copy, what it shares
//!                         with another image counts as not there yet
//! volumes/<hash>/mnt      where the driver itself mounts it for a moment
//! ```
//!
//! Works on any file system, for the price of a loop device and a second journal. The limit is the
//! size of the image: a write beyond it fails with ENOSPC, and `df` shows it, less what the file
//! system in it needs for itself. An image is mounted through one loop device at a time; where it is
//! mounted already, a second place is a bind of the first, because two loop devices over one file
//! would be two file systems over the same blocks. A copy of an XFS image has the identity of its origin,
//! so they are mounted without regard to it (`nouuid`).

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use super::backend::{Backend, Limit, QuotaKind, ROOT_MODE, Usage};
use super::copy::reflinks;
use super::error::ScratchError;
use super::extents::shared;
use super::loops::{self, LoopDevice};
use super::tree::{make_directory, remove_tree, set_mode};
use crate::mounts::{BindOptions, MountEntry, Target, mount_table};

mod copy;

/// Smallest image: XFS refuses less than 300 MiB, ext4 without a journal would be another promise.
const EXT4_MIN: u64 = 16 << 20;
const XFS_MIN: u64 = 300 << 20;

/// The file system in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// ext4, made by `mkfs.ext4`.
    Ext4,
    /// XFS, made by `mkfs.xfs`.
    Xfs,
}

/// `struct xfs_growfs_data`.
#[repr(C)]
pub(super) struct Growth {
    blocks: u64,
    inode_percent: u32,
    padding: u32,
}

nix::ioctl_write_ptr!(grow_ext4, b'f', 16, u64);
nix::ioctl_write_ptr!(grow_xfs, b'X', 110, Growth);

/// Images below one base directory.
#[derive(Debug)]
pub(crate) struct Image {
    format: ImageFormat,
    reflinks: bool,
}

impl Image {
    pub(crate) fn new(base: &Path, format: ImageFormat) -> Result<Self, ScratchError> {
        Ok(Self {
            format,
            reflinks: reflinks(base)?,
        })
    }

    /// Options of the file system's own, as mount(2) takes them.
    fn options(&self) -> &'static str {
        match self.format {
            ImageFormat::Ext4 => "",
            ImageFormat::Xfs => "nouuid",
        }
    }

    fn file_system(&self) -> &'static str {
        match self.format {
            ImageFormat::Ext4 => "ext4",
            ImageFormat::Xfs => "xfs",
        }
    }

    /// Makes the file system. The arguments are ours and a path that only the driver names.
    fn format(&self, image: &Path, limit: Limit) -> Result<(), ScratchError> {
        let mut command = match self.format {
            ImageFormat::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                command.args(["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"]);
                if limit.inodes > 0 {
                    command.arg("-N").arg(limit.inodes.to_string());
                }
                command
            }
            ImageFormat::Xfs => {
                let mut command = Command::new("mkfs.xfs");
                command.args(["-q", "-f", "-K"]);
                command
            }
        };
        run(command.arg(image), image)
    }

    /// Does something with the mounted image: where it is mounted, else for a moment in `mnt`.
    fn mounted<T>(
        &self,
        at: &Path,
        work: impl FnOnce(&Path) -> Result<T, ScratchError>,
    ) -> Result<T, ScratchError> {
        let image = at.join("image");
        if let Some(entry) = mount_of_image(&image)? {
            return work(&entry.target);
        }
        let place = at.join("mnt");
        if !place.exists() {
            make_directory(&place, 0o700)?;
        }
        let device = LoopDevice::bind(&image).map_err(ScratchError::io("bind", &image))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some(device.path()),
            &place,
            Some(self.file_system()),
            flags,
            Some(self.options()),
        )
        .map_err(ScratchError::io("mount", &image))?;
        let done = work(&place);
        let unmounted = unmount(&place);
        done.and_then(|done| unmounted.map(|()| done))
    }

    /// Takes the file's bytes from the disk; a file system that cannot keeps it sparse.
    fn allocate(image: &Path, size: u64) -> Result<(), ScratchError> {
        let mut options = OpenOptions::new();
        options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600);
        let file = options
            .open(image)
            .map_err(ScratchError::io("make", image))?;
        let length = i64::try_from(size).map_err(std::io::Error::other);
        let length = length.map_err(ScratchError::io("allocate", image))?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP) => {
                file.set_len(size)
                    .map_err(ScratchError::io("lengthen", image))?;
            }
            Err(errno) => return Err(ScratchError::io("allocate", image)(errno)),
        }
        file.sync_all().map_err(ScratchError::io("sync", image))
    }

    /// Lets the mounted file system fill its device.
    fn grow(&self, image: &Path, mounted: &Path) -> Result<(), ScratchError> {
        let size = std::fs::metadata(image)
            .map_err(ScratchError::io("look at", image))?
            .size();
        let block = statvfs(mounted)
            .map_err(ScratchError::io("look at", mounted))?
            .block_size();
        let blocks = size / block.max(1);
        let file = File::open(mounted).map_err(ScratchError::io("open", mounted))?;
        let grown = match self.format {
            // SAFETY: the descriptor is open, and the kernel reads one 64-bit number.
            ImageFormat::Ext4 => unsafe { grow_ext4(file.as_raw_fd(), &raw const blocks) },
            ImageFormat::Xfs => {
                let growth = Growth {
                    blocks,
                    inode_percent: 25,
                    padding: 0,
                };
                // SAFETY: the descriptor is open, and the kernel reads that structure only.
                unsafe { grow_xfs(file.as_raw_fd(), &raw const growth) }
            }
        };
        grown
            .map(drop)
            .map_err(ScratchError::io("grow the file system of", image))
    }
}

impl Backend for Image {
    fn kind(&self) -> QuotaKind {
        QuotaKind::Image(self.format)
    }

    fn make(&self, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        let (least, why) = match self.format {
            ImageFormat::Ext4 => (EXT4_MIN, "an ext4 image has 16 MiB at least"),
            ImageFormat::Xfs => (XFS_MIN, "an XFS image has 300 MiB at least"),
        };
        if limit.bytes < least {
            let asked = limit.bytes;
            return Err(ScratchError::Size { asked, why });
        }
        make_directory(at, 0o700)?;
        let image = at.join("image");
        Self::allocate(&image, limit.bytes)?;
        self.format(&image, limit)?;
        self.mounted(at, |mounted| {
            // What fsck puts back is made anew by fsck.
            let _ = std::fs::remove_dir(mounted.join("lost+found"));
            set_mode(mounted, ROOT_MODE)
        })
    }

    fn copy(&self, from: &Path, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        self.copy_image(from, at, limit)
    }

    fn copies(&self) -> bool {
        true
    }

    fn copies_in_use(&self) -> bool {
        self.reflinks
    }

    fn copy_needs(&self, size: u64) -> u64 {
        size
    }

    fn resize(&self, at: &Path, _number: u32, limit: Limit) -> Result<(), ScratchError> {
        let image = at.join("image");
        let metadata = std::fs::metadata(&image).map_err(ScratchError::io("look at", &image))?;
        if limit.bytes > metadata.size() {
            Self::allocate(&image, limit.bytes)?;
        }
        // Also when it has the size already: a resize that was killed may have got so far.
        match mount_of_image(&image)? {
            Some(entry) => {
                let device = Path::new(&entry.source);
                loops::grow(device).map_err(ScratchError::io("grow", device))?;
                self.grow(&image, &entry.target)
            }
            // What ext4 asks a mount for needs CAP_SYS_RESOURCE, its own program needs nothing.
            None if self.format == ImageFormat::Ext4 => {
                let mut command = Command::new("resize2fs");
                command.arg("-f").arg(&image);
                run(&mut command, &image)
            }
            None => self.mounted(at, |mounted| self.grow(&image, mounted)),
        }
    }

    fn usage(&self, at: &Path, _number: u32) -> Result<Usage, ScratchError> {
        let image = at.join("image");
        let metadata = std::fs::metadata(&image).map_err(ScratchError::io("look at", &image))?;
        let Some(entry) = mount_of_image(&image)? else {
            return Ok(Usage {
                bytes: metadata.blocks() * 512,
                byte_limit: metadata.size(),
                ..Usage::default()
            });
        };
        let inside = statvfs(&entry.target).map_err(ScratchError::io("look at", &entry.target))?;
        let unit = inside.fragment_size();
        Ok(Usage {
            bytes: inside.blocks().saturating_sub(inside.blocks_free()) * unit,
            byte_limit: inside.blocks() * unit,
            inodes: Some(inside.files().saturating_sub(inside.files_free())),
            inode_limit: Some(inside.files()),
        })
    }

    fn attach(&self, at: &Path, target: &Target) -> Result<(), ScratchError> {
        let image = at.join("image");
        match mount_of_image(&image)? {
            Some(entry) => Ok(target.bind(&entry.target, BindOptions::default())?),
            None => {
                let device = LoopDevice::bind(&image).map_err(ScratchError::io("bind", &image))?;
                Ok(target.mount_device(device.path(), self.file_system(), self.options())?)
            }
        }
    }

    fn remove(&self, at: &Path) -> Result<(), ScratchError> {
        // Left by a driver that was killed while it looked inside.
        unmount(&at.join("mnt"))?;
        remove_tree(at)
    }

    fn outstanding(&self, at: &Path, _number: u32, size: u64) -> Result<u64, ScratchError> {
        let image = at.join("image");
        let metadata = std::fs::metadata(&image).map_err(ScratchError::io("look at", &image))?;
        let missing = match self.reflinks {
            true => File::open(&image).and_then(|file| shared(&file)),
            false => Ok(0),
        };
        let missing = missing.map_err(ScratchError::io("look for shared blocks of", &image))?;
        let own = (metadata.blocks() * 512).saturating_sub(missing);
        Ok(size.saturating_sub(own))
    }

    fn mounts(&self, at: &Path) -> Result<Vec<MountEntry>, ScratchError> {
        mounts_of_image(&at.join("image"))
    }

    fn release(&self, _number: u32) -> Result<(), ScratchError> {
        Ok(())
    }

    fn unused(&self, _number: u32) -> Result<bool, ScratchError> {
        Ok(true)
    }
}

/// Where an image is mounted.
fn mounts_of_image(image: &Path) -> Result<Vec<MountEntry>, ScratchError> {
    let entries = mount_table()?.into_iter();
    let backed = entries.filter(|entry| loops::is_backed_by(Path::new(&entry.source), image));
    Ok(backed.collect())
}

/// The first place where an image is mounted.
fn mount_of_image(image: &Path) -> Result<Option<MountEntry>, ScratchError> {
    Ok(mounts_of_image(image)?.into_iter().next())
}

fn unmount(place: &Path) -> Result<(), ScratchError> {
    match umount2(place, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(ScratchError::io("unmount", place)(errno)),
    }
}

/// Runs a program of the file system's own for an image.
fn run(command: &mut Command, image: &Path) -> Result<(), ScratchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = command.output().map_err(|error| {
        let why = std::io::Error::other(format!("{program}: {error}; install it"));
        ScratchError::io("start a program for", image)(why)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "; ");
    let why = std::io::Error::other(format!("{program}: {why}"));
    Err(ScratchError::io("change the file system in", image)(why))
}
