//! Building a tree: what is there already, the windows, and the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use terrace_cache::hot::{HotTier, Linked};
use terrace_cache::{DatasetKey, Digest};

use super::journal::{Journal, Line, State};
use super::plan::{Plan, Run, Windows};
use super::remove::{metadata, scrap, take_back};
use super::sys::{self, io_error};
use super::work::{Build, Counts, Waiting};
use super::{MaterializeError, MaterializeOptions, Objects, Progress, Report};
use crate::namespace::{Ino, Namespace as _};
use crate::snapshot::Snapshot;

/// Times an object may be gone again between its fill and its link.
const ROUNDS: u32 = 3;

/// What a call finds.
enum Begun {
    /// The tree is there.
    There,
    /// The directories of a new one are.
    New(Box<Build>),
}

/// Builds `snapshot` as a tree at `tree` (absent, or an empty directory), or finds that it is there
/// already. Fetches what is missing; `progress` is told now and then. What a crash or an error left
/// is removed by the next call, or by [`super::remove()`]. Dropping the future stops after the window
/// under way.
pub async fn materialize(
    snapshot: &Arc<Snapshot>,
    objects: &Objects,
    tree: &Path,
    options: &MaterializeOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Report, MaterializeError> {
    let (hot, dataset) = (objects.cache.hot().clone(), objects.dataset.clone());
    let (wanted, place) = (Arc::clone(snapshot), tree.to_owned());
    let build = match blocking(move || begin(wanted, hot, dataset, &place)).await? {
        Begun::There => {
            return Ok(Report {
                unchanged: true,
                ..Report::default()
            });
        }
        Begun::New(build) => Arc::<Build>::from(build),
    };
    let files = snapshot.files();
    let (mut filled, mut windows) = (0, Windows::new(snapshot));
    loop {
        let (hot, threads) = (build.hot.clone(), options.threads);
        let planned = blocking(move || Ok((windows.next(&hot, threads)?, windows))).await?;
        windows = planned.1;
        let Some(Plan { runs, cold }) = planned.0 else {
            break;
        };
        let tell = |filled| {
            let (linked, entries) = (build.counts.entries(), snapshot.entries());
            progress(Progress {
                filled,
                linked,
                files,
                entries,
            });
        };
        fill(snapshot, objects, cold, options, &|done| {
            tell(filled + done)
        })
        .await?;
        link(&build, objects, runs, options).await?;
        filled = build.counts.files();
        tell(filled);
    }
    let build = Arc::into_inner(build).ok_or(MaterializeError::Thread)?;
    blocking(move || end(build)).await
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MaterializeError> + Send + 'static,
) -> Result<T, MaterializeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| MaterializeError::Thread)?
}

fn begin(
    snapshot: Arc<Snapshot>,
    hot: HotTier,
    dataset: DatasetKey,
    tree: &Path,
) -> Result<Begun, MaterializeError> {
    let digest = snapshot.digest();
    let journal = Journal::open(tree, true)?;
    let journal = journal.ok_or_else(|| MaterializeError::NotATree(tree.to_owned()))?;
    if settle(&journal, &hot, &snapshot, &digest)? {
        return Ok(Begun::There);
    }
    if in_the_way(tree)? {
        journal.delete()?;
        return Err(MaterializeError::InTheWay(tree.to_owned()));
    }
    journal.keep_snapshot(snapshot.bytes())?;
    journal.write(&Line::new(State::Building, &digest, None))?;
    let home = journal.building();
    DirBuilder::new()
        .mode(0o700)
        .create(&home)
        .map_err(io_error("create directory", &home))?;
    let root = sys::directory(&home).map_err(io_error("open directory", &home))?;
    let linker = hot.linker();
    let (copies, counts) = (Mutex::default(), Counts::default());
    let build = Build {
        snapshot,
        digest,
        hot,
        dataset,
        journal,
        root,
        linker,
        copies,
        counts,
    };
    build.make_directories()?;
    Ok(Begun::New(Box::new(build)))
}

/// Finds out what earlier calls left, and clears away what is not complete. `true`: the tree is
/// there.
fn settle(
    journal: &Journal,
    hot: &HotTier,
    snapshot: &Snapshot,
    digest: &Digest,
) -> Result<bool, MaterializeError> {
    let Some(line) = journal.read()? else {
        return Ok(false);
    };
    let tree = metadata(&journal.tree)?.filter(|tree| line.names(tree));
    let inner = metadata(&journal.building())?.filter(|tree| line.names(tree));
    let same = line.snapshot == digest.hex();
    if line.state == State::Complete && tree.is_some() {
        if !same {
            return Err(MaterializeError::OtherSnapshot(journal.tree.clone()));
        }
        finish_root(journal, snapshot)?;
        return Ok(true);
    }
    if line.state == State::Complete && inner.is_some() && same && !in_the_way(&journal.tree)? {
        publish(journal, snapshot)?;
        return Ok(true);
    }
    if tree.is_some() {
        take_back(journal)?;
    }
    scrap(journal, hot, &line)?;
    Ok(false)
}

