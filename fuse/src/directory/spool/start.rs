//! Opening a spool: one owner, what the worker or the machine left when it died, and the threads that
//! copy.
//!
//! What the journal names is staged again; its handles are those of the keeper's table, all taken for
//! writers. A file that the journal does not name was made by a worker that died before its open was
//! answered, and is deleted; after damage to the journal it may be somebody's bytes, and is set aside.
//! A named file that is absent was deleted in the last step of its way, unless it had not begun it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::stat::fstat;
use sha2::{Digest, Sha256};

use super::super::sys;
use super::aside::Aside;
use super::copy::{self, Source};
use super::journal::{Found, Journal, Known};
use super::room::Room;
use super::stage::{Stage, State};
use super::{GATES, Spool};

/// Files that are copied at a time.
const COPIERS: usize = 2;

/// How long an end waits for copies that are under way; a directory that hangs may hold them for ever.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What a spool is made of.
#[derive(Debug)]
pub(in super::super) struct SpoolParts<'a> {
    /// Of this node; each directory has a part of it.
    pub(in super::super) spool: &'a Path,
    /// The directory whose files are staged, canonical.
    pub(in super::super) root: &'a Path,
    /// Most bytes; `None`: half of what is free.
    pub(in super::super) limit: Option<u64>,
    /// Any descriptor of the file system below.
    pub(in super::super) mount: OwnedFd,
    /// Open handles that dead workers have left: number and handle.
    pub(in super::super) handles: Vec<(u64, u64)>,
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It has an owner.
    #[error("the spool {0} is in use by another mount of the same directory")]
    InUse(PathBuf),
    /// The SSD.
    #[error("use the spool {0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A spool with its threads: they end when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Running {
    spool: Arc<Spool>,
    ended: Mutex<Receiver<()>>,
}

impl Deref for Running {
    type Target = Spool;

    fn deref(&self) -> &Spool {
        &self.spool
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.spool.queue.stop();
        let ended = self
            .ended
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.recv_timeout(END_LIMIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a copy to the directory hangs; it ends with this process");
        }
    }
}

/// The part of a spool that a directory has.
fn part_of(spool: &Path, root: &Path) -> PathBuf {
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let key: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    spool.join(key)
}

fn private_directory(path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    File::open(path)
}

impl Running {
    /// Opens the spool of a directory and goes on where the last owner stopped.
    ///
    /// Errors: see [`SpoolError`].
    pub(in super::super) fn open(parts: SpoolParts<'_>) -> Result<Self, SpoolError> {
        let directory = part_of(parts.spool, parts.root);
        let failed = |error| SpoolError::Io(directory.clone(), error);
        let spool = Arc::new(open(&directory, parts)?);
        spool.go_on();
        let (alive, ended) = sync_channel(1);
        for number in 0..COPIERS {
            let (spool, alive) = (Arc::clone(&spool), alive.clone());
            let thread = std::thread::Builder::new().name(format!("spool-{number}"));
            let work = move || {
                if let Err(error) = super::super::identity::prepare_thread() {
                    tracing::debug!(%error, "the spool's thread goes beyond quotas");
                }
                spool.work(number == 0);
                drop(alive); // the last one to go ends the wait
            };
            thread.spawn(work).map_err(failed)?;
        }
        Ok(Self {
            spool,
            ended: Mutex::new(ended),
        })
    }
}

fn open(directory: &Path, parts: SpoolParts<'_>) -> Result<Spool, SpoolError> {
    let failed = |error| SpoolError::Io(directory.to_owned(), error);
    private_directory(directory).map_err(failed)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(directory.join("lock")).map_err(failed)?;
    let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Err(SpoolError::InUse(directory.to_owned())),
        Err((_, errno)) => return Err(failed(errno.into())),
    };
    // For people who find a directory with such a name.
    let name = [parts.root.as_os_str().as_encoded_bytes(), b"\n"].concat();
    fs::write(directory.join("directory"), name).map_err(failed)?;
    let data = private_directory(&directory.join("data")).map_err(failed)?;
    let aside = directory.join("lost+found");
    private_directory(&aside).map_err(failed)?;
    let (journal, found) = Journal::open(directory).map_err(failed)?;
    // The names of all this, before anything is promised of what is in it.
    for place in [Some(directory), directory.parent()].into_iter().flatten() {
        let synced = File::open(place).and_then(|file| file.sync_all());
        synced.map_err(failed)?;
    }
    let disk = data.try_clone().map_err(failed)?;
    let spool = Spool {
        directory: directory.to_owned(),
        data,
        mount: parts.mount,
        journal,
        aside: Aside::new(aside),
        room: Room::new(disk, parts.limit),
        gates: (0..GATES).map(|_| Mutex::default()).collect(),
        stages: Mutex::default(),
        number: AtomicUsize::new(0),
        next: AtomicU64::new(1),
        queue: super::queue::Queue::default(),
        counters: super::report::Counters::default(),
        _lock: lock,
    };
    spool.recover(&found, &parts.handles).map_err(failed)?;
    Ok(spool)
}

