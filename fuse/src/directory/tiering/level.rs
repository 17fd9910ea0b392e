//! Level `cold` of durability: the file stays where it is, and has a checked copy in the store.
//!
//! ```text
//! turn of the file -> one of COPIES -> synced, at rest for a TICK -> copy (copy.rs) -> record synced
//! ```
//! When it is reached, an object with the file's contents was read back and found right, and the
//! record that names it is durable. An object that a call waited for is taken by no collection before
//! there is a newer one ([`super::collect`]).
//!
//! A call believes no time: it reads the file, and spares the upload if the object of its record has
//! the same sum. For those who only look at the record ([`Tiering::is_kept`]) its length and time of
//! modification have to tell later changes. So before a copy nobody is in the middle of a write(2),
//! which has set the time already; the file was synced between two looks that agree, so pages that
//! programs have mapped are clean, and writing to one sets the time; and it has rested for longer than
//! a tick of any file system's clock, so that this time is another one.
//!
//! A file that is written again and again is copied as it is after [`EXACT`] attempts: every byte that
//! was written before the call is in the copy, or was replaced since.
//!
//! A store that is silent is met with its own deadline, and by those who wait for their turn meanwhile
//! with the same one: they go on waiting only as long as bytes move.
//!
//! Lock order: a file's turn, one of [`COPIES`]; the maps for a look-up.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};
use tokio::sync::Semaphore;

use super::super::durability::Level;
use super::super::spool::Spool;
use super::super::sys::{self, FileId};
use super::super::{Call, DirectoryFs, HandleOf};
use super::copy::{How, stat};
use super::demote::{Kept, Target, same, sync, time};
use super::owed::Debts;
use super::record::{Record, State};
use super::{TierError, Tiering, blocking};

/// Copies that are made at a time: each holds some parts of an object in memory.
const COPIES: usize = 4;

/// Longer than a tick of the clock that times of modification are taken from.
const TICK: Duration = Duration::from_millis(20);

/// Attempts to copy a file exactly.
const EXACT: u32 = 3;

/// Attempts altogether.
const ATTEMPTS: u32 = 8;

/// Pause between two of them.
const AGAIN: Duration = Duration::from_millis(100);

/// How a file is opened to be copied.
pub(super) const COPIER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOATIME);

/// The file of a turn, and how many hold or want it.
type Turns = HashMap<u64, (Arc<tokio::sync::Mutex<()>>, usize)>;

/// What level `cold` keeps in memory. See the module text.
#[derive(Debug)]
pub(super) struct Keeping {
    turns: Mutex<Turns>,
    copies: Semaphore,
    pub(super) debts: Debts,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            copies: Semaphore::new(COPIES),
            debts: Debts::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

/// Nothing under these locks is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file whose turn somebody holds or wants.
struct Turn<'a> {
    keeping: &'a Keeping,
    node: u64,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.keeping.turns);
        if let Some((_, wanted)) = turns.get_mut(&self.node) {
            *wanted -= 1;
            if *wanted == 0 {
                turns.remove(&self.node);
            }
        }
    }
}

impl Keeping {
    fn turn(&self, node: u64) -> Turn<'_> {
        let mut turns = lock(&self.turns);
        let (turn, wanted) = turns.entry(node).or_default();
        *wanted += 1;
        Turn {
            keeping: self,
            node,
            lock: Arc::clone(turn),
        }
    }
}

impl Tiering {
    /// Syncs a file that is at rest, and as it was `before`; what it looks like then. Blocks.
    ///
    /// Errors: `Changed` when somebody writes.
    fn rest(&self, file: &File, before: Option<&FileStat>) -> Result<FileStat, TierError> {
        self.space.outlast_writes(file);
        let first = stat(file)?;
        sync(file)?;
        let then = stat(file)?;
        match same(&first, &then) && before.is_none_or(|before| same(before, &first)) {
            true => Ok(then),
            false => Err(TierError::Changed),
        }
    }
}

