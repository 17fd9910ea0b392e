//! The spool: files on this node's SSD on their way into the directory.
//!
//! A file whose levels let the SSD be enough (`durability.rs`) and that has no bytes below when it is
//! opened for writing is *staged*: the kernel reads and writes a file here instead. Names, owners,
//! modes and attributes are the directory's all the time; only contents, size and times are here, until
//! a copy is in the directory, verified, and nobody has the file open. Other nodes see the version
//! before until then.
//!
//! ```text
//! <spool>/<key of the directory>/
//!     lock          one owner at a time
//!     journal       which files are staged, and how far each has come (journal.rs)
//!     data/<id>     contents, 0600; the only copy until `upload.rs` has verified another one
//!     lost+found/   bytes that could not go where they were meant to (aside.rs)
//! ```
//! Invariants. Bytes are deleted here only when they are in the directory, synced and read back, or
//! when the file has lost its last name. An fsync or close of level `local` returns after: the file
//! below and its name are synced (once for each file), the journal that leads from here to there is,
//! the directory `data` is, and the bytes are. A failed fsync here is never made good by a later one:
//! the bytes are set aside, and every further fsync of the file fails.
//!
//! Lock order: gate of a file, map of files, state of a file, journal. A gate is held while a file is
//! opened and while it ceases to be staged, so that no handle is opened on a file that is just going.

mod aside;
mod copy;
mod flush;
mod journal;
mod queue;
mod record;
mod report;
mod room;
mod safe;
mod stage;
mod start;
mod upload;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{Flock, OFlag};
use nix::sys::stat::FileStat;

use super::durability::Levels;
use super::sys::{self, FileId};
use record::{Begin, Owner, Step};
use stage::{Fate, stamp};

pub use flush::Flushed;
pub(super) use queue::pause;
use record::Stamp;
pub use report::{SpoolStatus, StagedFile};
pub(super) use stage::Stage;
pub use start::SpoolError;
pub(super) use start::{Running, SpoolParts};

/// Failures after which somebody should look.
const TRIED: u32 = 8;

/// Gates, a power of two: files that share one wait for each other's opens.
const GATES: usize = 64;

/// See the module text.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// The directory of contents.
    data: File,
    /// Any descriptor of the file system below.
    mount: OwnedFd,
    journal: journal::Journal,
    aside: aside::Aside,
    room: room::Room,
    gates: Vec<Mutex<()>>,
    stages: Mutex<HashMap<u64, Arc<Stage>>>,
    /// How many there are, to be asked without a lock.
    number: AtomicUsize,
    next: AtomicU64,
    queue: queue::Queue,
    counters: report::Counters,
    _lock: Flock<File>,
}

/// What is about to be staged.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    pub(super) node: u64,
    pub(super) file: &'a FileId,
    /// What it is below.
    pub(super) stat: &'a FileStat,
    pub(super) levels: Levels,
    pub(super) name: &'a str,
}

