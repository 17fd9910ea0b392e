//! The run directory of one hot directory: who keeps it, and where its sockets are.
//!
//! ```text
//! BASE/<first 16 hex digits of SHA-256 of the canonical hot path>/   mode 0700
//!   keeper.lock   flock(2), held by the one keeper; handed over with the mounts
//!   keeper.sock   SOCK_SEQPACKET, requests of clients (protocol.rs)
//!   node.sock     SOCK_STREAM, the worker's services; the listener belongs to the keeper
//!   adopt.sock    SOCK_SEQPACKET, an orphaned worker waits here for a new keeper
//!   worker.pid    pid and start time of the worker
//!   keeper.log, worker.log   and one older piece each (`.1`)
//! ```
//!
//! BASE is `/run/terrace` for root. Everything here is lost with the machine, and may be.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// A log file is cut when it has grown to this many bytes.
const LOG_LIMIT: u64 = 8 << 20;

/// So many bytes of a cut log file remain, as `.1`.
const LOG_TAIL: u64 = 1 << 20;

/// Between two attempts to take the lock of a keeper that is ending.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Paths of one run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The run directory below `base` for a hot directory, which is created if it is missing.
    pub fn for_hot(base: &Path, hot: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(hot)?;
        let canonical = hot.canonicalize()?;
        let digest = Sha256::digest(canonical.as_os_str().as_bytes());
        let name: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            path: base.join(name),
        })
    }

    /// Existing run directories below `base`, in the order of their names.
    pub fn existing(base: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        match std::fs::read_dir(base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    found.push(Self {
                        path: entry?.path(),
                    });
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Wraps a directory that is a run directory already.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes the directory, for this user only.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Socket of the keeper's clients.
    pub fn keeper_socket(&self) -> PathBuf {
        self.path.join("keeper.sock")
    }

    /// Socket of the worker's services.
    pub fn node_socket(&self) -> PathBuf {
        self.path.join("node.sock")
    }

    /// Socket of an orphaned worker.
    pub fn adopt_socket(&self) -> PathBuf {
        self.path.join("adopt.sock")
    }

    /// Takes the keeper's lock, waiting for a keeper that is just ending. It is held until the last
    /// copy of the descriptor closes, in whatever process.
    ///
    /// Errors: `WouldBlock` when another keeper still holds it after `patience`.
    pub fn lock(&self, patience: Duration) -> io::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join("keeper.lock"))?;
        // flock(2) has no deadline. Asking again is better than a thread that waits in it: such a
        // thread would outlive the refusal and take the lock from whoever comes next.
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }

    /// Opens `keeper` or `worker`'s log file for appending.
    pub fn log_file(&self, process: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log_path(process))
    }

    /// Path of a log file.
    pub fn log_path(&self, process: &str) -> PathBuf {
        self.path.join(format!("{process}.log"))
    }

    /// Cuts log files that have grown too long; their writers append, so they go on at the start.
    /// Called at intervals by the keeper.
    pub fn trim_logs(&self) {
        for process in ["keeper", "worker"] {
            if let Err(error) = trim(&self.log_path(process)) {
                tracing::warn!(%error, process, "log file cannot be cut");
            }
        }
    }

    /// Notes which process is the worker, for a keeper that finds it orphaned and hung.
    pub fn record_worker(&self, pid: u32) -> io::Result<()> {
        let started = start_time(pid)?;
        std::fs::write(self.path.join("worker.pid"), format!("{pid} {started}\n"))
    }

    /// The recorded worker, if that very process still runs.
    pub fn recorded_worker(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.path.join("worker.pid")).ok()?;
        let (pid, started) = text.trim_end().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (start_time(pid).ok()? == started).then_some(pid)
    }

    /// Removes the sockets and the worker's record. The caller holds the lock and ends.
    pub fn remove_sockets(&self) {
        for socket in [
            self.keeper_socket(),
            self.node_socket(),
            self.adopt_socket(),
            self.path.join("worker.pid"),
        ] {
            std::fs::remove_file(socket).ok();
        }
    }
}

/// When a process started, in ticks since boot: with the pid, it names a process for ever
/// (field 22 of `/proc/PID/stat`, proc_pid_stat(5)).
fn start_time(pid: u32) -> io::Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_whitespace().nth(19);
    field
        .map(str::to_owned)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn trim(path: &Path) -> io::Result<()> {
    let mut log = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let length = log.metadata()?.len();
    if length <= LOG_LIMIT {
        return Ok(());
    }
    log.seek(SeekFrom::Start(length - LOG_TAIL))?;
    let mut tail = Vec::new();
    (&log).take(LOG_TAIL).read_to_end(&mut tail)?;
    let older = path.with_extension("log.1");
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(older)?
        .write_all(&tail)?;
    log.set_len(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn one_hot_directory_has_one_keeper_however_it_is_named() {
        // Without it two keepers would start two workers on one hot tier.
        let base = tempfile::tempdir().unwrap();
        let hot = base.path().join("hot");
        let run = RunDir::for_hot(base.path(), &hot).unwrap();
        let same = RunDir::for_hot(base.path(), &hot.join("../hot")).unwrap();
        assert_eq!(run, same);
        run.create().unwrap();
        let lock = run.lock(Duration::ZERO).unwrap();
        let refused = same.lock(Duration::from_millis(30)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        // A process that another test is just starting may hold a copy until its exec.
        same.lock(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn log_files_stay_bounded_while_their_writer_holds_them_open() {
        // Without it a chatty worker would fill the memory file system of /run.
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::at(base.path().to_owned());
        let mut log = run.log_file("worker").unwrap();
        log.write_all(&vec![b'x'; usize::try_from(LOG_LIMIT).unwrap() + 1])
            .unwrap();
        run.trim_logs();
        log.write_all(b"next").unwrap();
        assert_eq!(std::fs::read(run.log_path("worker")).unwrap(), b"next");
        let older = std::fs::metadata(base.path().join("worker.log.1")).unwrap();
        assert_eq!(older.len(), LOG_TAIL);
    }
}