impl DirectoryFs {
    /// Whether a call on a file may have to wait for the cold store.
    pub(crate) fn promises_cold(&self) -> bool {
        self.durability.names_cold()
    }

    /// Keeps the promise of a call as far as this node and the directory go; whether it goes on to the
    /// cold store ([`DirectoryFs::reach_cold`]). Blocks.
    pub(crate) fn settle_here(&self, of: HandleOf, call: Call) -> Result<bool, Errno> {
        match call {
            Call::Close => self.flush(of)?,
            Call::Sync { data_only } => self.sync(of, data_only)?,
        }
        if !self.durability.names_cold() {
            return Ok(false);
        }
        self.owes_cold(of, call)
    }

    /// Whether what a call promises has to be in the cold store. Of what was deleted nothing has to.
    fn owes_cold(&self, of: HandleOf, call: Call) -> Result<bool, Errno> {
        let known = match self.staged(of.node) {
            Some((_, stage)) => Spool::promised(&stage, of.fh),
            None => self.opens.levels(of.fh).map(|levels| (levels, true)),
        };
        let (levels, writes) = match known {
            Some(known) => known,
            None if self.opens.file(of.fh).is_some() => return Ok(false),
            // Of a handle that a dead worker has opened only the path of now is known.
            None => (self.levels_of(self.file_of(of)?.as_fd()), true),
        };
        let level = match call {
            Call::Close if !writes => return Ok(false),
            Call::Close => levels.close,
            Call::Sync { .. } => levels.fsync,
        };
        if level < Level::Cold {
            return Ok(false);
        }
        match self.at(of.node).and_then(|at| fstat(at.fd())) {
            Ok(stat) => Ok(stat.st_nlink > 0),
            Err(Errno::ESTALE) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Brings a file to level `cold`. Cancelled by dropping: at worst an object is left that nobody names.
    ///
    /// Errors: `ETIMEDOUT` from a store that is silent, `EIO` from one that refuses, `EBUSY` for a
    /// file that shrinks all the time, those of the directory. A failure is kept in the status, and
    /// tried again.
    pub(crate) async fn reach_cold(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let tiering = Arc::clone(self.cold().map_err(|error| error.errno())?);
        let id = self.nodes.id(node)?;
        let Err(error) = self.keep_cold(node, &id).await else {
            return Ok(());
        };
        tiering.keeping.failed.fetch_add(1, Ordering::Relaxed);
        let name = self.name_of(&id).await;
        tracing::warn!(%error, name, "a file is not in the cold store");
        let owed = (node, FileId::clone(&id));
        tiering.keeping.debts.owe(owed, &name, &error);
        Err(error.errno())
    }

    /// Brings a file to level `cold`; how many bytes had to be sent.
    pub(super) async fn keep_cold(
        self: &Arc<Self>,
        node: u64,
        id: &FileId,
    ) -> Result<u64, TierError> {
        let tiering = Arc::clone(self.cold()?);
        let keeping = &tiering.keeping;
        let turn = keeping.turn(node);
        let _mine = tiering.patiently(turn.lock.lock()).await?;
        let _one_of_few = tiering.patiently(keeping.copies.acquire()).await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let how = if attempts <= EXACT {
                How::Exact
            } else {
                How::AsItIs
            };
            match self.try_cold(node, id, how).await {
                Err(TierError::Changed | TierError::Locked) if attempts < ATTEMPTS => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(TierError::Changed) => return Err(TierError::Restless),
                Err(error) => return Err(error),
                Ok(bytes) => {
                    keeping.debts.paid(node, id);
                    if bytes > 0 {
                        keeping.files.fetch_add(1, Ordering::Relaxed);
                        keeping.bytes.fetch_add(bytes, Ordering::Relaxed);
                    }
                    return Ok(bytes);
                }
            }
        }
    }

    async fn try_cold(
        self: &Arc<Self>,
        node: u64,
        id: &FileId,
        how: How,
    ) -> Result<u64, TierError> {
        let tiering = Arc::clone(self.cold()?);
        let (fs, of) = (Arc::clone(self), id.clone());
        let opened = blocking(move || fs.copy_target(node, &of, how));
        let (target, look) = opened.await?;
        if look.st_size == 0 || look.st_nlink == 0 {
            return Ok(0);
        }
        if how == How::Exact {
            tokio::time::sleep(TICK).await;
            let (tiering, file) = (Arc::clone(&tiering), Arc::clone(&target.file));
            blocking(move || tiering.rest(&file, Some(&look))).await?;
        }
        let copied = match tiering.copy(&target, how).await? {
            Ok(copied) => copied,
            Err(Kept::Empty) => return Ok(0),
            Err(Kept::Changed) => return Err(TierError::Changed),
            Err(Kept::Open | Kept::Pinned) => return Err(TierError::Locked),
        };
        let file = Arc::clone(&target.file);
        blocking(move || sync(&file)).await?; // its record
        Ok(if copied.sent { copied.record.size } else { 0 })
    }

    /// Opens a file to copy it, synced. Blocks.
    fn copy_target(
        &self,
        node: u64,
        id: &FileId,
        how: How,
    ) -> Result<(Target, FileStat), TierError> {
        let opened = sys::open_id(self.mount.as_fd(), id, COPIER);
        let file = File::from(opened.map_err(|errno| TierError::File("open it", errno))?);
        let look = match how {
            How::Exact => self.cold()?.rest(&file, None)?,
            How::AsItIs => {
                sync(&file)?;
                stat(&file)?
            }
        };
        let path = self.path_of(file.as_fd());
        let target = Target {
            file: Arc::new(file),
            number: node,
            path: path.map(String::into_bytes).unwrap_or_default(),
        };
        Ok((target, look))
    }

    /// Where a file is, for people.
    pub(super) async fn name_of(self: &Arc<Self>, id: &FileId) -> String {
        let (fs, id) = (Arc::clone(self), id.clone());
        let look = move || {
            let file = sys::open_id(fs.mount.as_fd(), &id, OFlag::O_PATH);
            Ok(file.ok().and_then(|file| fs.path_of(file.as_fd())))
        };
        blocking(look)
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| "?".to_owned())
    }

