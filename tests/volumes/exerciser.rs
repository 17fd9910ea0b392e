//! One file, every way to change it, and a copy of what it must hold.
//!
//! Each operation is made on the volume and on a vector; every read, and now and then the whole file
//! (through the volume, through a map, and through the directory below), must be the vector.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memmap2::MmapMut;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::Volume;
use crate::numbers::Numbers;
use crate::world::need_mount;

const OPERATIONS: u32 = 20_000;
/// The file is never longer.
const LIMIT: u64 = 64 << 10;
/// One operation touches no more.
const LONGEST: u64 = 16 << 10;
/// Between two looks at everything.
const LOOK: u32 = 500;

struct Exerciser {
    file: File,
    appending: File,
    model: Vec<u8>,
    /// Whether ranges are made zero.
    zeroes: bool,
    numbers: Numbers,
}

impl Exerciser {
    fn new(path: &Path, seed: u64) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = options.clone().create_new(true).open(path).unwrap();
        let appending = options
            .custom_flags(nix::libc::O_APPEND)
            .open(path)
            .unwrap();
        Self {
            file,
            appending,
            model: Vec::new(),
            zeroes: true,
            numbers: Numbers::new(seed),
        }
    }

    fn range(&mut self) -> (u64, u64) {
        let offset = self.numbers.below(LIMIT);
        let length = 1 + self.numbers.below(LONGEST.min(LIMIT - offset));
        (offset, length)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        for part in bytes.chunks_mut(8) {
            let word = self.numbers.next().to_ne_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        bytes
    }

    fn grow(&mut self, end: u64) {
        if self.model.len() < end as usize {
            self.model.resize(end as usize, 0);
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        self.model[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// One operation; its name.
    fn step(&mut self) -> &'static str {
        match self.numbers.below(10) {
            0 | 1 => self.write(),
            2 => self.append(),
            3 => self.truncate(),
            4 => self.write_mapped(),
            5 => self.allocate(),
            6 => self.copy(),
            7 => self.sync(),
            _ => self.read(),
        }
    }

    fn write(&mut self) -> &'static str {
        let (offset, length) = self.range();
        let bytes = self.bytes(length);
        self.file.write_all_at(&bytes, offset).unwrap();
        self.put(offset, &bytes);
        "write"
    }

    fn append(&mut self) -> &'static str {
        use std::io::Write;
        let end = self.model.len() as u64;
        let length = LONGEST.min(LIMIT - end);
        if length > 0 {
            let length = 1 + self.numbers.below(length);
            let bytes = self.bytes(length);
            self.appending.write_all(&bytes).unwrap();
            self.put(end, &bytes);
        }
        "append"
    }

    fn truncate(&mut self) -> &'static str {
        let size = self.numbers.below(LIMIT);
        self.file.set_len(size).unwrap();
        self.model.resize(size as usize, 0);
        "truncate"
    }

    fn write_mapped(&mut self) -> &'static str {
        if !self.model.is_empty() {
            // SAFETY: only this thread touches the file.
            let mut map = unsafe { MmapMut::map_mut(&self.file) }.unwrap();
            assert_eq!(map.len(), self.model.len(), "length of a new map");
            let offset = self.numbers.below(self.model.len() as u64);
            let length = 1 + self.numbers.below(self.model.len() as u64 - offset);
            let bytes = self.bytes(length);
            map[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            self.put(offset, &bytes);
            if self.numbers.below(40) == 0 {
                map.flush().unwrap();
            }
        }
        "write mapped"
    }

    fn allocate(&mut self) -> &'static str {
        let (offset, length) = self.range();
        let (at, many) = (offset as i64, length as i64);
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let zero = match self.numbers.below(if self.zeroes { 4 } else { 2 }) {
            0 => {
                fallocate(&self.file, FallocateFlags::empty(), at, many).unwrap();
                self.grow(offset + length);
                false
            }
            1 => {
                fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, many).unwrap();
                false
            }
            2 => {
                fallocate(&self.file, punch, at, many).unwrap();
                true
            }
            _ => {
                fallocate(&self.file, FallocateFlags::FALLOC_FL_ZERO_RANGE, at, many).unwrap();
                self.grow(offset + length);
                true
            }
        };
        if zero {
            let end = self.model.len().min((offset + length) as usize);
            let start = (offset as usize).min(end);
            self.model[start..end].fill(0);
        }
        "allocate"
    }

    fn copy(&mut self) -> &'static str {
        let half = LIMIT / 2;
        let (from, length) = (self.numbers.below(half), 1 + self.numbers.below(LONGEST));
        let length = length.min(half - from);
        let (mut at, mut to) = (
            from as i64,
            (half + self.numbers.below(half - length)) as i64,
        );
        let target = to as u64;
        // SAFETY: both offsets are valid for the call.
        let copied = unsafe {
            nix::libc::copy_file_range(
                self.file.as_raw_fd(),
                &raw mut at,
                self.file.as_raw_fd(),
                &raw mut to,
                length as usize,
                0,
            )
        };
        assert!(copied >= 0, "copy: {}", std::io::Error::last_os_error());
        let end = self.model.len().min(from as usize + copied as usize);
        let bytes = self.model[(from as usize).min(end)..end].to_vec();
        assert_eq!(bytes.len(), copied as usize, "bytes that were copied");
        if !bytes.is_empty() {
            self.put(target, &bytes);
        }
        "copy"
    }

    fn sync(&mut self) -> &'static str {
        match self.numbers.below(20) {
            0 => self.file.sync_all().unwrap(),
            1 => self.file.sync_data().unwrap(),
            _ => {}
        }
        let size = self.file.metadata().unwrap().len();
        assert_eq!(size, self.model.len() as u64, "size");
        "stat"
    }

    fn read(&mut self) -> &'static str {
        let (offset, length) = self.range();
        let mut bytes = vec![0; length as usize];
        let read = self.file.read_at(&mut bytes, offset).unwrap();
        let end = self.model.len().min((offset + length) as usize);
        let expected = &self.model[(offset as usize).min(end)..end];
        assert!(bytes[..read] == *expected, "read {length} at {offset}");
        "read"
    }

    /// Everything, by every way to look.
    fn look(&self, path: &Path, below: &Path) {
        assert!(
            std::fs::read(path).unwrap() == self.model,
            "the volume differs"
        );
        assert!(
            std::fs::read(below).unwrap() == self.model,
            "the directory differs"
        );
        if !self.model.is_empty() {
            // SAFETY: only this thread touches the file.
            let map = unsafe { MmapMut::map_mut(&self.file) }.unwrap();
            assert!(*map == *self.model, "the map differs");
        }
    }
}

