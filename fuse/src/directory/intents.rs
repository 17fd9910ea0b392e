//! What this worker was about to do, for the worker that comes after it.
//!
//! A request that a killed worker had taken is sent again, and for most that is harmless: the same
//! bytes go to the same place. Making, removing and renaming names is not: done twice, a success
//! becomes `EEXIST` or `ENOENT`. So before such an operation its *evidence* is written here: what is
//! there now that tells afterwards whether it was done. The next worker finds the record under the
//! request's number and looks.
//!
//! | operation                      | evidence                       | it was done when           |
//! | ------------------------------ | ------------------------------ | -------------------------- |
//! | create, mkdir, mknod, symlink  | the name is free               | the name is the caller's   |
//! | link                           | the name is free; the file     | the name is the file       |
//! | unlink, rmdir                  | the file that has the name     | the name is not that file  |
//! | rename                         | the file; what the target is   | the target is the file     |
//! | set (create) and remove xattr  | whether it exists              | that has changed           |
//!
//! What else could have changed a name between the two looks? Not this mount: the kernel holds the
//! directory's lock until the request is answered. Another node may; it would have to make the same
//! name with the same type and owner within that moment.
//!
//! A record is withdrawn after the answer was sent. One that a killed worker left although it had
//! answered is never asked for, as no request number comes twice in the life of a mount; it is
//! overwritten when all other places are taken.
//!
//! # Format 1
//!
//! A file of [`SLOTS`] slots of 512 bytes, mapped shared: it outlives the process, not the machine,
//! like the mount. Integers have the machine's byte order.
//! ```text
//!  0  8  request number; 0: free         32  4  kind, bytes of a file handle; length 0: none
//!  8  4  crc32c of bytes 12..512 and 0..8 36  4
//! 12  4  evidence: 1 free name, 2 file, 3 rename, 4 attribute is there, 5 it is not
//! 16  8  order in which they were written 40 128
//! 24  8  zero                            168 4+4+128  a second handle
//! ```
//! A record that fails its check was being written when the worker died: its operation had not begun.
//!
//! Lock: one mutex, held while 512 bytes are copied.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use super::sys::{FileId, HANDLE_MAX};
use crate::handles::RESENT;

/// Operations at a time; there are as many as session threads.
const SLOTS: usize = 256;
const SLOT: usize = 512;

const AT_CHECK: usize = 8;
const AT_EVIDENCE: usize = 12;
const AT_ORDER: usize = 16;
const AT_FIRST: usize = 32;
const AT_SECOND: usize = 168;

/// What tells whether an operation was done. See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The name was free.
    NameFree,
    /// This file had the name, or is to get it.
    File(FileId),
    /// This file was to move; what had the target's name.
    Rename(FileId, Option<FileId>),
    /// Whether the attribute existed.
    Attribute(bool),
}

/// Withdraws its record when dropped: keep it until the request is answered.
#[derive(Debug)]
pub(crate) struct Intent {
    intents: Arc<Intents>,
    slot: usize,
}

impl Drop for Intent {
    fn drop(&mut self) {
        self.intents.withdraw(self.slot);
    }
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Intents {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    map: MmapMut,
    free: Vec<usize>,
    /// Records of dead workers, by request number.
    inherited: HashMap<u64, (usize, Evidence)>,
    order: u64,
}

impl Intents {
    /// Opens or makes the file. `fresh`: no request of the mount has been taken yet.
    ///
    /// Errors: those of making, sizing and mapping a file.
    pub(super) fn open(path: &Path, fresh: bool) -> io::Result<Arc<Self>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(fresh);
        let file = options.open(path)?;
        file.set_len((SLOTS * SLOT) as u64)?;
        // SAFETY: the file is this mount's own, in a directory that one worker at a time uses, and
        // nobody makes it shorter.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        let mut state = State {
            map,
            free: Vec::new(),
            inherited: HashMap::new(),
            order: 0,
        };
        for slot in (0..SLOTS).rev() {
            match decode(state.bytes(slot)) {
                Some((unique, order, evidence)) => {
                    state.order = state.order.max(order);
                    state.inherited.insert(unique, (slot, evidence));
                }
                None => state.free.push(slot),
            }
        }
        Ok(Arc::new(Self {
            state: Mutex::new(state),
        }))
    }

    /// Whether a request was sent before, to a worker that died.
    pub(super) fn is_resent(unique: u64) -> bool {
        unique & RESENT != 0
    }

    /// Evidence that a dead worker wrote for this request. `None` for a request that is sent for the
    /// first time, and for one whose operation had not begun.
    pub(super) fn inherited(&self, unique: u64) -> Option<Evidence> {
        if !Self::is_resent(unique) {
            return None;
        }
        let state = self.lock();
        let (_, evidence) = state.inherited.get(&(unique & !RESENT))?;
        Some(evidence.clone())
    }

    /// Writes evidence down, before the operation. What was inherited under the number is replaced.
    pub(super) fn record(self: &Arc<Self>, unique: u64, evidence: &Evidence) -> Intent {
        let unique = unique & !RESENT;
        let mut state = self.lock();
        let slot = match state.inherited.remove(&unique) {
            Some((slot, _)) => slot,
            None => state.free_slot(),
        };
        state.order += 1;
        let bytes = encode(unique, state.order, evidence);
        state.bytes_mut(slot).copy_from_slice(&bytes);
        Intent {
            intents: Arc::clone(self),
            slot,
        }
    }

    fn withdraw(&self, slot: usize) {
        let mut state = self.lock();
        state.bytes_mut(slot)[..AT_CHECK].fill(0);
        state.free.push(slot);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A slot that a panic left half written fails its check.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self, slot: usize) -> &[u8] {
        &self.map[slot * SLOT..(slot + 1) * SLOT]
    }

    fn bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.map[slot * SLOT..(slot + 1) * SLOT]
    }

    /// A free slot, or the oldest of those that dead workers left.
    fn free_slot(&mut self) -> usize {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let order = |slot: usize| number(self.bytes(slot), AT_ORDER);
        let oldest = self
            .inherited
            .iter()
            .min_by_key(|(_, (slot, _))| order(*slot))
            .map(|(unique, (slot, _))| (*unique, *slot));
        match oldest {
            Some((unique, slot)) => {
                self.inherited.remove(&unique);
                slot
            }
            // More operations than threads: their records would be those of one another.
            None => {
                tracing::error!("no place for an intent; the worker starts anew");
                std::process::abort();
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes)
}

fn check(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[AT_EVIDENCE..]), &bytes[..AT_CHECK])
}

