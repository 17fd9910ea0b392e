//! What a volume takes, where the next worker finds it.
//!
//! # Format 1
//!
//! A file of two slots of 32 bytes, mapped shared: it outlives the process, not the machine, like the
//! mount. Slots are written by turns, so one of them is whole at any instant; the one with the higher
//! order counts. Integers have the machine's byte order.
//! ```text
//!  0  4  crc32c of bytes 4..32      16  8  bytes, signed
//!  4  4  1                          24  8  files, signed
//!  8  8  order, from 1
//! ```
//! A slot that fails its check was being written when the worker died; the other one is a change older.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::MmapMut;

use super::Sum;

const FORMAT: u32 = 1;
const SLOT: usize = 32;

/// See the module text.
#[derive(Debug)]
pub(super) struct Ledger {
    map: MmapMut,
    order: u64,
}

impl Ledger {
    /// Opens or makes the file. `fresh`: what is in it is of an earlier mount.
    ///
    /// Errors: those of making, sizing and mapping a file.
    pub(super) fn open(path: &Path, fresh: bool) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(fresh);
        let file = options.open(path)?;
        file.set_len((2 * SLOT) as u64)?;
        // SAFETY: the file is this mount's own, in a directory that one worker at a time uses, and
        // nobody makes it shorter.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        let mut ledger = Self { map, order: 0 };
        ledger.order = ledger.newest().map_or(0, |(order, _)| order);
        Ok(ledger)
    }

    /// What was written last; `None` in a fresh file, and in a damaged one.
    pub(super) fn last(&self) -> Option<Sum> {
        self.newest().map(|(_, sum)| sum)
    }

    /// Replaces the older of the two.
    pub(super) fn write(&mut self, sum: Sum) {
        self.order += 1;
        let at = (self.order % 2) as usize * SLOT;
        self.map[at..at + SLOT].copy_from_slice(&encode(self.order, sum));
    }

    fn newest(&self) -> Option<(u64, Sum)> {
        let slots = self.map.chunks_exact(SLOT);
        slots.filter_map(decode).max_by_key(|(order, _)| *order)
    }
}

fn encode(order: u64, sum: Sum) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[4..8].copy_from_slice(&FORMAT.to_ne_bytes());
    bytes[8..16].copy_from_slice(&order.to_ne_bytes());
    bytes[16..24].copy_from_slice(&sum.bytes.to_ne_bytes());
    bytes[24..32].copy_from_slice(&sum.files.to_ne_bytes());
    let check = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&check.to_ne_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Sum)> {
    let (check, rest) = bytes.split_first_chunk()?;
    if u32::from_ne_bytes(*check) != crc32c::crc32c(rest) {
        return None;
    }
    let (format, rest) = rest.split_first_chunk()?;
    let (order, rest) = rest.split_first_chunk()?;
    let (bytes, rest) = rest.split_first_chunk()?;
    let (files, _) = rest.split_first_chunk()?;
    let sum = Sum {
        bytes: i64::from_ne_bytes(*bytes),
        files: i64::from_ne_bytes(*files),
    };
    let order = u64::from_ne_bytes(*order);
    (u32::from_ne_bytes(*format) == FORMAT && order > 0).then_some((order, sum))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn sum(bytes: i64) -> Sum {
        Sum { bytes, files: 7 }
    }

    // Without it a worker that is killed while it counts would make the next one begin from nothing.
    #[test]
    fn the_last_whole_record_is_found() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("quota");
        let mut ledger = Ledger::open(&path, true).unwrap();
        assert_eq!(ledger.last(), None);
        for bytes in 0..5 {
            ledger.write(sum(bytes));
        }
        drop(ledger);
        let mut ledger = Ledger::open(&path, false).unwrap();
        assert_eq!(ledger.last(), Some(sum(4)));
        ledger.write(sum(5));
        let newest = (ledger.order % 2) as usize * SLOT;
        ledger.map[newest + 17] ^= 1;
        drop(ledger);
        assert_eq!(Ledger::open(&path, false).unwrap().last(), Some(sum(4)));
        assert_eq!(Ledger::open(&path, true).unwrap().last(), None);
    }

    proptest::proptest! {
        /// Broken: a damaged record is believed, and a tenant gets what it should not.
        #[test]
        fn damage_is_never_believed(at in 0..SLOT, bit in 0..8_u32) {
            let mut bytes = encode(3, sum(99));
            assert_eq!(decode(&bytes), Some((3, sum(99))));
            bytes[at] ^= 1 << bit;
            assert_eq!(decode(&bytes), None);
        }
    }
}