impl Spool {
    /// Takes what the journal names, and clears away what it does not.
    fn recover(&self, found: &Found, handles: &[(u64, u64)]) -> io::Result<()> {
        let mut open = HashMap::<u64, Vec<u64>>::new();
        for (node, fh) in handles {
            open.entry(*node).or_default().push(*fh);
        }
        let mut highest = found.known.keys().next_back().copied().unwrap_or(0);
        let (mut bytes, mut lost) = (0, 0);
        for (id, known) in &found.known {
            match self.restore(*id, known, open.get(&known.begin.node)) {
                Ok(stage) => {
                    self.room.look_at(&stage);
                    bytes += stage.lock().bytes;
                    self.resume(&stage);
                    self.insert(&stage);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let name = &known.begin.name;
                    if !known.copying && known.removing.is_none() && known.sealed.is_none() {
                        tracing::error!(name, id, "the spool does not have a file of its journal");
                        lost += 1;
                    }
                    self.journal.append(*id, super::record::Step::End)?;
                }
                Err(error) => return Err(error),
            }
        }
        for id in self.unknown(&found.known)? {
            highest = highest.max(id);
            let path = self.data_path(id);
            if found.damaged {
                let why = "the journal that named it is damaged";
                self.aside.keep(&path, id, "unknown", Stage::clock(), why)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        // Ids of what was set aside are in its names, and are not given again.
        let aside = fs::read_dir(self.aside.path())?.flatten();
        let ids = aside.filter_map(|entry| id_of(entry.file_name().to_str()?.split('-').next()?));
        highest = ids.fold(highest, u64::max);
        self.next
            .store(highest + 1, std::sync::atomic::Ordering::Relaxed);
        self.room.set_aside(self.aside.total().bytes);
        let files = self.stages().len();
        if files + lost > 0 || found.damaged {
            let damaged = found.damaged;
            tracing::info!(
                files,
                bytes,
                lost,
                damaged,
                "the spool goes on with what was staged"
            );
        }
        Ok(())
    }

    fn restore(&self, id: u64, known: &Known, open: Option<&Vec<u64>>) -> io::Result<Arc<Stage>> {
        let mut options = File::options();
        let file = options.read(true).write(true).open(self.data_path(id))?;
        let mut state = State::new(known.begin.levels, known.base);
        state.handles = open.into_iter().flatten().map(|fh| (*fh, true)).collect();
        state.copying = known.copying;
        state.sealed = known
            .sealed
            .filter(|(stamp, _)| *stamp != super::Stamp::default());
        state.removing = known.removing;
        state.unlinked = known.removing.is_some() && self.is_gone(known);
        // Of one that has no name something may have been promised by the worker that died.
        state.anchored = known.anchored || state.unlinked;
        Ok(Arc::new(Stage {
            id,
            node: known.begin.node,
            file_id: known.begin.file.clone(),
            name: known.begin.name.clone(),
            since: known.begin.since,
            file: Arc::new(file),
            state: Mutex::new(state),
            settled: Condvar::new(),
            plain: AtomicBool::new(false),
        }))
    }

    /// Recognises what a copy has left below that the last worker did not end, before the contents become
    /// others. A directory that does not answer is asked again by the next copy.
    fn resume(&self, stage: &Stage) {
        let (base, copying) = {
            let state = stage.lock();
            (state.base, state.copying)
        };
        if !copying {
            return;
        }
        let source = Source {
            file: stage.contents(),
            mount: self.mount.as_fd(),
            below: &stage.file_id,
            base,
            copying,
        };
        if let Ok(target) = copy::admit(&source) {
            self.own_up(stage, &target);
        }
    }

    /// Whether the removal that was about to be made has been made.
    fn is_gone(&self, known: &Known) -> bool {
        match sys::open_id(self.mount.as_fd(), &known.begin.file, OFlag::O_PATH) {
            Ok(file) => fstat(&file).is_ok_and(|stat| stat.st_nlink == 0),
            Err(errno) => errno == Errno::ESTALE,
        }
    }

    /// Files in `data` that the journal does not name.
    fn unknown(&self, known: &BTreeMap<u64, Known>) -> io::Result<Vec<u64>> {
        let known: HashSet<u64> = known.keys().copied().collect();
        let mut unknown = Vec::new();
        for entry in fs::read_dir(self.directory().join("data"))? {
            let id = entry?.file_name().to_str().and_then(id_of);
            unknown.extend(id.filter(|id| !known.contains(id)));
        }
        Ok(unknown)
    }

    /// Everything that nobody has open is on its way.
    fn go_on(&self) {
        for stage in self.stages() {
            if stage.lock().handles.is_empty() {
                self.queue.add(stage.node, Instant::now());
            }
        }
    }
}

/// The id in the name of a file here.
fn id_of(name: &str) -> Option<u64> {
    (name.len() == 16)
        .then(|| u64::from_str_radix(name, 16).ok())
        .flatten()
}
