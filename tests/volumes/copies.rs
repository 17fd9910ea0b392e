//! Files that are read from a copy on the SSD, and everybody who is beside their readers.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use memmap2::{Mmap, MmapMut};

use crate::Volume;
use crate::numbers::Numbers;
use crate::world::{need_mount, wait_for};

const SIZE: usize = 3 << 20;

fn count(volume: &Volume, name: &str) -> u64 {
    volume.status()["copies"][name].as_u64().unwrap()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    (0..length).map(|_| numbers.next() as u8).collect()
}

/// Opens a file again and again until it is read from a copy, and returns that handle.
fn from_copy(volume: &Volume, path: &Path) -> File {
    let before = count(volume, "opens");
    let mut opened = None;
    wait_for("a copy", || {
        opened = None; // or the next open would have to do as this one
        std::thread::sleep(Duration::from_millis(100));
        opened = Some(File::open(path).unwrap());
        count(volume, "opens") > before
    });
    opened.unwrap()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

// SEMANTICS S99, S100: without it a reader of a copy would miss what is written beside it.
#[test]
fn a_writer_beside_readers_of_a_copy_is_seen_by_all() {
    need_mount!("a_writer_beside_readers_of_a_copy_is_seen_by_all");
    let volume = Volume::new(&["--ssd-cache", "on"]);
    let path = volume.mount.join("file");
    let mut model = noise(1, SIZE);
    fs::write(&path, &model).unwrap();
    let reader = from_copy(&volume, &path);
    // SAFETY: the test is about a file that changes under its map; its length does not.
    let map = unsafe { Mmap::map(&reader) }.unwrap();
    assert!(
        content(&reader) == model && map[..] == model[..],
        "the copy"
    );
    let writer = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut numbers = Numbers::new(2);
    for round in 0..40 {
        let (at, length) = (
            numbers.below(SIZE as u64 - 9000) as usize,
            1 + numbers.below(9000) as usize,
        );
        let bytes = noise(round + 10, length);
        model[at..at + length].copy_from_slice(&bytes);
        if round % 2 == 0 {
            writer.write_all_at(&bytes, at as u64).unwrap();
        } else {
            // SAFETY: nobody else writes.
            let mut written = unsafe { MmapMut::map_mut(&writer) }.unwrap();
            written[at..at + length].copy_from_slice(&bytes);
        }
        assert!(
            content(&reader) == model,
            "round {round}: the reader's handle"
        );
        assert!(map[..] == model[..], "round {round}: the reader's map");
        assert!(
            fs::read(&path).unwrap() == model,
            "round {round}: a new handle"
        );
    }
    writer.set_len(1000).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 1000);
    assert!(content(&reader) == model[..1000], "after it was cut");
    writer.sync_all().unwrap();
    drop((reader, map, writer));
    assert!(
        fs::read(volume.below.join("file")).unwrap() == model[..1000],
        "the directory"
    );
    // And the version that is left gets a copy of its own.
    assert!(
        content(&from_copy(&volume, &path)) == model[..1000],
        "the next copy"
    );
}

// SEMANTICS S97, S99: without it a copy would outlive the version it is of.
#[test]
fn a_copy_is_of_the_version_that_is_opened() {
    need_mount!("a_copy_is_of_the_version_that_is_opened");
    let volume = Volume::new(&["--ssd-cache", "on"]);
    let path = volume.mount.join("file");
    for round in 0..3 {
        let bytes = noise(round, SIZE / 4 + round as usize);
        // As another node does it: behind the volume.
        fs::write(volume.below.join("file"), &bytes).unwrap();
        assert!(
            fs::read(&path).unwrap() == bytes,
            "round {round}: just written"
        );
        let copied = from_copy(&volume, &path);
        assert!(content(&copied) == bytes, "round {round}: the copy");
        let again = noise(round + 50, bytes.len());
        fs::write(volume.below.join("file"), &again).unwrap();
        assert!(
            fs::read(&path).unwrap() == again,
            "round {round}: beside an open copy"
        );
    }
    assert!(count(&volume, "filled") >= 3);
}

// SEMANTICS S120: without it the option would save nothing, or would hide what is written here.
#[test]
fn an_open_may_believe_an_earlier_answer() {
    need_mount!("an_open_may_believe_an_earlier_answer");
    let believing = ["--ttl", "600s", "--revalidate", "600s"];
    let volume = Volume::new(&[&["--ssd-cache", "on"], &believing[..]].concat());
    let [path, below] = [&volume.mount, &volume.below].map(|root| root.join("file"));
    let [first, second, third] = [1, 2, 3].map(|seed| noise(seed, SIZE / 8));
    fs::write(&path, &first).unwrap();
    drop(from_copy(&volume, &path));
    let opens = count(&volume, "opens");
    // As another node does it: behind the volume, which may not see it yet.
    fs::write(&below, &second).unwrap();
    assert!(fs::read(&path).unwrap() == first, "it asks all the same");
    assert_eq!(count(&volume, "opens"), opens + 1, "opens of the copy");
    // What is written here is seen here.
    fs::write(&path, &third).unwrap();
    assert!(fs::read(&path).unwrap() == third, "its own write is hidden");
    assert!(fs::read(&below).unwrap() == third, "the directory");
}

// SEMANTICS S40, S99: without it a file that is read from a copy would vanish with its name.
#[test]
fn a_deleted_file_is_read_on() {
    need_mount!("a_deleted_file_is_read_on");
    let volume = Volume::new(&["--ssd-cache", "on", "--ttl", "0s"]);
    let bytes = noise(3, SIZE);
    let [path, other] = ["file", "other"].map(|name| volume.mount.join(name));
    fs::write(&path, &bytes).unwrap();
    let reader = from_copy(&volume, &path);
    fs::remove_file(&path).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), SIZE as u64);
    assert!(content(&reader) == bytes, "after its name was removed");
    fs::write(&path, &bytes).unwrap();
    let reader = from_copy(&volume, &path);
    fs::write(&other, "another file").unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(reader.metadata().unwrap().nlink(), 0);
    assert!(
        content(&reader) == bytes,
        "after another file took its name"
    );
    assert_eq!(fs::read(&path).unwrap(), b"another file");
}

// SEMANTICS S44, S99: without it readers of a copy would fail with their worker, and copies be lost with it.
#[test]
fn copies_outlive_a_worker() {
    need_mount!("copies_outlive_a_worker");
    let volume = Volume::new(&["--ssd-cache", "on"]);
    let path = volume.mount.join("file");
    let bytes = noise(4, SIZE);
    fs::write(&path, &bytes).unwrap();
    let reader = from_copy(&volume, &path);
    crate::manners::kill(&volume);
    assert!(content(&reader) == bytes, "a handle of the dead worker");
    drop(reader);
    let again = from_copy(&volume, &path);
    assert!(
        content(&again) == bytes,
        "the copy, read by the next worker"
    );
    assert_eq!(count(&volume, "filled"), 0, "it was not copied again");
}

// SEMANTICS S99: without it a local directory would be copied to the disk it lies on.
#[test]
fn a_local_directory_is_not_copied() {
    need_mount!("a_local_directory_is_not_copied");
    let volume = Volume::new(&[]);
    assert_eq!(volume.status()["copies"]["on"], false);
    let volume = Volume::new(&["--ssd-cache", "on"]);
    assert_eq!(volume.status()["copies"]["on"], true);
}
