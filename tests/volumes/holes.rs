//! What goes through to the directory besides names and bytes: holes, reads past the page cache, ACLs.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::{Whence, lseek64};

use crate::Volume;
use crate::differential::as_user;
use crate::world::need_mount;

const MIB: u64 = 1 << 20;

// SEMANTICS S40: without it a copy of a sparse file through a volume would fill the disk.
#[test]
fn holes_are_where_they_are_below() {
    need_mount!("holes_are_where_they_are_below");
    for volume in [Volume::new(&[]), Volume::without_passthrough(&[])] {
        let path = volume.mount.join("sparse");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 2 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 6 * MIB).unwrap();
        file.sync_all().unwrap();
        let below = File::open(volume.below.join("sparse")).unwrap();
        for from in [0, MIB, 2 * MIB, 2 * MIB + 5000, 6 * MIB, 7 * MIB, 9 * MIB] {
            for whence in [Whence::SeekData, Whence::SeekHole] {
                let ask = |file: &File| lseek64(file, from as i64, whence);
                assert_eq!(ask(&file), ask(&below), "{whence:?} from {from}");
            }
        }
        let data = lseek64(&file, 0, Whence::SeekData).unwrap();
        assert_eq!(data, 2 * MIB as i64, "the first data");
        drop(file);
    }
}

// SEMANTICS S40: without it a database that goes past the page cache would be refused, or read old bytes.
#[test]
fn reads_and_writes_past_the_page_cache_agree_with_the_others() {
    need_mount!("reads_and_writes_past_the_page_cache_agree_with_the_others");
    for volume in [Volume::new(&[]), Volume::without_passthrough(&[])] {
        let path = volume.mount.join("direct");
        fs::write(&path, vec![1; 64 << 10]).unwrap();
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_DIRECT)
            .open(&path);
        let direct = direct.unwrap();
        let plain = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        // Aligned by being mapped.
        let mut page = memmap2::MmapMut::map_anon(8192).unwrap();
        page.fill(2);
        direct.write_all_at(&page, 4096).unwrap();
        let mut seen = [0; 8192];
        plain.read_exact_at(&mut seen, 4096).unwrap();
        assert!(
            seen.iter().all(|byte| *byte == 2),
            "written past the page cache"
        );
        plain.write_all_at(&[3; 4096], 16384).unwrap();
        direct.read_exact_at(&mut page, 16384).unwrap();
        assert!(
            page[..4096].iter().all(|byte| *byte == 3),
            "read past the page cache"
        );
        assert!(page[4096..].iter().all(|byte| *byte == 1));
    }
}

// SEMANTICS S47: without it an overlay above a volume would leave a device behind that hides a file.
#[test]
fn a_whiteout_is_refused() {
    need_mount!("a_whiteout_is_refused");
    let volume = Volume::new(&[]);
    fs::write(volume.mount.join("one"), "1").unwrap();
    let root = File::open(&volume.mount).unwrap();
    let refused = renameat2(&root, "one", &root, "two", RenameFlags::RENAME_WHITEOUT);
    assert_eq!(refused, Err(Errno::EINVAL));
    let names: Vec<_> = fs::read_dir(&volume.below).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(volume.below.join("one")).unwrap(), b"1");
}

/// `POSIX_ACL_XATTR_VERSION` and entries of (tag, permissions, id).
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set(file: &File, name: &std::ffi::CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: a descriptor, a terminated name and a value as long as said.
    let done = unsafe {
        let (value, length) = (value.as_ptr().cast(), value.len());
        nix::libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value, length, 0)
    };
    Errno::result(done).map(drop)
}

fn get(file: &File, name: &std::ffi::CStr) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 1024];
    // SAFETY: a descriptor, a terminated name and room as long as said.
    let length = unsafe {
        let (room, length) = (value.as_mut_ptr().cast(), value.len());
        nix::libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), room, length)
    };
    value.truncate(Errno::result(length)?.unsigned_abs());
    Ok(value)
}

