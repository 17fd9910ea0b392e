//! The worker as a process: start, watch, end, and how soon to start the next one.
//!
//! A worker is watched through its pidfd, which becomes readable once its last thread has ended.
//! That matters: a thread of a dying worker may still be taking a request from the device, and only
//! after it is gone may the next worker ask the kernel to queue the taken requests again.
//!
//! [`Restarts`] says when the next worker starts. Killed from outside (`SIGKILL`) or after it had
//! served: at once, as long as a token is left (burst of [`BURST`], [`REFILL_PER_SECOND`]
//! afterwards). A worker that ends by itself before it served, or soon after: exponential delays
//! from [`FIRST_DELAY`] to [`LAST_DELAY`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::link::Link;

/// Restarts that may follow each other without delay.
const BURST: f64 = 30.0;

/// Further restarts without delay per second.
const REFILL_PER_SECOND: f64 = 4.0;

/// Delay before the second start of a worker that does not come up.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// Longest delay between starts.
const LAST_DELAY: Duration = Duration::from_secs(5);

/// A worker that served for so long and then ended by itself was a good one.
const SETTLED: Duration = Duration::from_secs(10);

/// The command that starts a worker. Its standard input is the link.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// Program; the keeper's own by default, so that both are always of one version.
    pub program: PathBuf,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Called before each start, in the keeper; must not wait.
    pub before: Option<fn()>,
}

/// A process known by pid and pidfd.
#[derive(Debug)]
pub(super) struct Process {
    /// Process id.
    pub(super) pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Watches a process that may or may not be our child.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: the call takes two integers and returns a new descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor and nobody else knows its number.
        let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { pid, pidfd })
    }

    /// A process whose pidfd another keeper opened.
    pub(super) fn from_pidfd(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    /// Starts a worker; returns it and the keeper's end of its link. Errors of the worker go to
    /// `log`. It has the environment of the keeper, an empty signal mask, and `/` as its directory.
    pub(super) fn spawn(command: &WorkerCommand, log: File) -> io::Result<(Self, Link)> {
        let (ours, theirs) = Link::pair()?;
        if let Some(before) = command.before {
            before();
        }
        let child = Command::new(&command.program)
            .arg0("terrace")
            .args(&command.arguments)
            .stdin(Stdio::from(theirs.into_socket()))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .current_dir("/")
            .spawn()?;
        // The standard library neither kills nor waits when `child` is dropped.
        Ok((Self::open(child.id())?, ours))
    }

    /// Sends a signal; a process that has ended is no error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: the descriptor is a pidfd, and the call reads nothing through the null pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal as i32,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }

    /// Waits until the last thread has ended; `false` after `limit`.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut state = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut state, timeout) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }

    /// How an ended process ended; also frees its place in the process table if it was our child.
    pub(super) fn reap(&self) -> Ending {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX));
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => Ending::Killed,
            Ok(WaitStatus::Signaled(_, signal, _)) => Ending::Crashed(signal.as_str().to_owned()),
            Ok(WaitStatus::Exited(_, status)) => Ending::Crashed(format!("exit status {status}")),
            // Not our child (adopted): how it ended is not known, so it gets the benefit of doubt.
            _ => Ending::Killed,
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// From outside, or unknown.
    Killed,
    /// By itself.
    Crashed(String),
}

/// Decides when the next worker starts.
#[derive(Debug)]
pub(super) struct Restarts {
    tokens: f64,
    refilled: Instant,
    failures: u32,
}

impl Restarts {
    /// No worker has failed yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            refilled: now,
            failures: 0,
        }
    }

    /// Delay before the next start. `served` is how long the ended worker served every mount, if it
    /// ever did.
    pub(super) fn after(
        &mut self,
        ending: &Ending,
        served: Option<Duration>,
        now: Instant,
    ) -> Duration {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * REFILL_PER_SECOND).min(BURST);
        self.refilled = now;
        let good = match ending {
            Ending::Killed => served.is_some(),
            Ending::Crashed(_) => served.is_some_and(|time| time >= SETTLED),
        };
        self.failures = if good { 0 } else { self.failures + 1 };
        let first = self.failures <= 1 && self.tokens >= 1.0;
        if first {
            self.tokens -= 1.0;
            return Duration::ZERO;
        }
        let doubled = FIRST_DELAY * 2_u32.pow(self.failures.saturating_sub(2).min(10));
        doubled.min(LAST_DELAY)
    }

    /// Workers in a row that did not come up.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_worker_that_does_not_come_up_is_tried_ever_more_slowly() {
        // Without it a broken binary would keep a core busy with starting workers.
        let now = Instant::now();
        let mut restarts = Restarts::new(now);
        let crashed = Ending::Crashed("exit status 1".to_owned());
        let delays: Vec<_> = (0..9)
            .map(|_| restarts.after(&crashed, None, now))
            .collect();
        assert_eq!(delays[0], Duration::ZERO);
        assert_eq!(delays[1], FIRST_DELAY);
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(delays[8], LAST_DELAY);
        let served = Some(Duration::from_millis(1));
        assert_eq!(restarts.after(&Ending::Killed, served, now), Duration::ZERO);
        assert_eq!(restarts.failures(), 0);
    }

    #[test]
    fn a_worker_killed_again_and_again_is_restarted_at_once_within_its_budget() {
        // Without it either an out-of-memory loop spins, or a kill costs readers a needless pause.
        let start = Instant::now();
        let mut restarts = Restarts::new(start);
        let served = Some(Duration::from_millis(300));
        for kill in 0..200 {
            let now = start + Duration::from_millis(600) * kill;
            assert_eq!(restarts.after(&Ending::Killed, served, now), Duration::ZERO);
        }
        let now = start + Duration::from_secs(1000);
        let late = (0..40).filter(|_| !restarts.after(&Ending::Killed, served, now).is_zero());
        assert_eq!(late.count(), 10);
    }

    #[test]
    fn the_end_of_a_process_is_seen_and_told_apart() {
        // Without it a crash loop would look like kills from outside and go on for ever.
        let log = tempfile::tempfile().unwrap();
        let run = |script: &str| WorkerCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            before: None,
        };
        let (process, _link) = Process::spawn(&run("exit 3"), log.try_clone().unwrap()).unwrap();
        assert!(process.wait(Duration::from_secs(10)));
        assert_eq!(process.reap(), Ending::Crashed("exit status 3".into()));
        let (process, _link) = Process::spawn(&run("sleep 60"), log).unwrap();
        assert!(!process.wait(Duration::from_millis(10)));
        process.signal(Signal::SIGKILL).unwrap();
        assert!(process.wait(Duration::from_secs(10)));
        assert_eq!(process.reap(), Ending::Killed);
    }
}
