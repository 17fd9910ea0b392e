//! The open handles of one mount, in memory that outlives the worker.
//!
//! The kernel remembers for every inode whether it is open in cached or in passthrough mode, and
//! with which backing id; a reply that contradicts it is EIO to the application. So this table is
//! the worker's memory of its answers: the keeper holds the memfd, a killed worker's successor maps
//! it and goes on. Everything else that is known about open files is rebuilt from it.
//!
//! # Format 1
//!
//! Integers have the machine's byte order: the table never leaves the machine.
//!
//! ```text
//! 0        4096                         4096 + 32 C                      4096 + 32 C + 32 B
//! +--------+----------------------------+--------------------------------+
//! | header | C slots: one open handle   | B entries: one kernel backing  |
//! +--------+----------------------------+--------------------------------+
//!
//! header                                slot                        entry
//!  0  8  magic "TRHANDL1"                0  4  state, written last   0  4  state, written last
//!  8  4  version (1)                     4  4  generation            4  4  kernel backing id
//! 12  4  C                               8  8  node id               8  8  node id
//! 16  4  B                              16  8  unique of the OPEN   16  4  check
//! 20  4  crc32c of bytes 0..20          24  4  backing id or 0      20 12  zero
//! 24  4  slots ever used                28  4  check
//! 28  4  entries ever used
//! 32  4  highest backing id seen
//! ```
//!
//! State: 0 free, 1 cached (entries: held), 2 passthrough. `check` is the crc32c of the state and
//! the fields between it and the state, in that order.
//!
//! Why a crash at any instruction leaves it readable: a record is published by the store of its
//! state (release), after all its fields and after the "ever used" mark; it is withdrawn by the one
//! store of 0. A reader looks at nothing but published records below the mark. A published record
//! with a wrong check, a mark beyond the bounds, or a size that does not fit the header is damage,
//! and [`HandleTable::open`] refuses it: without the truth about modes every open could be EIO.
//!
//! `fh` = generation << 32 | slot. A generation is never 0, so no `fh` is 0. A second RELEASE of one
//! `fh` finds the slot free or of another generation and does nothing. A resent OPEN (the kernel
//! sets bit 63 of `unique`) finds the record that the dead worker wrote and counts once.
//!
//! One leak is accepted: an OPEN that was recorded, not answered, and whose caller was killed before
//! the next worker came is never sent again, so its slot stays until the mount ends. It costs 32
//! bytes and keeps the inode in its mode, which is never wrong.
//!
//! Lock: one mutex for slots, one for entries, neither held while calling out.

mod layout;
mod memory;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use layout::{Entry, Slot, State};
use memory::Memory;

/// How the kernel was told to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Reads come to the worker, pages are kept in the page cache of this mount.
    Cached,
    /// Reads go to the file registered under this kernel backing id.
    Passthrough(u32),
}

/// One open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// What the kernel sends with every request on it.
    pub fh: u64,
    /// Node id it was opened on.
    pub node: u64,
    /// How it was opened.
    pub mode: Mode,
    /// `unique` of the OPEN request, without the resend bit.
    pub unique: u64,
}

/// One backing id that is registered with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Where it is recorded; pass it to [`HandleTable::forget_backing`].
    pub index: u32,
    /// Kernel backing id.
    pub id: u32,
    /// Node id it serves.
    pub node: u64,
}

/// No room for another open handle or backing id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of open handles is full")]
pub struct TableFull;

/// Open handles and backing ids of one mount. See the module text.
#[derive(Debug)]
pub struct HandleTable {
    memory: Memory,
    slots: Mutex<Slots>,
    entries: Mutex<Free>,
}

#[derive(Debug)]
struct Slots {
    free: Free,
    live: u32,
    /// OPEN requests a dead worker recorded: they may be resent.
    inherited: HashMap<u64, u32>,
}

/// Which records are free: those in `list`, and all from `mark` up.
#[derive(Debug)]
struct Free {
    list: Vec<u32>,
    mark: u32,
    capacity: u32,
}

impl Free {
    /// Takes a free record, lowest mark last so that the used part stays small.
    fn take(&mut self) -> Result<u32, TableFull> {
        if let Some(index) = self.list.pop() {
            return Ok(index);
        }
        if self.mark == self.capacity {
            return Err(TableFull);
        }
        self.mark += 1;
        Ok(self.mark - 1)
    }
}

/// Bit that the kernel sets in `unique` of a resent request (`FUSE_UNIQUE_RESEND`, fuse.h 7.40).
pub const RESENT: u64 = 1 << 63;

impl HandleTable {
    /// Open handles a table has room for (sparse memory: 32 bytes for each one used).
    pub const HANDLES: u32 = 1 << 20;
    /// Backing ids a table has room for: one per open handle at most, and those kept after.
    pub const BACKINGS: u32 = (1 << 20) + (1 << 16);

    /// A new, empty table of the usual size: a sealed memfd.
    ///
    /// Errors: those of memfd_create(2).
    pub fn create() -> io::Result<OwnedFd> {
        Self::create_sized(Self::HANDLES, Self::BACKINGS)
    }

    /// A new, empty table with room for this many open handles and backing ids.
    pub fn create_sized(handles: u32, backings: u32) -> io::Result<OwnedFd> {
        layout::create(handles, backings)
    }

