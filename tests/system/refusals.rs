//! What a read mount refuses: every change, with one errno.

use std::ffi::CString;
use std::fs::{self, File};

use nix::libc;

use crate::support::need_mount;
use crate::support::node::Node;

/// errno of a failed call; 0 when it succeeded.
fn errno(result: libc::c_int) -> i32 {
    if result == 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    }
}

// SEMANTICS S7: a change that is accepted and dropped is lost work; another errno makes tools retry.
#[test]
fn every_change_is_refused() {
    need_mount!("every_change_is_refused");
    let node = Node::new();
    let origin = node.scratch("origin");
    fs::create_dir(origin.join("directory")).unwrap();
    fs::write(origin.join("file"), b"bytes").unwrap();
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    let path = |name: &str| CString::new(mount.join(name).to_str().unwrap()).unwrap();
    let (file, new, directory) = (path("file"), path("new"), path("directory"));
    let (f, n, d) = (file.as_ptr(), new.as_ptr(), directory.as_ptr());
    let (name, value) = (c"user.x".as_ptr(), b"y".as_ptr().cast());

    // SAFETY: every pointer is to a string that ends with a zero byte and outlives the calls.
    let found = unsafe {
        [
            ("mkdir", errno(libc::mkdir(n, 0o755))),
            ("mknod", errno(libc::mknod(n, libc::S_IFREG | 0o644, 0))),
            ("mkfifo", errno(libc::mkfifo(n, 0o644))),
            ("symlink", errno(libc::symlink(c"target".as_ptr(), n))),
            ("link", errno(libc::link(f, n))),
            ("unlink", errno(libc::unlink(f))),
            ("rmdir", errno(libc::rmdir(d))),
            ("rename", errno(libc::rename(f, n))),
            ("truncate", errno(libc::truncate(f, 1))),
            ("chmod", errno(libc::chmod(f, 0o777))),
            ("chown", errno(libc::chown(f, 1, 1))),
            ("lchown", errno(libc::lchown(f, 1, 1))),
            (
                "utimensat",
                errno(libc::utimensat(libc::AT_FDCWD, f, std::ptr::null(), 0)),
            ),
            ("setxattr", errno(libc::setxattr(f, name, value, 1, 0))),
            ("removexattr", errno(libc::removexattr(f, name))),
            ("access W_OK", errno(libc::access(f, libc::W_OK))),
        ]
    };
    let wrong: Vec<_> = found
        .iter()
        .filter(|(_, errno)| *errno != libc::EROFS)
        .collect();
    assert!(wrong.is_empty(), "not EROFS: {wrong:?}");

    for flags in [
        libc::O_WRONLY,
        libc::O_RDWR,
        libc::O_RDONLY | libc::O_TRUNC,
        libc::O_WRONLY | libc::O_CREAT,
    ] {
        // SAFETY: as above.
        let opened = unsafe { libc::open(f, flags, 0o644) };
        assert!(opened < 0, "open with flags {flags:#o} succeeded");
        assert_eq!(
            std::io::Error::last_os_error().raw_os_error(),
            Some(libc::EROFS),
            "open {flags:#o}"
        );
    }
    assert_eq!(
        File::create(mount.join("new")).unwrap_err().raw_os_error(),
        Some(libc::EROFS)
    );
    let read_only = nix::sys::statvfs::statvfs(&mount).unwrap().flags();
    assert!(read_only.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    assert_eq!(fs::read(mount.join("file")).unwrap(), b"bytes");
}
