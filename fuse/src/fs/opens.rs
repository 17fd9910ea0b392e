//! OPEN and RELEASE.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use terrace_cache::DatasetKey;
use terrace_cache::fill::{Object, ReadError};
use terrace_cache::hot::Backing;
use terrace_cache::policy::Admission;

use super::errno::from_read;
use super::files::{Known, OpenInode, Reader};
use super::modes::{Closed, Rule};
use super::node::Node;
use super::{FileSystem, Profile};
use crate::handles::{Handle, Mode};
use crate::namespace::{FsError, Ino};

/// Promotion may read the file to verify it; above this size not on the thread that got the request.
const PROMOTE_INLINE: u64 = 4 << 20;

/// How long an open waits for a file whose bytes have arrived to be in the hot tier, too. Usually that is
/// a write into the page cache; behind a sync of a full tier it is as long as the disk likes.
pub(super) const TIER_GRACE: Duration = Duration::from_millis(50);

/// Answer to OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// This mount has no handles; the kernel need not ask again (ENOSYS).
    Stateless,
    /// A handle, recorded.
    Handle {
        /// What the kernel sends with every request on it.
        fh: u64,
        /// How it is opened.
        mode: Mode,
    },
}

impl From<Handle> for Opened {
    fn from(handle: Handle) -> Self {
        Self::Handle {
            fh: handle.fh,
            mode: handle.mode,
        }
    }
}

impl FileSystem {
    /// Opens a file for reading. `unique` is the request's, as the kernel sent it; `flags` those of
    /// open(2).
    ///
    /// Waits for a small file to be fetched; otherwise answers at once. Errors: `ReadOnly` for
    /// anything but reading, those of the name space and, when a small file cannot be fetched,
    /// those of the store. Cancelled by dropping: nothing is recorded then.
    pub async fn open(
        self: &Arc<Self>,
        node: u64,
        unique: u64,
        flags: i32,
    ) -> Result<Opened, FsError> {
        match self.open_now(node, unique, flags)? {
            Some(opened) => Ok(opened),
            None => self.open_later(node, unique).await,
        }
    }

