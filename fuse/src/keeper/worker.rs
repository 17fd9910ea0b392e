//! The worker's end of its link: what the keeper orders, and what happens when the keeper is gone.
//!
//! [`WorkerLink::greeted`] takes the link from standard input, [`WorkerLink::run`] reads orders until
//! the worker is to end and passes them to an [`Orders`]. Orders must not wait: whatever takes time
//! (building a file system, opening tiers) is begun there and told through [`WorkerLink`] later, so
//! that pings are answered while a worker starts or stops.
//!
//! When the link ends the keeper has died. The worker is now an *orphan*: it holds every device, goes
//! on serving, and waits on `adopt.sock` for the next keeper, to which it gives copies of everything;
//! that connection is the link from then on. An orphan without mounts ends.
//!
//! Lock order: `table`, then `link`; neither is held while an order is carried out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::link::{Link, LinkListener};
use super::protocol::{FromWorker, Held, PROTOCOL, State, ToWorker};
use super::spec::{Failure, InitRecord, MountSpec};
use crate::session::Device;

/// How long a keeper that does not read may hold a message up; afterwards the message is lost and
/// the keeper will find out by itself.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// How often an orphan looks whether it still has mounts.
const ORPHAN_TICK_MS: u16 = 500;

/// What a worker does when its keeper orders it. Calls come one at a time, on the link's thread,
/// and must return quickly.
pub trait Orders: Send {
    /// Build a file system and tell [`WorkerLink::prepared`] or [`WorkerLink::failed`]; with a
    /// device serve it at once, as in [`Orders::attach`].
    fn mount(&mut self, spec: MountSpec, handles: OwnedFd, device: Option<Device>);
    /// Serve a prepared file system and tell [`WorkerLink::answered`] and [`WorkerLink::mounted`], or
    /// [`WorkerLink::failed`]; tell [`WorkerLink::ended`] when its session ends.
    fn attach(&mut self, id: &str, device: Device);
    /// The mount is gone; drop what was prepared for it, if its session has not begun.
    fn unmounted(&mut self, id: &str);
    /// End in order: [`WorkerLink::run`] goes on answering pings until the process ends.
    fn stop(&mut self);
}

/// What a worker learns first.
#[derive(Debug)]
pub struct Greeting {
    /// Configuration, as the keeper was started with.
    pub node: serde_json::Value,
    /// Listening stream socket for the worker's services.
    pub services: OwnedFd,
    /// So many mounts follow that applications wait for.
    pub mounts: u32,
}

/// A mount as the worker holds it, for the next keeper.
#[derive(Debug)]
struct Entry {
    spec: MountSpec,
    handles: OwnedFd,
    attached: Option<(OwnedFd, InitRecord, u32)>,
}

/// The worker's end; clones share it.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Replaced when another keeper adopts the worker.
    link: Mutex<Arc<Link>>,
    table: Mutex<BTreeMap<String, Entry>>,
    node: serde_json::Value,
    services: OwnedFd,
    adopt: LinkListener,
}

