//! What no suite sees: numbers, modes of the mount, what is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use nix::sys::signal::Signal;

use crate::Volume;
use crate::world::{need_mount, wait_for};

/// Pairs of unlink and create that look for a number given twice.
const REUSES: u32 = 200;

/// Kills the worker; returns when another one serves.
pub(crate) fn kill(volume: &Volume) {
    let old = volume.world.worker();
    volume.world.signal(old, Signal::SIGKILL);
    wait_for("another worker", || {
        let worker = volume.world.worker();
        worker != old && worker != 0
    });
}

// SEMANTICS S10, S44: without it a program that holds a file by its number (tar, rsync, a build) loses it
// with the worker, and a deleted file that is open loses its bytes.
#[test]
fn numbers_and_open_files_outlive_a_worker() {
    need_mount!("numbers_and_open_files_outlive_a_worker");
    let volume = Volume::new(&["--ttl", "0s"]);
    let path = volume.mount.join("file");
    fs::write(&path, "before").unwrap();
    let number = fs::metadata(&path).unwrap().ino();
    let mut open = OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)
        .unwrap();
    let mut deleted = File::create_new(volume.mount.join("deleted")).unwrap();
    deleted.write_all(b"still here").unwrap();
    fs::remove_file(volume.mount.join("deleted")).unwrap();
    kill(&volume);
    assert_eq!(fs::metadata(&path).unwrap().ino(), number);
    assert_eq!(open.metadata().unwrap().ino(), number);
    open.write_all(b" and after").unwrap();
    open.sync_all().unwrap();
    let mut text = String::new();
    File::open(volume.below.join("file"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "before and after");
    let mut bytes = [0; 10];
    deleted.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"still here");
    assert_eq!(deleted.metadata().unwrap().len(), 10);
    deleted.set_len(3).unwrap();
    assert_eq!(deleted.metadata().unwrap().len(), 3);
}

// SEMANTICS S10: without it a program that still holds a deleted file would see, or change, the new file
// that got its number.
#[test]
fn a_new_file_is_never_taken_for_a_deleted_one() {
    need_mount!("a_new_file_is_never_taken_for_a_deleted_one");
    let volume = Volume::new(&[]);
    let path = volume.mount.join("name");
    let mut again = 0;
    for round in 0..REUSES {
        fs::write(&path, format!("{round}")).unwrap();
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_PATH)
            .open(&path)
            .unwrap();
        let old = handle.metadata().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another one").unwrap();
        let new = fs::metadata(&path).unwrap();
        again += u32::from(new.ino() == old.ino());
        match handle.metadata() {
            Ok(seen) => assert_ne!(
                seen.len(),
                new.len(),
                "round {round}: the new file was seen"
            ),
            Err(error) => {
                let errno = error.raw_os_error();
                assert!(
                    matches!(errno, Some(nix::libc::ESTALE | nix::libc::EIO)),
                    "{error}"
                );
            }
        }
        drop(handle);
        fs::remove_file(&path).unwrap();
    }
    println!("{again} of {REUSES} numbers were given again");
}

// SEMANTICS S47: without it a program would be told that something was kept which was not.
#[test]
fn what_cannot_be_kept_is_refused() {
    need_mount!("what_cannot_be_kept_is_refused");
    let volume = Volume::new(&["-o", "locks=none"]);
    let path = volume.mount.join("file");
    let file = File::create_new(&path).unwrap();
    let errno = |done: i32| (done < 0).then(nix::errno::Errno::last_raw);
    // SAFETY: a descriptor and a number.
    let locked = unsafe { nix::libc::flock(file.as_raw_fd(), nix::libc::LOCK_EX) };
    assert_eq!(errno(locked), Some(nix::libc::ENOLCK), "flock");
    // SAFETY: a zeroed lock is a whole valid one.
    let mut lock: nix::libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = nix::libc::F_WRLCK as i16;
    // SAFETY: `lock` outlives the call.
    let locked = unsafe { nix::libc::fcntl(file.as_raw_fd(), nix::libc::F_SETLK, &raw const lock) };
    assert_eq!(errno(locked), Some(nix::libc::ENOLCK), "fcntl");
    let unnamed = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_TMPFILE)
        .open(&volume.mount);
    let refused = unnamed.unwrap_err().raw_os_error();
    assert_eq!(
        refused,
        Some(nix::libc::EOPNOTSUPP),
        "a file without a name"
    );
}

// SEMANTICS S48: without it locks would not hold even among the programs of one node.
#[test]
fn locks_hold_on_this_node() {
    need_mount!("locks_hold_on_this_node");
    let volume = Volume::new(&[]);
    let path = volume.mount.join("file");
    let (one, other) = (File::create_new(&path).unwrap(), File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(matches!(
        other.try_lock(),
        Err(fs::TryLockError::WouldBlock)
    ));
    kill(&volume);
    assert!(matches!(
        other.try_lock(),
        Err(fs::TryLockError::WouldBlock)
    ));
    one.unlock().unwrap();
    other.try_lock().unwrap();
}

// SEMANTICS S49: without it set-ID programs and devices of one tenant would work on every node.
#[test]
fn a_volume_is_mounted_safely() {
    need_mount!("a_volume_is_mounted_safely");
    let volume = Volume::new(&[]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == volume.mount.to_str())
        .unwrap();
    for option in [
        "rw",
        "nosuid",
        "nodev",
        "default_permissions",
        "allow_other",
    ] {
        let found = line.split([' ', ',']).any(|word| word == option);
        assert!(found, "{option} is missing: {line}");
    }
    let node = |volume: &Volume| {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let path = volume.mount.join("zero");
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(1, 5),
        )
        .unwrap();
        let mut byte = [7];
        fs::File::open(path)?.read_exact(&mut byte)?;
        Ok::<_, std::io::Error>(byte[0])
    };
    let refused = node(&volume).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EACCES));
    let asked_for = Volume::new(&["-o", "dev"]);
    assert_eq!(node(&asked_for).unwrap(), 0, "of /dev/zero");
    let said = volume.world.try_mount(
        "s3://bucket/prefix",
        &volume.world.scratch("elsewhere"),
        &["--rw"],
    );
    assert!(
        said.0 != 0 && said.1.contains("only a directory can be written"),
        "{said:?}"
    );
}
