//! Open files: how each is opened, and what of it outlives the worker.
//!
//! Where the kernel can, a regular file is opened for passthrough to the file of the directory
//! itself: reads, writes and maps never come here, and go on while no worker lives. Sizes and times
//! stay right without invalidation: the kernel drops what it knows of both with every write it passes
//! through, and reads do not look at the size it knows. Otherwise requests come here, and pages are
//! dropped at every open.
//!
//! The kernel allows one mode and one backing id for all open handles of a file; a reply that
//! contradicts is EIO. So the first open decides and later ones follow ([`NodeOpens`]). Handles and
//! ids are in the [`HandleTable`], which the keeper holds: the next worker goes on with them. An id
//! is given back with the last handle, so that a deleted file's space is free then.
//!
//! A handle's own descriptor dies with the worker. The next one opens the file again by its number
//! when a request names the handle. What this loses, and only without passthrough, is a file that
//! was deleted while open: nothing has kept it, and requests on it are ESTALE.
//!
//! Lock order: `nodes`, then the table's own. `files` is never held together with them.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;

use super::durability::{Level, Levels};
use crate::fs::Kernel;
use crate::handles::{HandleTable, Mode};

/// An answered open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// What the kernel sends with every request on it.
    pub(crate) fh: u64,
    /// How it is opened.
    pub(crate) mode: Mode,
    /// Whether its close has to be asked for before close(2) returns.
    pub(crate) flush: bool,
}

/// How a file is open, while it is.
#[derive(Debug)]
struct NodeOpens {
    handles: u32,
    mode: Mode,
    /// Where the id is recorded.
    index: Option<u32>,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Opens {
    table: HandleTable,
    nodes: Mutex<HashMap<u64, NodeOpens>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    /// Handles on files below whose calls promise more than the directory does by itself.
    promises: Mutex<HashMap<u64, Levels>>,
    kernel: OnceLock<Arc<dyn Kernel>>,
    passthrough: AtomicBool,
    pub(super) passed_through: AtomicU64,
    pub(super) served: AtomicU64,
}

impl Opens {
    /// Takes over what dead workers left open in `table`.
    pub(super) fn new(table: HandleTable) -> Self {
        let indices: HashMap<(u64, u32), u32> = table
            .backings()
            .into_iter()
            .map(|backing| ((backing.node, backing.id), backing.index))
            .collect();
        let mut nodes = HashMap::<u64, NodeOpens>::new();
        for handle in table.handles() {
            let index = match handle.mode {
                Mode::Passthrough(id) => indices.get(&(handle.node, id)).copied(),
                Mode::Cached => None,
            };
            let opens = nodes.entry(handle.node).or_insert(NodeOpens {
                handles: 0,
                mode: handle.mode,
                index,
            });
            opens.handles += 1;
        }
        Self {
            table,
            nodes: Mutex::new(nodes),
            files: Mutex::default(),
            promises: Mutex::default(),
            kernel: OnceLock::new(),
            passthrough: AtomicBool::new(false),
            passed_through: AtomicU64::new(0),
            served: AtomicU64::new(0),
        }
    }

    /// Gives the way to the kernel, before the first request, and closes ids that nobody uses.
    pub(super) fn connect(&self, kernel: Arc<dyn Kernel>) {
        let mut closed = 0;
        let nodes = lock(&self.nodes);
        for backing in self.table.backings() {
            let used = nodes
                .get(&backing.node)
                .is_some_and(|opens| opens.mode == Mode::Passthrough(backing.id));
            if !used {
                closed += u32::from(kernel.close_backing(backing.id).is_ok());
                self.table.forget_backing(backing.index);
            }
        }
        drop(nodes);
        for id in self.table.stray_backings() {
            closed += u32::from(kernel.close_backing(id).is_ok());
        }
        if closed > 0 {
            tracing::info!(closed, "closed backing ids that no handle uses");
        }
        self.kernel.set(kernel).ok();
    }

    /// Whether files are opened for passthrough from now on.
    pub(super) fn set_passthrough(&self, on: bool) {
        self.passthrough.store(on, Ordering::Release);
    }

