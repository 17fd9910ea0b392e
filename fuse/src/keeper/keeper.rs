//! The keeper proper: its table and its loop.
//!
//! One thread owns everything; every event is handled to its end before the next one. Nothing it
//! calls waits for a file system, a store, or a peer for longer than [`SEND_LIMIT`] (the exceptions,
//! starting and giving away everything, have limits of their own in [`super::takeover`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::clients::Client;
use super::link::LinkListener;
use super::mounts::{Mount, Phase};
use super::process::{Restarts, WorkerCommand};
use super::protocol::{Reply, ToWorker};
use super::rundir::RunDir;
use super::supervise::Worker;

/// How long a peer that does not read may hold the keeper up.
pub(super) const SEND_LIMIT: Duration = Duration::from_secs(5);

/// Longest sleep of the loop: connections that ended without a worker to tell are found so.
const TICK: Duration = Duration::from_secs(1);

/// Interval between looks at the size of log files.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// A keeper that nobody gives a mount ends after this time, unless it stays.
const IDLE: Duration = Duration::from_secs(30);

/// Time for a worker to end in order, as long as it shows life.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What a keeper is told at its start.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// Its run directory.
    pub run: RunDir,
    /// How to start a worker.
    pub worker: WorkerCommand,
    /// Configuration passed to the worker; `None`: as the keeper had it that is taken over, and
    /// `abort_after` and `stay` too.
    pub node: Option<serde_json::Value>,
    /// A mount that no worker serves for so long is aborted.
    pub abort_after: Duration,
    /// A worker that does not answer for so long is killed.
    pub hang_after: Duration,
    /// Go on when the last mount is gone.
    pub stay: bool,
    /// Take a running keeper's place instead of failing.
    pub take_over: bool,
    /// Version of this program, for status.
    pub version: String,
}

/// Why a keeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last mount was removed, or a signal asked for it.
    Done,
    /// Another keeper has everything.
    HandedOver,
    /// A second signal: the worker goes on as an orphan.
    Abandoned,
}

/// Why a keeper cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper holds the run directory.
    #[error("another keeper runs")]
    Running,
    /// The other keeper did not give its mounts away, or an orphan its own.
    #[error("take over: {0}")]
    TakeOver(String),
    /// There is no configuration for a worker: nothing was taken over.
    #[error("nothing to take over and no configuration given")]
    NoConfiguration,
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// Listeners that outlive keepers and workers.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Clients of the keeper.
    pub(super) keeper: LinkListener,
    /// Clients of the worker.
    pub(super) node: OwnedFd,
    /// Keepers that adopt.
    pub(super) adopt: OwnedFd,
}

/// The keeper's memory.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) config: KeeperConfig,
    pub(super) node: serde_json::Value,
    pub(super) lock: File,
    pub(super) listeners: Listeners,
    /// By id.
    pub(super) mounts: BTreeMap<String, Mount>,
    pub(super) worker: Option<Worker>,
    /// When to start the next worker, while there is none.
    pub(super) start_at: Option<Instant>,
    pub(super) restarts: Restarts,
    /// Workers started after the first.
    pub(super) restarted: u64,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) next_client: u64,
    pub(super) next_ping: u64,
    /// A mount was asked for or taken over: the keeper ends with its last one.
    pub(super) had_mount: bool,
    pub(super) begun: Instant,
    /// A signal asked for the end.
    told_to_end: bool,
    /// The keeper is ending since then.
    pub(super) ending: Option<Instant>,
    /// Answers given when the worker has ended.
    pub(super) farewells: Vec<(u64, Reply)>,
    /// Set once, to leave the loop.
    pub(super) end: Option<End>,
    logs_seen: Instant,
}

/// One thing that poll(2) told.
enum Event {
    Signal,
    Connection,
    /// With the pid, for an event of a worker that has been replaced meanwhile means nothing.
    WorkerMessage(u32),
    WorkerEnded(u32),
    Client(u64),
}

/// Runs a keeper until its end. Blocks SIGTERM and SIGINT for the calling thread, which must be the
/// only one of the process.
pub fn run(config: KeeperConfig) -> Result<End, KeeperError> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    let signals = mask
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|error| KeeperError::Io("signalfd", error.into()))?;
    let mut keeper = Keeper::begin(config)?;
    loop {
        let events = keeper
            .wait(&signals)
            .map_err(|error| KeeperError::Io("poll", error))?;
        for event in events {
            match event {
                Event::Signal => keeper.signalled(&signals),
                Event::Connection => keeper.accept(),
                Event::WorkerMessage(pid) if keeper.worker_is(pid) => keeper.worker_message(),
                Event::WorkerEnded(pid) if keeper.worker_is(pid) => keeper.worker_ended(),
                Event::WorkerMessage(_) | Event::WorkerEnded(_) => {}
                Event::Client(id) => keeper.client_message(id),
            }
            if let Some(end) = keeper.end {
                return Ok(end);
            }
        }
        keeper.tick(Instant::now());
        if let Some(end) = keeper.end {
            return Ok(end);
        }
    }
}

