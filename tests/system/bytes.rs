//! The bytes, names and attributes that a mount shows, for every kind of store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::support::data::{Numbers, assert_same, noise, read_tree, sample_tree, write_tree};
use crate::support::node::Node;
use crate::support::{need_hdfs, need_mount, need_s3};

/// Reads a mount twice: the first time the bytes come from the store, then from the hot tier.
fn shows_the_tree(node: &Node, source: &str, options: &[&str]) {
    let mount = node.mount(source, options);
    for _ in 0..2 {
        assert_same(&read_tree(&mount), &sample_tree());
    }
}

// SEMANTICS S1, S3: without it, any tier could return other bytes than the bucket has.
#[test]
fn s3_bucket_is_shown_byte_for_byte() {
    need_mount!("s3_bucket_is_shown_byte_for_byte");
    let server = need_s3!("s3_bucket_is_shown_byte_for_byte");
    let bucket = server.bucket("bytes");
    bucket.put_tree("set", &sample_tree());
    let node = Node::new();
    shows_the_tree(&node, &bucket.url("set"), &[]);
    shows_the_tree(&node, &bucket.url("set"), &["--snapshot"]);
    shows_the_tree(&node, &bucket.url("set"), &["--profile", "small-files"]);
}

// SEMANTICS S1, S3: the same for both protocols of HDFS.
#[test]
fn hdfs_directory_is_shown_byte_for_byte() {
    need_mount!("hdfs_directory_is_shown_byte_for_byte");
    let cluster = need_hdfs!("hdfs_directory_is_shown_byte_for_byte");
    let root = format!("/bytes-{}", std::process::id());
    cluster.put_tree(&root, &sample_tree());
    let node = Node::new();
    shows_the_tree(&node, &format!("{}{root}", cluster.native), &[]);
    shows_the_tree(&node, &format!("{}{root}", cluster.web), &[]);
    cluster.remove(&root);
}

// SEMANTICS S1, S3: the same for a directory.
#[test]
fn directory_is_shown_byte_for_byte() {
    need_mount!("directory_is_shown_byte_for_byte");
    let node = Node::new();
    let origin = node.scratch("origin");
    write_tree(&origin, &sample_tree());
    shows_the_tree(&node, &format!("file://{}", origin.display()), &[]);
}

/// A mount of one file of several blocks, and what it holds.
fn one_file(node: &Node) -> (std::path::PathBuf, Vec<u8>) {
    let origin = node.scratch("origin");
    let bytes = noise(99, (9 << 20) + 777);
    fs::write(origin.join("file"), &bytes).unwrap();
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    (mount.join("file"), bytes)
}

// SEMANTICS S3, S8: readers seek; a read across a block's border or the end must not be short or shifted.
#[test]
fn reads_at_any_offset_are_right() {
    need_mount!("reads_at_any_offset_are_right");
    let node = Node::new();
    let (path, bytes) = one_file(&node);
    let mut numbers = Numbers::new(5);
    for _ in 0..20 {
        // A new open each time: some are served by the daemon, later ones by passthrough.
        let file = File::open(&path).unwrap();
        for _ in 0..50 {
            let offset = numbers.below(bytes.len() as u64 + 5000) as usize;
            let length = [0, 1, 4096, 100_000, 3 << 20][numbers.below(5) as usize];
            let mut found = vec![0; length];
            let count = file.read_at(&mut found, offset as u64).unwrap();
            let expected = &bytes[offset.min(bytes.len())..(offset + length).min(bytes.len())];
            // One read(2) of a large buffer may be split by the kernel only at the end of the file.
            assert_eq!(count, expected.len(), "{length} bytes at {offset}");
            assert!(
                found[..count] == *expected,
                "{length} bytes at {offset} differ"
            );
        }
    }
}

// SEMANTICS S8: loaders map files, servers send them, databases read around the page cache.
#[test]
fn every_way_to_read_gives_the_same_bytes() {
    need_mount!("every_way_to_read_gives_the_same_bytes");
    let node = Node::new();
    let (path, bytes) = one_file(&node);
    for _ in 0..2 {
        let file = File::open(&path).unwrap();
        // SAFETY: the mapped file is read-only and immutable while it is mapped.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        assert!(map[..] == bytes[..], "mmap");

        let copy = node.scratch("copies").join("copied");
        // copy_file_range, or sendfile where the kernel refuses it between file systems.
        assert_eq!(fs::copy(&path, &copy).unwrap(), bytes.len() as u64);
        assert!(fs::read(&copy).unwrap() == bytes, "sendfile");

        let direct = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_DIRECT)
            .open(&path)
            .unwrap();
        let mut aligned = memmap2::MmapMut::map_anon(1 << 20).unwrap();
        let count = direct.read_at(&mut aligned, 1 << 20).unwrap();
        assert!(
            aligned[..count] == bytes[1 << 20..][..count] && count == 1 << 20,
            "O_DIRECT"
        );
    }
    let mut file = File::open(&path).unwrap();
    assert_eq!(
        file.seek(SeekFrom::End(-7)).unwrap(),
        bytes.len() as u64 - 7
    );
    let mut last = Vec::new();
    file.read_to_end(&mut last).unwrap();
    assert_eq!(last, bytes[bytes.len() - 7..]);
}

