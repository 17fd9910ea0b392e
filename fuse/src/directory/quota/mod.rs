//! What a volume may take, where its file system keeps no such limit: counted and refused here.
//!
//! Bytes are *lengths*: what `ls -l` shows, summed over regular files, each once however many names it
//! has. Files are all nodes below the root: directories, links and special files too. Lengths and not
//! blocks, so that nothing that happens later can take more than was granted: a shared mapping and a
//! write into a hole never make a file longer, and no file system's way of allocating is part of the
//! promise. The price is that a sparse file counts in full.
//!
//! ```text
//! write, truncate, fallocate, copy -> sizes.rs    take the growth, do it, settle what it was
//! create, mkdir, mknod, symlink ---> charges.rs   take one file, do it, keep it or give it back
//! last name gone -----------------> charges.rs   given back when the kernel has let the node go
//! every change -------------------> ledger.rs     the sum, in a mapped file that outlives the worker
//! now and then -------------------> scan.rs       counts the tree and puts the sum right
//! bytes that are in the spool -----> staged.rs    count there, and not twice
//! ```
//!
//! Invariant: a change is in the ledger before the operation it is for, and what is given back after
//! it. So a worker that dies in between leaves a sum that is too high, never one that lets anybody
//! beyond the limit; the next count puts it right. Bytes written on other nodes are seen by the next
//! count. What was deleted while open is counted as long as this worker keeps it open.
//!
//! Growing writes come here although the kernel passes data through: a handle that may write is opened
//! with `FOPEN_DIRECT_IO` beside `FOPEN_PASSTHROUGH`, which sends its read(2) and write(2) to the
//! daemon and leaves mappings, and every handle that only reads, in the kernel.
//!
//! Lock order: one of `lengths` (by node), then `sum`. Nothing is called below under `sum`.

mod charges;
mod ledger;
mod scan;
mod sizes;
mod staged;
mod totals;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use ledger::Ledger;

pub(super) use charges::{Charge, Kept};
pub use scan::{Counted, count_tree};
pub(super) use sizes::allocated;

/// Locks of lengths; two files that share one wait for each other, which costs time and no more.
const LENGTHS: usize = 64;

/// After a refusal the tree is counted again at once, unless that was done so lately: another node may
/// have removed what fills it.
const LATELY: Duration = Duration::from_secs(30);

/// What a volume may take. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaLimits {
    /// Sum of the lengths of its files.
    pub bytes: Option<u64>,
    /// Files, directories and all else below its root.
    pub files: Option<u64>,
}

/// What a volume takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaUse {
    /// Sum of the lengths of its files.
    pub bytes: u64,
    /// Files, directories and all else below its root.
    pub files: u64,
}

/// How a volume's limit begins.
#[derive(Clone, Copy, Debug)]
pub struct QuotaParts {
    /// What it may take.
    pub limits: QuotaLimits,
    /// What it took when somebody last counted; a count comes anyway.
    pub known: QuotaUse,
}

/// A volume's limit at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// What it may take.
    pub limits: QuotaLimits,
    /// What it takes.
    pub used: QuotaUse,
    /// Requests that were refused.
    pub refused: u64,
    /// Counts that were made.
    pub counts: u64,
    /// Bytes by which the last count was off, either way.
    pub drift_bytes: u64,
}

/// Signed sums: a count that began too low may fall below zero before the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    bytes: i64,
    files: i64,
}

impl Sum {
    fn of(used: QuotaUse) -> Self {
        Self {
            bytes: signed(used.bytes),
            files: signed(used.files),
        }
    }

