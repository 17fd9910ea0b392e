//! Where the fields of format 1 lie (the diagram is in the parent module), and their checks.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Mode;
use super::memory::Memory;

const MAGIC: [u8; 8] = *b"TRHANDL1";
const VERSION: u32 = 1;
const HEADER: usize = 4096;
const RECORD: usize = 32;

const AT_SLOTS: usize = 12;
const AT_ENTRIES: usize = 16;
const AT_CRC: usize = 20;
const AT_SLOTS_USED: usize = 24;
const AT_ENTRIES_USED: usize = 28;
const AT_HIGHEST_ID: usize = 32;

/// Creates the memfd, writes the header and seals the size.
pub(super) fn create(slots: u32, entries: u32) -> io::Result<OwnedFd> {
    let fd = memfd_create(
        c"terrace-handles",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let file = File::from(fd);
    file.set_len(size(slots, entries) as u64)?;
    let mut header = Vec::with_capacity(AT_SLOTS_USED);
    header.extend_from_slice(&MAGIC);
    for field in [VERSION, slots, entries] {
        header.extend_from_slice(&field.to_ne_bytes());
    }
    header.extend_from_slice(&crc32c::crc32c(&header).to_ne_bytes());
    file.write_all_at(&header, 0)?;
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW),
    )?;
    Ok(file.into())
}

/// Checks the header and maps the table.
pub(super) fn open(fd: OwnedFd) -> io::Result<Memory> {
    let file = File::from(fd);
    let seals =
        fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| damaged("it is not a memory file"))?;
    if seals & libc::F_SEAL_SHRINK == 0 {
        return Err(damaged("its size is not sealed"));
    }
    let mut header = [0; AT_SLOTS_USED];
    file.read_exact_at(&mut header, 0)
        .map_err(|_| damaged("it has no header"))?;
    let field = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if header[..8] != MAGIC {
        return Err(damaged("its first bytes are not the magic"));
    }
    if field(AT_CRC) != crc32c::crc32c(&header[..AT_CRC]) {
        return Err(damaged("its header fails its checksum"));
    }
    if field(8) != VERSION {
        return Err(damaged(&format!(
            "its version is {}, this binary knows {VERSION}",
            field(8)
        )));
    }
    let len = size(field(AT_SLOTS), field(AT_ENTRIES));
    if file.metadata()?.len() != len as u64 {
        return Err(damaged("its size does not fit its header"));
    }
    let memory = Memory::map(&file.into(), len)?;
    if memory.slots_used() > memory.slot_capacity()
        || memory.entries_used() > memory.entry_capacity()
    {
        return Err(damaged("more records are used than it has room for"));
    }
    Ok(memory)
}

fn size(slots: u32, entries: u32) -> usize {
    HEADER + RECORD * (slots as usize + entries as usize)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("table of open handles: {why}"),
    )
}

impl Memory {
    pub(super) fn slot_capacity(&self) -> u32 {
        self.load32(AT_SLOTS)
    }

    pub(super) fn entry_capacity(&self) -> u32 {
        self.load32(AT_ENTRIES)
    }

    pub(super) fn slots_used(&self) -> u32 {
        self.load32(AT_SLOTS_USED)
    }

    pub(super) fn entries_used(&self) -> u32 {
        self.load32(AT_ENTRIES_USED)
    }

    pub(super) fn highest_id(&self) -> u32 {
        self.load32(AT_HIGHEST_ID)
    }

    /// Raises the mark of used slots over `index`. Callers hold the lock of the slots.
    pub(super) fn note_slot(&self, index: u32) {
        if self.slots_used() <= index {
            self.store32(AT_SLOTS_USED, index + 1);
        }
    }

    /// Raises the mark of used entries and of ids. Callers hold the lock of the entries.
    pub(super) fn note_entry(&self, index: u32, id: u32) {
        if self.highest_id() < id {
            self.store32(AT_HIGHEST_ID, id);
        }
        if self.entries_used() <= index {
            self.store32(AT_ENTRIES_USED, index + 1);
        }
    }

    pub(super) fn slot(&self, index: u32) -> SlotAt<'_> {
        SlotAt(Record {
            memory: self,
            base: HEADER + RECORD * index as usize,
        })
    }

    pub(super) fn entry(&self, index: u32) -> EntryAt<'_> {
        let index = self.slot_capacity() as usize + index as usize;
        EntryAt(Record {
            memory: self,
            base: HEADER + RECORD * index,
        })
    }
}