// SEMANTICS S9, S10: a listing that loses a name loses training data; equal numbers make `tar` skip files.
#[test]
fn large_directories_are_listed_once_and_seekable() {
    need_mount!("large_directories_are_listed_once_and_seekable");
    let node = Node::new();
    let origin = node.scratch("origin");
    let expected: BTreeSet<String> = (0..5000)
        .map(|number| format!("file-{number:05}"))
        .collect();
    for name in &expected {
        File::create(origin.join(name)).unwrap();
    }
    let mount = node.mount(&format!("file://{}", origin.display()), &[]);
    for _ in 0..2 {
        let entries: Vec<_> = fs::read_dir(&mount).unwrap().map(Result::unwrap).collect();
        let names: BTreeSet<String> = entries
            .iter()
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), entries.len(), "a name was listed twice");
        assert_eq!(names, expected);
        let inodes: BTreeSet<u64> = entries
            .iter()
            .map(|entry| entry.metadata().unwrap().ino())
            .collect();
        assert_eq!(
            inodes.len(),
            expected.len(),
            "two files share an inode number"
        );
    }
    let listed = walk_with_seekdir(&mount);
    assert_eq!(listed.len(), expected.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
}

/// Names of a directory, going back after every thousand to the place before the last one.
fn walk_with_seekdir(path: &Path) -> Vec<String> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut names = Vec::new();
    // SAFETY: the stream is opened here, used by this thread only, and closed below.
    let stream = unsafe { nix::libc::opendir(path.as_ptr()) };
    assert!(!stream.is_null());
    let mut went_back = 0;
    loop {
        // SAFETY: as above; an entry is valid until the next call on the stream.
        let (place, entry) = unsafe { (nix::libc::telldir(stream), nix::libc::readdir(stream)) };
        if entry.is_null() {
            break;
        }
        // SAFETY: a directory entry's name ends with a zero byte.
        let name = unsafe { std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()) };
        let name = name.to_str().unwrap().to_owned();
        if names.len() % 1000 == 999 && went_back != names.len() {
            went_back = names.len();
            // SAFETY: `place` came from telldir on the same stream.
            unsafe { nix::libc::seekdir(stream, place) };
            continue;
        }
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    // SAFETY: opened above, not used again.
    unsafe { nix::libc::closedir(stream) };
    names
}

// SEMANTICS S14: sizes and times drive caches of build systems and of `rsync`; modes decide who reads.
#[test]
fn attributes_come_from_the_store_and_the_options() {
    need_mount!("attributes_come_from_the_store_and_the_options");
    let node = Node::new();
    let origin = node.scratch("origin");
    write_tree(&origin, &sample_tree());
    let options = [
        "--uid",
        "4711",
        "--gid",
        "4712",
        "--file-mode",
        "0440",
        "--dir-mode",
        "0550",
    ];
    let mount = node.mount(&format!("file://{}", origin.display()), &options);
    for path in sample_tree().keys() {
        let (found, expected) = (
            fs::metadata(mount.join(path)).unwrap(),
            fs::metadata(origin.join(path)).unwrap(),
        );
        assert_eq!(found.len(), expected.len(), "size of {path}");
        assert_eq!(found.mtime(), expected.mtime(), "time of {path}");
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (4711, 4712, 0o440)
        );
    }
    let directory = fs::metadata(mount.join("a")).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (4711, 0o550));
}

// SEMANTICS S15: loaders read complete objects from their real path; doctors ask where bytes are.
#[test]
fn extended_attributes_tell_version_and_tier() {
    need_mount!("extended_attributes_tell_version_and_tier");
    let node = Node::new();
    let (path, bytes) = one_file(&node);
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len());
    let attribute = |name: &str| getxattr(&path, &format!("user.terrace.{name}"));
    assert!(!attribute("version").unwrap().is_empty());
    assert_eq!(attribute("digest").unwrap().len(), 64);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while attribute("tier").unwrap() != "hot" {
        assert!(
            std::time::Instant::now() < deadline,
            "the file was read and is still not hot"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let real = attribute("cachepath").unwrap();
    assert!(
        fs::read(real).unwrap() == bytes,
        "the bytes below cachepath differ"
    );
    assert!(attribute("nonsense").is_none());
}

/// An extended attribute as text; None when there is none of that name.
fn getxattr(path: &Path, name: &str) -> Option<String> {
    let [path, name] =
        [path.to_str().unwrap(), name].map(|text| std::ffi::CString::new(text).unwrap());
    let mut value = vec![0u8; 4096];
    // SAFETY: both strings end with a zero byte, and the buffer is as long as it is said to be.
    let count = unsafe {
        nix::libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(count).ok()?);
    Some(String::from_utf8(value).unwrap())
}

// Files below a mount point must not disappear by accident, and come back when the mount goes.
#[test]
fn a_mount_point_with_files_is_covered_only_when_asked() {
    need_mount!("a_mount_point_with_files_is_covered_only_when_asked");
    let node = Node::new();
    let origin = node.scratch("origin");
    fs::write(origin.join("file"), b"x").unwrap();
    let source = format!("file://{}", origin.display());
    let below = node.scratch("mount-0");
    fs::write(below.join("hidden"), b"mine").unwrap();
    let hot = node.hot();
    let target = below.to_str().unwrap();
    let refused = node.terrace(&["mount", &source, target, "--hot", hot.to_str().unwrap()]);
    assert!(
        !refused.status.success(),
        "files of a directory were covered"
    );
    let mount = node.mount(&source, &["-o", "nonempty"]);
    assert!(!mount.join("hidden").exists());
    node.succeed(&["umount", mount.to_str().unwrap()]);
    assert_eq!(fs::read(below.join("hidden")).unwrap(), b"mine");
}
