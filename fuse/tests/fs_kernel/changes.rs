//! Whatever would change the tree.

use crate::fs_support::{Extras, World};
use crate::mount::{Mounted, base, can_mount};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use crate::support::*;

/// Attempts to change the tree through the standard library.
fn changes_by_std(mount: &Mounted) -> Vec<(&'static str, i32)> {
    let (small, dir, new) = (mount.path("small"), mount.path("d"), mount.path("new"));
    let open = |options: &mut OpenOptions| errno(options.open(&small));
    vec![
        ("write only", open(OpenOptions::new().write(true))),
        (
            "read write",
            open(OpenOptions::new().read(true).write(true)),
        ),
        (
            "truncate",
            open(OpenOptions::new().write(true).truncate(true)),
        ),
        ("create", errno(File::create(&new))),
        ("create new", errno(File::create_new(&new))),
        ("mkdir", errno(std::fs::create_dir(&new))),
        ("symlink", errno(std::os::unix::fs::symlink("x", &new))),
        ("link", errno(std::fs::hard_link(&small, &new))),
        ("unlink", errno(std::fs::remove_file(&small))),
        ("rmdir", errno(std::fs::remove_dir(&dir))),
        ("rename", errno(std::fs::rename(&small, &new))),
    ]
}

/// The same through calls that the standard library lacks.
fn changes_by_libc(mount: &Mounted) -> Vec<(&'static str, i32)> {
    let [small, other, new, dir] = ["small", "exact", "new", "d"].map(|name| c(&mount.path(name)));
    let (s, n, x, here) = (
        small.as_ptr(),
        new.as_ptr(),
        c"user.x".as_ptr(),
        libc::AT_FDCWD,
    );
    let times = [libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    }; 2];
    let readable = File::open(mount.path("small")).unwrap();
    let (swap, unnamed) = (libc::RENAME_EXCHANGE, libc::O_TMPFILE | libc::O_RDWR);
    // SAFETY: all pointers are to NUL-terminated strings or arrays that live through the calls.
    unsafe {
        vec![
            (
                "mknod",
                call(libc::mknod(n, libc::S_IFREG | 0o600, 0).into()),
            ),
            ("mkfifo", call(libc::mkfifo(n, 0o600).into())),
            (
                "renameat2",
                call(libc::renameat2(here, s, here, other.as_ptr(), swap).into()),
            ),
            ("truncate(2)", call(libc::truncate(s, 1).into())),
            ("chmod", call(libc::chmod(s, 0o600).into())),
            ("chown", call(libc::chown(s, 1, 1).into())),
            ("lchown", call(libc::lchown(s, 1, 1).into())),
            (
                "utimensat",
                call(libc::utimensat(here, s, times.as_ptr(), 0).into()),
            ),
            (
                "setxattr",
                call(libc::setxattr(s, x, c"v".as_ptr().cast(), 1, 0).into()),
            ),
            ("removexattr", call(libc::removexattr(s, x).into())),
            (
                "O_TMPFILE",
                call(libc::open(dir.as_ptr(), unnamed, 0o600).into()),
            ),
            ("access", call(libc::access(s, libc::W_OK).into())),
            (
                "fchmod",
                call(libc::fchmod(readable.as_raw_fd(), 0o600).into()),
            ),
        ]
    }
}

// Without it a program could believe that it changed a read-only tree, or get an error that it does
// not understand as "read-only".
#[test]
fn everything_that_would_change_the_tree_is_refused() {
    if !can_mount("everything_that_would_change_the_tree_is_refused") {
        return;
    }
    let world = World::new(&base(), &FILES, Extras::default());
    let mount = mounted(&world, Way::Passthrough);
    for (what, errno) in changes_by_std(&mount)
        .into_iter()
        .chain(changes_by_libc(&mount))
    {
        assert_eq!(errno, libc::EROFS, "{what}");
    }
    let readable = File::open(mount.path("small")).unwrap();
    let fd = readable.as_raw_fd();
    let into = tempfile::tempfile_in(base()).unwrap();
    let null = std::ptr::null_mut();
    let small = c(&mount.path("small"));
    // SAFETY: open descriptors, and a buffer that the call fills.
    let vfs = unsafe {
        assert!(matches!(
            call(libc::ftruncate(fd, 1).into()),
            libc::EINVAL | libc::EBADF
        ));
        assert_eq!(call(libc::fallocate(fd, 0, 0, 10).into()), libc::EBADF);
        let copied = libc::copy_file_range(into.as_raw_fd(), null, fd, null, 10, 0);
        assert_eq!(call(copied as i64), libc::EBADF);
        let mut vfs: libc::statvfs = std::mem::zeroed();
        assert_eq!(call(libc::statvfs(small.as_ptr(), &raw mut vfs).into()), 0);
        vfs
    };
    assert_ne!(vfs.f_flag & libc::ST_RDONLY, 0);
    let bytes: u64 = FILES.iter().map(|(_, size)| size).sum();
    assert!(vfs.f_blocks * vfs.f_frsize >= bytes && vfs.f_bavail == 0);
    assert_eq!(mount.fs.status().errors["io"], 0);
}
