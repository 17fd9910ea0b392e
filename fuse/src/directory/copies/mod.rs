//! Copies of files of a slow directory on the node's SSD, for reading.
//!
//! A file that is opened for reading is copied into the hot tier in the background ([`fill`]); a later
//! open for reading, of the same version, is served from there. The version is asked of the file
//! system's server at every open ([`stamp`]), so close-to-open consistency stays: what another node
//! has written and closed is read by every open that comes after.
//!
//! The kernel allows one backing for all handles of a file, and would keep readers of a copy apart from
//! a writer of the file for as long as both are open. So a copy is never a passthrough backing: its
//! handles are opened through the page cache of this mount, which all of them share, also maps.
//!
//! ```text
//!   closed -- open for reading, copy complete --> from the copy     pages: kept while the version is
//!     ^                                              |
//!     |                                   open for writing, truncation, another version
//!     |                                              v
//!     +------------- last handle closed -------- from the directory  handles stay as they are; reads and
//!                                                                    writes go to the file itself
//! ```
//!
//! Reads change over before the writer's open is answered, so a write that was acknowledged is read by
//! every descriptor and map of this node: in the page cache they share, and below it in the directory.
//! The copy itself is never written.
//!
//! The version is asked before the copy is taken, and a writer may come, write and go between the two.
//! So every open, close and change of a file itself counts ([`Moment`]), and an open that asked for the
//! version before the last one of its file is served from the file.
//!
//! Pages of an earlier open are believed ([`Copies::keeps_pages`]) only when all of them came from the
//! copy of the very version that is opened now.
//!
//! Lock order: `state`, then the open handles' own locks. Nothing is read or asked below under it.

mod fill;
mod stamp;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Serialize;
use terrace_cache::hot::{Backing, HotTier};
use terrace_cache::identity::DatasetKey;
use tokio::runtime::Handle as Runtime;

use super::DirectoryFs;
use super::opens::Opened;
use crate::live::Bounded;
use fill::Filler;
pub(super) use stamp::Stamp;

/// Files whose pages in the kernel are known to be of a version, about 100 bytes each.
const PAGES: usize = 64 << 10;

/// Files whose last change is remembered; when it is not, it is taken to be the last of all.
const CHANGED: usize = 4 << 10;

/// How many changes there were. See the module text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// Counters of copies at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CopyStatus {
    /// Copies are made and used.
    pub on: bool,
    /// Opens that were served from a copy.
    pub opens: u64,
    /// Files that were copied.
    pub filled: u64,
    /// Bytes of them.
    pub filled_bytes: u64,
    /// Copies that were given up because the file changed while it was read, or there is no room.
    pub refused: u64,
}

/// A file that is open for reading, from its copy.
#[derive(Debug)]
struct Active {
    stamp: Stamp,
    backing: Arc<Backing>,
    handles: u32,
}

#[derive(Debug)]
struct State {
    active: HashMap<u64, Active>,
    /// Handles that were opened on a copy, and whether the kernel keeps its pages.
    handles: HashMap<u64, (u64, bool)>,
    pages: Bounded<u64, Stamp>,
    now: Moment,
    changed: Bounded<u64, Moment>,
    /// No change that is not among `changed` is later.
    floor: Moment,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Copies {
    filler: OnceLock<Filler>,
    state: Mutex<State>,
    opens: AtomicU64,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            filler: OnceLock::new(),
            state: Mutex::new(State {
                active: HashMap::new(),
                handles: HashMap::new(),
                pages: Bounded::new(PAGES),
                now: Moment::default(),
                changed: Bounded::new(CHANGED),
                floor: Moment::default(),
            }),
            opens: AtomicU64::new(0),
        }
    }
}