    /// Whether the cold store has the contents of a file of the directory.
    pub(in super::super) fn is_kept_cold(&self, file: BorrowedFd<'_>) -> bool {
        let Some(tiering) = &self.tiering else {
            return false;
        };
        fstat(file).is_ok_and(|stat| tiering.is_kept(file, &stat).unwrap_or(false))
    }
}

impl Tiering {
    /// Whether the store has what a file has now, as far as length and time of modification tell. What has
    /// no contents lacks none.
    pub(super) fn is_kept(&self, file: BorrowedFd<'_>, now: &FileStat) -> Result<bool, TierError> {
        let Some(record) = self.space.read(file)? else {
            return Ok(now.st_size == 0);
        };
        Ok(match (record.state, now.st_size) {
            (State::Recalling, _) | (_, 0) => true,
            _ => self.is_copy(&record, now),
        })
    }

    fn is_copy(&self, record: &Record, now: &FileStat) -> bool {
        record.store == self.cold.store.url().root()
            && record.size == now.st_size.unsigned_abs()
            && record.mtime == time(now)
    }

    /// Waits for a turn for as long as others move bytes.
    async fn patiently<T>(&self, turn: impl Future<Output = T>) -> Result<T, TierError> {
        let patience = self.cold.store.deadline();
        tokio::pin!(turn);
        loop {
            let before = self.cold.moved();
            match tokio::time::timeout(patience, turn.as_mut()).await {
                Ok(come) => return Ok(come),
                Err(_) if self.cold.moved() == before => return Err(TierError::Silent),
                Err(_) => {}
            }
        }
    }
}
