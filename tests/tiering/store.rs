//! Contents in a bucket: what programs see of files that are there and away.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::data::noise;
use crate::support::node::Node;
use crate::support::{need_hdfs, need_mount, need_s3};
use crate::{Volume, bytes_of};

/// Runs a program that must succeed; what it printed.
fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

// SEMANTICS S80, S81, S82, S85: without it a file in the cold store would look or read differently from what
// it was, or come back because somebody looked.
#[test]
fn programs_see_one_tree_wherever_contents_are() {
    const FILES: u64 = 12;
    need_mount!("programs_see_one_tree_wherever_contents_are");
    let server = need_s3!("programs_see_one_tree_wherever_contents_are");
    let bucket = server.bucket("tiering");
    let volume = Volume::with(Node::new(), &bucket.url("cold"), &[]);
    for number in 0..FILES {
        volume.write(&format!("runs/{}/f{number}", number % 3), &bytes_of(number));
    }
    let large = noise(99, 21 << 20);
    volume.write("runs/large", &large);
    let root = volume.mount.to_str().unwrap();
    let listing = ["-lR", "--time-style=full-iso", root];
    let apparent = ["-sb", "--apparent-size", root];
    let (listed, size) = (output("ls", &listing), output("du", &apparent));
    // Blocks on disk are in the first line of a listing of a directory.
    let shown = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("total "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(volume.demote(&[&volume.mount]), FILES + 1);
    let sent = bucket.sent_bytes();
    assert_eq!(shown(&output("ls", &listing)), shown(&listed));
    assert_eq!(output("du", &apparent), size);
    let found = output("find", &[root, "-type", "f", "-size", "+20M"]);
    assert_eq!(found.trim(), format!("{root}/runs/large"));
    assert_eq!(bucket.sent_bytes(), sent, "looking fetched something");
    assert_eq!(volume.cold("waited"), 0);
    let used = fs::metadata(volume.mount.join("runs/large"))
        .unwrap()
        .blocks();
    assert!((1..=8).contains(&used), "{used} blocks are used");
    // Without Terrace: empty, and it says why.
    assert_eq!(volume.length_below("runs/large"), 0);
    for number in 0..FILES {
        let name = format!("runs/{}/f{number}", number % 3);
        let read = fs::read(volume.mount.join(&name)).unwrap();
        assert!(read == bytes_of(number), "{name}");
    }
    let mut file = fs::File::open(volume.mount.join("runs/large")).unwrap();
    file.seek(SeekFrom::End(-10)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, large[large.len() - 10..]);
    drop(file);
    assert!(fs::read(volume.below.join("runs/large")).unwrap() == large);
    assert_eq!(shown(&output("ls", &listing)), shown(&listed));
    assert_eq!(volume.cold("recalled_files"), FILES + 1);
}

// SEMANTICS S80, S82: without it a cluster whose cold store is HDFS could not move anything there.
#[test]
fn contents_go_to_hdfs_and_come_back() {
    need_mount!("contents_go_to_hdfs_and_come_back");
    let cluster = need_hdfs!("contents_go_to_hdfs_and_come_back");
    let place = format!("/tiering-{}", std::process::id());
    let volume = Volume::with(Node::new(), &format!("{}{place}", cluster.native), &[]);
    // One request, and several parts.
    let files = [("small", noise(1, 70_000)), ("large", noise(2, 19 << 20))];
    for (name, bytes) in &files {
        volume.write(name, bytes);
    }
    assert_eq!(volume.demote(&[&volume.mount]), 2);
    for (name, bytes) in &files {
        assert_eq!(volume.length_below(name), 0);
        assert!(
            fs::read(volume.mount.join(name)).unwrap() == *bytes,
            "{name}"
        );
    }
    cluster.remove(&place);
}

// SEMANTICS S86: without it programs that start together fetch a file once each.
#[test]
fn eight_programs_fetch_a_file_once() {
    need_mount!("eight_programs_fetch_a_file_once");
    let server = need_s3!("eight_programs_fetch_a_file_once");
    let bucket = server.bucket("tiering-once");
    let volume = Volume::with(Node::new(), &bucket.url("cold"), &[]);
    let bytes = noise(5, 12 << 20);
    let path = volume.write("model", &bytes);
    assert_eq!(volume.demote(&[&path]), 1);
    let before = bucket.sent_bytes();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(fs::read(&path).unwrap() == bytes));
        }
    });
    let sent = bucket.sent_bytes() - before;
    let whole = bytes.len() as u64;
    assert!(
        (whole..whole + whole / 10).contains(&sent),
        "{sent} bytes were sent of {whole}"
    );
    assert_eq!(volume.cold("recalled_files"), 1);
}