impl WorkerLink {
    /// Takes the link from standard input, which becomes `/dev/null`, and waits for the greeting.
    ///
    /// Errors: standard input is no link, or the keeper speaks another protocol.
    pub fn greeted() -> io::Result<(Self, Greeting)> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Self::greeted_on(Link::from_socket(socket))
    }

    /// As [`WorkerLink::greeted`], on a given link.
    pub fn greeted_on(link: Link) -> io::Result<(Self, Greeting)> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let Some((hello, mut descriptors)) = link.receive::<ToWorker>()? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let ToWorker::Hello {
            protocol,
            node,
            mounts,
        } = hello
        else {
            return Err(invalid("the keeper did not greet"));
        };
        if protocol != PROTOCOL {
            return Err(invalid(
                "the keeper speaks another protocol; upgrade it too",
            ));
        }
        let (Some(adopt), Some(services)) = (descriptors.pop(), descriptors.pop()) else {
            return Err(invalid("the greeting lacks its sockets"));
        };
        link.set_timeouts(SEND_LIMIT, Duration::ZERO)?;
        let shared = Shared {
            link: Mutex::new(Arc::new(link)),
            table: Mutex::default(),
            node: node.clone(),
            services: services.try_clone()?,
            adopt: LinkListener::from_socket(adopt),
        };
        let worker = Self {
            shared: Arc::new(shared),
        };
        Ok((
            worker,
            Greeting {
                node,
                services,
                mounts,
            },
        ))
    }

    /// Carries out orders until the worker is an orphan without mounts; then orders a stop and
    /// returns. Runs on a thread of its own.
    pub fn run(&self, orders: &mut dyn Orders) {
        loop {
            let link = Arc::clone(&self.link());
            match link.receive::<ToWorker>() {
                Ok(Some((message, descriptors))) => self.carry_out(orders, message, descriptors),
                Ok(None) => {
                    tracing::warn!("the keeper is gone; serving on and waiting for another one");
                    self.drop_unattached(orders);
                    if !self.wait_for_keeper() {
                        orders.stop();
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, "order not understood"),
            }
        }
    }

    fn carry_out(&self, orders: &mut dyn Orders, message: ToWorker, mut descriptors: Vec<OwnedFd>) {
        match message {
            ToWorker::Hello { .. } => tracing::warn!("greeted twice"),
            ToWorker::Mount {
                spec,
                init,
                connection,
            } => {
                let device = init.and_then(|init| Some((descriptors.pop()?, init)));
                let Some(handles) = descriptors.pop() else {
                    return self.failed(&spec.id, Failure::passing("the keeper sent no handles"));
                };
                let entry = handles.try_clone().and_then(|copy| {
                    let attached = match &device {
                        Some((fd, init)) => Some((fd.try_clone()?, init.clone(), connection)),
                        None => None,
                    };
                    Ok(Entry {
                        spec: (*spec).clone(),
                        handles: copy,
                        attached,
                    })
                });
                match entry {
                    Ok(entry) => {
                        self.table().insert(spec.id.clone(), entry);
                        let device = device.map(|(fd, init)| Device { fd, init });
                        orders.mount(*spec, handles, device);
                    }
                    Err(error) => self.failed(&spec.id, Failure::passing(error)),
                }
            }
            ToWorker::Attach {
                id,
                init,
                connection,
            } => {
                let copied = descriptors
                    .pop()
                    .and_then(|fd| Some((fd.try_clone().ok()?, fd)));
                let Some((copy, fd)) = copied else {
                    return self.failed(&id, Failure::passing("no descriptors left"));
                };
                if let Some(entry) = self.table().get_mut(&id) {
                    entry.attached = Some((copy, init.clone(), connection));
                }
                orders.attach(&id, Device { fd, init });
            }
            ToWorker::Unmounted { id } => {
                self.table().remove(&id);
                orders.unmounted(&id);
            }
            ToWorker::Ping { number } => self.tell(&FromWorker::Pong { number }),
            ToWorker::Stop => orders.stop(),
        }
    }

    /// Tiers are open.
    pub fn ready(&self) {
        self.tell(&FromWorker::Ready);
    }

    /// The file system is built and its store answers.
    pub fn prepared(&self, id: &str) {
        self.tell(&FromWorker::Prepared { id: id.to_owned() });
    }

    /// The kernel has got this answer to FUSE_INIT.
    pub fn answered(&self, id: &str, reply: &[u8]) {
        if let Some((_, init, _)) = self
            .table()
            .get_mut(id)
            .and_then(|entry| entry.attached.as_mut())
        {
            init.reply.get_or_insert_with(|| reply.to_vec());
        }
        self.tell(&FromWorker::Answered {
            id: id.to_owned(),
            reply: reply.to_vec(),
        });
    }

    /// Requests of the mount are answered from now on.
    pub fn mounted(&self, id: &str) {
        self.tell(&FromWorker::Mounted { id: id.to_owned() });
    }

    /// The mount cannot be served.
    pub fn failed(&self, id: &str, failure: Failure) {
        self.tell(&FromWorker::Failed {
            id: id.to_owned(),
            failure,
        });
    }

    /// The session of the mount has ended.
    pub fn ended(&self, id: &str) {
        self.table().remove(id);
        self.tell(&FromWorker::Ended { id: id.to_owned() });
    }

    /// The worker cannot work; it ends after this.
    pub fn fatal(&self, failure: Failure) {
        self.tell(&FromWorker::Fatal(failure));
    }

    /// A message that no keeper reads is dropped: the next one asks for everything anyway.
    fn tell(&self, message: &FromWorker) {
        let link = Arc::clone(&self.link());
        if let Err(error) = link.send(message, &[]) {
            tracing::debug!(%error, "keeper not told");
        }
    }

    /// Mounts that the kernel has not seen die with the keeper that asked for them.
    fn drop_unattached(&self, orders: &mut dyn Orders) {
        let mut dropped = Vec::new();
        self.table().retain(|id, entry| {
            let keep = entry.attached.is_some();
            if !keep {
                dropped.push(id.clone());
            }
            keep
        });
        for id in dropped {
            orders.unmounted(&id);
        }
    }

    /// `false`: there is nothing left to serve.
    fn wait_for_keeper(&self) -> bool {
        loop {
            if self.table().is_empty() {
                return false;
            }
            let mut ready = [PollFd::new(self.shared.adopt.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(ORPHAN_TICK_MS)) {
                Ok(0) | Err(_) => continue,
                Ok(_) => {}
            }
            match self.give_to_keeper() {
                Ok(()) => return true,
                Err(error) => tracing::error!(%error, "adoption failed"),
            }
        }
    }

    fn give_to_keeper(&self) -> io::Result<()> {
        let link = self.shared.adopt.accept()?;
        link.set_timeouts(SEND_LIMIT, Duration::ZERO)?;
        let table = self.table();
        let attached: Vec<_> = table
            .values()
            .filter_map(|entry| Some((entry, entry.attached.as_ref()?)))
            .collect();
        let state = State {
            protocol: PROTOCOL,
            mounts: u32::try_from(attached.len()).unwrap_or(u32::MAX),
            worker_pid: Some(std::process::id()),
            node: self.shared.node.clone(),
            keeper: None,
        };
        link.send(
            &state,
            &[self.shared.services.as_fd(), self.shared.adopt.as_fd()],
        )?;
        for (entry, (device, init, connection)) in attached {
            let held = Held {
                spec: entry.spec.clone(),
                init: init.clone(),
                connection: *connection,
            };
            link.send(&held, &[device.as_fd(), entry.handles.as_fd()])?;
        }
        *self.link() = Arc::new(link);
        tracing::info!("adopted by another keeper");
        Ok(())
    }

    fn link(&self) -> MutexGuard<'_, Arc<Link>> {
        self.shared
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