// SEMANTICS S42: without it a list of who may read a file would be lost, or not be obeyed.
#[test]
fn access_lists_are_kept_inherited_and_obeyed() {
    const NOBODY: u32 = u32::MAX;
    const NAME: &std::ffi::CStr = c"system.posix_acl_access";
    const DEFAULT: &std::ffi::CStr = c"system.posix_acl_default";
    need_mount!("access_lists_are_kept_inherited_and_obeyed");
    let volume = Volume::new(&[]);
    let list = acl(&[
        (0x01, 6, NOBODY), // the owner
        (0x02, 4, 1001),   // this user
        (0x04, 0, NOBODY), // the group
        (0x10, 4, NOBODY), // at most
        (0x20, 0, NOBODY), // others
    ]);
    let path = volume.mount.join("file");
    let file = File::create_new(&path).unwrap();
    match set(&file, NAME, &list) {
        Err(Errno::EOPNOTSUPP) => {
            println!("SKIP access_lists_are_kept_inherited_and_obeyed: none on this file system");
            return;
        }
        other => other.unwrap(),
    }
    assert_eq!(get(&file, NAME).unwrap(), list);
    let below = File::open(volume.below.join("file")).unwrap();
    assert_eq!(get(&below, NAME).unwrap(), list);
    let root = File::open(&volume.mount).unwrap();
    let open = |name: &str| {
        use nix::fcntl::{OFlag, openat};
        openat(&root, name, OFlag::O_RDONLY, nix::sys::stat::Mode::empty()).map(drop)
    };
    let opens = |uid, gid, name| as_user((uid, gid, &[]), || open(name));
    assert_eq!(opens(1001, 2001, "file"), Ok(()));
    assert_eq!(opens(1002, 2002, "file"), Err(Errno::EACCES));
    set(&root, DEFAULT, &list).unwrap();
    File::create_new(volume.mount.join("heir")).unwrap();
    assert_eq!(opens(1001, 2001, "heir"), Ok(()));
    assert_eq!(opens(1002, 2002, "heir"), Err(Errno::EACCES));
}

// SEMANTICS S42: without it somebody outside of a file's group would keep the group's privilege on it (`chmod g+s`) by
// setting its access list, where changing its mode takes it away.
#[test]
fn an_access_list_takes_the_bit_of_a_group_from_strangers() {
    const NOBODY: u32 = u32::MAX;
    const NAME: &std::ffi::CStr = c"system.posix_acl_access";
    need_mount!("an_access_list_takes_the_bit_of_a_group_from_strangers");
    let volume = Volume::new(&[]);
    let list = acl(&[
        (0x01, 7, NOBODY), // the owner
        (0x02, 5, 1003),   // this user
        (0x04, 5, NOBODY), // the group
        (0x10, 5, NOBODY), // at most
        (0x20, 5, NOBODY), // others
    ]);
    let mode_after = |directory: &std::path::Path, name: &str, who: (u32, u32, &[u32])| {
        let path = directory.join(name);
        match name {
            "directory" => fs::create_dir(&path).unwrap(),
            _ => fs::write(&path, b"").unwrap(),
        }
        std::os::unix::fs::chown(&path, Some(1001), Some(2001)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2755)).unwrap();
        let file = File::open(&path).unwrap();
        let done = as_user(who, || set(&file, NAME, &list));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        match name {
            "directory" => fs::remove_dir(&path).unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        (done, mode)
    };
    if mode_after(&volume.below, "file", (0, 0, &[])).0 == Err(Errno::EOPNOTSUPP) {
        println!(
            "SKIP an_access_list_takes_the_bit_of_a_group_from_strangers: none on this file system"
        );
        return;
    }
    for name in ["file", "directory"] {
        for who in [
            (1001, 2001, &[][..]),
            (1001, 2002, &[]),
            (1001, 2002, &[2003, 2001]),
            (1001, 2002, &[2003]),
            (1002, 2001, &[]),
            (0, 0, &[]),
        ] {
            let here = mode_after(&volume.mount, name, who);
            let below = mode_after(&volume.below, name, who);
            assert_eq!(here, below, "{name} by {who:?}");
        }
        let (_, stranger) = mode_after(&volume.mount, name, (1001, 2002, &[]));
        assert_eq!(stranger & 0o7777, 0o755, "{name}");
    }
}

// SEMANTICS S40: without it a file would keep set-ID bits when somebody without privilege changes its contents.
#[test]
fn making_room_takes_set_id_bits_away() {
    need_mount!("making_room_takes_set_id_bits_away");
    for options in [&[][..], &["--durability", "fsync=local,close=local"]] {
        let volume = Volume::new(options);
        let mode_after =
            |directory: &std::path::Path, mode: u32, length, who: (u32, u32, &[u32])| {
                let path = directory.join("file");
                fs::write(&path, b"contents").unwrap();
                std::os::unix::fs::chown(&path, Some(1001), Some(2001)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                as_user(who, || {
                    use nix::fcntl::{FallocateFlags, fallocate};
                    fallocate(&file, FallocateFlags::empty(), 0, length).unwrap();
                });
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                fs::remove_file(&path).unwrap();
                mode
            };
        for mode in [0o6666, 0o2666, 0o6676, 0o6766, 0o6777, 0o666] {
            for who in [
                (1002, 2002, &[][..]),
                (1002, 2001, &[]),
                (1002, 2002, &[2001]),
                (0, 0, &[]),
            ] {
                // What does not grow has attributes that the kernel still believes.
                for length in [1 << 20, 4] {
                    let here = mode_after(&volume.mount, mode, length, who);
                    let below = mode_after(&volume.below, mode, length, who);
                    assert_eq!(
                        here, below,
                        "{mode:o} by {who:?}, {length} bytes, {options:?}"
                    );
                }
            }
        }
    }
}
