//! Positions in large directories.

use crate::fs_support::{Extras, World};
use crate::mount::{base, can_mount};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{self};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use terrace_fuse::fs::Kernel;

use crate::support::*;

const MANY: u32 = 100_000;

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
