//! How a keeper begins: in another keeper's place, with an orphan, or afresh.
//!
//! Hand-over, all on one connection to the old keeper:
//! ```text
//! new -> old   HandOver
//! old -> new   HandingOver + lock, listeners, worker      (the old one does nothing else from here)
//! old -> new   Held + device, handle table                once per mount
//! new -> old   Taken
//! old          ends; the end of the connection is its answer. Failed instead: it remains the keeper.
//! ```
//! Then the new keeper starts a worker of its own version, kills the old one, and greets the new one.
//! If either side dies on the way, the other one, or the orphaned worker, still holds everything.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::client::{ClientError, KeeperClient};
use super::keeper::{End, Keeper, KeeperConfig, KeeperError, Listeners, SEND_LIMIT};
use super::kernel;
use super::link::{Link, LinkListener};
use super::mounts::{Attached, Mount, Phase};
use super::process::Process;
use super::protocol::{Held, Inherited, PROTOCOL, Reply, Request, State};
use super::spec::Failure;
use super::supervise::Worker;

/// How long a keeper that is ending may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long the old keeper may refuse because a mount is just being made.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);

/// Interval between its refusal and the next question.
const RETRY_MS: u16 = 50;

/// How long an orphan, or an old keeper, may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl Keeper {
    /// Begins in whatever way the run directory calls for.
    pub(super) fn begin(config: KeeperConfig) -> Result<Self, KeeperError> {
        config
            .run
            .create()
            .map_err(|error| KeeperError::Io("run directory", error))?;
        if config.take_over
            && let Some(keeper) = Self::take_over(&config)?
        {
            return Ok(keeper);
        }
        let lock = config
            .run
            .lock(LOCK_PATIENCE)
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => KeeperError::Running,
                _ => KeeperError::Io("lock", error),
            })?;
        match Self::find_orphan(&config) {
            Some(link) => Self::adopt(config, lock, link),
            None => Self::afresh(config, lock),
        }
    }

    fn afresh(config: KeeperConfig, lock: File) -> Result<Self, KeeperError> {
        let node = config.node.clone().ok_or(KeeperError::NoConfiguration)?;
        let bound = || -> io::Result<Listeners> {
            let node_socket = config.run.node_socket();
            match std::fs::remove_file(&node_socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            Ok(Listeners {
                keeper: LinkListener::bind(&config.run.keeper_socket())?,
                node: std::os::unix::net::UnixListener::bind(node_socket)?.into(),
                adopt: LinkListener::bind(&config.run.adopt_socket())?.into_socket(),
            })
        };
        let listeners = bound().map_err(|error| KeeperError::Io("sockets", error))?;
        let mut keeper = Self::new(config, node, lock, listeners);
        keeper.start_at = Some(Instant::now());
        Ok(keeper)
    }

    /// Connects to the worker that a dead keeper left behind. A worker that runs but does not answer
    /// is of no use to anybody and is killed; its mounts end with it.
    fn find_orphan(config: &KeeperConfig) -> Option<Link> {
        let link = Link::connect(&config.run.adopt_socket(), ANSWER_LIMIT);
        let Some(pid) = config.run.recorded_worker() else {
            return link.ok();
        };
        match link {
            Ok(link) => return Some(link),
            Err(error) => tracing::error!(%error, pid, "orphaned worker does not take connections"),
        }
        kill_and_wait(pid);
        None
    }

    fn adopt(config: KeeperConfig, lock: File, link: Link) -> Result<Self, KeeperError> {
        let pid = config.run.recorded_worker();
        let received = link
            .set_timeouts(SEND_LIMIT, ANSWER_LIMIT)
            .and_then(|()| receive_all(&link, |link| link.receive::<State>()));
        let (state, mut descriptors, mounts) = match received {
            Ok(everything) => everything,
            Err(error) => {
                tracing::error!(%error, ?pid, "orphaned worker does not answer; its mounts are lost");
                if let Some(pid) = pid {
                    kill_and_wait(pid);
                }
                return Self::afresh(config, lock);
            }
        };
        let process = state.worker_pid.or(pid).map(Process::open);
        let (Some(Ok(process)), Some(adopt), Some(node)) =
            (process, descriptors.pop(), descriptors.pop())
        else {
            return Err(KeeperError::TakeOver(
                "the orphan left something out".to_owned(),
            ));
        };
        let keeper_listener = LinkListener::bind(&config.run.keeper_socket())
            .map_err(|error| KeeperError::Io("keeper.sock", error))?;
        let listeners = Listeners {
            keeper: keeper_listener,
            node,
            adopt,
        };
        tracing::info!(
            pid = process.pid,
            mounts = mounts.len(),
            "orphaned worker adopted"
        );
        let configuration = config.node.clone().unwrap_or(state.node);
        let mut keeper = Self::new(config, configuration, lock, listeners);
        keeper.hold(mounts);
        keeper.worker = Some(Worker::new(process, link, true));
        Ok(keeper)
    }

    fn take_over(config: &KeeperConfig) -> Result<Option<Self>, KeeperError> {
        let client = match KeeperClient::connect(&config.run, ANSWER_LIMIT) {
            Ok(client) => client,
            Err(ClientError::Absent) => return Ok(None),
            Err(error) => return Err(KeeperError::TakeOver(error.to_string())),
        };
        let deadline = Instant::now() + HAND_OVER_PATIENCE;
        let failed = |error: io::Error| KeeperError::TakeOver(error.to_string());
        let (state, descriptors, mounts) = loop {
            match ask_for_everything(&client) {
                Ok(everything) => break everything,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(failed(error));
                }
                Err(error) if Instant::now() >= deadline => return Err(failed(error)),
                Err(_) => wait_on(client.link(), RETRY_MS),
            }
        };
        client
            .send(&Request::Taken)
            .map_err(|error| KeeperError::TakeOver(error.to_string()))?;
        match client.link().receive::<Reply>() {
            // The old keeper has ended, or hangs on its way out with nothing left to do.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Some((reply, _))) => {
                return Err(KeeperError::TakeOver(format!(
                    "the old keeper goes on: {reply:?}"
                )));
            }
            Err(error) => return Err(failed(error)),
        }
        let mut descriptors = descriptors.into_iter();
        let (Some(lock), Some(keeper), Some(node), Some(adopt)) = (
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
            descriptors.next(),
        ) else {
            return Err(KeeperError::TakeOver(
                "the old keeper left something out".to_owned(),
            ));
        };
        let listeners = Listeners {
            keeper: LinkListener::from_socket(keeper),
            node,
            adopt,
        };
        tracing::info!(mounts = mounts.len(), "taken over from another keeper");
        let mut config = config.clone();
        if let (None, Some(inherited)) = (&config.node, state.keeper) {
            config.abort_after = Duration::from_millis(inherited.abort_after_ms);
            config.stay = inherited.stay;
        }
        let configuration = config.node.clone().unwrap_or(state.node);
        let mut keeper = Self::new(config, configuration, File::from(lock), listeners);
        keeper.hold(mounts);
        if let (Some(link), Some(pidfd), Some(pid)) =
            (descriptors.next(), descriptors.next(), state.worker_pid)
        {
            let process = Process::from_pidfd(pid, pidfd);
            keeper.worker = Some(Worker::new(process, Link::from_socket(link), true));
        }
        keeper.replace_worker();
        Ok(Some(keeper))
    }

    /// Takes what was received into the table.
    fn hold(&mut self, mounts: Vec<(Held, OwnedFd, OwnedFd)>) {
        let now = Instant::now();
        let visible = kernel::mounts().unwrap_or_default();
        self.had_mount = !mounts.is_empty();
        for (held, device, handles) in mounts {
            let detached = !visible.iter().any(|entry| entry.minor == held.connection);
            let attached = Attached {
                device,
                init: held.init,
                connection: held.connection,
            };
            let id = held.spec.id.clone();
            self.mounts
                .insert(id, Mount::held(held.spec, handles, attached, detached, now));
        }
    }

    /// Puts a worker of this program's version in the place of the present one. The new process is
    /// already there when the old one is killed, so that applications wait for its tiers only.
    fn replace_worker(&mut self) {
        let successor = self.spawn_worker();
        if let Some(old) = self.worker.take() {
            if let Err(error) = old.process.signal(Signal::SIGKILL) {
                tracing::error!(%error, "kill");
            }
            if !old.process.wait(ANSWER_LIMIT) {
                tracing::error!(pid = old.process.pid, "the old worker does not end");
            }
        }
        let now = Instant::now();
        for mount in self.mounts.values_mut() {
            mount.lost_worker(true, now);
        }
        match successor {
            Ok(worker) => self.greet(worker),
            Err(error) => {
                tracing::error!(%error, "worker not started");
                self.start_at = Some(now);
            }
        }
    }

    /// Gives everything to the keeper that asks as client `id`.
    pub(super) fn hand_over(&mut self, id: u64) {
        let unsettled = self
            .mounts
            .values()
            .any(|mount| matches!(mount.phase, Phase::Preparing | Phase::Attaching));
        if unsettled || self.ending.is_some() {
            let failure = Failure::passing("a mount is just being made or removed");
            return self.answer(id, &Reply::Failed(failure));
        }
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        match self.give(&client.link) {
            Ok(()) => {
                tracing::info!("handed over to another keeper");
                self.end = Some(End::HandedOver);
            }
            Err(error) => {
                tracing::warn!(%error, "hand-over failed; going on");
                let failure = Failure::passing(format!("hand-over failed: {error}"));
                self.answer(id, &Reply::Failed(failure));
                self.clients.remove(&id);
            }
        }
    }

    fn give(&self, link: &Link) -> io::Result<()> {
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![
            self.lock.as_fd(),
            self.listeners.keeper.as_fd(),
            self.listeners.node.as_fd(),
            self.listeners.adopt.as_fd(),
        ];
        if let Some(worker) = &self.worker {
            descriptors.extend([worker.link.as_fd(), worker.process.as_fd()]);
        }
        let state = State {
            protocol: PROTOCOL,
            mounts: u32::try_from(self.mounts.len()).unwrap_or(u32::MAX),
            worker_pid: self.worker.as_ref().map(|worker| worker.process.pid),
            node: self.node.clone(),
            keeper: Some(Inherited {
                abort_after_ms: u64::try_from(self.config.abort_after.as_millis())
                    .unwrap_or(u64::MAX),
                stay: self.config.stay,
            }),
        };
        link.send(&Reply::HandingOver(state), &descriptors)?;
        for mount in self.mounts.values() {
            let attached = mount.attached.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
            let held = Held {
                spec: mount.spec.clone(),
                init: attached.init.clone(),
                connection: attached.connection,
            };
            link.send(&held, &[attached.device.as_fd(), mount.handles.as_fd()])?;
        }
        match link.receive::<Request>()? {
            Some((Request::Taken, _)) => Ok(()),
            _ => Err(io::Error::other("the other keeper went away")),
        }
    }
}