impl Keeper {
    /// A keeper without mounts and without a worker.
    pub(super) fn new(
        config: KeeperConfig,
        node: serde_json::Value,
        lock: File,
        listeners: Listeners,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            node,
            lock,
            listeners,
            mounts: BTreeMap::new(),
            worker: None,
            start_at: None,
            restarts: Restarts::new(now),
            restarted: 0,
            clients: BTreeMap::new(),
            next_client: 1,
            next_ping: 1,
            had_mount: false,
            begun: now,
            told_to_end: false,
            ending: None,
            farewells: Vec::new(),
            end: None,
            logs_seen: now,
        }
    }

    fn worker_is(&self, pid: u32) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|worker| worker.process.pid == pid)
    }

    fn wait(&self, signals: &SignalFd) -> io::Result<Vec<Event>> {
        let mut kinds = vec![Event::Signal];
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // The link comes before the pidfd: a worker's last words are heard before its end.
        if let Some(worker) = &self.worker {
            kinds.push(Event::WorkerMessage(worker.process.pid));
            polled.push(PollFd::new(worker.link.as_fd(), PollFlags::POLLIN));
            kinds.push(Event::WorkerEnded(worker.process.pid));
            polled.push(PollFd::new(worker.process.as_fd(), PollFlags::POLLIN));
        }
        for (id, client) in &self.clients {
            kinds.push(Event::Client(*id));
            polled.push(PollFd::new(client.link.as_fd(), PollFlags::POLLIN));
        }
        if self.takes_clients() {
            kinds.push(Event::Connection);
            polled.push(PollFd::new(
                self.listeners.keeper.as_fd(),
                PollFlags::POLLIN,
            ));
        }
        let timeout =
            PollTimeout::try_from(self.timeout(Instant::now())).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = polled.iter().map(|entry| entry.any().unwrap_or(true));
        Ok(kinds
            .into_iter()
            .zip(ready)
            .filter(|(_, ready)| *ready)
            .map(|(kind, _)| kind)
            .collect())
    }

    /// Time until something is due, in whole milliseconds and never too early.
    fn timeout(&self, now: Instant) -> Duration {
        let mut due = now + TICK;
        due = due.min(self.start_at.unwrap_or(due));
        for mount in self.mounts.values() {
            due = due
                .min(mount.abort_at.unwrap_or(due))
                .min(mount.retry_at.unwrap_or(due));
        }
        let left = due.saturating_duration_since(now);
        if left.is_zero() {
            left
        } else {
            left + Duration::from_millis(1)
        }
    }

    /// Everything that time brings.
    fn tick(&mut self, now: Instant) {
        self.start_when_due(now);
        self.watch_worker(now);
        self.drop_ended();
        self.abort_overdue(now);
        self.retry_failed(now);
        self.drop_idle_clients(now);
        if now.saturating_duration_since(self.logs_seen) >= LOG_INTERVAL {
            self.logs_seen = now;
            self.config.run.trim_logs();
        }
        self.end_when_done(now);
    }

    /// Forgets mounts whose connection the kernel has ended (umount(8) by hand, last user gone).
    fn drop_ended(&mut self) {
        let ended: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| mount.has_ended())
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended {
            self.forget_mount(&id, "the kernel ended the connection");
        }
    }

    /// Removes a mount from the table; a client that waited for it is told `why`.
    pub(super) fn forget_mount(&mut self, id: &str, why: &str) {
        let Some(mount) = self.mounts.remove(id) else {
            return;
        };
        tracing::info!(mountpoint = %mount.spec.mountpoint.display(), why, "mount ended");
        self.tell_worker(&ToWorker::Unmounted { id: id.to_owned() }, &[]);
        if let Some(client) = mount.client {
            let failure = super::Failure::new(why, "see the log files in the run directory");
            self.finish(client, Reply::Failed(failure));
        }
    }

    fn abort_overdue(&mut self, now: Instant) {
        let limit = self.config.abort_after;
        let overdue: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| {
                mount.is_overdue(limit, now) || mount.abort_at.is_some_and(|at| at <= now)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in overdue {
            self.abort_mount(&id, "no worker served it in time");
        }
    }

    /// Gives a mount up: its users get errors now.
    pub(super) fn abort_mount(&mut self, id: &str, why: &str) {
        if let Some(mount) = self.mounts.get(id) {
            tracing::error!(
                mountpoint = %mount.spec.mountpoint.display(),
                source = %mount.spec.source,
                why,
                "mount aborted: everybody who uses it gets errors; mount it again"
            );
            mount.abort();
            self.forget_mount(id, why);
        }
    }

    /// The first signal removes every mount, the second one leaves them to the worker.
    fn signalled(&mut self, signals: &SignalFd) {
        if !matches!(signals.read_signal(), Ok(Some(_))) {
            return;
        }
        if self.told_to_end {
            tracing::warn!("second signal: the worker goes on alone");
            self.end = Some(End::Abandoned);
            return;
        }
        tracing::info!(mounts = self.mounts.len(), "signal: every mount is removed");
        self.told_to_end = true;
        self.config.stay = false;
        self.had_mount = true;
        let ids: Vec<_> = self.mounts.keys().cloned().collect();
        for id in ids {
            self.unmount(&id);
        }
    }

    /// Ends worker and keeper once the last mount is gone.
    fn end_when_done(&mut self, now: Instant) {
        let idle = self.had_mount || now.saturating_duration_since(self.begun) >= IDLE;
        if self.ending.is_none() && self.mounts.is_empty() && !self.config.stay && idle {
            self.ending = Some(now);
            self.start_at = None;
            self.tell_worker(&ToWorker::Stop, &[]);
            self.ping(now);
        }
        let Some(since) = self.ending else {
            return;
        };
        let silent = self
            .worker
            .as_ref()
            .is_some_and(|worker| worker.is_silent(now));
        if silent || now.saturating_duration_since(since) >= STOP_LIMIT {
            self.kill_worker("it does not end");
        }
        if self.worker.is_none() {
            for (client, reply) in std::mem::take(&mut self.farewells) {
                self.answer(client, &reply);
            }
            self.config.run.remove_sockets();
            self.end = Some(End::Done);
        }
    }

    /// Whether any mount still has to be served for the first time by the present worker.
    pub(super) fn all_served(&self) -> bool {
        self.mounts
            .values()
            .all(|mount| mount.phase != Phase::Waiting)
    }
}
