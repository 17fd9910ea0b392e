//! What an operation on a mounted, read-only tree does. No type of the kernel protocol in it.
//!
//! Names come from a [`Namespace`], bytes from a [`Cache`]; this module owns what lies between:
//! which node id a name has ([`node`]), how a file may be opened ([`modes`], the rules and why), the
//! backing ids registered with the kernel, and what survives the death of a worker (the handle
//! table, see [`crate::handles`]).
//!
//! ```text
//! LOOKUP ---> names.rs -----------------> Namespace
//! OPEN -----> opens.rs --> modes.rs       complete: passthrough; small: fill first; else cached
//!                |            handles.rs  recorded before the reply
//!                +--> reincarnate.rs      complete while open: new node id for new opens
//! READ -----> reads.rs -----------------> Cache (cached handles only)
//! RELEASE --> opens.rs                    id stays registered, idle
//! ```
//!
//! Operations that may wait are `async` and answer a hit without yielding, so the adapter polls them
//! once on the thread that got the request. Requests that do wait are bounded: [`FileSystemConfig::
//! inflight`] work at a time, the others stand in line (the kernel bounds their number).
//!
//! Limits. `d_ino` of readdir(3) shows the node id of a file while it is re-incarnated; stat(2)
//! never does. A blocked request cannot be interrupted before its deadline (the kernel library
//! knows no FUSE_INTERRUPT). In the small-files profile there are no handles: no passthrough, no
//! count of open files, and an object that changes is seen only by name.

mod errno;
mod files;
mod ids;
mod kernel;
mod modes;
mod names;
pub(crate) mod node;
mod opens;
mod reads;
mod recent;
mod recover;
mod reincarnate;
mod siblings;
mod status;
mod xattrs;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use terrace_cache::fill::Cache;
use terrace_cache::{DatasetKey, Source};
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handles::HandleTable;
use crate::namespace::{FsError, Ino, Namespace};
use crate::probe::{self, NoPassthrough, Passthrough};

pub use kernel::Kernel;
pub use names::{DirectoryOpened, Entry, Found, Item, Listing};
pub use opens::Opened;
pub use status::{FileSystemStatus, Operation};
pub use xattrs::Totals;

/// What a mount is made of.
#[derive(Debug)]
pub struct FileSystemParts {
    /// What names exist.
    pub namespace: Arc<dyn Namespace>,
    /// Where bytes come from.
    pub cache: Cache,
    /// Where the cache gets what it does not have.
    pub source: Arc<dyn Source>,
    /// What its objects belong to, for eviction.
    pub dataset: DatasetKey,
    /// Open handles; the keeper holds the memory.
    pub handles: HandleTable,
    /// Where requests that wait go on.
    pub runtime: Runtime,
    /// See [`Profile`].
    pub profile: Profile,
    /// Whether to open complete files for passthrough.
    pub passthrough: Passthrough,
    /// Limits.
    pub config: FileSystemConfig,
}

/// What a mount is tuned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Files of all sizes; complete ones are opened for passthrough.
    #[default]
    Default,
    /// Very many small files: an open costs no round trip, and pages are kept.
    SmallFiles,
}

/// Limits of one mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSystemConfig {
    /// Files up to this many bytes are fetched whole before open(2) returns. Default: 16 MiB.
    pub fill_on_open: u64,
    /// Backing ids that stay registered after the last close: the next open of such a file costs no
    /// system call but one fstat. Each pins one open file of the worker and its inode, about 1.5 KiB
    /// of kernel memory. Default: 65,536; of all mounts of a process together never more than half of
    /// its descriptors.
    pub idle_backings: usize,
    /// Requests of one kind (names, data) that wait for the store at a time. Default: 256.
    pub inflight: usize,
}

impl Default for FileSystemConfig {
    fn default() -> Self {
        Self {
            fill_on_open: 16 << 20,
            idle_backings: 1 << 16,
            inflight: 256,
        }
    }
}

