//! The read side of POSIX through a real mount: what programs may do with a read-only tree, the
//! same in each way of opening files (passthrough, page cache, no opens at all).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fs_support;
#[path = "fs_support/mount.rs"]
mod mount;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fs_support::{Extras, TestFile, World};
use memmap2::MmapOptions;
use mount::{Mounted, base, can_mount};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use terrace_fuse::fs::{Kernel, Profile};
use terrace_fuse::probe::{NoPassthrough, Passthrough};

const FILES: [(&str, u64); 6] = [
    ("large", 5 * (1 << 20) + 123),
    ("exact", 2 << 20),
    ("small", 1000),
    ("empty", 0),
    ("d/sub/x", 70_001),
    ("d/name with \u{e9} and space", 5),
];

/// Files up to here are fetched by open(2); `large` is not.
const FILL_ON_OPEN: u64 = 3 << 20;

const MANY: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Passthrough,
    PageCache,
    SmallFiles,
}

const WAYS: [Way; 3] = [Way::Passthrough, Way::PageCache, Way::SmallFiles];

fn mounted(world: &World, way: Way) -> Mounted {
    let (profile, passthrough) = match way {
        Way::Passthrough => (Profile::Default, world.wanted()),
        Way::PageCache => (Profile::Default, Passthrough::Off(NoPassthrough::Disabled)),
        Way::SmallFiles => (Profile::SmallFiles, world.wanted()),
    };
    Mounted::new(world.file_system(profile, passthrough, FILL_ON_OPEN))
}

fn errno(result: io::Result<impl Sized>) -> i32 {
    result
        .err()
        .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// errno of a libc call that returns -1.
fn call(result: i64) -> i32 {
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}

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

/// Reads a file in the ways programs do, and compares.
fn check_reads(path: &Path, file: &TestFile, random: &mut StdRng) {
    let size = file.size;
    let bytes = file.bytes(0..size);
    let mut open = File::open(path).unwrap();
    assert_eq!(open.metadata().unwrap().len(), size);
    let mut whole = Vec::new();
    open.read_to_end(&mut whole).unwrap();
    assert!(whole == bytes, "{path:?}: wrong bytes");
    for _ in 0..1000 {
        let offset = random.random_range(0..size + 5000);
        let length = match random.random_range(0..10) {
            0 => 0,
            1 => 4096,
            2..5 => random.random_range(0..300_000),
            _ => random.random_range(0..5000),
        };
        let mut buffer = vec![0xa5; length];
        let got = open.read_at(&mut buffer, offset).unwrap();
        let expected = file.bytes(offset..offset + length as u64);
        assert!(buffer[..got] == expected, "{path:?}: {length} at {offset}");
    }
    let (mut a, mut b) = ([0; 3], [0; 7]);
    open.seek(SeekFrom::Start(size / 2)).unwrap();
    let got = open
        .read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])
        .unwrap();
    let both: Vec<u8> = a.iter().chain(&b).copied().take(got).collect();
    assert_eq!(both, file.bytes(size / 2..size / 2 + got as u64));
    seeks(&open, size);
    sends(&open, &bytes);
    if size > 0 {
        // SAFETY: the file is immutable.
        let shared = unsafe { MmapOptions::new().map(&open).unwrap() };
        // SAFETY: as above, and the mapping is private.
        let private = unsafe { MmapOptions::new().map_copy_read_only(&open).unwrap() };
        assert!(
            shared[..] == bytes[..] && private[..] == bytes[..],
            "{path:?}: mmap"
        );
    }
    direct(path, file, random);
}

fn seeks(open: &File, size: u64) {
    let seek = |offset: u64, whence| {
        // SAFETY: no pointers.
        let result = unsafe { libc::lseek(open.as_raw_fd(), offset as i64, whence) };
        if result < 0 {
            Err(call(result))
        } else {
            Ok(result as u64)
        }
    };
    if size > 0 {
        assert_eq!(seek(0, libc::SEEK_DATA), Ok(0));
        assert_eq!(seek(size - 1, libc::SEEK_DATA), Ok(size - 1));
        assert_eq!(seek(0, libc::SEEK_HOLE), Ok(size));
    }
    assert_eq!(seek(size, libc::SEEK_DATA), Err(libc::ENXIO));
    assert_eq!(seek(size, libc::SEEK_HOLE), Err(libc::ENXIO));
}