    /// Maps a table and reads what dead workers left in it.
    ///
    /// Errors: `InvalidData`, with the reason, when it is not a table or is damaged.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let memory = layout::open(fd)?;
        let used = memory.slots_used();
        let mut slots = Slots {
            free: Free {
                list: Vec::new(),
                mark: used,
                capacity: memory.slot_capacity(),
            },
            live: 0,
            inherited: HashMap::new(),
        };
        for index in (0..used).rev() {
            match memory.slot(index).read()? {
                Some(record) => {
                    slots.live += 1;
                    slots.inherited.insert(record.unique, index);
                }
                None => slots.free.list.push(index),
            }
        }
        let used = memory.entries_used();
        let mut entries = Free {
            list: Vec::new(),
            mark: used,
            capacity: memory.entry_capacity(),
        };
        for index in (0..used).rev() {
            if memory.entry(index).read()?.is_none() {
                entries.list.push(index);
            }
        }
        Ok(Self {
            memory,
            slots: Mutex::new(slots),
            entries: Mutex::new(entries),
        })
    }

    /// Records an open before it is answered; returns its `fh`.
    pub fn insert(&self, unique: u64, node: u64, mode: Mode) -> Result<u64, TableFull> {
        let mut slots = self.slots();
        let index = slots.free.take()?;
        self.memory.note_slot(index);
        let slot = self.memory.slot(index);
        let generation = slot.next_generation();
        slot.publish(&Slot::new(generation, node, unique & !RESENT, mode));
        slots.live += 1;
        Ok(fh(generation, index))
    }

    /// The open that a dead worker recorded for this request, when it is a resent one.
    pub fn resent(&self, unique: u64) -> Option<Handle> {
        if unique & RESENT == 0 {
            return None;
        }
        let unique = unique & !RESENT;
        let slots = self.slots();
        let index = *slots.inherited.get(&unique)?;
        let record = self.memory.slot(index).read().ok()??;
        (record.unique == unique).then(|| handle(index, &record))
    }

    /// What is recorded under `fh`, if it is still open.
    pub fn get(&self, fh: u64) -> Option<Handle> {
        let slots = self.slots();
        self.find(&slots, fh)
    }

    /// Withdraws `fh`. `None` when it was withdrawn before.
    pub fn remove(&self, fh: u64) -> Option<Handle> {
        let mut slots = self.slots();
        let found = self.find(&slots, fh)?;
        let index = fh as u32;
        self.memory.slot(index).withdraw();
        slots.live -= 1;
        slots.inherited.remove(&found.unique);
        slots.free.list.push(index);
        Some(found)
    }

    /// All open handles; walks the table: for the start of a worker, and for reports now and then.
    pub fn handles(&self) -> Vec<Handle> {
        let slots = self.slots();
        (0..slots.free.mark)
            .filter_map(|index| {
                let record = self.memory.slot(index).read().ok()??;
                Some(handle(index, &record))
            })
            .collect()
    }

    /// Number of open handles.
    pub fn len(&self) -> u32 {
        self.slots().live
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records a backing id that was just registered; returns its index.
    pub fn record_backing(&self, id: u32, node: u64) -> Result<u32, TableFull> {
        let mut entries = lock(&self.entries);
        let index = entries.take()?;
        self.memory.note_entry(index, id);
        self.memory.entry(index).publish(&Entry { id, node });
        Ok(index)
    }

    /// Withdraws a backing id after it was closed.
    pub fn forget_backing(&self, index: u32) {
        let mut entries = lock(&self.entries);
        if index < entries.mark && matches!(self.memory.entry(index).read(), Ok(Some(_))) {
            self.memory.entry(index).withdraw();
            entries.list.push(index);
        }
    }

    /// All recorded backing ids; for the start of a worker only.
    pub fn backings(&self) -> Vec<Backing> {
        let entries = lock(&self.entries);
        (0..entries.mark)
            .filter_map(|index| {
                let Entry { id, node } = self.memory.entry(index).read().ok()??;
                Some(Backing { index, id, node })
            })
            .collect()
    }

    /// Ids that a worker may have registered and not lived to record.
    ///
    /// The kernel numbers backings upwards (`idr_alloc_cyclic`) and only this mount's workers
    /// register any, so an unrecorded id lies near the highest recorded one; each thread of a dead
    /// worker can have left one. Closing an id that is not registered is an error without effect.
    pub fn stray_backings(&self) -> Vec<u32> {
        let recorded: std::collections::HashSet<u32> =
            self.backings().iter().map(|backing| backing.id).collect();
        let highest = self.memory.highest_id();
        (highest.saturating_sub(STRAYS).max(1)..=highest.saturating_add(STRAYS))
            .filter(|id| !recorded.contains(id))
            .collect()
    }

    fn find(&self, slots: &Slots, fh: u64) -> Option<Handle> {
        let index = fh as u32;
        if index >= slots.free.mark {
            return None;
        }
        let record = self.memory.slot(index).read().ok()??;
        let found = handle(index, &record);
        (found.fh == fh).then_some(found)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.slots)
    }
}

/// How far from the highest recorded id an unrecorded one can be: threads of a worker that register.
const STRAYS: u32 = 32;

fn fh(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn handle(index: u32, record: &Slot) -> Handle {
    let mode = match record.state {
        State::Cached => Mode::Cached,
        State::Passthrough => Mode::Passthrough(record.backing),
    };
    Handle {
        fh: fh(record.generation, index),
        node: record.node,
        mode,
        unique: record.unique,
    }
}

/// A thread that panicked here has left memory as a killed worker would: readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
