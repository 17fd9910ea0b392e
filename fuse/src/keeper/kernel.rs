//! The kernel's side of a mount: make it, find it, remove it, abort it.
//!
//! Nothing here asks the file system itself (no `stat` of a mount point), so nothing here hangs when
//! no worker answers. What is mounted is read from `/proc/self/mountinfo`.
//!
//! A connection ends when the last descriptor of its device closes, when its last mount and user are
//! gone, or by its abort file in fusectl. The latter need not be mounted (containers), so [`abort`]
//! mounts it privately when it must.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::spec::{InitRecord, MountSpec};

/// File system type in `/proc/mounts` of everything this program mounts.
pub const FS_TYPE: &str = "fuse.terrace";

/// Longest FUSE_INIT request we accept; `fuse_in_header` + `fuse_init_in` are 104 bytes today.
const INIT_MAX: usize = 8192;

/// How long the kernel may take to queue FUSE_INIT; it does so before mount(2) returns.
const INIT_WAIT_MS: u16 = 5000;

/// A mount that has just been made: nobody answers yet.
#[derive(Debug)]
pub struct NewMount {
    /// The connection's only descriptor.
    pub device: OwnedFd,
    /// FUSE_INIT as the kernel sent it.
    pub init: InitRecord,
    /// Minor device number, also the connection's name in fusectl.
    pub connection: u32,
}

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Minor device number.
    pub minor: u32,
    /// Where.
    pub mountpoint: PathBuf,
    /// Type with subtype, as [`FS_TYPE`].
    pub fs_type: String,
    /// What.
    pub source: String,
}

/// Opens a device, mounts it at the spec's mount point, and reads FUSE_INIT. On an error nothing
/// stays mounted.
pub fn mount_device(spec: &MountSpec) -> io::Result<NewMount> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let mut flags = MsFlags::empty();
    if !spec.kernel.writable {
        flags |= MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    }
    if !spec.kernel.dev {
        flags |= MsFlags::MS_NODEV;
    }
    if !spec.kernel.suid {
        flags |= MsFlags::MS_NOSUID;
    }
    if spec.kernel.noexec {
        flags |= MsFlags::MS_NOEXEC;
    }
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={}",
        device.as_raw_fd(),
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
        spec.kernel.max_read,
    );
    if spec.kernel.allow_other {
        data.push_str(",allow_other");
    }
    mount(
        Some(spec.source.as_str()),
        &spec.mountpoint,
        Some(FS_TYPE),
        flags,
        Some(data.as_str()),
    )?;
    let made = read_init(&device).and_then(|request| {
        let entry = find_mount(&spec.mountpoint)?
            .ok_or_else(|| io::Error::other("the new mount is not in mountinfo"))?;
        Ok((request, entry.minor))
    });
    match made {
        Ok((request, connection)) => Ok(NewMount {
            device: device.into(),
            init: InitRecord {
                request,
                reply: None,
            },
            connection,
        }),
        Err(error) => {
            detach(&spec.mountpoint).ok();
            Err(error)
        }
    }
}

/// Reads the first request of a fresh connection. The descriptor blocks again afterwards.
fn read_init(device: &File) -> io::Result<Vec<u8>> {
    let mut ready = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(INIT_WAIT_MS))? == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the kernel sent no FUSE_INIT",
        ));
    }
    let flags = OFlag::from_bits_retain(fcntl(device, FcntlArg::F_GETFL)?);
    fcntl(device, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut request = vec![0; INIT_MAX];
    let length = (&*device).read(&mut request);
    fcntl(device, FcntlArg::F_SETFL(flags))?;
    request.truncate(length?);
    Ok(request)
}

/// Whether the connection of `device` has ended (unmounted and unused, or aborted).
pub fn has_ended(device: &OwnedFd) -> bool {
    let mut state = [PollFd::new(device.as_fd(), PollFlags::empty())];
    match poll(&mut state, PollTimeout::ZERO) {
        Ok(_) => state[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => false,
    }
}

/// How a mount point became free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Unmounted; nobody used it.
    Clean,
    /// Busy: detached from the tree, alive until its last user closes.
    Detached,
    /// It was not mounted.
    Absent,
}

/// Unmounts, lazily when busy. Never waits for the file system.
pub fn unmount(mountpoint: &Path) -> io::Result<Removed> {
    match umount2(mountpoint, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(Removed::Clean),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(Removed::Absent),
        Err(nix::errno::Errno::EBUSY) => {
            detach(mountpoint)?;
            Ok(Removed::Detached)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes the mount out of the tree whether it is used or not.
pub fn detach(mountpoint: &Path) -> io::Result<()> {
    umount2(mountpoint, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    Ok(())
}

/// Ends a connection: every waiting and every later request on it fails at once.
///
/// Errors: no such connection, or no privilege.
pub fn abort(connection: u32) -> io::Result<()> {
    const FUSECTL: &str = "/sys/fs/fuse/connections";
    let file = format!("{connection}/abort");
    let public = Path::new(FUSECTL).join(&file);
    if public.exists() {
        return write_abort(&public);
    }
    let private = std::env::temp_dir().join(format!("terrace-fusectl-{}", std::process::id()));
    std::fs::create_dir_all(&private)?;
    let result = mount(
        Some("fusectl"),
        &private,
        Some("fusectl"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(io::Error::from)
    .and_then(|()| {
        let written = write_abort(&private.join(&file));
        detach(&private).ok();
        written
    });
    std::fs::remove_dir(&private).ok();
    result
}

fn write_abort(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(b"1")
}

/// Sets the page cache's readahead of a mount.
pub fn set_read_ahead(connection: u32, kib: u32) -> io::Result<()> {
    std::fs::write(
        format!("/sys/class/bdi/0:{connection}/read_ahead_kb"),
        kib.to_string(),
    )
}

/// The topmost mount at exactly `mountpoint`.
pub fn find_mount(mountpoint: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?
        .into_iter()
        .rev()
        .find(|entry| entry.mountpoint == mountpoint))
}

/// All mounts of this process's mount namespace, oldest first.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse_mountinfo)
        .collect())
}

/// Parses `id parent major:minor root mountpoint options [fields...] - type source ...`
/// (proc_pid_mountinfo(5)).
fn parse_mountinfo(line: &[u8]) -> Option<MountEntry> {
    use std::os::unix::ffi::OsStringExt;

    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let mountpoint = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    Some(MountEntry {
        minor: device.split_once(':')?.1.parse().ok()?,
        mountpoint: PathBuf::from(std::ffi::OsString::from_vec(mountpoint)),
        fs_type,
        source,
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_understood() {
        // Without it a mount point with a space could never be unmounted.
        let line = br"36 35 0:52 / /mnt/a\040b rw,noatime shared:1 - fuse.terrace s3://b/p\134q ro";
        let expected = MountEntry {
            minor: 52,
            mountpoint: "/mnt/a b".into(),
            fs_type: FS_TYPE.into(),
            source: r"s3://b/p\q".into(),
        };
        assert_eq!(parse_mountinfo(line), Some(expected));
        for junk in [
            &b""[..],
            b"1 2 3",
            b"36 35 0:x / /mnt rw - t s",
            b"1 2 0:1 / /m rw no dash",
        ] {
            assert_eq!(parse_mountinfo(junk), None);
        }
    }
}
