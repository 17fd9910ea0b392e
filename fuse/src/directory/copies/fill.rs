//! Making copies: one file after the other, one block at a time, in the background.
//!
//! ```text
//! open for reading -> want(node, stamp) --queue--> QUIET after it was first seen:
//!                                                  stamp unchanged?      no: give up (several blocks)
//!                                                  blocks, all but the last -> hot tier
//!                                                  stamp unchanged?      no: evict
//!                                                  the last block: complete
//! ```
//!
//! Invariant: a copy is complete only when the file had one stamp from [`QUIET`] before its first byte
//! was read until after its last. So no write fell into the tick of the server's clock that the stamp
//! is of, and the bytes are those of the stamp.
//!
//! One file and one block at a time is the budget: copying takes what a single reader takes from the
//! shared file system, and of small files a tenth of that while others use the volume ([`PAUSE`]). A queue that is full drops what comes; the next open asks again.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::OFlag;
use terrace_cache::hot::{BLOCK, Backing, HotObject, HotTier, Residency, WriteHint};
use terrace_cache::identity::{DatasetKey, Digest};
use terrace_cache::policy::Admission;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::{CopyStatus, Stamp};
use crate::directory::DirectoryFs;
use crate::directory::data::read_all;

/// How long a version must have stood still before it is copied: longer than a tick of any server's
/// clock, and longer than most programs take to write a file bit by bit.
const QUIET: Duration = Duration::from_secs(2);

/// Files that wait to be copied, about 100 bytes each.
const QUEUE: usize = 16 << 10;

/// A file of more than this part of the hot tier is not copied: it would push all others out.
const SHARE: u64 = 4;

/// While the volume is used a pause of so many times what a copy took follows it: of small files each takes
/// as many round trips as those who work with them do.
const PAUSE: u32 = 9;