    /// Whether they are.
    pub(super) fn is_passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Acquire)
    }

    /// The open that a dead worker recorded for this resent request.
    pub(super) fn resent(&self, unique: u64) -> Option<Opened> {
        let handle = self.table.resent(unique)?;
        Some(Opened {
            fh: handle.fh,
            mode: handle.mode,
            flush: true,
        })
    }

    /// Records an open of `file`, before it is answered. Which file that is the caller has chosen: the
    /// node's own, or another one that has its bytes. The first open of a node decides for all that
    /// come while it is open, so callers that have a choice ask [`Opens::is_open`] first, and keep
    /// others from opening the node meanwhile.
    ///
    /// Errors: `ENFILE` when a million handles are open.
    pub(super) fn open(&self, unique: u64, node: u64, file: File) -> Result<Opened, Errno> {
        let opened = self.record(unique, node, || self.register(node, &file))?;
        lock(&self.files).insert(opened.fh, Arc::new(file));
        Ok(opened)
    }

    /// Records an open whose data comes through the daemon, from another place than a file of the
    /// directory, unless other handles say otherwise.
    ///
    /// Errors: as [`Opens::open`].
    pub(super) fn open_served(&self, unique: u64, node: u64) -> Result<Opened, Errno> {
        self.record(unique, node, || (Mode::Cached, None))
    }

    /// The node of an open handle.
    pub(super) fn node_of(&self, fh: u64) -> Option<u64> {
        self.table.get(fh).map(|handle| handle.node)
    }

    /// The kernel asks for the attributes of a node again.
    pub(super) fn forget_attributes(&self, node: u64) {
        if let Some(kernel) = self.kernel.get()
            && let Err(error) = kernel.forget_attributes(node)
        {
            tracing::warn!(%error, ino = node, "old attributes may be seen");
        }
    }

    /// Adds a handle; `first` says how a node is opened that nobody has open.
    fn record(
        &self,
        unique: u64,
        node: u64,
        first: impl FnOnce() -> (Mode, Option<u32>),
    ) -> Result<Opened, Errno> {
        let mut nodes = lock(&self.nodes);
        let (mode, index) = match nodes.get(&node) {
            Some(opens) => (opens.mode, opens.index),
            None => first(),
        };
        let Ok(fh) = self.table.insert(unique, node, mode) else {
            if !nodes.contains_key(&node) {
                self.unregister(mode, index);
            }
            return Err(Errno::ENFILE);
        };
        let opens = nodes.entry(node).or_insert(NodeOpens {
            handles: 0,
            mode,
            index,
        });
        opens.handles += 1;
        drop(nodes);
        let counter = match mode {
            Mode::Passthrough(_) => &self.passed_through,
            Mode::Cached => &self.served,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let flush = false;
        Ok(Opened { fh, mode, flush })
    }

    /// Whether a node has open handles, and so a file behind them.
    pub(super) fn is_open(&self, node: u64) -> bool {
        lock(&self.nodes).contains_key(&node)
    }

    /// What the calls on a handle promise.
    pub(super) fn promise(&self, fh: u64, levels: Levels) {
        if self.table.get(fh).is_some() {
            lock(&self.promises).insert(fh, levels);
        }
    }

    /// The same, where it is more than the directory does by itself, and of this worker's handles.
    pub(super) fn levels(&self, fh: u64) -> Option<Levels> {
        lock(&self.promises).get(&fh).copied()
    }

    /// Whether the file of a handle is to be synced when it is closed.
    pub(super) fn syncs_at_close(&self, fh: u64) -> bool {
        let levels = self.levels(fh);
        levels.is_some_and(|levels| levels.close > Level::Accepted)
    }

    /// The descriptor of a handle; `None` when it was opened by a dead worker.
    pub(super) fn file(&self, fh: u64) -> Option<Arc<File>> {
        lock(&self.files).get(&fh).map(Arc::clone)
    }

    /// Gives a handle of a dead worker its descriptor.
    pub(super) fn keep(&self, fh: u64, file: &Arc<File>) {
        if self.table.get(fh).is_some() {
            lock(&self.files).insert(fh, Arc::clone(file));
        }
    }

    /// Closes a handle; returns its node. Unknown handles and repeated calls do nothing.
    pub(super) fn release(&self, fh: u64) -> Option<u64> {
        let handle = self.table.remove(fh)?;
        lock(&self.promises).remove(&fh);
        let file = lock(&self.files).remove(&fh);
        let mut nodes = lock(&self.nodes);
        if let Some(opens) = nodes.get_mut(&handle.node) {
            opens.handles = opens.handles.saturating_sub(1);
            if opens.handles == 0 {
                let (mode, index) = (opens.mode, opens.index);
                nodes.remove(&handle.node);
                // Under the lock: an open that comes now registers anew, after this.
                self.unregister(mode, index);
            }
        }
        drop(nodes);
        drop(file); // the last close of a deleted file may take long
        Some(handle.node)
    }

    /// Open handles.
    pub(super) fn len(&self) -> u32 {
        self.table.len()
    }

    /// The mode of a file's first handle.
    fn register(&self, node: u64, file: &File) -> (Mode, Option<u32>) {
        let kernel = self.kernel.get().filter(|_| self.is_passthrough());
        let Some(kernel) = kernel else {
            return (Mode::Cached, None);
        };
        let id = match kernel.open_backing(file) {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(%error, "no passthrough: data goes through the daemon from now on");
                self.set_passthrough(false);
                return (Mode::Cached, None);
            }
        };
        match self.table.record_backing(id, node) {
            Ok(index) => (Mode::Passthrough(id), Some(index)),
            Err(full) => {
                tracing::warn!(%full, "backing id given back");
                kernel.close_backing(id).ok();
                (Mode::Cached, None)
            }
        }
    }

    fn unregister(&self, mode: Mode, index: Option<u32>) {
        let Mode::Passthrough(id) = mode else {
            return;
        };
        if let Some(kernel) = self.kernel.get()
            && let Err(error) = kernel.close_backing(id)
        {
            tracing::warn!(%error, id, "backing id stays registered");
        }
        if let Some(index) = index {
            self.table.forget_backing(index);
        }
    }
}

/// No code under these locks leaves half a change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
