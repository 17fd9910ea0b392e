//! Which bytes of a file share their blocks with another file: those whose next write needs new blocks, so
//! they are not there yet for whoever was promised them. Calls and layouts: `linux/fiemap.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Extents that one question is answered with.
const EXTENTS: usize = 64;

/// Flags: write what is to be written first; the last extent of the file; its blocks are shared.
const SYNC: u32 = 1;
const LAST: u32 = 1;
const SHARED: u32 = 0x2000;

/// `struct fiemap_extent`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_more: [u32; 3],
}

/// `struct fiemap`, with room for the extents behind it.
#[repr(C)]
pub(super) struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

nix::ioctl_readwrite_bad!(map_extents, 0xC020_660B, Map);

/// Bytes of a file whose blocks another file has too. Asks once for each [`EXTENTS`] extents.
pub(super) fn shared(file: &File) -> io::Result<u64> {
    let mut bytes = 0_u64;
    let mut map = Map {
        start: 0,
        length: u64::MAX,
        flags: SYNC,
        mapped: 0,
        count: EXTENTS as u32,
        reserved: 0,
        extents: [Extent::default(); EXTENTS],
    };
    loop {
        // SAFETY: the descriptor is open, and the kernel reads and writes that structure only: it says itself
        // how many extents there is room for.
        unsafe { map_extents(file.as_raw_fd(), &raw mut map) }?;
        let found = usize::try_from(map.mapped).map_err(io::Error::other)?;
        let found = &map.extents[..found.min(EXTENTS)];
        let shared = found.iter().filter(|extent| extent.flags & SHARED != 0);
        bytes = bytes.saturating_add(shared.map(|extent| extent.length).sum());
        match found.last() {
            Some(last) if last.flags & LAST == 0 => {
                map.start = last.logical.saturating_add(last.length);
                map.length = u64::MAX - map.start;
            }
            _ => return Ok(bytes),
        }
    }
}