fn sends(open: &File, bytes: &[u8]) {
    let target = tempfile::tempfile_in(base()).unwrap();
    let mut offset = 0;
    while (offset as usize) < bytes.len() {
        // SAFETY: the offset lives through the call.
        let sent = unsafe {
            libc::sendfile(
                target.as_raw_fd(),
                open.as_raw_fd(),
                &raw mut offset,
                bytes.len(),
            )
        };
        assert!(sent > 0, "sendfile: {}", io::Error::last_os_error());
    }
    let mut copy = vec![0; bytes.len()];
    target.read_exact_at(&mut copy, 0).unwrap();
    assert!(copy == bytes, "sendfile");
}

fn direct(path: &Path, file: &TestFile, random: &mut StdRng) {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .unwrap();
    let memory = MmapOptions::new().len(1 << 20).map_anon().unwrap();
    let mut memory = memory;
    for _ in 0..20 {
        let offset = random.random_range(0..=file.size / 4096) * 4096;
        let length = random.random_range(1..=64) * 4096;
        let got = open.read_at(&mut memory[..length], offset).unwrap();
        let expected = file.bytes(offset..offset + length as u64);
        assert!(
            memory[..got] == expected,
            "{path:?}: O_DIRECT {length} at {offset}"
        );
    }
}

// Without it a training job could read wrong bytes through one of the many ways to read.
#[test]
fn all_ways_to_read_give_the_bytes_of_the_store() {
    if !can_mount("all_ways_to_read_give_the_bytes_of_the_store") {
        return;
    }
    for way in WAYS {
        let world = World::new(&base(), &FILES, Extras::default());
        let mount = mounted(&world, way);
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..2 {
            for file in &world.files {
                check_reads(&mount.path(&file.name), file, &mut random);
            }
            let status = mount.fs.status();
            println!(
                "{way:?} {round}: {} {} opens",
                status.opens_cached, status.opens_passthrough
            );
        }
        let status = mount.fs.status();
        assert_eq!(status.passthrough, way == Way::Passthrough, "{status:?}");
        assert_eq!(
            status.passthrough_off_because.is_none(),
            way == Way::Passthrough
        );
        assert_eq!(status.errors["io"] + status.errors["stale"], 0);
        if way == Way::SmallFiles {
            assert_eq!(status.opens_cached + status.opens_passthrough, 0);
            assert_eq!(
                status.requests["open"], 1,
                "the kernel asked once and then no more"
            );
        }
    }
}

