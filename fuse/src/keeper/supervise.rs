//! The keeper's side of its worker: start it, talk to it, notice its end.
//!
//! A new worker is greeted with `Hello`, then gets every mount: those with a device are served at
//! once, in the order of their ids. A worker that sends nonsense, does not read, or does not answer
//! pings for `hang_after` is killed; its death is the one way a worker is replaced.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::keeper::{Keeper, SEND_LIMIT};
use super::link::Link;
use super::mounts::Phase;
use super::process::{Ending, Process};
use super::protocol::{FromWorker, PROTOCOL, ToWorker};
use super::spec::Failure;

/// Interval between pings.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A worker that has not answered a ping for so long is not relied upon.
const SILENT: Duration = Duration::from_secs(2);

/// Longest time a client waits for the preparation of a mount.
const PREPARE_LIMIT: Duration = Duration::from_secs(120);

/// After so many workers in a row that did not come up, new mounts are refused.
const GIVE_UP: u32 = 3;

/// A worker served for so long was a good one; see [`super::process`].
const SETTLED: Duration = Duration::from_secs(10);

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// The process.
    pub(super) process: Process,
    /// Our end of its link.
    pub(super) link: Link,
    /// When it was started, adopted or taken over.
    pub(super) started: Instant,
    /// It takes mounts.
    pub(super) ready: bool,
    /// Since when it serves every mount.
    pub(super) served_since: Option<Instant>,
    /// When the oldest unanswered ping was sent.
    pub(super) unanswered: Option<Instant>,
    /// When the last ping was sent.
    pub(super) pinged: Instant,
}

impl Worker {
    /// A process that has just been started, or that another keeper started (`ready`).
    pub(super) fn new(process: Process, link: Link, ready: bool) -> Self {
        let now = Instant::now();
        Self {
            process,
            link,
            started: now,
            ready,
            served_since: ready.then_some(now),
            unanswered: None,
            pinged: now,
        }
    }

