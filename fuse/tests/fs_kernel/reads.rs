//! All ways to read, and who is asked for the bytes.

use crate::fs_support::{Extras, TestFile, World};
use crate::mount::{base, can_mount};
use memmap2::MmapOptions;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::support::*;

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
