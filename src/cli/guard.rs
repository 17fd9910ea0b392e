//! The first process of a container with a keeper: starts the keeper, and starts it again when it crashed.
//!
//! ```text
//! container runtime -> guard -> keeper -> worker
//! ```
//!
//! When the first process of a container ends, the runtime kills every other one in it. A keeper that crashes as
//! the first process takes its worker along, and with both every mount; below a guard the worker goes on as an
//! orphan, and the next keeper adopts it. The guard does nothing else: no memory that grows, no file, no
//! socket, no thread. SIGTERM and SIGINT go to the keeper, and its end in order is the guard's end.
//!
//! A keeper that cannot begin must not be started for ever: after [`RESTARTS`] within [`WITHIN`] the guard ends,
//! too, and says with which status the last one did.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::keeper::pause;

/// Option that makes a keeper's process a guard; the keeper is started without it.
pub(super) const OPTION: &str = "--guard";

/// Crashes that are survived within [`WITHIN`].
const RESTARTS: usize = 5;

/// See [`RESTARTS`].
const WITHIN: Duration = Duration::from_secs(60);

/// Pause before a keeper is started again: its sockets are closed by then.
const PAUSE_MS: u16 = 100;

/// What a keeper's end is for the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// In order: it has handed over, or removed its mounts.
    Good,
    /// With this status.
    Failed(i32),
}

/// Guards a keeper with these arguments until it ends in order.
///
/// Errors: it will not stay up, or cannot be started.
pub(super) fn guard(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.filter(|word| word != OPTION).collect();
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    signals.thread_block().context("block signals")?;
    // The orphan of a keeper becomes a child of the guard, and not of a process that knows nothing of it.
    nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
    let mut crashes: Vec<Instant> = Vec::new();
    loop {
        let status = match keep(&arguments, &signals)? {
            Ended::Good => return Ok(()),
            Ended::Failed(status) => status,
        };
        let now = Instant::now();
        crashes.retain(|crash| now.duration_since(*crash) < WITHIN);
        crashes.push(now);
        if crashes.len() > RESTARTS {
            bail!(
                "the keeper ended {} times within {WITHIN:?}, the last time with status {status}; see its log",
                crashes.len()
            );
        }
        tracing::error!(status, "the keeper crashed and is started again");
        pause(PAUSE_MS);
    }
}

/// Starts a keeper and waits for its end.
fn keep(arguments: &[OsString], signals: &SigSet) -> Result<Ended> {
    // The child begins with no signal blocked, as every process that the standard library starts.
    let child = Command::new("/proc/self/exe").args(arguments).spawn();
    let child = child.context("start the keeper")?;
    let keeper = Pid::from_raw(child.id().cast_signed());
    loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGCHLD => {
                if let Some(ended) = reap(keeper)? {
                    return Ok(ended);
                }
            }
            signal => {
                // It may have ended meanwhile, which the next SIGCHLD tells.
                let _ = kill(keeper, signal);
            }
        }
    }
}

/// Takes notice of every child that ended; of the keeper's end, if it is among them.
fn reap(keeper: Pid) -> Result<Option<Ended>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == keeper => {
                ended = Some(match status {
                    0 => Ended::Good,
                    status => Ended::Failed(status),
                });
            }
            // As a shell says it.
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == keeper => {
                ended = Some(Ended::Failed(128 + signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the keeper"),
        }
    }
}
