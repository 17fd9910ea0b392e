//! Loop devices: block devices whose bytes are a file's.
//!
//! A device is bound with `AUTOCLEAR`: it goes when its last user does, so a driver that is killed
//! between binding and mounting leaves none behind. Which file a device has is told by inode and
//! device number, because a path changes when the file is moved. Calls and layouts: `linux/loop.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Major number of loop devices.
const MAJOR: u64 = 7;

/// Turns of asking for a free device and losing it to somebody else.
const TURNS_MAX: usize = 64;

/// What file systems in images are made for. Left to the kernel it would be what the file below wants, which
/// changes when the file comes to share blocks, and what is in it would not mount any more.
const SECTOR: u32 = 512;

const AUTOCLEAR: u32 = 4;
const DIRECT: u32 = 16;

/// `struct loop_info64`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Info {
    device: u64,
    inode: u64,
    real_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [u8; 128],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Configuration {
    descriptor: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

nix::ioctl_none_bad!(get_free, 0x4C82);
nix::ioctl_write_ptr_bad!(configure, 0x4C0A, Configuration);
nix::ioctl_read_bad!(get_status, 0x4C05, Info);
nix::ioctl_none_bad!(set_capacity, 0x4C07);

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    real_device: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encryption: [0; 2],
    flags: 0,
    names: [0; 128],
    key: [0; 32],
    init: [0; 2],
};

/// A bound loop device. It is freed when this is dropped and nothing has it mounted.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    _open: File,
}

impl LoopDevice {
    /// Binds a free device to the file.
    pub(super) fn bind(file: &Path) -> io::Result<Self> {
        let backing = OpenOptions::new().read(true).write(true).open(file)?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        for _ in 0..TURNS_MAX {
            // SAFETY: the descriptor is open, and the call takes no argument.
            let number = unsafe { get_free(control.as_raw_fd()) }?;
            let number = u64::try_from(number).map_err(io::Error::other)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open_device(&path, number)?;
            let wanted = Configuration {
                descriptor: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
                block_size: SECTOR,
                info: Info {
                    flags: AUTOCLEAR | DIRECT,
                    ..EMPTY
                },
                reserved: [0; 8],
            };
            // SAFETY: the descriptor is open, and the kernel reads that structure only.
            match unsafe { configure(device.as_raw_fd(), &raw const wanted) } {
                Ok(_) => {
                    return Ok(Self {
                        path,
                        _open: device,
                    });
                }
                // Somebody else was quicker.
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other(
            "every free loop device was taken by others",
        ))
    }

    /// Its path, `/dev/loop7`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the block device `device` is a loop device that has `file` as its bytes.
pub(super) fn is_backed_by(device: &Path, file: &Path) -> bool {
    let is_loop = device.to_string_lossy().starts_with("/dev/loop");
    let (true, Ok(file), Ok(device)) = (is_loop, std::fs::metadata(file), File::open(device))
    else {
        return false;
    };
    let mut info = EMPTY;
    // SAFETY: the descriptor is open, and the kernel writes that structure only.
    let asked = unsafe { get_status(device.as_raw_fd(), &raw mut info) };
    asked.is_ok() && info.inode == file.ino() && info.device == kernel_number(file.dev())
}

/// Makes a device see that its file has grown.
pub(super) fn grow(device: &Path) -> io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open(device)?;
    // SAFETY: the descriptor is open, and the call takes no argument.
    unsafe { set_capacity(device.as_raw_fd()) }?;
    Ok(())
}

/// Opens a device, making its node where `/dev` is not kept by the kernel.
fn open_device(path: &Path, number: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            match mknod(path, SFlag::S_IFBLK, mode, makedev(MAJOR, number)) {
                Ok(()) | Err(Errno::EEXIST) => options.open(path),
                Err(errno) => Err(errno.into()),
            }
        }
        done => done,
    }
}

/// A device number as the kernel hands it out in structures (`huge_encode_dev`).
fn kernel_number(device: u64) -> u64 {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