impl Copies {
    /// Opens a node that has a copy of this version: joins those that read it, or begins to when the
    /// node `is_closed`. `None`: it has to be opened in the directory.
    fn open(
        &self,
        node: u64,
        (stamp, since): (Stamp, Moment),
        copy: Option<Arc<Backing>>,
        is_closed: impl Fn() -> bool,
        open: impl FnOnce() -> Result<Opened, Errno>,
    ) -> Result<Option<Opened>, Errno> {
        let mut state = self.lock();
        if state.changed_since(node, since) {
            return Ok(None);
        }
        let keep = match state.active.get(&node) {
            Some(active) if active.stamp == stamp => true,
            Some(_) => {
                state.leave(node);
                return Ok(None);
            }
            None => match copy {
                Some(backing) if is_closed() => {
                    let keep = state.pages.get(&node).is_some_and(|known| *known == stamp);
                    let active = Active {
                        stamp,
                        backing,
                        handles: 0,
                    };
                    state.active.insert(node, active);
                    state.pages.insert(node, stamp);
                    keep
                }
                _ => return Ok(None),
            },
        };
        let opened = open();
        match &opened {
            Ok(opened) => {
                if let Some(active) = state.active.get_mut(&node) {
                    active.handles += 1;
                }
                state.handles.insert(opened.fh, (node, keep));
                self.opens.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => state.close(node, 0),
        }
        opened.map(Some)
    }

    /// Opens a node in the directory; its readers read there, too, from now on.
    pub(super) fn open_below<T>(&self, node: u64, open: impl FnOnce() -> T) -> T {
        if !self.is_on() {
            return open();
        }
        let mut state = self.lock();
        state.leave(node);
        open()
    }

    /// The node is about to change: its readers read in the directory from now on.
    pub(super) fn changes(&self, node: u64) {
        if self.is_on() {
            self.lock().leave(node);
        }
    }

    /// Handles of a node that were opened on a copy.
    fn handles(&self, node: u64) -> Vec<u64> {
        if !self.is_on() {
            return Vec::new();
        }
        let state = self.lock();
        let of_node = |(fh, (of, _)): (&u64, &(u64, bool))| (*of == node).then_some(*fh);
        state.handles.iter().filter_map(of_node).collect()
    }

    /// The copy that a node is read from.
    pub(super) fn backing(&self, node: u64) -> Option<Arc<Backing>> {
        if !self.is_on() {
            return None;
        }
        let state = self.lock();
        let active = state.active.get(&node)?;
        Some(Arc::clone(&active.backing))
    }

    /// Whether the kernel's pages are those of the version that this handle was opened on.
    pub(super) fn keeps_pages(&self, fh: u64) -> bool {
        self.is_on() && self.lock().handles.get(&fh).is_some_and(|(_, keep)| *keep)
    }

    /// A handle is about to be closed.
    pub(super) fn releases(&self, node: u64, fh: u64) {
        if !self.is_on() {
            return;
        }
        let mut state = self.lock();
        match state.handles.remove(&fh) {
            Some(_) => state.close(node, 1),
            None => state.note(node),
        }
    }

    /// The moment before a version is asked for.
    pub(super) fn moment(&self) -> Moment {
        self.lock().now
    }

    /// Whether a node may have been changed here since.
    pub(super) fn has_changed(&self, node: u64, since: Moment) -> bool {
        self.lock().changed_since(node, since)
    }

    /// Whether copies are made and used.
    pub(super) fn is_on(&self) -> bool {
        self.filler.get().is_some()
    }

    /// All counters now.
    pub(super) fn status(&self) -> CopyStatus {
        let filler = self.filler.get();
        CopyStatus {
            opens: self.opens.load(Ordering::Relaxed),
            ..filler.map(Filler::status).unwrap_or_default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between leaves a node that is read in the directory, or its pages unknown.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A node is no longer read from its copy, and its pages are of no certain version.
    fn leave(&mut self, node: u64) {
        let active = self.active.remove(&node);
        self.pages.remove(&node);
        self.note(node);
        drop(active);
    }

    /// A file has changed, or may have.
    fn note(&mut self, node: u64) {
        self.now.0 += 1;
        if let Some(forgotten) = self.changed.insert(node, self.now) {
            self.floor = self.floor.max(forgotten);
        }
    }

    fn changed_since(&mut self, node: u64, since: Moment) -> bool {
        let last = self.changed.get(&node).map_or(self.floor, |last| *last);
        last > since
    }

    fn close(&mut self, node: u64, handles: u32) {
        if let Some(active) = self.active.get_mut(&node) {
            active.handles = active.handles.saturating_sub(handles);
            if active.handles == 0 {
                self.active.remove(&node);
            }
        }
    }
}

impl DirectoryFs {
    /// Makes and uses copies in `hot` from now on, before the first request. The task that makes them
    /// runs on `runtime` and ends with the file system.
    pub fn keep_copies(self: &Arc<Self>, hot: HotTier, dataset: DatasetKey, runtime: &Runtime) {
        let filler = Filler::start(Arc::downgrade(self), hot, dataset, runtime);
        self.copies.filler.set(filler).ok();
    }

    /// Opens a node for reading from its copy, when it has one of this version, which the directory
    /// has now; otherwise one is going to be made.
    pub(super) fn open_copy(
        &self,
        unique: u64,
        node: u64,
        (stamp, since): (Stamp, Moment),
    ) -> Result<Option<Opened>, Errno> {
        let Some(filler) = self.copies.filler.get() else {
            return Ok(None);
        };
        let copy = filler.copy(stamp);
        if copy.is_none() {
            filler.want(node, stamp);
        }
        let is_closed = || !self.opens.is_open(node);
        let open = || self.opens.open_served(unique, node);
        self.copies
            .open(node, (stamp, since), copy, is_closed, open)
    }

    /// A file is about to lose a name, perhaps its last: who reads its copy goes on with the file
    /// itself, which stays while it is open.
    pub(super) fn unlinks(&self, node: u64) -> Result<(), Errno> {
        let mut file = None;
        if !self.copies.handles(node).is_empty() {
            file = match self.reopen(node, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
                // Another node has removed it before: the copy is all that its readers have.
                Err(Errno::ESTALE | Errno::ENOENT) => return Ok(()),
                file => Some(Arc::new(file?.into())),
            };
        }
        self.copies.changes(node);
        if let Some(file) = file {
            for fh in self.copies.handles(node) {
                self.opens.keep(fh, &file);
            }
        }
        Ok(())
    }

    /// Whether the kernel may keep the pages it has of an opened file.
    pub(crate) fn keeps_pages(&self, fh: u64) -> bool {
        self.copies.keeps_pages(fh)
    }
}
