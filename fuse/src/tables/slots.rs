//! The slot file: what every inode number of a tree of tables is about, across workers.
//!
//! ```text
//! 0   8  magic "TERRSLOT"
//! 8   4  format = 1; a reader refuses any other
//! 12  4  number of the first slot, at least 1
//! 16  4  crc32c of bytes 0..16
//! 20 ..  records, one for each slot in order (`slot.rs`)
//! ```
//!
//! Invariants: a slot is in the file before anyone sees its number, and a number never gets a second
//! meaning. Records are only appended, without fsync: that survives `kill -9` of the worker, and the
//! mount itself does not survive the death of the machine. The end of the file may be a torn record,
//! which nobody was told of: it is cut off. Damage elsewhere is an error when a mount is taken over;
//! a new mount, of which the kernel knows nothing yet, starts a new file.
//!
//! The file is also the memory of a mount: the last record of a name says what the catalog answered
//! last, for the time it cannot be asked. Lock order: `file`, then `state`; a write is one system call.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use sha2::{Digest as _, Sha256};
use terrace_catalog::{DatasetName, Selector, VersionRef};

use super::catalog::TableVersion;
use super::place::SLOTS_END;
use super::slot::{Decoded, Slot};
use crate::live::Opening;
use crate::namespace::FsError;

const MAGIC: &[u8; 8] = b"TERRSLOT";
const FORMAT: u32 = 1;
const HEADER: usize = 20;

/// A new mount keeps the numbers of the one before it up to so many slots (about 150 bytes of memory
/// each); beyond it starts a new file at the next number.
const KEPT: usize = 1 << 20;

/// Why the slot file cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk.
    #[error("slot file: {0}")]
    Io(Arc<io::Error>),
    /// Not what this release wrote.
    #[error("slot file is damaged: {0}; unmount, remove it and mount again")]
    Damaged(&'static str),
    /// A text over its limit.
    #[error("record of a slot is too long")]
    TooLong,
    /// 2^27 slots.
    #[error("inode numbers of this mount are used up; mount again")]
    Exhausted,
}

impl From<io::Error> for SlotsError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<SlotsError> for FsError {
    fn from(error: SlotsError) -> Self {
        Self::Local(error.to_string())
    }
}

/// The slots of one mount.
#[derive(Debug)]
pub(super) struct Slots {
    /// The file and its length up to the last whole record.
    file: Mutex<(File, u64)>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    first: u32,
    slots: Vec<Arc<Slot>>,
    known: HashMap<Arc<Slot>, u32>,
    /// What each name named last; `None`: nothing.
    now: HashMap<Selector, Option<u32>>,
    namespaces: Vec<(Arc<str>, u32)>,
    /// Texts by the SHA-256 of their bytes.
    texts: HashMap<[u8; 32], u32>,
    /// Files for SQL engines by the same.
    sql: HashMap<[u8; 32], u32>,
}

impl State {
    fn new(first: u32) -> Self {
        Self {
            first,
            slots: Vec::new(),
            known: HashMap::new(),
            now: HashMap::new(),
            namespaces: Vec::new(),
            texts: HashMap::new(),
            sql: HashMap::new(),
        }
    }

    fn next(&self) -> u32 {
        self.first + self.slots.len() as u32
    }

    fn get(&self, slot: u32) -> Option<&Arc<Slot>> {
        self.slots.get(slot.checked_sub(self.first)? as usize)
    }

    fn add(&mut self, slot: Slot) {
        let number = self.next();
        let slot = Arc::new(slot);
        match &*slot {
            Slot::Version(selector, _) => {
                self.now.insert(selector.clone(), Some(number));
            }
            Slot::Gone(selector) => {
                self.now.insert(selector.clone(), None);
            }
            Slot::Again(earlier) => {
                let selector = self.get(*earlier).and_then(|slot| match &**slot {
                    Slot::Version(selector, _) => Some(selector.clone()),
                    _ => None,
                });
                if let Some(selector) = selector {
                    self.now.insert(selector, Some(*earlier));
                }
            }
            Slot::Text(_, bytes) => {
                self.texts.insert(Sha256::digest(bytes).into(), number);
            }
            Slot::Sql(file) => {
                self.sql.insert(file.digest, number);
            }
            Slot::Namespace(name) => self.namespaces.push((Arc::clone(name), number)),
            Slot::Repository(..) | Slot::Link(..) => {}
        }
        self.known.insert(Arc::clone(&slot), number);
        self.slots.push(slot);
    }
}

