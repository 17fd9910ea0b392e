//! A directory, shown for reading and writing as it is.
//!
//! The directory's own file system keeps names, permissions, locks of data on disk and everything
//! that is shared with other nodes; this module carries each request to it and keeps what must
//! outlive a worker. It decides nothing about permissions (the kernel does, `default_permissions`)
//! and caches nothing but descriptors.
//!
//! ```text
//! LOOKUP, READDIRPLUS -> lookup.rs, listing.rs -> nodes.rs     number -> file, on disk
//!                                              -> naming.rs    file -> descriptor
//! CREATE, RENAME, ... -> names.rs              -> intents.rs   evidence, before the operation
//!                                              -> identity.rs  as the caller
//! OPEN, RELEASE ------> opens.rs                               passthrough; handles in shared memory
//!                                              -> fresh.rs     is what the kernel knows still so?
//!                                              -> copies/      the version read from the SSD
//! READ, WRITE, FSYNC -> data.rs                                without passthrough, and always fsync
//! GETATTR, xattrs ----> attributes.rs
//! contents elsewhere -> tiering/                               a cold store, where there is one
//! all that takes space -> quota/                               limits that the directory does not keep
//! ```
//!
//! A node id is opened by its file handle, or by the place it was last seen in, never by a path, and a
//! name is one component below an open
//! directory, resolved without following links or crossing mounts: no answer of another process, no
//! symbolic link and no `..` leads out of the volume. A mount point inside it is `EXDEV`. What
//! another process moves out of the volume stays reachable for those who had it open, as on any file
//! system that is mounted with a part of it.
//!
//! Everything is written to the directory before it is answered; fsync is the directory's own. So
//! what the volume promises about durability is what the directory promises.

mod absent;
mod asker;
mod attributes;
mod copies;
mod data;
mod durability;
mod error;
mod fresh;
mod identity;
mod intents;
mod listing;
mod lookup;
mod names;
mod naming;
mod nodes;
mod opens;
mod owner;
mod quota;
mod spool;
mod staging;
mod sys;
mod table;
mod tiering;
mod volume;
mod young;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use serde::Serialize;

use crate::fs::Kernel;
use crate::handles::HandleTable;

pub(crate) use asker::Asker;
pub(crate) use attributes::{Change, OMIT};
pub use copies::CopyStatus;
pub(crate) use data::HandleOf;
pub use durability::{Durability, Level, Levels, RuleError};
pub use error::DirectoryError;
pub use identity::Caller;
pub(crate) use intents::Intent;
pub(crate) use listing::Row;
pub(crate) use lookup::{Entry, Looked};
pub(crate) use names::Place;
pub(crate) use opens::Opened;
pub use quota::{Counted, QuotaLimits, QuotaParts, QuotaStatus, QuotaUse, count_tree};
pub use spool::{Flushed, SpoolError, SpoolStatus, StagedFile};
pub(crate) use staging::Call;
pub(crate) use tiering::ELSEWHERE;
pub use tiering::{
    Action, ColdDebts, ColdParts, Collected, Collection, Job, Kept, Moved, OF_ROOTS, OwedFile,
    PolicyError, RECORDS, Report, Row as TierRow, Step, TierError, TierPolicy, TierStatus, Told,
    Whereabouts, Witness, whereabouts,
};

/// Number the kernel has for the root.
const ROOT: u64 = 1;

/// What a volume is made of.
#[derive(Debug)]
pub struct DirectoryParts<'a> {
    /// The directory to show.
    pub root: &'a Path,
    /// Where the mount keeps what must outlive a worker.
    pub state: &'a Path,
    /// No kernel knows the mount yet; `false`: a dead worker has served it.
    pub fresh: bool,
    /// Open handles; the keeper holds the memory.
    pub handles: HandleTable,
    /// Whether the kernel may read and write the directory's files itself.
    pub passthrough: bool,
    /// How long the kernel may believe a name or attributes that another node may change.
    pub ttl: Duration,
    /// How long an open may believe what the file system's server said of a file, instead of asking; zero:
    /// each open asks (close-to-open).
    pub revalidate: Duration,
    /// Whether locks of flock(2) and fcntl(2) hold among the processes of this node; otherwise they
    /// are refused.
    pub local_locks: bool,
    /// How durable files are to be when close(2) and fsync(2) return.
    pub durability: Durability,
    /// Where files are staged; without it all are written through, which is at least as durable.
    pub spool: Option<SpoolPlace>,
    /// Where contents go that nobody uses, if anywhere.
    pub cold: Option<ColdParts>,
    /// Limits that the daemon keeps; `None`: the directory's own, if it has any.
    pub quota: Option<QuotaParts>,
}