/// State of a published slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Cached = 1,
    Passthrough = 2,
}

/// A published slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) generation: u32,
    pub(super) node: u64,
    pub(super) unique: u64,
    pub(super) backing: u32,
}

/// A published entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) node: u64,
}

struct Record<'a> {
    memory: &'a Memory,
    base: usize,
}

impl Record<'_> {
    fn get32(&self, at: usize) -> u32 {
        self.memory.load32(self.base + at)
    }

    fn get64(&self, at: usize) -> u64 {
        self.memory.load64(self.base + at)
    }

    fn set32(&self, at: usize, value: u32) {
        self.memory.store32(self.base + at, value);
    }

    fn set64(&self, at: usize, value: u64) {
        self.memory.store64(self.base + at, value);
    }
}

/// A slot's place.
pub(super) struct SlotAt<'a>(Record<'a>);

/// An entry's place.
pub(super) struct EntryAt<'a>(Record<'a>);

impl Slot {
    pub(super) fn new(generation: u32, node: u64, unique: u64, mode: Mode) -> Self {
        let (state, backing) = match mode {
            Mode::Cached => (State::Cached, 0),
            Mode::Passthrough(id) => (State::Passthrough, id),
        };
        Self {
            state,
            generation,
            node,
            unique,
            backing,
        }
    }

    fn check(&self) -> u32 {
        let mut crc = crc32c::crc32c(&(self.state as u32).to_ne_bytes());
        crc = crc32c::crc32c_append(crc, &self.generation.to_ne_bytes());
        crc = crc32c::crc32c_append(crc, &self.node.to_ne_bytes());
        crc = crc32c::crc32c_append(crc, &self.unique.to_ne_bytes());
        crc32c::crc32c_append(crc, &self.backing.to_ne_bytes())
    }
}

impl SlotAt<'_> {
    /// `None`: free.
    pub(super) fn read(&self) -> io::Result<Option<Slot>> {
        let state = match self.0.get32(0) {
            0 => return Ok(None),
            1 => State::Cached,
            2 => State::Passthrough,
            other => return Err(damaged(&format!("a slot has the unknown state {other}"))),
        };
        let slot = Slot {
            state,
            generation: self.0.get32(4),
            node: self.0.get64(8),
            unique: self.0.get64(16),
            backing: self.0.get32(24),
        };
        if self.0.get32(28) != slot.check() || slot.generation == 0 {
            return Err(damaged("a slot fails its checksum"));
        }
        Ok(Some(slot))
    }

    pub(super) fn next_generation(&self) -> u32 {
        self.0.get32(4).wrapping_add(1).max(1)
    }

    pub(super) fn publish(&self, slot: &Slot) {
        self.0.set32(4, slot.generation);
        self.0.set64(8, slot.node);
        self.0.set64(16, slot.unique);
        self.0.set32(24, slot.backing);
        self.0.set32(28, slot.check());
        self.0.set32(0, slot.state as u32);
    }

    pub(super) fn withdraw(&self) {
        self.0.set32(0, 0);
    }
}

impl Entry {
    fn check(&self) -> u32 {
        let mut crc = crc32c::crc32c(&1u32.to_ne_bytes());
        crc = crc32c::crc32c_append(crc, &self.id.to_ne_bytes());
        crc32c::crc32c_append(crc, &self.node.to_ne_bytes())
    }
}

impl EntryAt<'_> {
    /// `None`: free.
    pub(super) fn read(&self) -> io::Result<Option<Entry>> {
        match self.0.get32(0) {
            0 => return Ok(None),
            1 => {}
            other => return Err(damaged(&format!("an entry has the unknown state {other}"))),
        }
        let entry = Entry {
            id: self.0.get32(4),
            node: self.0.get64(8),
        };
        if self.0.get32(16) != entry.check() {
            return Err(damaged("an entry fails its checksum"));
        }
        Ok(Some(entry))
    }

    pub(super) fn publish(&self, entry: &Entry) {
        self.0.set32(4, entry.id);
        self.0.set64(8, entry.node);
        self.0.set32(16, entry.check());
        self.0.set32(0, 1);
    }

    pub(super) fn withdraw(&self) {
        self.0.set32(0, 0);
    }
}
