//! The tree, its attributes, and the tools that walk it.

use crate::fs_support::{Extras, World};
use crate::mount::{Mounted, base, can_mount};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// Path -> (kind and mode, size, mtime, content or target) of everything below `top`.
fn walk(top: &Path) -> BTreeMap<String, (u32, u64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(entry.ino(), meta.ino(), "d_ino and st_ino of {path:?}");
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            let content = if meta.is_dir() {
                todo.push(path);
                Vec::new()
            } else if meta.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                std::fs::read(&path).unwrap()
            };
            let size = if meta.is_dir() { 0 } else { meta.size() };
            let time = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            found.insert(name, (meta.permissions().mode(), size, time, content));
        }
    }
    found
}

// Without it a copy of the tree could differ from the store, or change from mount to mount.
#[test]
fn the_tree_is_that_of_the_store_and_stays_so_over_mounts() {
    if !can_mount("the_tree_is_that_of_the_store_and_stays_so_over_mounts") {
        return;
    }
    let world = World::new(&base(), &FILES, Extras::default());
    let mount = mounted(&world, Way::Passthrough);
    let tree = walk(&mount.path(""));
    let source = walk(&world.data);
    assert_eq!(tree.len(), source.len() + 1, "and the link");
    assert_eq!(tree["link"].3, b"a/target");
    for (name, (mode, size, time, content)) in &source {
        let (seen_mode, seen_size, seen_time, seen) = &tree[name];
        assert_eq!(mode & libc::S_IFMT, seen_mode & libc::S_IFMT, "{name}");
        assert!((size, content) == (seen_size, seen), "{name}");
        if mode & libc::S_IFMT == libc::S_IFREG {
            assert_eq!((time, seen_mode & 0o7777), (seen_time, 0o444), "{name}");
        }
    }
    let numbers = |mount: &Mounted| -> Vec<u64> {
        let all = tree.keys().map(|name| mount.path(name));
        all.map(|path| std::fs::symlink_metadata(path).unwrap().ino())
            .collect()
    };
    let before = numbers(&mount);
    drop(mount);
    let mount = mounted(&world, Way::PageCache);
    assert_eq!(numbers(&mount), before, "st_ino changed with a new mount");
    let large = std::fs::metadata(mount.path("large")).unwrap();
    assert!(large.blocks() * 512 >= large.size());
    assert_eq!(errno(std::fs::metadata(mount.path("absent"))), libc::ENOENT);
    assert_eq!(
        errno(std::fs::metadata(mount.path("small/x"))),
        libc::ENOTDIR
    );
    assert_eq!(
        errno(std::fs::metadata(mount.path(&"n".repeat(256)))),
        libc::ENAMETOOLONG
    );
    assert_eq!(errno(std::fs::read(mount.path("d"))), libc::EISDIR);
    tools(&mount, &world);
}

/// Programs that copy and compare trees.
fn tools(mount: &Mounted, world: &World) {
    let target = tempfile::tempdir_in(base()).unwrap();
    let (from, to) = (mount.path(""), target.path().to_str().unwrap().to_owned());
    let from = from.to_str().unwrap().trim_end_matches('/');
    let data = world.data.to_str().unwrap();
    let ino = std::fs::metadata(mount.path("small")).unwrap().ino();
    for (tool, script) in [
        (
            "cp",
            format!(
                "cp -a --reflink=auto {from}/. {to}/cp && rm {to}/cp/link && diff -r {data} {to}/cp"
            ),
        ),
        (
            "tar",
            format!(
                "mkdir {to}/tar && tar -C {from} -cf - . | tar -C {to}/tar -xf - && rm {to}/tar/link && diff -r {data} {to}/tar"
            ),
        ),
        (
            "find",
            format!("test \"$(find {from} -inum {ino})\" = {from}/small"),
        ),
        (
            "rsync",
            format!("test -z \"$(rsync -rcn --out-format=%n --exclude=link {from}/ {data}/)\""),
        ),
    ] {
        let look = format!("command -v {tool} > /dev/null");
        let known = Command::new("sh").args(["-c", &look]).status().unwrap();
        if !known.success() {
            println!(
                "SKIP the_tree_is_that_of_the_store_and_stays_so_over_mounts/{tool}: not installed"
            );
            continue;
        }
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{tool}: {said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}

// Without it programs could not see which version and tier a file has, and `ls` would warn.
#[test]
fn extended_attributes_tell_version_and_tier() {
    if !can_mount("extended_attributes_tell_version_and_tier") {
        return;
    }
    let world = World::new(&base(), &FILES, Extras::default());
    let mount = mounted(&world, Way::Passthrough);
    let get = |name: &str, attribute: &str| {
        let (path, attribute) = (c(&mount.path(name)), CString::new(attribute).unwrap());
        let mut value = vec![0; 4096];
        // SAFETY: the pointers live through the call and the length is that of the buffer.
        let size = unsafe {
            libc::getxattr(
                path.as_ptr(),
                attribute.as_ptr(),
                value.as_mut_ptr().cast(),
                4096,
            )
        };
        if size < 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap());
        }
        value.truncate(size as usize);
        Ok(String::from_utf8(value).unwrap())
    };
    let digest = world.object(&world.files[2]).id().digest().hex();
    assert_eq!(get("small", "user.terrace.digest"), Ok(digest));
    assert!(
        get("small", "user.terrace.version")
            .unwrap()
            .starts_with("file:")
    );
    assert_eq!(get("small", "user.terrace.tier").as_deref(), Ok("cold"));
    assert_eq!(get("small", "user.terrace.cachepath"), Err(libc::ENODATA));
    std::fs::read(mount.path("small")).unwrap();
    assert_eq!(get("small", "user.terrace.tier").as_deref(), Ok("hot"));
    let cached = get("small", "user.terrace.cachepath").unwrap();
    assert!(std::fs::read(cached).unwrap() == world.files[2].bytes(0..1000));
    for absent in [
        "security.capability",
        "system.posix_acl_access",
        "user.other",
    ] {
        let errno = get("small", absent).unwrap_err();
        assert!(
            matches!(errno, libc::ENODATA | libc::EOPNOTSUPP),
            "{absent}: {errno}"
        );
    }
    let path = c(&mount.path("small"));
    let mut list = [0_u8; 4096];
    // SAFETY: as above; size 0 asks for the length.
    let (short, exact, length) = unsafe {
        (
            call(libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), 3) as i64),
            libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), 4096),
            libc::listxattr(path.as_ptr(), std::ptr::null_mut(), 0),
        )
    };
    assert_eq!((short, exact), (libc::ERANGE, length));
    let names: Vec<&[u8]> = list[..exact as usize].split(|byte| *byte == 0).collect();
    assert!(names.contains(&&b"user.terrace.tier"[..]));
}