// Without it passthrough could be off, and only benchmarks would tell.
#[test]
fn reads_of_complete_files_do_not_reach_the_worker() {
    if !can_mount("reads_of_complete_files_do_not_reach_the_worker") {
        return;
    }
    let world = World::new(&base(), &FILES, Extras::default());
    let mount = mounted(&world, Way::Passthrough);
    for file in world
        .files
        .iter()
        .filter(|file| file.size > 0 && file.size <= FILL_ON_OPEN)
    {
        let bytes = std::fs::read(mount.path(&file.name)).unwrap();
        assert!(bytes == file.bytes(0..file.size));
    }
    let status = mount.fs.status();
    assert_eq!(
        (status.requests["read"], status.opens_cached),
        (0, 0),
        "{status:?}"
    );
    // Some may have been fetched ahead, beside their neighbours.
    assert_eq!(status.opens_passthrough, 4);
    assert!((1..=4).contains(&status.filled_on_open), "{status:?}");
    // The large one becomes passthrough when it is complete, also while it is open.
    let large = &world.files[0];
    let held = File::open(mount.path("large")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let before = mount.fs.status();
        let bytes = std::fs::read(mount.path("large")).unwrap();
        assert!(bytes == large.bytes(0..large.size));
        let after = mount.fs.status();
        if after.opens_passthrough > before.opens_passthrough {
            assert_eq!(after.requests["read"], before.requests["read"]);
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "never passthrough: {after:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(mount.fs.status().reincarnations >= 1);
    // To programs it is the same file.
    let (old, new) = (
        held.metadata().unwrap(),
        std::fs::metadata(mount.path("large")).unwrap(),
    );
    assert_eq!((old.ino(), old.dev()), (new.ino(), new.dev()));
    let mut tail = [0; 100];
    held.read_exact_at(&mut tail, large.size - 100).unwrap();
    assert_eq!(tail[..], large.bytes(large.size - 100..large.size));
    drop(held);
    let again = File::open(mount.path("large")).unwrap();
    assert_eq!(again.metadata().unwrap().ino(), old.ino());
}

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

/// A directory stream with the calls that the standard library lacks.
struct Stream(*mut libc::DIR);

impl Stream {
    fn open(path: &Path) -> Self {
        // SAFETY: a NUL-terminated path.
        let stream = unsafe { libc::opendir(c(path).as_ptr()) };
        assert!(!stream.is_null(), "{}", io::Error::last_os_error());
        Self(stream)
    }

    fn next(&mut self) -> Option<String> {
        // SAFETY: an open stream; the entry is read before the next call.
        unsafe {
            let entry = libc::readdir(self.0);
            if entry.is_null() {
                return None;
            }
            let name = std::ffi::CStr::from_ptr((*entry).d_name.as_ptr());
            Some(name.to_str().unwrap().to_owned())
        }
    }

    fn tell(&self) -> i64 {
        // SAFETY: an open stream.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&mut self, to: i64) {
        // SAFETY: an open stream and a place it told.
        unsafe { libc::seekdir(self.0, to) }
    }

    fn rewind(&mut self) {
        // SAFETY: an open stream.
        unsafe { libc::rewinddir(self.0) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: an open stream, not used again.
        unsafe { libc::closedir(self.0) };
    }
}

// Without it a listing of a large directory could lose or repeat names when it is continued.
#[test]
fn large_directories_can_be_read_from_any_place() {
    if !can_mount("large_directories_can_be_read_from_any_place") {
        return;
    }
    let world = World::new(&base(), &FILES[..1], Extras { many: MANY });
    let mount = mounted(&world, Way::Passthrough);
    let mut stream = Stream::open(&mount.path("many"));
    let mut places = Vec::new();
    loop {
        let place = stream.tell();
        match stream.next() {
            Some(name) => places.push((place, name)),
            None => break,
        }
    }
    assert_eq!(places.len(), MANY as usize + 2);
    assert_eq!((places[0].1.as_str(), places[1].1.as_str()), (".", ".."));
    let mut names: Vec<&str> = places.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), MANY as usize + 2, "a name twice");
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..200 {
        let at = random.random_range(0..places.len() - 3);
        stream.seek(places[at].0);
        for (_, expected) in &places[at..at + 3] {
            assert_eq!(stream.next().as_ref(), Some(expected));
        }
    }
    stream.rewind();
    assert_eq!(stream.next().as_deref(), Some("."));
    // Entries come and go in the kernel's memory while they are listed.
    let directory = std::fs::metadata(mount.path("many")).unwrap().ino();
    std::thread::scope(|scope| {
        let device = &mount.device;
        let forgetter = scope.spawn(move || {
            for number in 0..20_000_u32 {
                let name = format!("f{:06}", number * 7 % MANY);
                device.forget_name(directory, name.as_bytes()).unwrap();
            }
        });
        while !forgetter.is_finished() {
            let entries = std::fs::read_dir(mount.path("many")).unwrap();
            assert_eq!(entries.filter(|entry| entry.is_ok()).count(), MANY as usize);
        }
    });
    let listed = mount.fs.status().requests["readdirplus"] + mount.fs.status().requests["readdir"];
    assert!(
        listed > 0 && mount.fs.status().requests["opendir"] == 1,
        "OPENDIR is asked once"
    );
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

// Without it readers that come together could fetch twice, wait for ever, or get each other's bytes.
#[test]
fn many_readers_of_one_cold_file_share_one_fetch() {
    if !can_mount("many_readers_of_one_cold_file_share_one_fetch") {
        return;
    }
    for way in WAYS {
        let world = World::new(&base(), &FILES, Extras::default());
        let mount = mounted(&world, way);
        let file = &world.files[0];
        std::thread::scope(|scope| {
            for seed in 0..64 {
                let path = mount.path(&file.name);
                scope.spawn(move || {
                    let open = File::open(path).unwrap();
                    let mut random = StdRng::seed_from_u64(seed);
                    for _ in 0..20 {
                        let offset = random.random_range(0..file.size);
                        let mut buffer = vec![0; random.random_range(1..200_000)];
                        let got = open.read_at(&mut buffer, offset).unwrap();
                        let end = offset + buffer.len() as u64;
                        assert!(buffer[..got] == file.bytes(offset..end), "{way:?} {offset}");
                    }
                });
            }
        });
        let fetched = world.gate.bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert!(
            fetched <= file.size,
            "{way:?}: {fetched} bytes of {} fetched",
            file.size
        );
    }
}
