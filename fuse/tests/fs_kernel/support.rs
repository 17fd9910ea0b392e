//! A mount of a few files in each way of opening them.

use crate::fs_support::World;
use crate::mount::Mounted;
use std::ffi::CString;
use std::io::{self};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use terrace_fuse::fs::Profile;
use terrace_fuse::probe::{NoPassthrough, Passthrough};

pub(crate) const FILES: [(&str, u64); 6] = [
    ("large", 5 * (1 << 20) + 123),
    ("exact", 2 << 20),
    ("small", 1000),
    ("empty", 0),
    ("d/sub/x", 70_001),
    ("d/name with \u{e9} and space", 5),
];

/// Files up to here are fetched by open(2); `large` is not.
pub(crate) const FILL_ON_OPEN: u64 = 3 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Passthrough,
    PageCache,
    SmallFiles,
}

pub(crate) const WAYS: [Way; 3] = [Way::Passthrough, Way::PageCache, Way::SmallFiles];

pub(crate) fn mounted(world: &World, way: Way) -> Mounted {
    let (profile, passthrough) = match way {
        Way::Passthrough => (Profile::Default, world.wanted()),
        Way::PageCache => (Profile::Default, Passthrough::Off(NoPassthrough::Disabled)),
        Way::SmallFiles => (Profile::SmallFiles, world.wanted()),
    };
    Mounted::new(world.file_system(profile, passthrough, FILL_ON_OPEN))
}

pub(crate) fn errno(result: io::Result<impl Sized>) -> i32 {
    result
        .err()
        .map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

pub(crate) fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// errno of a libc call that returns -1.
pub(crate) fn call(result: i64) -> i32 {
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap()
    } else {
        0
    }
}
