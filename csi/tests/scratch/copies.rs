//! Copies: of trees, with everything that a file is, and of images, which are files themselves.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use terrace_csi::scratch::{ImageFormat, NewVolume, QuotaKind, Scratch, ScratchError};
use terrace_csi::{ContentSource, VolumeId, VolumeRecord};

use crate::world::{MIB, World, asked, assert_empty};

/// An access control list, as the kernel keeps it: rwx for the owner, user 1234 and the group, none for others.
const LIST: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 210, 4, 0, 0, 4, 0, 7, 0, 255, 255,
    255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

fn text(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let (path, name) = (text(path), CString::new(name).unwrap());
    let (path, name, at) = (path.as_ptr(), name.as_ptr(), value.as_ptr().cast());
    // SAFETY: both names end with a zero, and the kernel reads the bytes of the value.
    let set = unsafe { nix::libc::lsetxattr(path, name, at, value.len(), 0) };
    nix::errno::Errno::result(set).unwrap();
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let (path, name) = (text(path), CString::new(name).unwrap());
    let mut value = vec![0_u8; 256];
    let at = value.as_mut_ptr().cast();
    // SAFETY: both names end with a zero, and the kernel writes at most as many bytes as there is room.
    let got = unsafe { nix::libc::lgetxattr(path.as_ptr(), name.as_ptr(), at, 256) };
    value.truncate(usize::try_from(got).ok()?);
    Some(value)
}

fn copy(
    scratch: &Scratch,
    name: &str,
    of: &VolumeId,
    size: u64,
) -> Result<VolumeRecord, ScratchError> {
    scratch.create(&NewVolume {
        source: Some(ContentSource::Volume(of.clone())),
        ..asked(name, size)
    })
}