    /// [`FileSystem::open`] as far as it goes without waiting. `None`: go on with
    /// [`FileSystem::open_later`].
    pub(crate) fn open_now(
        self: &Arc<Self>,
        node: u64,
        unique: u64,
        flags: i32,
    ) -> Result<Option<Opened>, FsError> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(FsError::ReadOnly);
        }
        if self.profile == Profile::SmallFiles {
            return Ok(Some(Opened::Stateless));
        }
        if let Some(handle) = self.handles.resent(unique) {
            self.bump(|counters| &counters.opens_resent);
            return Ok(Some(handle.into()));
        }
        self.open_as_bound(Node(node), unique)
    }

    /// The rest of [`FileSystem::open`].
    pub(crate) async fn open_later(
        self: &Arc<Self>,
        node: u64,
        unique: u64,
    ) -> Result<Opened, FsError> {
        let node = Node(node);
        let object = self.object_of(node.ino())?;
        let admission = object.opened();
        if admission == Admission::Keep && object.id().size() <= self.config.fill_on_open {
            self.fetch_siblings(node.ino(), !*object.filled().borrow());
        }
        let backing = self.complete_file(&object, admission).await?;
        self.open_free(node, unique, &object, backing)
    }

    /// Closes a handle. Unknown handles and repeated calls do nothing.
    pub fn release(&self, fh: u64) {
        let Some(handle) = self.handles.remove(fh) else {
            return;
        };
        let node = Node(handle.node);
        let reader = self.files.remove_reader(fh);
        let mut shard = self.files.shard(node.ino());
        let Some(file) = shard.get_mut(&node.ino()) else {
            return;
        };
        let (mut closing, mut unused) = (None, None);
        match file.modes.closed(node.incarnation(), handle.mode) {
            Closed::LastPassthrough => closing = self.make_idle(&mut file.modes, node),
            Closed::LastCached if !file.modes.any_cached() => {
                if let Some(watch) = file.watch.take() {
                    watch.abort();
                }
                unused = file.object.take();
            }
            Closed::LastCached | Closed::Open | Closed::Unknown => {}
        }
        // A file that nobody has open is held by its idle backing alone, which does not keep it from
        // being evicted, as its object would.
        let inherited = if file.modes.any_open() {
            None
        } else {
            file.inherited.take()
        };
        let gone = if file.modes.is_empty() {
            shard.remove(&node.ino())
        } else {
            None
        };
        drop(shard);
        // Outside the lock: the last holder of an object ends what is being fetched for it.
        drop((gone, unused, inherited, reader));
        self.close_id(closing);
        while let Some((tick, node)) = self.idle.surplus(self.is_crowded()) {
            self.close_idle(node, tick);
        }
    }

    /// The object behind an inode, from what is open or from the name space.
    pub(super) fn object_of(&self, ino: Ino) -> Result<Arc<Object>, FsError> {
        if let Some(object) = self
            .files
            .shard(ino)
            .get(&ino)
            .and_then(|file| file.object.as_ref().map(Arc::clone))
        {
            return Ok(object);
        }
        let id = self.namespace.object(ino)?;
        let dataset = self.dataset_of(ino);
        Ok(self.cache.object(&id, &self.source, &dataset))
    }

    /// What the bytes of an inode belong to.
    pub(super) fn dataset_of(&self, ino: Ino) -> DatasetKey {
        match self.namespace.dataset(ino) {
            // Whoever mounts a tree of tables, each of them is a dataset of the mount's tenant.
            Some(own) => own.of_tenant(self.dataset.tenant()),
            None => self.dataset.clone(),
        }
    }

    /// Opens as what is open already demands, or with an id that is still registered.
    fn open_as_bound(self: &Arc<Self>, node: Node, unique: u64) -> Result<Option<Opened>, FsError> {
        let mut shard = self.files.shard(node.ino());
        let Some(file) = shard.get_mut(&node.ino()) else {
            return Ok(None);
        };
        let (mode, closing) = match file.modes.rule(node.incarnation()) {
            // After a take-over its bytes have to be found first.
            Rule::Only(Mode::Cached) if file.object.is_none() => (None, None),
            Rule::Only(mode) => (Some(mode), None),
            Rule::Free => self.reuse(&mut file.modes, node),
        };
        let object = file.object.as_ref().map(Arc::clone);
        let known = file.known;
        let opened = mode.map(|mode| self.record(file, node, unique, mode, object.as_ref()));
        if file.modes.is_empty() {
            shard.remove(&node.ino());
        }
        drop(shard);
        self.close_id(closing);
        // Counts the access; what the policy says about admission matters to incomplete objects.
        match (&opened, object, known) {
            (Some(_), Some(object), _) => {
                object.opened();
            }
            (Some(_), None, Some(known)) => {
                let dataset = self.dataset_of(node.ino());
                let hot = self.cache.hot();
                hot.opened(&known.digest, known.size, &dataset);
            }
            _ => {}
        }
        opened.transpose()
    }

    /// The complete file of an object, fetching it first when it is small. `None`: open it cached.
    async fn complete_file(
        &self,
        object: &Arc<Object>,
        admission: Admission,
    ) -> Result<Option<Backing>, FsError> {
        let size = object.id().size();
        if !self.is_active() || size == 0 {
            return Ok(None);
        }
        if !*object.filled().borrow() {
            if admission == Admission::Bypass || size > self.config.fill_on_open {
                return Ok(None);
            }
            let _turn = self
                .waiting_data
                .acquire()
                .await
                .map_err(|_| shutting_down())?;
            match object.fill_or_arrive(TIER_GRACE).await {
                Ok(true) => self.bump(|counters| &counters.filled_on_open),
                Ok(false) => return Ok(None),
                Err(error @ ReadError::Store(_)) => return Err(from_read(error)),
                // No room, or the tier fails: the store can still answer reads.
                Err(ReadError::NotKept(_) | ReadError::Closed) => return Ok(None),
            }
        }
        if size <= PROMOTE_INLINE {
            return Ok(object.backing());
        }
        let promoted = Arc::clone(object);
        let promoted = self.runtime.spawn_blocking(move || promoted.backing());
        Ok(promoted.await.unwrap_or_default())
    }

    /// Opens a node of which nothing was open a moment ago.
    fn open_free(
        self: &Arc<Self>,
        node: Node,
        unique: u64,
        object: &Arc<Object>,
        backing: Option<Backing>,
    ) -> Result<Opened, FsError> {
        let mut shard = self.files.shard(node.ino());
        let file = shard.entry(node.ino()).or_default();
        let mut closing = None;
        let mode = match file.modes.rule(node.incarnation()) {
            Rule::Only(mode) => mode,
            Rule::Free => {
                let (reused, spoiled) = self.reuse(&mut file.modes, node);
                closing = spoiled;
                reused
                    .or_else(|| self.register(&mut file.modes, node, backing?))
                    .unwrap_or(Mode::Cached)
            }
        };
        file.known.get_or_insert_with(|| Known::of(object.id()));
        let opened = self.record(file, node, unique, mode, Some(object));
        if file.modes.is_empty() {
            shard.remove(&node.ino());
        }
        drop(shard);
        self.close_id(closing);
        opened
    }

    /// Writes the open down, before it is answered. Callers hold the inode's shard.
    fn record(
        self: &Arc<Self>,
        file: &mut OpenInode,
        node: Node,
        unique: u64,
        mode: Mode,
        object: Option<&Arc<Object>>,
    ) -> Result<Opened, FsError> {
        let fh = self
            .handles
            .insert(unique, node.0, mode)
            .map_err(|full| FsError::Local(full.to_string()))?;
        file.modes.opened(node.incarnation(), mode);
        match mode {
            Mode::Passthrough(_) => {
                self.bump(|counters| &counters.opens_passthrough);
                let size = file.known.map_or(0, |known| known.size);
                self.counters.passthrough_bytes.fetch_add(size, Relaxed);
            }
            Mode::Cached => {
                self.bump(|counters| &counters.opens_cached);
                if let Some(object) = object {
                    let object = Arc::clone(file.object.get_or_insert_with(|| Arc::clone(object)));
                    self.begin_cached(file, node.ino(), &object);
                    self.files.add_reader(fh, Arc::new(Reader::new(object)));
                }
            }
        }
        Ok(Opened::Handle { fh, mode })
    }

    /// Starts what goes on while a file is open in cached mode.
    pub(super) fn begin_cached(
        self: &Arc<Self>,
        file: &mut OpenInode,
        ino: Ino,
        object: &Arc<Object>,
    ) {
        object.fill_in_background();
        if self.is_active() && file.watch.is_none() && object.id().size() > 0 {
            file.watch = Some(self.watch(ino, object));
        }
    }
}

pub(super) fn shutting_down() -> FsError {
    FsError::Local("the worker is shutting down".to_owned())
}