// SEMANTICS S82: without it a program that writes to a file in the cold store loses what it had, or what it
// wrote.
#[test]
fn writing_brings_contents_back_first() {
    need_mount!("writing_brings_contents_back_first");
    let (volume, cold) = Volume::with_directory(&[]);
    let names = [
        "appended", "changed", "replaced", "cut", "emptied", "mapped",
    ];
    let bytes = noise(6, 3 << 20);
    let paths = names.map(|name| volume.write(name, &bytes));
    let [appended, changed, replaced, cut, emptied, mapped] = &paths;
    assert_eq!(volume.demote(&[&volume.mount]), 6);
    let mut file = OpenOptions::new().append(true).open(appended).unwrap();
    file.write_all(b"more").unwrap();
    drop(file);
    let mut expected = bytes.clone();
    expected.extend_from_slice(b"more");
    assert!(fs::read(appended).unwrap() == expected);
    let mut file = OpenOptions::new().write(true).open(changed).unwrap();
    file.write_all(b"begins").unwrap();
    drop(file);
    assert!(fs::read(changed).unwrap()[6..] == bytes[6..]);
    fs::write(replaced, "new").unwrap();
    assert_eq!(fs::read(replaced).unwrap(), b"new");
    nix::unistd::truncate(cut, 1000).unwrap();
    assert!(fs::read(cut).unwrap() == bytes[..1000]);
    let recalled = volume.cold("recalled_files");
    nix::unistd::truncate(emptied, 0).unwrap();
    assert_eq!(fs::read(emptied).unwrap(), b"");
    assert_eq!(
        volume.cold("recalled_files"),
        recalled,
        "nothing was needed"
    );
    let file = fs::File::open(mapped).unwrap();
    // SAFETY: nobody writes to the file.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    assert!(map[..] == bytes[..]);
    // What is mapped is in use, although its descriptor is closed.
    drop(file);
    assert_eq!(volume.demote(&[mapped]), 0);
    drop(map);
    // A program runs from the cold store, too.
    let program = volume.mount.join("program");
    fs::copy("/bin/true", &program).unwrap();
    assert_eq!(volume.demote(&[&program]), 1);
    assert_eq!(volume.length_below("program"), 0);
    assert!(Command::new(&program).status().unwrap().success());
    assert!(cold.read_dir().unwrap().count() > 0);
}

// SEMANTICS S90: without it 100,000 files would take memory or time that a node does not have.
#[test]
fn a_hundred_thousand_files_are_scanned() {
    const FILES: u64 = 100_000;
    need_mount!("a_hundred_thousand_files_are_scanned");
    let (volume, _) = Volume::with_directory(&[]);
    for directory in 0..100 {
        let place = volume.below.join(format!("d{directory}"));
        fs::create_dir(&place).unwrap();
        let first = place.join("f0");
        fs::File::create(&first).unwrap().set_len(2 << 20).unwrap();
        for number in 1..FILES / 100 {
            fs::hard_link(&first, place.join(format!("f{number}"))).unwrap();
        }
    }
    let worker = volume.node.pid("worker").unwrap();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = peak();
    let options = ["--older-than", "0s", "--larger-than", "1MiB", "--dry-run"];
    let sums = volume.run("demote", &[&volume.mount], &options);
    assert_eq!(sums[0]["files"].as_u64(), Some(FILES));
    assert_eq!(sums[0]["chosen"].as_u64(), Some(FILES));
    let grown = peak() - before;
    println!("{FILES} files: {grown} KiB more memory at the peak");
    assert!(grown < 64 << 10, "{grown} KiB");
}