/// Files of every kind below a directory.
fn populate(top: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::create_dir_all(top.join("d/e")).unwrap();
    fs::write(top.join("d/plain"), "plain").unwrap();
    let sparse = File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 64 * MIB - 3).unwrap();
    sparse.set_modified(old).unwrap();
    set_attribute(&top.join("d/plain"), "user.note", b"kept");
    set_attribute(&top.join("d/plain"), "trusted.note", b"kept too");
    set_attribute(&top.join("d"), "system.posix_acl_default", LIST);
    set_attribute(&top.join("d/plain"), "system.posix_acl_access", LIST);
    chown(top.join("d/plain"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(top.join("d/e"), fs::Permissions::from_mode(0o2750)).unwrap();
    for name in ["hard", "d/e/hard"] {
        fs::hard_link(top.join("d/plain"), top.join(name)).unwrap();
    }
    symlink("/nowhere/at all", top.join("link")).unwrap();
    std::os::unix::fs::lchown(top.join("link"), Some(7), Some(8)).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    mknod(&top.join("pipe"), SFlag::S_IFIFO, mode, 0).unwrap();
    mknod(&top.join("zero"), SFlag::S_IFCHR, mode, makedev(1, 5)).unwrap();
    drop(UnixListener::bind(top.join("socket")).unwrap());
    let mut deep = top.join("deep");
    for _ in 0..150 {
        deep.push("x");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "here").unwrap();
    File::open(top.join("d/e"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    nix::unistd::sync();
}

fn assert_same(one: &Path, other: &Path) {
    let (a, b) = (
        fs::symlink_metadata(one).unwrap(),
        fs::symlink_metadata(other).unwrap(),
    );
    let of = |m: &fs::Metadata| {
        (
            m.mode(),
            m.uid(),
            m.gid(),
            m.rdev(),
            m.mtime(),
            m.mtime_nsec(),
        )
    };
    assert_eq!(of(&a), of(&b), "{}", one.display());
    for name in [
        "user.note",
        "trusted.note",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ] {
        assert_eq!(
            attribute(one, name),
            attribute(other, name),
            "{name} of {}",
            one.display()
        );
    }
    if a.is_dir() {
        let names = |at: &Path| -> Vec<_> {
            let mut names: Vec<_> = fs::read_dir(at)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(one), names(other), "{}", one.display());
        for name in names(one) {
            assert_same(&one.join(&name), &other.join(&name));
        }
    } else if a.is_file() {
        assert_eq!(
            (a.size(), a.nlink()),
            (b.size(), b.nlink()),
            "{}",
            one.display()
        );
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "{}",
            one.display()
        );
    } else if a.is_symlink() {
        assert_eq!(fs::read_link(one).unwrap(), fs::read_link(other).unwrap());
    }
}

// A copy that loses an owner, a list of who may read, a link or a hole is found when somebody needs it back.
#[test]
fn a_copied_tree_is_what_its_source_was() {
    for fs_type in ["xfs", "btrfs"] {
        let test = "a_copied_tree_is_what_its_source_was";
        let Some(world) = World::new(test, fs_type, 512 * MIB) else {
            continue;
        };
        let scratch = world.open(Some(QuotaKind::Accounting));
        let volume = scratch.create(&asked("origin", 64 * MIB)).unwrap();
        let at = world.attach(&scratch, &volume.id);
        populate(at.path());
        let clone = copy(&scratch, "clone", &volume.id, 64 * MIB).unwrap();
        let beside = world.attach(&scratch, &clone.id);
        assert_same(at.path(), beside.path());
        let number = |name: &str| {
            fs::symlink_metadata(beside.path().join(name))
                .unwrap()
                .ino()
        };
        assert!(number("hard") == number("d/plain") && number("hard") == number("d/e/hard"));
        let sparse = fs::metadata(beside.path().join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < MIB, "the hole was filled");
        let pipe = fs::symlink_metadata(beside.path().join("pipe")).unwrap();
        assert!(pipe.file_type().is_fifo());
        for target in [at, beside] {
            target.unmount(|_| true).unwrap();
        }
        for id in [&volume.id, &clone.id] {
            scratch.delete(id).unwrap();
        }
        assert!(scratch.sweep().unwrap().failed.is_empty());
        assert_empty(&scratch);
    }
}

/// A copy has what its source had, both are written on, and neither sees the other.
fn images_are_apart(world: &World, format: ImageFormat, size: u64) {
    let scratch = world.open(Some(QuotaKind::Image(format)));
    let free = scratch.capacity().unwrap();
    let volume = scratch.create(&asked("origin", size)).unwrap();
    let at = world.attach(&scratch, &volume.id);
    let noise: Vec<u8> = (0..4 * MIB).map(|at| (at * 31 % 251) as u8).collect();
    fs::write(at.path().join("both"), &noise).unwrap();
    let mut at = Some(at);
    let clone = match copy(&scratch, "clone", &volume.id, size) {
        Ok(clone) => clone,
        Err(ScratchError::InUse { .. }) => {
            // No blocks are shared here: what is mounted is of no moment.
            at.take().unwrap().unmount(|_| true).unwrap();
            copy(&scratch, "clone", &volume.id, size).unwrap()
        }
        Err(refused) => panic!("{refused}"),
    };
    let at = at.unwrap_or_else(|| world.attach(&scratch, &volume.id));
    // Each has all of its size, whatever is shared for now.
    let left = scratch.capacity().unwrap();
    assert!(free - left >= 2 * size - MIB, "{free} - {left}");
    let beside = world.attach(&scratch, &clone.id);
    assert!(
        fs::read(beside.path().join("both")).unwrap() == noise,
        "other bytes"
    );
    let inside = scratch.usage(&clone.id).unwrap().byte_limit;
    fs::write(at.path().join("both"), "of the source").unwrap();
    fs::write(beside.path().join("mine"), "of the copy").unwrap();
    nix::unistd::sync();
    assert!(
        fs::read(beside.path().join("both")).unwrap() == noise,
        "it saw a write"
    );
    assert!(!at.path().join("mine").exists());
    assert_eq!(fs::read(at.path().join("both")).unwrap(), b"of the source");
    for target in [at, beside] {
        target.unmount(|_| true).unwrap();
    }
    let large = copy(&scratch, "large", &volume.id, size + 64 * MIB).unwrap();
    let beside = world.attach(&scratch, &large.id);
    assert_eq!(
        fs::read(beside.path().join("both")).unwrap(),
        b"of the source"
    );
    // What the file system in it needs for itself does not grow.
    assert!(scratch.usage(&large.id).unwrap().byte_limit >= inside + 48 * MIB);
    beside.unmount(|_| true).unwrap();
    let snapshot = scratch
        .create_snapshot("s", &volume.id, &Default::default(), 1)
        .unwrap();
    let left = scratch.capacity().unwrap();
    let many = copy(&scratch, "many", &volume.id, left + MIB);
    assert!(matches!(many, Err(ScratchError::Full { .. })), "{many:?}");
    scratch.delete_snapshot(&snapshot.id).unwrap();
    for id in [&volume.id, &clone.id, &large.id] {
        scratch.delete(id).unwrap();
    }
    assert!(scratch.sweep().unwrap().failed.is_empty());
    assert_empty(&scratch);
}

// Two file systems over the same blocks destroy each other; a copy that is not of one moment does not mount.
#[test]
fn copies_of_images_are_apart() {
    let test = "copies_of_images_are_apart";
    if let Some(world) = World::new(test, "xfs", 1024 * MIB) {
        images_are_apart(&world, ImageFormat::Ext4, 128 * MIB);
    }
    if let Some(world) = World::new(test, "ext4", 1024 * MIB) {
        images_are_apart(&world, ImageFormat::Ext4, 128 * MIB);
    }
    if let Some(world) = World::new(test, "btrfs", 2048 * MIB) {
        images_are_apart(&world, ImageFormat::Xfs, 320 * MIB);
    }
}