type Everything = (State, Vec<OwnedFd>, Vec<(Held, OwnedFd, OwnedFd)>);

/// Asks a running keeper for everything. `WouldBlock`: it cannot just now.
fn ask_for_everything(client: &KeeperClient) -> io::Result<Everything> {
    client.send(&Request::HandOver).map_err(io::Error::other)?;
    receive_all(client.link(), |link| match link.receive::<Reply>()? {
        None => Ok(None),
        Some((Reply::HandingOver(state), descriptors)) => Ok(Some((state, descriptors))),
        Some((Reply::Failed(failure), _)) if failure.again => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, failure))
        }
        Some((other, _)) => Err(io::Error::other(format!("unexpected answer {other:?}"))),
    })
}

fn receive_all(
    link: &Link,
    first: impl FnOnce(&Link) -> io::Result<Option<(State, Vec<OwnedFd>)>>,
) -> io::Result<Everything> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (state, descriptors) = first(link)?.ok_or_else(gone)?;
    if state.protocol != PROTOCOL {
        return Err(io::Error::other(format!(
            "it speaks protocol {}",
            state.protocol
        )));
    }
    let mut mounts = Vec::new();
    for _ in 0..state.mounts {
        let (held, mut attached) = link.receive::<Held>()?.ok_or_else(gone)?;
        let (Some(handles), Some(device)) = (attached.pop(), attached.pop()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        mounts.push((held, device, handles));
    }
    Ok((state, descriptors, mounts))
}

/// Waits for the old keeper's end or for the time to ask again, whatever comes first.
fn wait_on(link: &Link, milliseconds: u16) {
    let mut state = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    // A failed wait only means that the question comes earlier.
    poll(&mut state, PollTimeout::from(milliseconds)).ok();
}

/// Ends a worker that is not our child, so that its hold on devices and tiers ends.
fn kill_and_wait(pid: u32) {
    let ended = Process::open(pid).and_then(|process| {
        process.signal(Signal::SIGKILL)?;
        Ok(process.wait(ANSWER_LIMIT))
    });
    match ended {
        Ok(true) => {}
        Ok(false) => tracing::error!(pid, "killed worker does not end"),
        Err(error) => tracing::error!(%error, pid, "worker not killed"),
    }
}
