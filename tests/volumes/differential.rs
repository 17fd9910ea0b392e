//! The same operations by the same users on a volume and on a plain directory.
//!
//! Every result (done, or which errno) and, at the end, both whole trees must be the same: names,
//! types, modes, owners, link counts, sizes, contents, targets of links, extended attributes. The
//! operations are made by short-lived threads that have become the user, on descriptors of the two
//! roots.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::Volume;
use crate::numbers::Numbers;
use crate::world::need_mount;

const SEEDS: u64 = 4;
const OPERATIONS: u32 = 1500;
/// Operations that have to succeed, of all; most meet another type, a taken name or a refusal.
const ENOUGH: u32 = 500;

/// User, group, further groups.
const USERS: [(u32, u32, &[u32]); 4] = [
    (0, 0, &[]),
    (1001, 2001, &[2002]),
    (1002, 2002, &[]),
    (1003, 2003, &[2001]),
];

/// Names, so few that operations meet each other.
const NAMES: [&str; 6] = ["a", "b", "c", "a/a", "a/b", "b/a"];

#[derive(Clone, Debug)]
enum Operation {
    Make(&'static str, u32),
    Directory(&'static str, u32),
    Node(&'static str, u32, SFlag),
    Symlink(&'static str, &'static str),
    Link(&'static str, &'static str),
    Remove(&'static str, bool),
    Rename(&'static str, &'static str, u32),
    Mode(&'static str, u32),
    Owner(&'static str, Option<u32>, Option<u32>),
    Write(&'static str, i32, usize),
    Read(&'static str),
    Truncate(&'static str, i64),
    List(&'static str),
    ReadLink(&'static str),
    Attribute(&'static str, i32),
    NoAttribute(&'static str),
}

fn operation(numbers: &mut Numbers) -> Operation {
    let mut name = || NAMES[numbers.below(NAMES.len() as u64) as usize];
    let (one, other) = (name(), name());
    let mode = [0o777, 0o755, 0o700, 0o640, 0o2775, 0o1777, 0o4755, 0o444];
    let mode = mode[numbers.below(8) as usize];
    let number = numbers.below(3);
    let ids = [None, Some(1001), Some(1002), Some(0)];
    let groups = [None, Some(2001), Some(2002), Some(2003)];
    match numbers.below(20) {
        0..3 => Operation::Make(one, mode),
        3..6 => Operation::Directory(one, mode),
        6 => Operation::Node(
            one,
            mode,
            [SFlag::S_IFIFO, SFlag::S_IFSOCK, SFlag::S_IFREG][number as usize],
        ),
        7 => Operation::Symlink(one, other),
        8 => Operation::Link(one, other),
        9 => Operation::Remove(one, false),
        10 => Operation::Remove(one, true),
        11 => Operation::Rename(one, other, number as u32),
        12 => Operation::Mode(one, mode),
        13 => Operation::Owner(
            one,
            ids[numbers.below(4) as usize],
            groups[numbers.below(4) as usize],
        ),
        14 => {
            let flags = [nix::libc::O_APPEND, nix::libc::O_TRUNC, 0];
            Operation::Write(one, flags[number as usize], numbers.below(9000) as usize)
        }
        15 => Operation::Read(one),
        16 => Operation::Truncate(one, numbers.below(20_000) as i64),
        17 => Operation::List(one),
        18 => Operation::ReadLink(one),
        _ if number == 0 => Operation::NoAttribute(one),
        _ => Operation::Attribute(one, number as i32 - 1),
    }
}

/// What an operation says, as text.
fn perform(root: BorrowedFd<'_>, operation: &Operation) -> Result<String, Errno> {
    let bits = |mode: u32| Mode::from_bits_truncate(mode);
    let done = |()| String::new();
    match operation {
        Operation::Make(name, mode) => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
            openat(root, *name, flags, bits(*mode)).map(|_| String::new())
        }
        Operation::Directory(name, mode) => mkdirat(root, *name, bits(*mode)).map(done),
        Operation::Node(name, mode, kind) => {
            mknodat(root, *name, *kind, bits(*mode), 0x103).map(done)
        }
        Operation::Symlink(name, target) => symlinkat(*target, root, *name).map(done),
        Operation::Link(name, new) => linkat(root, *name, root, *new, AtFlags::empty()).map(done),
        Operation::Remove(name, directory) => {
            let how = if *directory {
                UnlinkatFlags::RemoveDir
            } else {
                UnlinkatFlags::NoRemoveDir
            };
            unlinkat(root, *name, how).map(done)
        }
        Operation::Rename(name, new, flags) => renameat2(
            root,
            *name,
            root,
            *new,
            RenameFlags::from_bits_truncate(*flags),
        )
        .map(done),
        Operation::Mode(name, mode) => {
            let stat = fstatat(root, *name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits() {
                return Ok("link".to_owned());
            }
            fchmodat(root, *name, bits(*mode), FchmodatFlags::FollowSymlink).map(done)
        }
        Operation::Owner(name, uid, gid) => {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            fchownat(root, *name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map(done)
        }
        Operation::ReadLink(name) => readlinkat(root, *name).map(|target| format!("{target:?}")),
        _ => perform_on_file(root, operation),
    }
}

/// As [`perform`], for what is done with an open file.
fn perform_on_file(root: BorrowedFd<'_>, operation: &Operation) -> Result<String, Errno> {
    let at = |name: &str, flags: i32| {
        let flags = OFlag::from_bits_retain(flags | nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW);
        openat(root, name, flags, Mode::empty()).map(File::from)
    };
    let done = |()| String::new();
    match operation {
        Operation::Write(name, flags, length) => {
            let mut file = at(name, flags | nix::libc::O_WRONLY)?;
            if !file.metadata().is_ok_and(|found| found.is_file()) {
                return Ok("special".to_owned());
            }
            let written = file.write(&vec![b'x'; *length]).map_err(errno)?;
            Ok(format!(
                "{written} {:?}",
                file.metadata().map(|m| (m.len(), m.mode()))
            ))
        }
        Operation::Read(name) => {
            let mut file = at(name, nix::libc::O_RDONLY)?;
            if !file.metadata().is_ok_and(|found| found.is_file()) {
                return Ok("special".to_owned());
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(errno)?;
            Ok(format!(
                "{} bytes, {}",
                bytes.len(),
                bytes.iter().filter(|b| **b == 0).count()
            ))
        }
        Operation::Truncate(name, size) => {
            let file = at(name, nix::libc::O_WRONLY)?;
            nix::unistd::ftruncate(&file, *size).map(done)
        }
        Operation::List(name) => {
            let directory = at(name, nix::libc::O_RDONLY | nix::libc::O_DIRECTORY)?;
            let mut names: Vec<String> = nix::dir::Dir::from_fd(directory.into())?
                .iter()
                .map(|entry| {
                    entry.map(|entry| format!("{:?} {:?}", entry.file_name(), entry.file_type()))
                })
                .collect::<Result<_, _>>()?;
            names.sort();
            Ok(names.join(" "))
        }
        Operation::Attribute(name, flags) => {
            let file = at(name, nix::libc::O_RDONLY)?;
            set_attribute(&file, *flags).map(done)
        }
        Operation::NoAttribute(name) => {
            let file = at(name, nix::libc::O_RDONLY)?;
            // SAFETY: a descriptor and a terminated string.
            let removed = unsafe { nix::libc::fremovexattr(file.as_raw_fd(), c"user.x".as_ptr()) };
            Errno::result(removed).map(|_| String::new())
        }
        other => unreachable!("{other:?} opens no file"),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

fn set_attribute(file: &File, flags: i32) -> Result<(), Errno> {
    // SAFETY: a descriptor, a terminated string and a value as long as said.
    let set = unsafe {
        let value = c"value".as_ptr().cast();
        nix::libc::fsetxattr(file.as_raw_fd(), c"user.x".as_ptr(), value, 5, flags)
    };
    Errno::result(set).map(drop)
}

/// Runs `work` on a thread that is this user, and nobody else.
pub(crate) fn as_user<T: Send>(
    (uid, gid, groups): (u32, u32, &[u32]),
    work: impl FnOnce() -> T + Send,
) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The calls of the library change every thread; these change one.
            // SAFETY: numbers and a valid list; all of it is gone with the thread.
            unsafe {
                nix::libc::unshare(nix::libc::CLONE_FS);
                nix::libc::umask(0o022);
                let groups_set =
                    nix::libc::syscall(nix::libc::SYS_setgroups, groups.len(), groups.as_ptr());
                assert_eq!(groups_set, 0);
                assert_eq!(
                    nix::libc::syscall(nix::libc::SYS_setresgid, gid, gid, gid),
                    0
                );
                assert_eq!(
                    nix::libc::syscall(nix::libc::SYS_setresuid, uid, uid, uid),
                    0
                );
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// Everything below, by path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let kind = stat.file_type();
            let content = if kind.is_file() {
                format!("{:?}", crc32(&fs::read(&path).unwrap()))
            } else if kind.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            // A directory's size is its file system's affair.
            let size = if kind.is_dir() { 0 } else { stat.len() };
            let device = if kind.is_char_device() {
                stat.rdev()
            } else {
                0
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
            let shown = format!(
                "{:o} {} {} {} {size} {device} {content}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.nlink(),
            );
            found.insert(String::from_utf8_lossy(name).into_owned(), shown);
            if kind.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

fn crc32(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(7, |sum, byte| crate::numbers::mix(sum ^ u64::from(*byte)))
}

// SEMANTICS S40, S42: without it owners, modes, permissions or errors on a volume differ from those of the
// directory it shows.
#[test]
fn a_volume_does_what_its_directory_does() {
    need_mount!("a_volume_does_what_its_directory_does");
    let volume = Volume::new(&["-o", "suid"]);
    let plain = volume.world.scratch("plain");
    let mut done = 0;
    for seed in 0..SEEDS {
        let (here, there) = (
            volume.mount.join(seed.to_string()),
            plain.join(seed.to_string()),
        );
        for root in [&here, &there] {
            fs::create_dir(root).unwrap();
            fs::set_permissions(root, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let (one, other) = (File::open(&here).unwrap(), File::open(&there).unwrap());
        let mut numbers = Numbers::new(seed + 100);
        for number in 0..OPERATIONS {
            let user = USERS[numbers.below(USERS.len() as u64) as usize];
            let operation = operation(&mut numbers);
            let (on_volume, on_directory) = as_user(user, || {
                (
                    perform(one.as_fd(), &operation),
                    perform(other.as_fd(), &operation),
                )
            });
            assert_eq!(
                on_volume, on_directory,
                "seed {seed}, operation {number} by {user:?}: {operation:?}"
            );
            done += u32::from(on_directory.is_ok());
        }
        assert_eq!(tree(&here), tree(&there), "seed {seed}");
        assert_eq!(
            tree(&volume.below.join(seed.to_string())),
            tree(&there),
            "seed {seed}"
        );
    }
    println!("{done} operations succeeded alike");
    assert!(done > ENOUGH, "hardly anything succeeded");
}