/// Room for a spool.
#[derive(Clone, Debug)]
pub struct SpoolPlace {
    /// A directory on the node's SSD that nobody clears; every shown directory has a part of it.
    pub directory: PathBuf,
    /// Most bytes of this volume; `None`: half of what is free when it is opened.
    pub limit: Option<u64>,
}

/// A volume's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectoryStatus {
    /// The kernel reads and writes the directory's files itself.
    pub passthrough: bool,
    /// Opens in passthrough mode, and others.
    pub opens_passthrough: u64,
    /// Opens whose data goes through the daemon.
    pub opens_served: u64,
    /// Handles open now.
    pub handles: u32,
    /// Files the kernel knows, as far as this worker was asked about them.
    pub nodes: usize,
    /// Requests answered.
    pub requests: u64,
    /// Changes of names or attributes that were sent again after a worker's death.
    pub resent: u64,
    /// Of these, those that the dead worker had carried out: answered, not repeated.
    pub recognised: u64,
    /// The limit that the daemon keeps, if there is one.
    pub quota: Option<QuotaStatus>,
    /// Copies on the node's SSD.
    pub copies: CopyStatus,
}

/// A directory as a read-write file system. See the module text.
#[derive(Debug)]
pub struct DirectoryFs {
    root: OwnedFd,
    /// Any descriptor of the file system that is not `O_PATH`, for opening by handle.
    mount: OwnedFd,
    naming: naming::Naming,
    /// The root's number in its own file system.
    root_number: u64,
    nodes: nodes::Nodes,
    intents: Arc<intents::Intents>,
    absent: absent::Absent,
    young: young::Young,
    opens: opens::Opens,
    durability: Durability,
    spool: Option<spool::Running>,
    copies: copies::Copies,
    fresh: fresh::Fresh,
    listings: listing::Listings,
    tiering: Option<Arc<tiering::Tiering>>,
    quota: Option<Arc<quota::Quota>>,
    ttl: Duration,
    local_locks: bool,
    wants_passthrough: bool,
    has_acl: bool,
    is_shared: bool,
    requests: AtomicU64,
    resent: AtomicU64,
    recognised: AtomicU64,
}

impl DirectoryFs {
    /// Opens a directory.
    ///
    /// Errors: see [`DirectoryError`].
    pub fn open(parts: DirectoryParts<'_>) -> Result<Arc<Self>, DirectoryError> {
        let failed = |errno| DirectoryError::Root(parts.root.to_owned(), errno);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mount = open(parts.root, flags | OFlag::O_RDONLY, Mode::empty()).map_err(failed)?;
        let root = open(parts.root, flags | OFlag::O_PATH, Mode::empty()).map_err(failed)?;
        let stat = fstat(&root).map_err(failed)?;
        let no_handles = |errno| DirectoryError::NoHandles(parts.root.to_owned(), errno);
        let naming = naming::Naming::of(root.as_fd(), mount.as_fd()).map_err(no_handles)?;
        // On a thread of its own: this one goes on as it is.
        let probe = std::thread::spawn(identity::prepare_thread).join();
        probe
            .unwrap_or(Err(Errno::EPERM))
            .map_err(DirectoryError::Identity)?;
        let table = table::Table::open(&parts.state.join("nodes"), parts.fresh)?;
        let path = parts.state.join("intents");
        let intents = intents::Intents::open(&path, parts.fresh)
            .map_err(|error| DirectoryError::Intents(path, error))?;
        parts.durability.check(parts.cold.is_some())?;
        naming.serves(&parts)?;
        let quota = open_quota(&parts)?;
        let stages = parts.durability.stages();
        let spool = match parts.spool.filter(|_| stages) {
            None => None,
            Some(place) => Some(spool::Running::open(spool::SpoolParts {
                spool: &place.directory,
                root: parts.root,
                limit: place.limit,
                mount: mount.try_clone().map_err(|_| failed(Errno::EMFILE))?,
                handles: parts
                    .handles
                    .handles()
                    .iter()
                    .map(|of| (of.node, of.fh))
                    .collect(),
            })?),
        };
        let tiering = match parts.cold {
            None => None,
            Some(cold) => {
                let opened = tiering::Tiering::open(cold, mount.as_fd());
                let refused = |errno| DirectoryError::NoRecords(parts.root.to_owned(), errno);
                Some(opened.map_err(refused)?)
            }
        };
        let acl = sys::get_xattr(mount.as_fd(), attributes::ACL_ACCESS, &mut []);
        // The kernel would open the file once more, which fails (EIO) when another node has just taken its name.
        let by_place = naming.is_by_place();
        Ok(Arc::new(Self {
            has_acl: !matches!(acl, Err(Errno::EOPNOTSUPP)),
            is_shared: data::is_shared(mount.as_fd()),
            root,
            mount,
            naming,
            root_number: stat.st_ino,
            nodes: nodes::Nodes::new(table, parts.fresh),
            intents,
            absent: absent::Absent::default(),
            young: young::Young::default(),
            opens: opens::Opens::new(parts.handles),
            durability: parts.durability,
            spool,
            copies: copies::Copies::default(),
            fresh: fresh::Fresh::new(parts.revalidate),
            listings: listing::Listings::default(),
            tiering,
            quota,
            ttl: parts.ttl,
            local_locks: parts.local_locks,
            wants_passthrough: parts.passthrough && !by_place,
            requests: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            recognised: AtomicU64::new(0),
        }))
    }