/// So many operations on one file for each seed; `zeroes`: also such that make a range zero.
pub(crate) fn exercise(volume: &Volume, name: &str, seeds: &[u64], operations: u32, zeroes: bool) {
    for seed in seeds {
        let file = format!("{name}-{seed}");
        let (path, below) = (volume.mount.join(&file), volume.below.join(&file));
        let mut exerciser = Exerciser::new(&path, *seed);
        exerciser.zeroes = zeroes;
        for number in 0..operations {
            let before = exerciser.numbers.clone();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                exerciser.step();
                if number % LOOK == 0 {
                    exerciser.look(&path, &below);
                }
            }));
            assert!(done.is_ok(), "seed {seed}, operation {number}, {before:?}");
        }
        exerciser.look(&path, &below);
    }
}

// SEMANTICS S41: without it a write by one way could be unseen by another one: silent corruption.
#[test]
fn every_way_to_write_a_file_agrees() {
    need_mount!("every_way_to_write_a_file_agrees");
    exercise(&Volume::new(&[]), "file", &[1, 2, 3, 4], OPERATIONS, true);
}

// SEMANTICS S41: without it, where the kernel has no passthrough, a map, an append or a truncation could
// miss what another way has written.
#[test]
fn every_way_to_write_a_file_agrees_through_the_daemon() {
    need_mount!("every_way_to_write_a_file_agrees_through_the_daemon");
    let volume = Volume::without_passthrough(&[]);
    exercise(&volume, "file", &[5, 6], OPERATIONS, true);
    let status = volume.status();
    assert_eq!(status["passthrough"]["on"], false, "{status}");
    assert_eq!(status["opens"]["passthrough"], 0, "{status}");
}
