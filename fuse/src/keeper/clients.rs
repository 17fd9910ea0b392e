//! Requests of clients.
//!
//! A client that asks for a mount is answered when the mount is served or has failed; all others at
//! once. When the request removes the last mount, the answer waits for the worker's end, so that the
//! hot directory is free when the command returns.

use std::io;
use std::time::{Duration, Instant};

use super::keeper::{Keeper, SEND_LIMIT};
use super::kernel::{self, Removed};
use super::link::Link;
use super::mounts::{Mount, Phase};
use super::protocol::{KeeperStatus, Reply, Request, WorkerStatus};
use super::spec::{Failure, MountSpec};
use crate::handles::HandleTable;

/// Clients served at the same time; more wait in the listener's backlog.
const CLIENT_LIMIT: usize = 64;

/// A client that asks for nothing is dropped after this time.
const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// Shows life within this time, or the users of a busy, detached mount are freed by an abort.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its connection.
    pub(super) link: Link,
    /// When it last asked for something.
    since: Instant,
    /// It waits for an answer.
    waits: bool,
}

impl Keeper {
    /// Whether another client may connect.
    pub(super) fn takes_clients(&self) -> bool {
        self.clients.len() < CLIENT_LIMIT
    }

    /// Accepts a client.
    pub(super) fn accept(&mut self) {
        let link = self.listeners.keeper.accept().and_then(|link| {
            link.set_timeouts(SEND_LIMIT, SEND_LIMIT)?;
            Ok(link)
        });
        match link {
            Ok(link) => {
                let client = Client {
                    link,
                    since: Instant::now(),
                    waits: false,
                };
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
            }
            Err(error) => tracing::warn!(%error, "client not accepted"),
        }
    }

    /// Drops clients that connected and then said nothing.
    pub(super) fn drop_idle_clients(&mut self, now: Instant) {
        self.clients.retain(|_, client| {
            client.waits || now.saturating_duration_since(client.since) < CLIENT_IDLE
        });
    }