    /// Gives the file system its way to the kernel, before the first request.
    pub fn connect(&self, kernel: Arc<dyn Kernel>) {
        self.opens.connect(kernel);
    }

    /// Whether to ask the kernel for passthrough at FUSE_INIT.
    pub(crate) fn wants_passthrough(&self) -> bool {
        self.wants_passthrough
    }

    /// Whether the kernel agreed to it.
    pub(crate) fn set_passthrough(&self, on: bool) {
        self.opens.set_passthrough(on);
    }

    /// Whether the directory's file system knows ACLs.
    pub(crate) fn has_acl(&self) -> bool {
        self.has_acl
    }

    /// Whether locks hold among the processes of this node; otherwise they are refused.
    pub(crate) fn local_locks(&self) -> bool {
        self.local_locks
    }

    /// Whether an open must be told that it truncates: what is truncated may be staged.
    pub(crate) fn truncates_at_open(&self) -> bool {
        self.spool.is_some() || self.tiering.is_some()
    }

    /// Whether other nodes may change the directory.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// How long the kernel may believe an answer.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Counts a request, on the thread that answers it.
    pub(crate) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.prepare_thread();
    }

    /// Makes the calling thread one that may act for others, and not beyond their quotas.
    pub(crate) fn prepare_thread(&self) {
        if let Err(error) = identity::prepare_thread() {
            tracing::warn!(%error, "a thread cannot act for others");
        }
    }

    /// Requests answered.
    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// All counters now.
    pub fn status(&self) -> DirectoryStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DirectoryStatus {
            passthrough: self.opens.is_passthrough(),
            opens_passthrough: count(&self.opens.passed_through),
            opens_served: count(&self.opens.served),
            handles: self.opens.len(),
            nodes: self.nodes.len(),
            requests: self.requests(),
            resent: count(&self.resent),
            recognised: count(&self.recognised),
            quota: self.quota.as_ref().map(|quota| quota.status()),
            copies: self.copies.status(),
        }
    }

    /// Changes the limit that the daemon keeps; does nothing where it keeps none.
    pub fn set_quota(&self, limits: QuotaLimits) {
        if let Some(quota) = &self.quota {
            quota.set_limits(limits);
        }
    }

    /// Waits until [`DirectoryFs::count_quota`] should run soon; for ever without a limit of the daemon.
    pub async fn quota_wanted(&self) {
        match &self.quota {
            Some(quota) => quota.wanted().await,
            None => std::future::pending().await,
        }
    }

    /// The kernel takes answers back.
    pub(crate) fn forget(&self, node: u64, count: u64) {
        if self.nodes.forgotten(node, count) {
            self.naming.forget(node);
        }
    }
}

fn open_quota(parts: &DirectoryParts<'_>) -> Result<Option<Arc<quota::Quota>>, DirectoryError> {
    let Some(of) = parts.quota else {
        return Ok(None);
    };
    let path = parts.state.join("quota");
    match quota::Quota::open(&path, parts.fresh, of) {
        Ok(quota) => Ok(Some(quota)),
        Err(error) => Err(DirectoryError::Quota(path, error)),
    }
}

/// A descriptor of a node.
enum At<'a> {
    Root(BorrowedFd<'a>),
    Node(OwnedFd),
    Kept(Arc<OwnedFd>),
}

impl At<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Node(fd) => fd.as_fd(),
            Self::Kept(fd) => fd.as_fd(),
        }
    }
}