impl Slots {
    /// Opens or creates the file at `path`. One process at a time: a worker starts after the one
    /// before it has ended.
    pub(super) fn open(path: &Path, opening: Opening) -> Result<Self, SlotsError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        let anew = |first: u32| -> Result<(State, usize), SlotsError> {
            file.set_len(0)?;
            let mut header = Vec::with_capacity(HEADER);
            header.extend_from_slice(MAGIC);
            header.extend_from_slice(&FORMAT.to_le_bytes());
            header.extend_from_slice(&first.to_le_bytes());
            header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
            file.write_all_at(&header, 0)?;
            Ok((State::new(first), HEADER))
        };
        let (state, length) = match (read(&bytes), opening) {
            (Ok((state, 0)), _) => anew(state.first)?,
            (Ok((state, _)), Opening::Mount) if state.slots.len() > KEPT => {
                let first = Some(state.next()).filter(|next| *next < SLOTS_END / 2);
                anew(first.unwrap_or(1))?
            }
            (Ok(good), _) => good,
            (Err(error @ SlotsError::Damaged(_)), Opening::Mount) => {
                tracing::warn!(%error, path = %path.display(), "inode numbers start anew");
                anew(1)?
            }
            (Err(error), _) => return Err(error),
        };
        file.set_len(length as u64)?;
        Ok(Self {
            file: Mutex::new((file, length as u64)),
            state: RwLock::new(state),
        })
    }

    /// What a slot is about.
    pub(super) fn get(&self, slot: u32) -> Option<Arc<Slot>> {
        self.state().get(slot).map(Arc::clone)
    }

    /// The number of each slot, recorded before this returns. Blocks for one write at most.
    pub(super) fn put(&self, slots: &[Slot]) -> Result<Vec<u32>, SlotsError> {
        let numbers = || {
            let state = self.state();
            let numbers = slots.iter().map(|slot| state.known.get(slot).copied());
            numbers.collect::<Option<Vec<u32>>>()
        };
        if let Some(known) = numbers() {
            return Ok(known);
        }
        self.append(|state| {
            let mut seen = HashSet::new();
            let new = slots.iter().filter(|slot| !state.known.contains_key(*slot));
            new.filter(|slot| seen.insert(*slot)).cloned().collect()
        })?;
        numbers().ok_or(SlotsError::Damaged("a slot was not kept"))
    }

    /// The slots of names and what they name now, which is recorded as the last answer about them.
    /// No name may be given twice.
    pub(super) fn point(&self, now: Vec<(Selector, TableVersion)>) -> Result<Vec<u32>, SlotsError> {
        let wanted: Vec<Slot> = now
            .into_iter()
            .map(|(selector, version)| Slot::Version(selector, version))
            .collect();
        self.append(|state| {
            let news = wanted.iter().filter_map(|slot| {
                let Slot::Version(selector, _) = slot else {
                    return None;
                };
                let last = state.now.get(selector).copied().flatten();
                match state.known.get(slot) {
                    None => Some(slot.clone()),
                    Some(known) if last != Some(*known) => Some(Slot::Again(*known)),
                    Some(_) => None,
                }
            });
            news.collect()
        })?;
        let state = self.state();
        let numbers = wanted.iter().map(|slot| state.known.get(slot).copied());
        let numbers: Option<Vec<u32>> = numbers.collect();
        numbers.ok_or(SlotsError::Damaged("a slot was not kept"))
    }

    /// Records that a name names nothing, when it did before.
    pub(super) fn gone(&self, selector: &Selector) -> Result<(), SlotsError> {
        self.append(|state| match state.now.get(selector) {
            Some(Some(_)) => vec![Slot::Gone(selector.clone())],
            _ => Vec::new(),
        })
    }

    /// What was answered last about a name; `Some(None)`: that it names nothing.
    pub(super) fn now(&self, selector: &Selector) -> Option<Option<u32>> {
        self.state().now.get(selector).copied()
    }

    /// Every namespace ever shown.
    pub(super) fn namespaces(&self) -> Vec<(Arc<str>, u32)> {
        self.state().namespaces.clone()
    }

    /// Every repository ever shown. Walks all slots.
    pub(super) fn repositories(&self) -> Vec<(Slot, u32)> {
        self.each(|slot| matches!(slot, Slot::Repository(..)).then(|| slot.clone()))
    }

    /// Every version of a dataset that a repository showed. Walks all slots.
    pub(super) fn links(&self, hub: super::hub::Hub, dataset: &DatasetName) -> Vec<(Slot, u32)> {
        self.each(|slot| match slot {
            Slot::Link(of, version) if *of == hub && version.dataset == *dataset => {
                Some(slot.clone())
            }
            _ => None,
        })
    }

    /// The newest versions of a namespace's tables as last answered. Walks all names.
    pub(super) fn tables(&self, namespace: &str) -> Vec<(DatasetName, u32)> {
        let state = self.state();
        let now = state.now.iter().filter_map(|(selector, slot)| {
            let latest = *selector.version() == VersionRef::Latest;
            let here = selector.dataset().namespace() == namespace;
            (latest && here).then_some((selector.dataset().clone(), (*slot)?))
        });
        now.collect()
    }

    /// The versions that names of a dataset named last. Walks all names.
    pub(super) fn names(&self, dataset: &DatasetName) -> Vec<(VersionRef, u32)> {
        let state = self.state();
        let now = state.now.iter().filter_map(|(selector, slot)| {
            let here = selector.dataset() == dataset;
            here.then_some((selector.version().clone(), (*slot)?))
        });
        now.collect()
    }

    /// Every version ever shown, the last one first; some more than once. Walks all slots.
    pub(super) fn versions(&self) -> Vec<TableVersion> {
        let mut all = self.each(|slot| match slot {
            Slot::Version(_, version) | Slot::Link(_, version) => Some(version.clone()),
            _ => None,
        });
        all.reverse();
        all.into_iter().map(|(version, _)| version).collect()
    }

    /// A text by the SHA-256 of its bytes.
    pub(super) fn text(&self, digest: &[u8; 32]) -> Option<Arc<[u8]>> {
        let state = self.state();
        match &**state.get(*state.texts.get(digest)?)? {
            Slot::Text(_, bytes) => Some(Arc::clone(bytes)),
            _ => None,
        }
    }

    /// A file for SQL engines by the SHA-256 of its bytes.
    pub(super) fn sql(&self, digest: &[u8; 32]) -> Option<Arc<Slot>> {
        let state = self.state();
        state.get(*state.sql.get(digest)?).map(Arc::clone)
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u64 {
        self.state().slots.len() as u64
    }

    fn each<T>(&self, pick: impl Fn(&Slot) -> Option<T>) -> Vec<(T, u32)> {
        let state = self.state();
        let all = state.slots.iter().zip(state.first..);
        all.filter_map(|(slot, number)| Some((pick(slot)?, number)))
            .collect()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `choose` finds new, as one write, and only then shows it.
    fn append(&self, choose: impl FnOnce(&State) -> Vec<Slot>) -> Result<(), SlotsError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let new = choose(&self.state());
        if new.is_empty() {
            return Ok(());
        }
        if u64::from(self.state().next()) + new.len() as u64 > u64::from(SLOTS_END) {
            return Err(SlotsError::Exhausted);
        }
        let mut bytes = Vec::new();
        if !new.iter().all(|slot| slot.encode(&mut bytes)) {
            return Err(SlotsError::TooLong);
        }
        let (file, length) = &mut *file;
        if let Err(error) = file.write_all_at(&bytes, *length) {
            // A part of it may be there: the next record must not follow that.
            file.set_len(*length)?;
            return Err(error.into());
        }
        *length += bytes.len() as u64;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        new.into_iter().for_each(|slot| state.add(slot));
        Ok(())
    }
}

/// Reads a whole file: its slots, and how far it is good. Length 0: there is no header yet.
fn read(bytes: &[u8]) -> Result<(State, usize), SlotsError> {
    if bytes.len() < HEADER {
        return Ok((State::new(1), 0));
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let good = bytes[..8] == *MAGIC && word(8) == FORMAT && (1..SLOTS_END).contains(&word(12));
    if !good || word(16) != crc32c::crc32c(&bytes[..16]) {
        return Err(SlotsError::Damaged("header is not of this release"));
    }
    let mut state = State::new(word(12));
    let mut at = HEADER;
    while at < bytes.len() {
        match Slot::decode(&bytes[at..]) {
            Decoded::Record(slot, length) => {
                state.add(slot);
                at += length;
            }
            Decoded::Torn => break,
            Decoded::Damaged(why) => return Err(SlotsError::Damaged(why)),
        }
    }
    if u64::from(state.first) + state.slots.len() as u64 > u64::from(SLOTS_END) {
        return Err(SlotsError::Damaged("too many slots"));
    }
    Ok((state, at))
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
