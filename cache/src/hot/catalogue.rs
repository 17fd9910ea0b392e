//! What is resident and what is in use, in memory, under one lock.
//!
//! The second lock of the order in `mod.rs`: nothing is read, written, opened or closed under it,
//! hence [`Removed`], which carries everything out whose drop could close a file.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::data::DataFile;
use super::object::HotObject;
use super::record::Pins;
use super::table::{Entry, Table};
use crate::identity::{Digest, DigestMap};

/// See the module text.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) table: Table,
    /// Sum of the charges of all entries.
    pub(super) resident: u64,
    pub(super) pins: DigestMap<Pins>,
    /// Filled objects that wait for the group sync.
    pub(super) pending: HashMap<Digest, Arc<HotObject>>,
    /// Partial objects that changed since their last checkpoint.
    pub(super) dirty: HashMap<Digest, Arc<HotObject>>,
    /// Objects that the sync thread is working on, and which are therefore in use.
    pub(super) busy: HashSet<Digest>,
    /// Objects whose files are being unlinked: a new file has to wait.
    pub(super) leaving: HashSet<Digest>,
    live: DigestMap<Live>,
    purge_at: usize,
}

#[derive(Debug, Default)]
struct Live {
    object: Weak<HotObject>,
    file: Weak<DataFile>,
    holders: Option<Arc<AtomicU32>>,
}

/// What an entry leaves behind; drop it without the lock.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) entry: Entry,
    /// The open data file, if somebody still has it.
    pub(super) file: Option<Arc<DataFile>>,
    _objects: [Option<Arc<HotObject>>; 2],
}

impl Catalogue {
    pub(super) fn new(table: Table, pins: DigestMap<Pins>) -> Self {
        Self {
            resident: table.entries().iter().map(Entry::charged).sum(),
            table,
            pins,
            pending: HashMap::new(),
            dirty: HashMap::new(),
            busy: HashSet::new(),
            leaving: HashSet::new(),
            live: DigestMap::default(),
            purge_at: 1024,
        }
    }

    pub(super) fn object(&self, digest: &Digest) -> Option<Arc<HotObject>> {
        self.live.get(digest)?.object.upgrade()
    }

    /// The open data file of `digest`, if an object or a backing holds it.
    pub(super) fn file(&self, digest: &Digest) -> Option<Arc<DataFile>> {
        self.live.get(digest)?.file.upgrade()
    }

    pub(super) fn set_object(&mut self, digest: Digest, object: &Arc<HotObject>) {
        if self.live.len() >= self.purge_at {
            self.live
                .retain(|_, live| live.object.strong_count() > 0 || live.file.strong_count() > 0);
            self.purge_at = self.live.len() * 2 + 1024;
        }
        self.live.entry(digest).or_default().object = Arc::downgrade(object);
    }

    pub(super) fn set_file(&mut self, digest: Digest, file: &Arc<DataFile>) {
        let live = self.live.entry(digest).or_default();
        live.file = Arc::downgrade(file);
        live.holders = Some(Arc::clone(&file.holders));
    }

    /// Neither pinned, nor linked, nor used by anybody outside the tier or by the sync thread.
    pub(super) fn is_evictable(&self, digest: &Digest) -> bool {
        if self.busy.contains(digest) || self.pins.get(digest).is_some_and(|pins| pins.is_held()) {
            return false;
        }
        let Some(live) = self.live.get(digest) else {
            return true;
        };
        let own = usize::from(self.pending.contains_key(digest))
            + usize::from(self.dirty.contains_key(digest));
        let held = live
            .holders
            .as_ref()
            .is_some_and(|held| held.load(Ordering::Acquire) > 0);
        live.object.strong_count() <= own && !(held && live.file.strong_count() > 0)
    }

    /// Adds or replaces an entry and its charge.
    pub(super) fn insert(&mut self, entry: Entry) {
        let before = self.table.get(&entry.digest).map_or(0, Entry::charged);
        self.resident = self.resident - before + entry.charged();
        self.table.insert(entry);
    }

    /// Sets the charge of an entry, if it is resident.
    pub(super) fn set_charged(&mut self, digest: &Digest, bytes: u64) {
        if let Some(entry) = self.table.get_mut(digest) {
            let before = entry.charged();
            entry.set_charged(bytes);
            self.resident = self.resident - before + entry.charged();
        }
    }

    /// Whether `object` is resident and the one instance of its digest.
    pub(super) fn is_listed(&self, object: &Arc<HotObject>) -> bool {
        let live = self.live.get(&object.digest);
        live.is_some_and(|live| std::ptr::eq(live.object.as_ptr(), Arc::as_ptr(object)))
            && self.table.get(&object.digest).is_some()
    }

    /// Takes an evictable entry out. Whoever opens the object next gets a new instance.
    pub(super) fn evict(&mut self, digest: &Digest) -> Option<Removed> {
        let removed = self.remove(digest)?;
        if let Some(live) = self.live.get_mut(digest) {
            live.object = Weak::new();
        }
        Some(removed)
    }

    /// Takes an entry out and marks the object as leaving.
    pub(super) fn remove(&mut self, digest: &Digest) -> Option<Removed> {
        let entry = self.table.remove(digest)?;
        self.resident -= entry.charged();
        self.leaving.insert(*digest);
        let file = self.file(digest);
        if let Some(live) = self.live.get_mut(digest) {
            live.file = Weak::new();
            live.holders = None;
        }
        Some(Removed {
            entry,
            file,
            _objects: [self.pending.remove(digest), self.dirty.remove(digest)],
        })
    }
}