    fn shown(self) -> QuotaUse {
        QuotaUse {
            bytes: self.bytes.max(0).unsigned_abs(),
            files: self.files.max(0).unsigned_abs(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What changed while the tree was being counted: growth and shrinkage apart.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    up: Sum,
    down: Sum,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    used: Sum,
    limits: QuotaLimits,
    /// While a count runs.
    moved: Option<Moved>,
    counted: Option<Instant>,
    counts: u64,
    drift: u64,
    /// Nodes without a name, which no count of names finds.
    kept: HashMap<u64, Arc<OwnedFd>>,
    next_kept: u64,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Quota {
    sum: Mutex<State>,
    lengths: Vec<Mutex<()>>,
    refused: AtomicU64,
    wanted: Notify,
}

impl Quota {
    /// Takes over what a dead worker had counted, or begins with what is known.
    ///
    /// Errors: those of making, sizing and mapping the ledger's file.
    pub(super) fn open(path: &Path, fresh: bool, parts: QuotaParts) -> io::Result<Arc<Self>> {
        let mut ledger = Ledger::open(path, fresh)?;
        let used = ledger.last().unwrap_or_else(|| Sum::of(parts.known));
        ledger.write(used);
        let wanted = Notify::new();
        wanted.notify_one(); // nobody knows what happened before
        Ok(Arc::new(Self {
            sum: Mutex::new(State {
                ledger,
                used,
                limits: parts.limits,
                moved: None,
                counted: None,
                counts: 0,
                drift: 0,
                kept: HashMap::new(),
                next_kept: 0,
            }),
            lengths: (0..LENGTHS).map(|_| Mutex::default()).collect(),
            refused: AtomicU64::new(0),
            wanted,
        }))
    }

    /// Changes what the volume may take. What it takes already stays.
    pub(super) fn set_limits(&self, limits: QuotaLimits) {
        self.state().limits = limits;
    }

    /// Waits until the tree should be counted soon.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn status(&self) -> QuotaStatus {
        let state = self.state();
        QuotaStatus {
            limits: state.limits,
            used: state.used.shown(),
            refused: self.refused.load(Ordering::Relaxed),
            counts: state.counts,
            drift_bytes: state.drift,
        }
    }

    /// Takes all of this, or nothing.
    ///
    /// Errors: `EDQUOT`.
    fn take(&self, bytes: u64, files: u64) -> Result<(), Errno> {
        if bytes == 0 && files == 0 {
            return Ok(());
        }
        let mut state = self.state();
        let (left, files_left) = state.left();
        if bytes > left || files > files_left {
            drop(state);
            return Err(self.refuse());
        }
        state.add(Sum {
            bytes: signed(bytes),
            files: signed(files),
        });
        Ok(())
    }

    /// Takes as much of this as there is; how much.
    fn take_some(&self, bytes: u64) -> u64 {
        let mut state = self.state();
        let granted = bytes.min(state.left().0);
        state.add(Sum {
            bytes: signed(granted),
            files: 0,
        });
        granted
    }

    /// Gives back, or takes what was not foreseen: the operation has happened.
    fn settle(&self, bytes: i64, files: i64) {
        if bytes != 0 || files != 0 {
            self.state().add(Sum { bytes, files });
        }
    }

    fn refuse(&self) -> Errno {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let lately = |at: Instant| at.elapsed() < LATELY;
        if !self.state().counted.is_some_and(lately) {
            self.wanted.notify_one();
        }
        Errno::EDQUOT
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one addition and one record, and neither panics.
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else changes the length of this node meanwhile.
    fn one_length(&self, node: u64) -> MutexGuard<'_, ()> {
        let lock = &self.lengths[node as usize % LENGTHS];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Bytes and files that may still be taken.
    fn left(&self) -> (u64, u64) {
        let used = self.used.shown();
        let left = |limit: Option<u64>, used: u64| {
            limit.map_or(u64::MAX, |limit| limit.saturating_sub(used))
        };
        (
            left(self.limits.bytes, used.bytes),
            left(self.limits.files, used.files),
        )
    }

    /// Notes a node without a name. A count that runs may have met the name.
    fn keep(&mut self, fd: &Arc<OwnedFd>, length: u64) -> u64 {
        self.next_kept += 1;
        self.kept.insert(self.next_kept, Arc::clone(fd));
        if let Some(moved) = &mut self.moved {
            moved.down = moved.down.plus(Sum {
                bytes: -signed(length),
                files: -1,
            });
        }
        self.next_kept
    }

    fn add(&mut self, more: Sum) {
        self.used = self.used.plus(more);
        if let Some(moved) = &mut self.moved {
            let up = Sum {
                bytes: more.bytes.max(0),
                files: more.files.max(0),
            };
            let down = Sum {
                bytes: more.bytes.min(0),
                files: more.files.min(0),
            };
            moved.up = moved.up.plus(up);
            moved.down = moved.down.plus(down);
        }
        self.ledger.write(self.used);
    }
}

/// What of a node counts as bytes.
fn length(stat: &FileStat) -> u64 {
    if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
        stat.st_size.max(0).unsigned_abs()
    } else {
        0
    }
}

fn length_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    Ok(length(&fstat(fd.as_fd())?))
}

#[cfg(test)]
mod tests;