/// A pause at most: large files take what a single reader takes.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A file to be copied.
#[derive(Clone, Copy, Debug)]
struct Wish {
    node: u64,
    stamp: Stamp,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Counters {
    filled: AtomicU64,
    filled_bytes: AtomicU64,
    refused: AtomicU64,
}

/// What the task and its owner share.
#[derive(Debug)]
struct Shared {
    hot: HotTier,
    /// Whose budgets copies use.
    dataset: DatasetKey,
    /// The part of their names that says which directory; the same for every tenant.
    store: Arc<str>,
    /// Bytes of the largest file that is copied.
    largest: u64,
    /// What is queued or being copied.
    wanted: Mutex<HashSet<Digest>>,
    counters: Counters,
}

/// See the module text. Its task ends when it is dropped.
#[derive(Debug)]
pub(super) struct Filler {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Wish>,
    task: JoinHandle<()>,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Filler {
    pub(super) fn start(
        fs: Weak<DirectoryFs>,
        hot: HotTier,
        dataset: DatasetKey,
        runtime: &Runtime,
    ) -> Self {
        let shared = Arc::new(Shared {
            largest: hot.usage().limit_bytes / SHARE,
            hot,
            store: dataset.name().into(),
            dataset,
            wanted: Mutex::default(),
            counters: Counters::default(),
        });
        let (queue, wishes) = mpsc::channel(QUEUE);
        let task = runtime.spawn(run(Arc::clone(&shared), fs, wishes));
        Self {
            shared,
            queue,
            task,
        }
    }

    /// The copy of this version, when there is a whole one. Counts a use of it.
    pub(super) fn copy(&self, stamp: Stamp) -> Option<Arc<Backing>> {
        let shared = &self.shared;
        let id = stamp.object(&shared.store);
        let digest = id.digest();
        if shared.hot.peek(&digest) != Some(Residency::Complete) {
            return None;
        }
        shared.hot.opened(&digest, stamp.size(), &shared.dataset);
        let object = shared.hot.object(&id, &shared.dataset).ok()?;
        object.backing().ok()?.map(Arc::new)
    }

    /// Asks for a copy of this version. Does nothing when one is on its way, or for an empty file.
    pub(super) fn want(&self, node: u64, stamp: Stamp) {
        if stamp.size() == 0 || stamp.size() > self.shared.largest {
            return;
        }
        let digest = stamp.object(&self.shared.store).digest();
        if !self.shared.wanted().insert(digest) {
            return;
        }
        let seen = Instant::now();
        if self.queue.try_send(Wish { node, stamp, seen }).is_err() {
            self.shared.wanted().remove(&digest);
        }
    }

    pub(super) fn status(&self) -> CopyStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        CopyStatus {
            on: true,
            opens: 0,
            filled: count(&counters.filled),
            filled_bytes: count(&counters.filled_bytes),
            refused: count(&counters.refused),
        }
    }
}

impl Shared {
    fn wanted(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        // The set is whole after each of its calls.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(shared: Arc<Shared>, fs: Weak<DirectoryFs>, mut wishes: mpsc::Receiver<Wish>) {
    let requests = || fs.upgrade().map_or(0, |fs| fs.requests());
    let mut answered = requests();
    while let Some(wish) = wishes.recv().await {
        tokio::time::sleep_until(wish.seen + QUIET).await;
        let digest = wish.stamp.object(&shared.store).digest();
        let began = Instant::now();
        let done = fill(&shared, &fs, wish).await;
        shared.wanted().remove(&digest);
        let counters = &shared.counters;
        match done {
            Ok(()) => {
                counters.filled.fetch_add(1, Ordering::Relaxed);
                counters
                    .filled_bytes
                    .fetch_add(wish.stamp.size(), Ordering::Relaxed);
            }
            Err(why) => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(ino = wish.node, why, "not copied");
            }
        }
        let now = requests();
        if std::mem::replace(&mut answered, now) != now {
            tokio::time::sleep(PAUSE_MAX.min(began.elapsed() * PAUSE)).await;
        }
    }
}

/// Copies one file; why not otherwise.
async fn fill(shared: &Arc<Shared>, fs: &Weak<DirectoryFs>, wish: Wish) -> Result<(), String> {
    let fs = fs.upgrade().ok_or("the volume is gone")?;
    let Wish { node, stamp, .. } = wish;
    let file = waiting(move || {
        let file = fs.reopen(node, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        Ok(Arc::new(File::from(file)))
    })
    .await?;
    if stamp.size() > BLOCK {
        unchanged(&file, stamp).await?; // of a shorter one it is asked soon enough, after its only block
    }
    let id = stamp.object(&shared.store);
    let digest = id.digest();
    if shared.hot.opened(&digest, stamp.size(), &shared.dataset) == Admission::Bypass {
        return Err("there is no room for it".to_owned());
    }
    let opening = Arc::clone(shared);
    let object = waiting(move || {
        let object = opening.hot.object(&id, &opening.dataset);
        object.map_err(std::io::Error::other)
    })
    .await?;
    if object.verify().await.map_err(text)? {
        return Ok(());
    }
    let filled = fill_blocks(&object, &file, stamp).await;
    if filled.is_err() {
        let shared = Arc::clone(shared);
        drop(object);
        // A part of a version that may be gone.
        waiting(move || shared.hot.evict(&digest).map_err(std::io::Error::other))
            .await
            .ok();
    }
    filled
}

async fn fill_blocks(
    object: &Arc<HotObject>,
    file: &Arc<File>,
    stamp: Stamp,
) -> Result<(), String> {
    object.prepare().await.map_err(text)?;
    let count = u32::try_from(stamp.size().div_ceil(BLOCK)).map_err(text)?;
    let missing: Vec<u32> = object.missing(0..count).into_iter().flatten().collect();
    let (last, others) = missing.split_last().ok_or("nothing is missing")?;
    for block in others {
        let bytes = read_block(file, *block, stamp).await?;
        write(object, *block, bytes).await?;
    }
    let bytes = read_block(file, *last, stamp).await?;
    unchanged(file, stamp).await?;
    write(object, *last, bytes).await
}

async fn write(object: &Arc<HotObject>, block: u32, bytes: Bytes) -> Result<(), String> {
    let written = object.write_with(block, bytes, WriteHint::Uncached).await;
    written.map_err(text)
}

async fn unchanged(file: &Arc<File>, stamp: Stamp) -> Result<(), String> {
    let file = Arc::clone(file);
    let now = waiting(move || Ok(Stamp::now(file.as_fd())?)).await?;
    if now == stamp {
        Ok(())
    } else {
        Err("it changes".to_owned())
    }
}

async fn read_block(file: &Arc<File>, block: u32, stamp: Stamp) -> Result<Bytes, String> {
    let file = Arc::clone(file);
    let start = u64::from(block) * BLOCK;
    let length = BLOCK.min(stamp.size().saturating_sub(start)) as u32;
    waiting(move || {
        let bytes = read_all(&file, start, length)?;
        match bytes.len() == length as usize {
            true => Ok(bytes.into()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    })
    .await
}

/// Runs what may wait for a server where waiting holds up nobody.
async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.map_err(text)?.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