/// One mounted, read-only tree.
#[derive(Debug)]
pub struct FileSystem {
    namespace: Arc<dyn Namespace>,
    cache: Cache,
    source: Arc<dyn Source>,
    dataset: DatasetKey,
    handles: HandleTable,
    runtime: Runtime,
    profile: Profile,
    config: FileSystemConfig,
    passthrough: Mutex<Passthrough>,
    /// Set once the kernel has confirmed passthrough.
    kernel: OnceLock<Arc<dyn Kernel>>,
    active: std::sync::atomic::AtomicBool,
    files: files::Files,
    idle: files::Idle,
    /// Descriptors this process may have.
    descriptors: u64,
    places: reincarnate::Places,
    siblings: siblings::Siblings,
    notices: OnceLock<reincarnate::Notices>,
    stateless: Mutex<recent::Recent<Ino, Arc<files::Reader>>>,
    counters: status::Counters,
    errors: errno::ErrorLog,
    waiting_names: Semaphore,
    waiting_data: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Readers kept in the small-files profile, of files that were not read to their end. Each keeps its
/// object from being evicted.
const STATELESS_READERS: usize = 256;

impl FileSystem {
    /// A file system over `parts`. Handles that a dead worker left open are taken over here.
    ///
    /// Requests may come after [`FileSystem::connect`].
    pub fn new(parts: FileSystemParts) -> Arc<Self> {
        let config = &parts.config;
        let passthrough = match (parts.profile, parts.passthrough) {
            (Profile::SmallFiles, _) => Passthrough::Off(NoPassthrough::SmallFiles),
            (Profile::Default, passthrough) => passthrough,
        };
        let fs = Self {
            files: files::Files::new(),
            idle: files::Idle::new(config.idle_backings),
            descriptors: descriptor_limit(),
            places: reincarnate::Places::default(),
            siblings: siblings::Siblings::new(),
            notices: OnceLock::new(),
            stateless: Mutex::new(recent::Recent::new(STATELESS_READERS)),
            counters: status::Counters::default(),
            errors: errno::ErrorLog::new(),
            waiting_names: Semaphore::new(config.inflight.max(1)),
            waiting_data: Semaphore::new(config.inflight.max(1)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kernel: OnceLock::new(),
            active: std::sync::atomic::AtomicBool::new(false),
            passthrough: Mutex::new(passthrough),
            namespace: parts.namespace,
            cache: parts.cache,
            source: parts.source,
            dataset: parts.dataset,
            handles: parts.handles,
            runtime: parts.runtime,
            profile: parts.profile,
            config: parts.config,
        };
        fs.take_over_handles();
        Arc::new(fs)
    }

    /// Gives the file system its way to the kernel, before the first request: probes passthrough,
    /// closes backing ids that dead workers left, and starts the thread for notices.
    ///
    /// Errors: a second connection, or no thread to be had.
    pub fn connect(self: &Arc<Self>, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        self.notices
            .set(reincarnate::Notices::start(Arc::clone(&kernel))?)
            .map_err(|_| std::io::Error::other("the file system is connected already"))?;
        let confirmed = match &*lock(&self.passthrough) {
            Passthrough::Off(reason) => Err(reason.clone()),
            Passthrough::Wanted { directory } => probe::confirm(&*kernel, directory),
        };
        // Also without passthrough: a dead worker may have left ids.
        self.kernel
            .set(kernel)
            .map_err(|_| std::io::Error::other("connected already"))?;
        match confirmed {
            Ok(()) => {
                self.active
                    .store(true, std::sync::atomic::Ordering::Release);
                tracing::info!("complete files are opened for kernel passthrough");
            }
            Err(reason) => self.refuse_passthrough(reason),
        }
        self.close_leftovers();
        self.resume();
        Ok(())
    }

    /// Says that passthrough cannot be, when the kernel told so before [`FileSystem::connect`].
    pub fn refuse_passthrough(&self, reason: NoPassthrough) {
        match reason {
            NoPassthrough::Disabled | NoPassthrough::SmallFiles => {
                tracing::info!(%reason, "no kernel passthrough");
            }
            _ => tracing::warn!(%reason, "no kernel passthrough: reads go through the daemon"),
        }
        *lock(&self.passthrough) = Passthrough::Off(reason);
    }

    /// Whether to ask the kernel for passthrough at FUSE_INIT.
    pub fn wants_passthrough(&self) -> bool {
        matches!(*lock(&self.passthrough), Passthrough::Wanted { .. })
    }

    /// What the mount is tuned for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Where requests that wait go on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Owner of the tasks that answer requests; [`FileSystem::shutdown`] ends them.
    pub(crate) fn tasks(&self) -> (&TaskTracker, &CancellationToken) {
        (&self.tasks, &self.stop)
    }

    /// Ends all tasks. Requests that wait are answered EIO. Open handles stay in the table.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Counts a request.
    pub fn count(&self, operation: Operation) {
        self.counters.request(operation);
    }

    /// Counts and logs a failed request; returns its errno.
    pub fn failed(&self, operation: Operation, node: u64, error: &FsError) -> i32 {
        let errno = errno::errno(error);
        self.counters.error(errno);
        self.errors
            .note(operation.name(), node::Node(node).ino().0, error);
        errno
    }

    /// All counters now.
    pub fn status(&self) -> FileSystemStatus {
        let passthrough_off_because = match &*lock(&self.passthrough) {
            Passthrough::Wanted { .. } => None,
            Passthrough::Off(reason) => Some(reason.to_string()),
        };
        FileSystemStatus {
            passthrough: self.is_active(),
            passthrough_off_because,
            open_handles: u64::from(self.handles.len()),
            ..self.counters.snapshot()
        }
    }

    /// Inodes of files that are open now, each once. Walks the table of handles. A mount of the
    /// small-files profile has none and does not know.
    pub fn open_inodes(&self) -> Vec<Ino> {
        let handles = self.handles.handles();
        let mut open: Vec<Ino> = handles.iter().map(|h| node::Node(h.node).ino()).collect();
        open.sort_unstable();
        open.dedup();
        open
    }

    /// Whether complete files are opened for passthrough.
    fn is_active(&self) -> bool {
        self.active.load(std::sync::atomic::Ordering::Acquire)
    }

    fn bump(&self, counter: impl FnOnce(&status::Counters) -> &AtomicU64) {
        status::bump(counter(&self.counters));
    }
}

/// Descriptors this process may have (getrlimit(2)); every idle backing is one of them.
fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit that the call fills.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0;
    if failed { 1024 } else { limit.rlim_cur }
}

/// No code under these locks leaves half a change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
