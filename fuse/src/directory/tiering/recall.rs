//! Contents back from the store, once for all who wait.
//!
//! ```text
//! gate closed, locked between nodes -> record recalling, synced -> ranges in order -> sum right?
//! -> sync -> times -> record copy -> explanation gone
//! ```
//! A recall that fails makes the file the stub it was; one that dies leaves `recalling`, and the next
//! one begins anew. Whoever asked first does not own it: it goes on when he has gone.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{DirectoryFs, sys};
use super::demote::{Target, date, sync, time, truncate};
use super::gates::{Closed, Shown};
use super::record::{Record, State};
use super::{Step, TierError, Tiering, attribute, blocking, lock};

/// How long another node may take to bring the same contents back, or to look at them.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// How often its lock is tried.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// What a look at a file under its gate has found.
enum Found {
    /// Contents are here.
    Here,
    /// They are in the store; the record as it is shown.
    Away(Record),
}

impl DirectoryFs {
    /// Brings the contents of a node back, if they are away; returns when they are here. All who
    /// call for the same node wait for the same recall. Dropped, the recall goes on.
    ///
    /// Errors: what the application is told; the log has the reason in one line.
    pub(crate) async fn recall(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let tiering = Arc::clone(self.cold().map_err(|error| error.errno())?);
        tiering.waited.fetch_add(1, Ordering::Relaxed);
        let mut flight = {
            let mut flights = tiering.flights();
            match flights.get(&node) {
                Some(flight) => flight.clone(),
                None => {
                    let (landed, flight) = watch::channel(None);
                    flights.insert(node, flight.clone());
                    let fs = Arc::clone(self);
                    let task = async move {
                        let done = fs.recall_now(node).await;
                        // Only now may another one begin, and all who come later look anew.
                        if let Ok(tiering) = fs.cold() {
                            tiering.flights().remove(&node);
                        }
                        landed.send_replace(Some(done));
                    };
                    tiering.tasks.spawn_on(task, &tiering.runtime);
                    flight
                }
            }
        };
        match flight.wait_for(Option::is_some).await {
            Ok(landed) => landed.unwrap_or(Err(Errno::EIO)),
            Err(_) => Err(Errno::EIO), // the runtime ends
        }
    }

    async fn recall_now(self: &Arc<Self>, node: u64) -> Result<(), Errno> {
        let recalled = match self.target(node).await {
            Ok(target) => self.recall_file(&target).await,
            Err(error) => Err(error),
        };
        recalled.map(drop).map_err(|error| {
            tracing::warn!(number = node, %error, "contents cannot be brought back");
            error.errno()
        })
    }

    /// Brings the contents of a file back; how many bytes came.
    pub(super) async fn recall_file(self: &Arc<Self>, target: &Target) -> Result<u64, TierError> {
        let tiering = Arc::clone(self.cold()?);
        let _one_of_few = tiering.recalls.acquire().await;
        let closed = tiering.gates.close(target.number).await;
        tiering.locked(&target.file).await?;
        let recalled = tiering.bring_back(target, &closed).await;
        lock::give_back(&target.file);
        match &recalled {
            Ok(0) => {}
            Ok(bytes) => {
                tiering.recalled_files.fetch_add(1, Ordering::Relaxed);
                tiering.recalled_bytes.fetch_add(*bytes, Ordering::Relaxed);
            }
            Err(_) => {
                tiering.recalls_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        recalled
    }
}

impl Tiering {
    /// Waits until no other node has the file.
    async fn locked(&self, file: &Arc<File>) -> Result<(), TierError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            let file = Arc::clone(file);
            let taken = blocking(move || {
                lock::take(&file).map_err(|errno| TierError::File("lock it", errno))
            });
            if taken.await? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(TierError::Locked);
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
    }

    async fn bring_back(
        self: &Arc<Self>,
        target: &Target,
        closed: &Closed<'_>,
    ) -> Result<u64, TierError> {
        let (tiering, file) = (Arc::clone(self), Arc::clone(&target.file));
        let record = match blocking(move || tiering.look(&file)).await? {
            Found::Here => return Ok(0),
            Found::Away(record) => record,
        };
        if record.store != self.cold.store.url().root() {
            return Err(TierError::Foreign(record.store));
        }
        closed.show(Shown {
            size: record.size,
            mtime: record.mtime,
        });
        match self.fill(&record, &target.file).await {
            Ok(()) => Ok(record.size),
            Err(TierError::Stopped) => Err(TierError::Stopped),
            Err(error) => {
                let (tiering, file) = (Arc::clone(self), Arc::clone(&target.file));
                let reset = blocking(move || tiering.reset(&file, &record));
                if let Err(error) = reset.await {
                    tracing::warn!(%error, "a stub keeps a part of its contents; they are not shown");
                }
                Err(error)
            }
        }
    }

    /// What a file is, now that nobody else moves it. Blocks.
    fn look(&self, file: &File) -> Result<Found, TierError> {
        let Some(record) = self.space.read(file.as_fd())? else {
            return Ok(Found::Here);
        };
        let stat = fstat(file).map_err(|errno| TierError::File("look at it", errno))?;
        match (record.state, stat.st_size) {
            (State::Copy, _) => Ok(Found::Here),
            (State::Demoting | State::Recalling, 0) | (State::Recalling, _) => {
                Ok(Found::Away(record))
            }
            (State::Stub, 0) => Ok(Found::Away(Record {
                mtime: time(&stat), // as somebody may have set it since
                ..record
            })),
            (State::Demoting | State::Stub, _) => {
                self.space.clear(file)?;
                Ok(Found::Here)
            }
        }
    }

    async fn fill(self: &Arc<Self>, record: &Record, file: &Arc<File>) -> Result<(), TierError> {
        let (tiering, to, recalling) = (
            Arc::clone(self),
            Arc::clone(file),
            record.with(State::Recalling),
        );
        blocking(move || {
            tiering.space.write(&to, &recalling)?;
            sync(&to)?;
            tiering.step(Step::Recalling)?;
            truncate(&to) // of an earlier attempt
        })
        .await?;
        self.cold.fetch(self, record, file).await?;
        let (tiering, to, copy) = (Arc::clone(self), Arc::clone(file), record.with(State::Copy));
        blocking(move || {
            tiering.step(Step::Filled)?;
            sync(&to)?;
            // Wanted, so used: what is chosen by age must not send it away at once.
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: libc::UTIME_NOW,
            };
            date(&to, copy.mtime, now)?;
            tiering.step(Step::Returned)?;
            tiering.space.write(&to, &copy)?;
            sys::remove_xattr(to.as_fd(), attribute::WHY).ok();
            tiering.step(Step::Recalled)
        })
        .await
    }

    /// Makes the stub again that a file was before a recall. Blocks.
    pub(super) fn reset(&self, file: &File, record: &Record) -> Result<(), TierError> {
        truncate(file)?;
        self.finish(file, record)
    }
}