fn io_errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// No code under these locks leaves half a change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Where it lies.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn data_path(&self, id: u64) -> PathBuf {
        self.directory.join("data").join(format!("{id:016x}"))
    }

    /// Keeps a file as it is, staged or not, while it is opened or closed.
    pub(super) fn gate(&self, node: u64) -> MutexGuard<'_, ()> {
        lock(&self.gates[node as usize % GATES])
    }

    /// Whether nothing is staged, and so nothing has to be looked for.
    pub(super) fn is_empty(&self) -> bool {
        self.number.load(Ordering::Acquire) == 0
    }

    fn by_number(&self, node: u64) -> Option<Arc<Stage>> {
        if self.is_empty() {
            return None;
        }
        lock(&self.stages).get(&node).map(Arc::clone)
    }

    fn stages(&self) -> Vec<Arc<Stage>> {
        lock(&self.stages).values().map(Arc::clone).collect()
    }

    /// Every staged file that has a name and whose bytes are to go there: number and bytes.
    pub(super) fn named(&self) -> Vec<(u64, Arc<File>)> {
        let mut stages = self.stages();
        stages.retain(|stage| {
            let state = stage.lock();
            !state.unlinked && matches!(state.fate, Fate::Live)
        });
        let bytes = |stage: &Arc<Stage>| (stage.node, Arc::clone(&stage.file));
        stages.iter().map(bytes).collect()
    }

    /// Every staged file: number and file.
    pub(super) fn files(&self) -> Vec<(u64, FileId)> {
        let stages = self.stages();
        let file = |stage: &Arc<Stage>| (stage.node, stage.file_id.clone());
        stages.iter().map(file).collect()
    }

    /// The staged file that an open is to share. The caller holds the gate.
    pub(super) fn join(&self, node: u64, file: &FileId) -> Option<Arc<Stage>> {
        let stage = self.stage(node, file)?;
        let over = {
            let state = stage.lock();
            matches!(state.fate, Fate::Aside(_)) && state.handles.is_empty()
        };
        if over {
            self.forget(&stage);
            return None;
        }
        Some(stage)
    }

    /// The staged file that has this number and is this file.
    pub(super) fn stage(&self, node: u64, file: &FileId) -> Option<Arc<Stage>> {
        self.by_number(node).filter(|stage| stage.file_id == *file)
    }

    /// The same, by number alone: for requests on open handles.
    pub(super) fn staged(&self, node: u64) -> Option<Arc<Stage>> {
        self.by_number(node)
    }

    /// Whether one more file may be staged.
    pub(super) fn has_room(&self) -> bool {
        let some = self.room.has_some();
        if !some {
            report::count(&self.counters.refused, 1);
        }
        some
    }

    /// Stages a file. The caller holds its gate.
    ///
    /// Errors: those of the SSD; the file is not staged then.
    pub(super) fn begin(&self, fresh: &Fresh<'_>) -> io::Result<Arc<Stage>> {
        if let Some(stale) = self.by_number(fresh.node)
            && stale.lock().unlinked
        {
            // Its number was free as soon as the kernel had forgotten it.
            sys::sync_file_system(self.mount.as_fd())?;
            self.retire(&stale);
        } else if let Some(stale) = self.by_number(fresh.node) {
            // The number was another file's, which somebody has deleted elsewhere.
            let why = "the file was deleted by another node, and its number given to a new one";
            self.set_aside(&stale, Errno::ESTALE, why, None);
            self.forget(&stale);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.data_path(id);
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = Arc::new(options.open(&path)?);
        let begin = Begin {
            node: fresh.node,
            base: stamp(fresh.stat),
            levels: fresh.levels,
            since: Stage::clock(),
            file: fresh.file.clone(),
            name: fresh.name.to_owned(),
        };
        let stage = Arc::new(Stage {
            id,
            node: fresh.node,
            file_id: fresh.file.clone(),
            name: fresh.name.to_owned(),
            since: begin.since,
            file,
            state: Mutex::new(stage::State::new(begin.levels, begin.base)),
            settled: std::sync::Condvar::new(),
            plain: AtomicBool::new(false),
        });
        if let Err(error) = self.journal.append(id, Step::Begin(Box::new(begin))) {
            std::fs::remove_file(&path).ok();
            return Err(error);
        }
        self.insert(&stage);
        report::count(&self.counters.staged, 1);
        Ok(stage)
    }

    fn insert(&self, stage: &Arc<Stage>) {
        let mut stages = lock(&self.stages);
        stages.insert(stage.node, Arc::clone(stage));
        self.number.store(stages.len(), Ordering::Release);
    }

    /// A descriptor of the contents, for one handle. `flags`: O_SYNC and the like.
    pub(super) fn reopen(&self, stage: &Stage, flags: OFlag) -> Result<File, Errno> {
        if flags.is_empty() {
            return stage.file.try_clone().map_err(io_errno);
        }
        let mut options = File::options();
        options.read(true).write(true).custom_flags(flags.bits());
        options.open(self.data_path(stage.id)).map_err(io_errno)
    }

    /// A handle was opened. The caller holds the file's gate.
    pub(super) fn opened(&self, stage: &Stage, fh: u64, writes: bool, levels: Levels) {
        let mut state = stage.lock();
        state.handles.insert(fh, writes);
        if writes {
            state.levels = state.levels.stronger(levels);
            self.changed(stage, &mut state);
        }
    }

    /// The contents may be others from now on.
    fn changed(&self, stage: &Stage, state: &mut stage::State) {
        state.version += 1;
        if state.sealed.take().is_some() {
            // A seal of zeros is none. Without it only a doubt is lost (`upload.rs`).
            let none = Step::Sealed(Stamp::default(), 0);
            self.journal.append(stage.id, none).ok();
        }
    }

    /// A handle was closed: what nobody writes any more is on its way.
    pub(super) fn closed(&self, node: u64, fh: u64) {
        let Some(stage) = self.by_number(node) else {
            return;
        };
        {
            let mut state = stage.lock();
            let Some(wrote) = state.handles.remove(&fh) else {
                return;
            };
            state.untold.remove(&fh);
            if wrote {
                state.version += 1;
            }
            if state.is_written() {
                return;
            }
        }
        self.room.look_at(&stage);
        if !self.finish(&stage) {
            self.queue.add(node, Instant::now());
        }
    }

    /// Sets the length of a file.
    pub(super) fn set_length(&self, stage: &Stage, length: i64) -> Result<(), Errno> {
        nix::unistd::ftruncate(&*stage.file, length)?;
        self.touched(stage);
        Ok(())
    }

    /// Length or times of a file were set, perhaps by somebody who does not have it open.
    pub(super) fn touched(&self, stage: &Stage) {
        let written = {
            let mut state = stage.lock();
            self.changed(stage, &mut state);
            state.is_written()
        };
        if !written {
            self.queue.add(stage.node, Instant::now());
        }
    }

    /// Notes that the last name of a file is about to go.
    pub(super) fn removing(&self, node: u64, file: &FileId, stat: &FileStat) {
        let Some(stage) = self.stage(node, file) else {
            return;
        };
        let owner = Owner {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
        };
        stage.lock().removing = Some(owner);
        if let Err(error) = self.journal.append(stage.id, Step::Removing(owner)) {
            tracing::warn!(%error, "a deleted file may come back into lost+found");
        }
    }

    /// The last name of a file has gone, from a directory below: with the last handle its bytes go, once
    /// the directory will not have the name after a power cut either.
    pub(super) fn removed(
        &self,
        node: u64,
        file: &FileId,
        directory: impl FnOnce() -> Option<File>,
    ) {
        let Some(stage) = self.stage(node, file) else {
            return;
        };
        let directory = directory();
        {
            let mut state = stage.lock();
            state.unlinked = true;
            state.grave = directory;
        }
        if !self.finish(&stage) {
            self.queue.add(node, Instant::now());
        }
    }

    /// Takes a file out of the map, unless another one has its number by now.
    fn forget(&self, stage: &Arc<Stage>) {
        let mut stages = lock(&self.stages);
        if stages
            .get(&stage.node)
            .is_some_and(|known| known.id == stage.id)
        {
            stages.remove(&stage.node);
        }
        self.number.store(stages.len(), Ordering::Release);
    }

    /// No longer staged. The caller holds its gate.
    fn retire(&self, stage: &Arc<Stage>) {
        self.forget(stage);
        self.room.give_back(stage);
        if let Err(error) = self.journal.append(stage.id, Step::End) {
            tracing::warn!(%error, "the journal still has a file that is done with");
        }
        if let Err(error) = std::fs::remove_file(self.data_path(stage.id)) {
            tracing::warn!(%error, id = stage.id, "a file stays in the spool");
        }
    }

    /// Levels of a file and whether this handle on it may write; `None`: it is not one of its.
    pub(super) fn promised(stage: &Stage, fh: u64) -> Option<(Levels, bool)> {
        let state = stage.lock();
        Some((state.levels, *state.handles.get(&fh)?))
    }

    /// A file that was staged for an open that failed. The caller holds its gate.
    pub(super) fn give_up(&self, stage: &Arc<Stage>) {
        self.retire(stage);
    }
}

#[cfg(test)]
mod tests;