    /// A ping has been waiting for its answer for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silent_for(now) >= SILENT
    }

    fn silent_for(&self, now: Instant) -> Duration {
        self.unanswered
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Keeper {
    /// Starts a worker if it is time to.
    pub(super) fn start_when_due(&mut self, now: Instant) {
        if self.worker.is_some() || self.start_at.is_none_or(|at| at > now) {
            return;
        }
        self.start_at = None;
        match self.spawn_worker() {
            Ok(worker) => self.greet(worker),
            Err(error) => {
                tracing::error!(%error, "worker not started");
                let ending = Ending::Crashed(error.to_string());
                self.start_at = Some(now + self.restarts.after(&ending, None, now));
            }
        }
    }

    /// Starts the process; it waits for its greeting.
    pub(super) fn spawn_worker(&self) -> std::io::Result<Worker> {
        let log = self.config.run.log_file("worker")?;
        let (process, link) = Process::spawn(&self.config.worker, log)?;
        link.set_timeouts(SEND_LIMIT, SEND_LIMIT)?;
        if let Err(error) = self.config.run.record_worker(process.pid) {
            tracing::warn!(%error, "worker not recorded; a hung one could not be replaced later");
        }
        Ok(Worker::new(process, link, false))
    }

    /// Gives a new worker everything it needs.
    pub(super) fn greet(&mut self, worker: Worker) {
        tracing::info!(
            pid = worker.process.pid,
            mounts = self.mounts.len(),
            "worker started"
        );
        self.worker = Some(worker);
        let attached = self
            .mounts
            .values()
            .filter(|mount| mount.attached.is_some())
            .count();
        let hello = ToWorker::Hello {
            protocol: PROTOCOL,
            node: self.node.clone(),
            mounts: u32::try_from(attached).unwrap_or(u32::MAX),
        };
        let node = self.listeners.node.try_clone();
        let adopt = self.listeners.adopt.try_clone();
        match (node, adopt) {
            (Ok(node), Ok(adopt)) => self.tell_worker(&hello, &[node.as_fd(), adopt.as_fd()]),
            (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no descriptors left"),
        }
        let mut ids: Vec<_> = self.mounts.keys().cloned().collect();
        // Those that applications wait for come first.
        ids.sort_by_key(|id| self.mounts[id].attached.is_none());
        for id in ids {
            self.present_mount(&id);
        }
    }

    /// Tells the worker about one mount, with the descriptors it has.
    pub(super) fn present_mount(&mut self, id: &str) {
        let Some(mount) = self.mounts.get(id) else {
            return;
        };
        let init = mount
            .attached
            .as_ref()
            .map(|attached| attached.init.clone());
        let connection = mount
            .attached
            .as_ref()
            .map_or(0, |attached| attached.connection);
        let message = match (mount.phase, init) {
            (Phase::Attaching, Some(init)) => ToWorker::Attach {
                id: id.to_owned(),
                init,
                connection,
            },
            (_, init) => ToWorker::Mount {
                spec: Box::new(mount.spec.clone()),
                init,
                connection,
            },
        };
        let device = mount
            .attached
            .as_ref()
            .map(|attached| attached.device.as_fd());
        let descriptors: Vec<BorrowedFd<'_>> = match &message {
            ToWorker::Attach { .. } => device.into_iter().collect(),
            _ => std::iter::once(mount.handles.as_fd())
                .chain(device)
                .collect(),
        };
        let Some(worker) = &self.worker else {
            return;
        };
        if let Err(error) = worker.link.send(&message, &descriptors) {
            self.send_failed(&error);
        }
    }

    /// Sends one message to the worker, if there is one.
    pub(super) fn tell_worker(&mut self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        if let Some(worker) = &self.worker
            && let Err(error) = worker.link.send(message, descriptors)
        {
            self.send_failed(&error);
        }
    }

    fn send_failed(&mut self, error: &std::io::Error) {
        match error.kind() {
            // It is dead or dying: its end is seen through the pidfd.
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {}
            _ => self.kill_worker(&format!("it takes no message: {error}")),
        }
    }

    /// Kills the worker; the rest happens when its end is seen.
    pub(super) fn kill_worker(&mut self, why: &str) {
        if let Some(worker) = &self.worker {
            tracing::warn!(pid = worker.process.pid, why, "worker killed");
            if let Err(error) = worker.process.signal(Signal::SIGKILL) {
                tracing::error!(%error, "kill");
            }
        }
    }

    /// Asks the worker for a sign of life.
    pub(super) fn ping(&mut self, now: Instant) {
        let number = self.next_ping;
        self.next_ping += 1;
        if let Some(worker) = &mut self.worker {
            worker.pinged = now;
            worker.unanswered.get_or_insert(now);
        }
        self.tell_worker(&ToWorker::Ping { number }, &[]);
    }

    /// Pings the worker and kills one that hangs; gives up preparations that take too long.
    pub(super) fn watch_worker(&mut self, now: Instant) {
        if let Some(worker) = &self.worker {
            if worker.silent_for(now) >= self.config.hang_after {
                self.kill_worker("it does not answer");
            } else if now.saturating_duration_since(worker.pinged) >= PING_INTERVAL {
                self.ping(now);
            }
        }
        let late: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| {
                mount.phase == Phase::Preparing
                    && now.saturating_duration_since(mount.since) >= PREPARE_LIMIT
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.fail_mount(
                &id,
                Failure::new("no worker prepared it in time", "see worker.log"),
            );
        }
    }

    /// Asks again for mounts that the worker could not serve.
    pub(super) fn retry_failed(&mut self, now: Instant) {
        let due: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| mount.retry_at.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Some(mount) = self.mounts.get_mut(&id) {
                mount.retry_at = None;
            }
            self.present_mount(&id);
        }
    }

    /// The worker's last thread has ended.
    pub(super) fn worker_ended(&mut self) {
        if self
            .worker
            .as_ref()
            .is_some_and(|worker| !worker.process.wait(Duration::ZERO))
        {
            return;
        }
        // What it said last is still in the link.
        while let Some(worker) = &self.worker {
            match worker.link.receive::<FromWorker>() {
                Ok(Some((message, _))) => self.heard(message),
                _ => break,
            }
        }
        let Some(worker) = self.worker.take() else {
            return;
        };
        let now = Instant::now();
        let ending = worker.process.reap();
        let served = worker
            .served_since
            .map(|since| now.saturating_duration_since(since));
        let settled = ending == Ending::Killed && served.is_some()
            || served.is_some_and(|time| time >= SETTLED);
        for mount in self.mounts.values_mut() {
            mount.lost_worker(settled, now);
        }
        if self.ending.is_some() {
            return;
        }
        let delay = self.restarts.after(&ending, served, now);
        tracing::warn!(
            pid = worker.process.pid,
            ?ending,
            failures = self.restarts.failures(),
            ?delay,
            "worker ended"
        );
        if self.restarts.failures() >= GIVE_UP {
            let why = "the worker does not start";
            self.fail_asked(&Failure::new(why, "see worker.log in the run directory"));
        }
        self.restarted += 1;
        self.start_at = Some(now + delay);
        self.start_when_due(now);
    }
}
