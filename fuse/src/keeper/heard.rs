//! What a worker says, and what it changes in the keeper's table.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::keeper::{Keeper, SEND_LIMIT};
use super::kernel;
use super::mounts::{Mount, Phase};
use super::protocol::{FromWorker, Reply};
use super::spec::Failure;

/// A mount that a new worker could not serve is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

impl Keeper {
    /// Reads one message of the worker.
    pub(super) fn worker_message(&mut self) {
        let Some(worker) = &self.worker else {
            return;
        };
        match worker.link.receive::<FromWorker>() {
            Ok(Some((message, _))) => self.heard(message),
            // End of the link: kill what may be left, so that the end is seen through the pidfd.
            Ok(None) => {
                if let Err(error) = worker.process.signal(Signal::SIGKILL) {
                    tracing::error!(%error, "kill");
                }
                worker.process.wait(SEND_LIMIT);
                self.worker_ended();
            }
            Err(error) => self.kill_worker(&format!("its message is not understood: {error}")),
        }
    }

    pub(super) fn heard(&mut self, message: FromWorker) {
        let now = Instant::now();
        if let Some(worker) = &mut self.worker {
            worker.unanswered = None;
        }
        for mount in self.mounts.values_mut() {
            mount.abort_at = None;
        }
        match message {
            FromWorker::Pong { .. } => {}
            FromWorker::Ready => {
                if let Some(worker) = &mut self.worker {
                    worker.ready = true;
                }
                self.note_served(now);
            }
            FromWorker::Prepared { id } => self.attach(&id),
            FromWorker::Answered { id, reply } => {
                let mount = self.mounts.get_mut(&id);
                if let Some(attached) = mount.and_then(|mount| mount.attached.as_mut()) {
                    attached.init.reply.get_or_insert(reply);
                }
            }
            FromWorker::Mounted { id } => self.mounted(&id, now),
            FromWorker::Failed { id, failure } => self.mount_failed(&id, failure, now),
            FromWorker::Ended { id } => {
                if self.mounts.get(&id).is_some_and(Mount::has_ended) {
                    self.forget_mount(&id, "the kernel ended the connection");
                } else if let Some(mount) = self.mounts.get_mut(&id) {
                    // The session ended, the connection did not: let the worker serve it again.
                    mount.enter(Phase::Waiting, now);
                    mount.retry_at = Some(now);
                }
            }
            FromWorker::Fatal(failure) => self.worker_fatal(&failure),
        }
    }

    fn mounted(&mut self, id: &str, now: Instant) {
        let Some(mount) = self.mounts.get_mut(id) else {
            return;
        };
        let first = mount.phase == Phase::Attaching;
        mount.enter(Phase::Serving, now);
        if let (true, Some(attached)) = (first, &mount.attached) {
            let kib = mount.spec.kernel.read_ahead_kb;
            if let Err(error) = kernel::set_read_ahead(attached.connection, kib) {
                tracing::warn!(%error, "readahead not set; sequential reads are slower");
            }
        }
        if let Some(client) = mount.client.take() {
            self.answer(client, &Reply::Mounted);
        }
        self.note_served(now);
    }

    fn note_served(&mut self, now: Instant) {
        let served = self.all_served();
        if let Some(worker) = &mut self.worker
            && worker.ready
            && served
        {
            worker.served_since.get_or_insert(now);
        }
    }

    fn mount_failed(&mut self, id: &str, failure: Failure, now: Instant) {
        let Some(mount) = self.mounts.get_mut(id) else {
            return;
        };
        if mount.client.is_some() {
            return self.fail_mount(id, failure);
        }
        tracing::error!(
            mountpoint = %mount.spec.mountpoint.display(),
            %failure,
            "worker cannot serve the mount; it is asked again"
        );
        mount.enter(Phase::Waiting, now);
        mount.retry_at = Some(now + RETRY);
    }

    /// The worker cannot work and says why. Those who wait for a mount are told; mounts that were
    /// served wait for a better worker.
    fn worker_fatal(&mut self, failure: &Failure) {
        tracing::error!(%failure, "worker cannot work");
        self.fail_asked(failure);
    }

    /// Fails every mount that a client still waits for.
    pub(super) fn fail_asked(&mut self, failure: &Failure) {
        let asked: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| mount.client.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in asked {
            self.fail_mount(&id, failure.clone());
        }
    }
}