/// Whether something other than an empty directory is at the place of the tree.
fn in_the_way(tree: &Path) -> Result<bool, MaterializeError> {
    match metadata(tree)? {
        None => Ok(false),
        Some(found) if !found.is_dir() => Ok(true),
        Some(_) => {
            let mut entries = std::fs::read_dir(tree).map_err(io_error("read directory", tree))?;
            Ok(entries.next().is_some())
        }
    }
}

/// Brings objects into the hot tier, complete and synced. `told` gets how many are there.
async fn fill(
    snapshot: &Snapshot,
    objects: &Objects,
    cold: Vec<Ino>,
    options: &MaterializeOptions,
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), MaterializeError> {
    if cold.is_empty() {
        return Ok(());
    }
    let fetch = |ino| async move {
        let id = snapshot.object(ino)?;
        let path = || String::from_utf8_lossy(&snapshot.path(ino).unwrap_or_default()).into_owned();
        let object = objects.cache.object(&id, &objects.source, &objects.dataset);
        let filled = object.fill().await;
        filled.map_err(|source| MaterializeError::Fetch {
            path: path(),
            source,
        })
    };
    let mut fills = stream::iter(cold)
        .map(fetch)
        .buffer_unordered(options.fills.get());
    let mut done = 0;
    while let Some(()) = fills.try_next().await? {
        done += 1;
        if done % 1000 == 0 {
            told(done);
        }
    }
    let hot = objects.cache.hot().clone();
    blocking(move || Ok(hot.sync()?)).await
}

/// Makes the entries of a window, and fetches once more what was not ready.
async fn link(
    build: &Arc<Build>,
    objects: &Objects,
    mut runs: Vec<Run>,
    options: &MaterializeOptions,
) -> Result<(), MaterializeError> {
    for _ in 0..ROUNDS {
        let (builder, threads) = (Arc::clone(build), options.threads);
        let waiting: Waiting = blocking(move || builder.make(&runs, threads)).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let snapshot = &build.snapshot;
        for (ino, how) in &waiting {
            if *how == Linked::Unverified {
                let object = build.hot.object(&snapshot.object(*ino)?, &build.dataset)?;
                object.verify().await?;
            }
        }
        let cold = waiting.iter().map(|(ino, _)| *ino).collect();
        fill(snapshot, objects, cold, options, &|_| ()).await?;
        let one = |(ino, _): &(Ino, Linked)| Run::of(snapshot, *ino);
        runs = waiting.iter().map(one).collect::<Result<_, _>>()?;
    }
    let path = build
        .snapshot
        .path(Ino(runs.first().map_or(1, |run| run.entries.start)))?;
    Err(MaterializeError::Evicted(
        String::from_utf8_lossy(&path).into_owned(),
    ))
}

/// Makes everything durable, then the tree appears.
fn end(build: Build) -> Result<Report, MaterializeError> {
    build.finish_directories()?;
    let Build {
        snapshot,
        digest,
        journal,
        root,
        linker,
        copies,
        counts,
        ..
    } = build;
    linker.finish()?;
    journal.keep_copies(&copies.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    let home = journal.building();
    sys::sync_file_system(&root).map_err(io_error("sync file system", &home))?;
    let built = root.metadata().map_err(io_error("stat", &home))?;
    journal.write(&Line::new(State::Complete, &digest, Some(&built)))?;
    publish(&journal, &snapshot)?;
    Ok(counts.report())
}

/// Moves a complete tree to its place.
fn publish(journal: &Journal, snapshot: &Snapshot) -> Result<(), MaterializeError> {
    let (from, to): (PathBuf, &Path) = (journal.building(), &journal.tree);
    std::fs::rename(from, to).map_err(io_error("rename tree", to))?;
    finish_root(journal, snapshot)?;
    journal.sync_parent()
}

/// Only after the rename: moving a directory to another parent takes the right to write to it.
fn finish_root(journal: &Journal, snapshot: &Snapshot) -> Result<(), MaterializeError> {
    let attr = snapshot.attr(Ino::ROOT)?;
    let root = sys::directory(&journal.tree);
    let done = root.and_then(|root| sys::finish(&root, &attr));
    done.map_err(io_error("set attributes", &journal.tree))
}