fn encode(unique: u64, order: u64, evidence: &Evidence) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    let (form, first, second) = match evidence {
        Evidence::NameFree => (1_u32, None, None),
        Evidence::File(id) => (2, Some(id), None),
        Evidence::Rename(id, target) => (3, Some(id), target.as_ref()),
        Evidence::Attribute(true) => (4, None, None),
        Evidence::Attribute(false) => (5, None, None),
    };
    bytes[..8].copy_from_slice(&unique.to_ne_bytes());
    bytes[AT_EVIDENCE..AT_EVIDENCE + 4].copy_from_slice(&form.to_ne_bytes());
    bytes[AT_ORDER..AT_ORDER + 8].copy_from_slice(&order.to_ne_bytes());
    for (at, id) in [(AT_FIRST, first), (AT_SECOND, second)] {
        let Some(id) = id else { continue };
        let length = id.bytes.len().min(HANDLE_MAX);
        bytes[at..at + 4].copy_from_slice(&id.kind.to_ne_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[at + 8..at + 8 + length].copy_from_slice(&id.bytes[..length]);
    }
    let sum = check(&bytes);
    bytes[AT_CHECK..AT_CHECK + 4].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, u64, Evidence)> {
    let unique = number(bytes, 0);
    if unique == 0 || word(bytes, AT_CHECK) != check(bytes) {
        return None;
    }
    let id = |at: usize| {
        let length = word(bytes, at + 4) as usize;
        (1..=HANDLE_MAX).contains(&length).then(|| FileId {
            kind: word(bytes, at).cast_signed(),
            bytes: bytes[at + 8..at + 8 + length].into(),
        })
    };
    let evidence = match word(bytes, AT_EVIDENCE) {
        1 => Evidence::NameFree,
        2 => Evidence::File(id(AT_FIRST)?),
        3 => Evidence::Rename(id(AT_FIRST)?, id(AT_SECOND)),
        4 => Evidence::Attribute(true),
        5 => Evidence::Attribute(false),
        _ => return None,
    };
    Some((unique, number(bytes, AT_ORDER), evidence))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn id(byte: u8) -> FileId {
        FileId {
            kind: i32::from(byte),
            bytes: vec![byte; usize::from(byte)].into(),
        }
    }

    // Without it a resent mkdir would answer EEXIST to the one who has just made the directory.
    #[test]
    fn the_next_worker_finds_what_the_dead_one_meant_to_do() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("intents");
        let all = [
            Evidence::NameFree,
            Evidence::File(id(8)),
            Evidence::Rename(id(128), Some(id(12))),
            Evidence::Rename(id(8), None),
            Evidence::Attribute(true),
            Evidence::Attribute(false),
        ];
        let intents = Intents::open(&path, true).unwrap();
        for (at, evidence) in all.iter().enumerate() {
            std::mem::forget(intents.record(at as u64 + 10, evidence)); // killed before the answer
        }
        drop(intents.record(5, &Evidence::NameFree)); // answered
        let intents = Intents::open(&path, false).unwrap();
        for (at, evidence) in all.iter().enumerate() {
            let unique = at as u64 + 10;
            assert_eq!(intents.inherited(unique), None, "sent for the first time");
            assert_eq!(intents.inherited(unique | RESENT).as_ref(), Some(evidence));
        }
        assert_eq!(intents.inherited(5 | RESENT), None);
        let again = intents.record(10 | RESENT, &all[1]);
        assert_eq!(
            Intents::open(&path, false).unwrap().inherited(10 | RESENT),
            Some(all[1].clone())
        );
        drop(again);
        assert_eq!(
            Intents::open(&path, false).unwrap().inherited(10 | RESENT),
            None
        );
        assert_eq!(
            Intents::open(&path, true).unwrap().inherited(11 | RESENT),
            None
        );
    }

    // Without it a worker killed often enough would have no place left, or take one in use.
    #[test]
    fn records_that_nobody_asks_for_give_way_to_new_ones() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("intents");
        for round in 0..3 * SLOTS as u64 {
            let intents = Intents::open(&path, round == 0).unwrap();
            std::mem::forget(intents.record(round + 1, &Evidence::NameFree));
        }
        let intents = Intents::open(&path, false).unwrap();
        let last = 3 * SLOTS as u64;
        assert!(intents.inherited(last | RESENT).is_some());
        assert!(
            intents
                .inherited((last - SLOTS as u64 + 1) | RESENT)
                .is_some()
        );
    }

    proptest::proptest! {
        /// Broken: a damaged record takes the worker down, or is believed.
        #[test]
        fn damage_is_never_believed(at in 0..SLOT, bit in 0..8_u32) {
            let mut bytes = encode(77, 1, &Evidence::Rename(id(8), Some(id(9))));
            bytes[at] ^= 1 << bit;
            let read = decode(&bytes);
            assert!(read.is_none(), "{read:?}");
        }
    }
}