    /// Reads and carries out one request.
    pub(super) fn client_message(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.since = Instant::now();
        let request = match client.link.receive::<Request>() {
            Ok(Some((request, _))) => request,
            Ok(None) => {
                self.clients.remove(&id);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "client sent no request");
                self.clients.remove(&id);
                return;
            }
        };
        client.waits = true;
        match request {
            Request::Mount(spec) => self.mount(id, *spec),
            Request::Umount { mountpoint } => {
                let found = self
                    .mounts
                    .iter()
                    .find(|(_, mount)| mount.spec.mountpoint == mountpoint && !mount.detached)
                    .map(|(id, _)| id.clone());
                let reply = match found {
                    Some(mount) => self.unmount(&mount),
                    None => failed("not mounted here", "terrace status lists all mounts"),
                };
                self.finish(id, reply);
            }
            Request::Status => self.send_status(id),
            Request::RestartWorker => {
                self.kill_worker("asked to");
                self.answer(id, &Reply::Done);
            }
            Request::HandOver => self.hand_over(id),
            // Without a hand-over before it, it means nothing.
            Request::Taken => {
                self.clients.remove(&id);
            }
        }
    }

    fn mount(&mut self, client: u64, spec: MountSpec) {
        let taken = self
            .mounts
            .values()
            .any(|mount| mount.spec.mountpoint == spec.mountpoint && !mount.detached);
        if self.ending.is_some() {
            return self.answer(
                client,
                &Reply::Failed(Failure::passing("the keeper is ending")),
            );
        }
        if taken {
            return self.answer(
                client,
                &failed("already mounted", "terrace umount it first"),
            );
        }
        self.had_mount = true;
        let handles = match HandleTable::create() {
            Ok(handles) => handles,
            Err(error) => {
                let why = format!("no memory for open files: {error}");
                return self.answer(client, &failed(why, "free some memory"));
            }
        };
        let id = spec.id.clone();
        self.mounts.insert(
            id.clone(),
            Mount::new(spec, handles, client, Instant::now()),
        );
        if self.worker.is_none() && self.start_at.is_none() {
            self.start_at = Some(Instant::now());
        }
        self.present_mount(&id);
    }

    /// The worker has built the file system: show it to the kernel and let the worker serve it.
    pub(super) fn attach(&mut self, id: &str) {
        let Some(mount) = self
            .mounts
            .get_mut(id)
            .filter(|m| m.phase == Phase::Preparing)
        else {
            return;
        };
        match kernel::mount_device(&mount.spec) {
            Ok(new) => {
                let now = Instant::now();
                mount.attached = Some(super::mounts::Attached {
                    device: new.device,
                    init: new.init,
                    connection: new.connection,
                });
                mount.unserved_since = now;
                mount.enter(Phase::Attaching, now);
                self.present_mount(id);
            }
            Err(error) => self.fail_mount(id, mount_failure(&error)),
        }
    }

    /// Removes a mount that is not served yet, and tells its client why.
    pub(super) fn fail_mount(&mut self, id: &str, failure: Failure) {
        let Some(mut mount) = self.mounts.remove(id) else {
            return;
        };
        mount.abort();
        let client = mount.client.take();
        drop(mount);
        self.tell_worker(
            &super::protocol::ToWorker::Unmounted { id: id.to_owned() },
            &[],
        );
        if let Some(client) = client {
            self.finish(client, Reply::Failed(failure));
        }
    }

    /// Takes a mount out of the tree. A busy one lives on until its last user closes, as long as
    /// somebody serves it.
    pub(super) fn unmount(&mut self, id: &str) -> Reply {
        let now = Instant::now();
        let Some(mount) = self.mounts.get_mut(id) else {
            return Reply::Unmounted { busy: false };
        };
        if mount.attached.is_none() {
            self.fail_mount(id, Failure::new("unmounted meanwhile", "mount again"));
            return Reply::Unmounted { busy: false };
        }
        if !mount.detached {
            match kernel::unmount(&mount.spec.mountpoint) {
                Ok(Removed::Clean | Removed::Detached | Removed::Absent) => mount.detached = true,
                Err(error) => return Reply::Failed(unmount_failure(&error)),
            }
        }
        if mount.has_ended() {
            self.forget_mount(id, "unmounted");
            return Reply::Unmounted { busy: false };
        }
        if mount.phase == Phase::Serving {
            mount.abort_at = Some(now + SIGN_OF_LIFE);
            self.ping(now);
        } else {
            self.abort_mount(id, "unmounted while in use, and no worker serves it");
        }
        Reply::Unmounted { busy: true }
    }

    fn send_status(&mut self, id: u64) {
        let now = Instant::now();
        let worker = self.worker.as_ref().map(|worker| WorkerStatus {
            pid: worker.process.pid,
            ready: worker.ready,
            seconds: now.saturating_duration_since(worker.started).as_secs_f64(),
        });
        let status = KeeperStatus {
            keeper_pid: std::process::id(),
            version: self.config.version.clone(),
            worker,
            restarts: self.restarted,
            mounts: u32::try_from(self.mounts.len()).unwrap_or(u32::MAX),
        };
        let mounts: Vec<_> = self
            .mounts
            .values()
            .map(|mount| mount.status(now))
            .collect();
        self.answer(id, &Reply::Status(status));
        for mount in mounts {
            self.send(id, &mount);
        }
    }

    /// Answers a client: at once, or, when this was the last mount, with the keeper's end.
    pub(super) fn finish(&mut self, client: u64, reply: Reply) {
        if self.mounts.is_empty() && self.had_mount && !self.config.stay {
            self.farewells.push((client, reply));
        } else {
            self.answer(client, &reply);
        }
    }

    /// Answers a client now.
    pub(super) fn answer(&mut self, id: u64, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waits = false;
        }
        self.send(id, reply);
    }

    fn send(&mut self, id: u64, message: &impl serde::Serialize) {
        if let Some(client) = self.clients.get(&id)
            && let Err(error) = client.link.send(message, &[])
        {
            // A client that went away does not change what it asked for.
            tracing::debug!(%error, "client not answered");
            self.clients.remove(&id);
        }
    }
}

fn failed(why: impl std::fmt::Display, hint: &str) -> Reply {
    Reply::Failed(Failure::new(why, hint))
}

fn mount_failure(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check that the mount point and /dev/fuse exist (modprobe fuse)",
        io::ErrorKind::PermissionDenied => {
            "run as root or with CAP_SYS_ADMIN and access to /dev/fuse"
        }
        _ => "terrace doctor tells what this machine lacks",
    };
    Failure::new(format!("mount: {error}"), hint)
}

fn unmount_failure(error: &io::Error) -> Failure {
    Failure::new(
        format!("umount: {error}"),
        "run as root or with CAP_SYS_ADMIN",
    )
}
