//! Hierarchical storage of a directory volume: contents that nobody uses move to a store, the file
//! stays with all its attributes, and opening it brings them back.
//!
//! ```text
//!            upload, read back      empty the file         open, truncate
//!  (no record) -----------> copy ----> demoting ----> stub -----------> recalling ----> copy
//!                            |  file has its contents  |  file is empty      |  file has a part
//!                            +-- written to: the file wins, the object is an orphan
//! ```
//! | record    | file below | it is                                                              |
//! | --------- | ---------- | ------------------------------------------------------------------ |
//! | none      | any        | a file                                                             |
//! | copy      | any        | a file; its object spares the next upload, if it is still the same |
//! | demoting  | not empty  | a file: the mover died before it was emptied                       |
//! | demoting  | empty      | a stub: the mover died after it, the times are the record's        |
//! | stub      | empty      | a stub; the times are the file's                                   |
//! | stub      | not empty  | a file: somebody wrote to it without Terrace, which wins           |
//! | recalling | any        | a stub: the next open begins anew                                  |
//!
//! Invariants: a file is emptied only after its object was read back and found right, while nobody
//! has it open, and after both were looked at once more; no byte of a file in state `recalling` is
//! shown; a record that cannot be believed changes nothing and is an error for whoever opens.
//! Truncating an empty stub without Terrace changes nothing that the file has, so it stays a stub.
//!
//! A recall changes nothing that other programs believe either: bytes are written in order, so a
//! reader without Terrace sees a part of the file and never zeros in place of contents.
//!
//! [`record`] is the format, [`attribute`] its place, [`cold`] the store side, [`gates`] and
//! [`lock`] keep opens and movers apart (here, and between nodes), [`copy`], [`demote`] and [`recall`]
//! move, [`level`] keeps promises of the level `cold` and [`owed`] what became of them,
//! [`walk`], [`policy`], [`scan`] and [`job`] choose, [`collect`] finds objects that no file names, [`held`]
//! knows those that copies name, [`outside`] is for who makes copies.

mod attribute;
mod cold;
mod collect;
mod copy;
mod demote;
mod flush;
mod gates;
mod held;
mod hooks;
mod job;
mod level;
mod lock;
mod outside;
mod owed;
mod pattern;
mod policy;
mod recall;
mod record;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use serde::Serialize;
use terrace_cache::store::{Store, StoreError, StoreErrorKind};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use attribute::Space;
use cold::Cold;
use gates::Gates;
use level::Keeping;

pub(super) use attribute::is_reserved;
pub use collect::{Collected, Collection};
pub use demote::{Kept, Moved};
pub(crate) use hooks::ELSEWHERE;
pub use job::{Action, Job, Report, Row, Told};
pub use outside::{OF_ROOTS, RECORDS, Whereabouts, whereabouts};
pub use owed::{ColdDebts, OwedFile};
pub use policy::{PolicyError, TierPolicy};

/// Files whose contents come back at a time: each holds some ranges of an object in memory.
const RECALLS: usize = 8;

/// What a volume with a cold store is made of.
#[derive(Debug)]
pub struct ColdParts {
    /// Where contents go; its prefix is the volume's, or shared with other volumes.
    pub store: Store,
    /// What to move without being asked; none: nothing.
    pub policy: Option<TierPolicy>,
    /// A directory of this volume's own on this node, for what a collection marks.
    pub scratch: PathBuf,
    /// Lists of the objects that copies of this volume name; none: it is not one that is copied.
    pub held: Option<PathBuf>,
    /// Where recalls run.
    pub runtime: Handle,
    /// Told of each step, so that a test can stop there.
    pub witness: Option<Arc<dyn Witness>>,
}

/// A moment of a demotion or a recall after which a process may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The object is in the store and was read back.
    Verified,
    /// The record says `copy`.
    Copied,
    /// The file says to people where its contents will be.
    Explained,
    /// The record says `demoting`, durably.
    Demoting,
    /// The file is empty.
    Emptied,
    /// The file has its times again.
    Dated,
    /// The record says `stub`.
    Stubbed,
    /// The record says `recalling`.
    Recalling,
    /// A part of the contents is back.
    Fetched,
    /// All of them are.
    Filled,
    /// They are durable, and the file has its times again.
    Returned,
    /// The record says `copy` again.
    Recalled,
}

/// Told of each step of each file.
pub trait Witness: Send + Sync + fmt::Debug {
    /// `false`: everything about the file stays as it is now, as if the process had died.
    fn passed(&self, step: Step) -> bool;
}

/// Why contents were not moved. The file is as it was, or says of itself that it is a stub.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file below: what was tried, and what became of it.
    #[error("{0}: {1}")]
    File(&'static str, Errno),
    /// The record cannot be believed. Nothing was changed.
    #[error(
        "its record of contents in the cold store cannot be believed: {0}; the file is left as it \
         is: bring it back from the object that its attribute user.terrace.why names"
    )]
    Record(String),
    /// The store has other bytes than were written.
    #[error(
        "the object {0} does not have the bytes that were written to it; look for a copy of it"
    )]
    Mismatch(String),
    /// The contents are in another store.
    #[error("its contents are in {0}, not in this mount's cold store; mount with --cold {0}")]
    Foreign(String),
    /// The file was written meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// The file was written, or made shorter, at every attempt.
    #[error("it is changed all the time while it is copied; try again when it is at rest")]
    Restless,
    /// The store takes nothing, and others wait for it already.
    #[error("the cold store has not answered for its deadline; see whether it still runs")]
    Silent,
    /// Another node has it open, or moves it.
    #[error("another node has had it locked for too long; see whether that node still runs")]
    Locked,
    /// The volume has no cold store.
    #[error("this volume has no cold store; mount it with --cold URL")]
    NoStore,
    /// Not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// The disk for marks of a collection.
    #[error("keep the marks of a collection: {0}")]
    Marks(std::io::Error),
    /// A snapshot or another copy is being made beside the volume, and may name objects of it.
    #[error(
        "a snapshot or a copy of a volume beside this one is being made, and may name its objects; try again \
         when it is"
    )]
    Copying,
    /// A test's witness wanted it to end here.
    #[error("stopped")]
    Stopped,
    /// The worker ends.
    #[error("the worker ends; try again")]
    Ending,
}

impl TierError {
    /// What an application is told.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Store(error) => match error.kind {
                StoreErrorKind::Unreachable => Errno::ETIMEDOUT,
                // An object that is gone is a loss, and no missing name.
                StoreErrorKind::NotFound
                | StoreErrorKind::Permission
                | StoreErrorKind::Throttled
                | StoreErrorKind::Changed
                | StoreErrorKind::Corrupt
                | StoreErrorKind::Invalid => Errno::EIO,
            },
            Self::File(_, errno) => *errno,
            Self::Changed => Errno::ESTALE,
            Self::Restless | Self::Copying => Errno::EBUSY,
            Self::Locked | Self::Silent => Errno::ETIMEDOUT,
            Self::Record(_)
            | Self::Mismatch(_)
            | Self::Foreign(_)
            | Self::NoStore
            | Self::NotAFile
            | Self::Marks(_)
            | Self::Stopped
            | Self::Ending => Errno::EIO,
        }
    }
}

/// Counters of a volume's cold store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierStatus {
    /// Address of the store.
    pub store: String,
    /// The volume's name in it.
    pub volume: String,
    /// Files that became stubs, and their bytes.
    pub demoted_files: u64,
    /// Bytes of these.
    pub demoted_bytes: u64,
    /// Files whose contents came back, and their bytes.
    pub recalled_files: u64,
    /// Bytes of these.
    pub recalled_bytes: u64,
    /// Recalls that failed.
    pub recalls_failed: u64,
    /// Files whose contents are coming back now.
    pub recalling: usize,
    /// Requests that waited for contents.
    pub waited: u64,
    /// Copies that were made because level `cold` was promised or asked for.
    pub copied_files: u64,
    /// Bytes of these.
    pub copied_bytes: u64,
    /// Calls of level `cold` that failed.
    pub copies_failed: u64,
    /// Files of that level that are not in the store, and are tried again.
    pub owed: u64,
}

/// Recalls under way by inode number, each with what became of it.
type Flights = HashMap<u64, watch::Receiver<Option<Result<(), Errno>>>>;

/// The cold store of a volume, and what is being moved. See the module text.
#[derive(Debug)]
pub(super) struct Tiering {
    cold: Cold,
    space: Space,
    volume: String,
    policy: Option<TierPolicy>,
    scratch: PathBuf,
    held: Option<PathBuf>,
    runtime: Handle,
    tasks: TaskTracker,
    gates: Gates,
    keeping: Keeping,
    flights: Mutex<Flights>,
    recalls: Semaphore,
    collecting: tokio::sync::Mutex<()>,
    witness: Option<Arc<dyn Witness>>,
    demoted_files: AtomicU64,
    demoted_bytes: AtomicU64,
    recalled_files: AtomicU64,
    recalled_bytes: AtomicU64,
    recalls_failed: AtomicU64,
    waited: AtomicU64,
}

impl Tiering {
    /// Prepares the volume below `root` (not `O_PATH`) for a cold store; asks the store nothing.
    ///
    /// Errors: `EOPNOTSUPP` when its file system has no place for records.
    pub(super) fn open(parts: ColdParts, root: BorrowedFd<'_>) -> Result<Arc<Self>, Errno> {
        let space = Space::probe(root)?;
        let volume = space.volume_name(root)?;
        Ok(Arc::new(Self {
            cold: Cold::new(parts.store, &volume),
            space,
            volume,
            policy: parts.policy,
            scratch: parts.scratch,
            held: parts.held,
            runtime: parts.runtime,
            tasks: TaskTracker::new(),
            gates: Gates::default(),
            keeping: Keeping::default(),
            flights: Mutex::default(),
            recalls: Semaphore::new(RECALLS),
            collecting: tokio::sync::Mutex::default(),
            witness: parts.witness,
            demoted_files: AtomicU64::new(0),
            demoted_bytes: AtomicU64::new(0),
            recalled_files: AtomicU64::new(0),
            recalled_bytes: AtomicU64::new(0),
            recalls_failed: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }))
    }

    fn step(&self, step: Step) -> Result<(), TierError> {
        match &self.witness {
            Some(witness) if !witness.passed(step) => Err(TierError::Stopped),
            _ => Ok(()),
        }
    }

    fn status(&self) -> TierStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStatus {
            store: self.cold.store.url().to_string(),
            volume: self.volume.clone(),
            demoted_files: count(&self.demoted_files),
            demoted_bytes: count(&self.demoted_bytes),
            recalled_files: count(&self.recalled_files),
            recalled_bytes: count(&self.recalled_bytes),
            recalls_failed: count(&self.recalls_failed),
            recalling: self.flights().len(),
            waited: count(&self.waited),
            copied_files: count(&self.keeping.files),
            copied_bytes: count(&self.keeping.bytes),
            copies_failed: count(&self.keeping.failed),
            owed: self.keeping.debts.owed(),
        }
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, Flights> {
        let flights = self.flights.lock();
        flights.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs what waits for the file system on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TierError> + Send + 'static,
) -> Result<T, TierError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(TierError::Ending))
}
