//! The worker process: carries out the keeper's orders with the pieces of a [`Node`].
//!
//! Start: greeting, link thread (pings are answered from here on), runtime, tiers, `Ready`. The stores
//! and name spaces of mounts ordered meanwhile are opened beside the tiers, their file systems as soon
//! as both are there; those that applications wait for come first, and nothing optional (metrics,
//! services) is begun before.
//!
//! ```text
//! order      task                                             told
//! mount      prepare (reach the store, build)                 prepared | failed
//! mount+dev  prepare without asking the store, then serve     answered, mounted | failed
//! attach     serve what was prepared                          answered, mounted | failed
//! unmounted  forget
//! stop       flush the tiers, end the process
//! ```
//! A session that fails although the kernel still has the connection is an unknown state: the
//! process aborts, and the next worker begins from a known one.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use terrace_csi::spaces::held_directory;
use terrace_fuse::adapter::directory;
use terrace_fuse::keeper::worker::{Greeting, Orders, WorkerLink};
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::Opening;
use terrace_fuse::session::{self, Device, SessionConfig, SessionHandle};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::assembly::{Mounted, Node};
use super::config::NodeConfig;
use super::options::{DirectoryOptions, MountOptions, SsdCache};
use super::priority::{Boost, Usual};
use super::sources::Sources;
use super::volume::Volume;
use crate::control;
use crate::metrics;

/// Descriptors we ask for: four mounts with all the idle backing files they may keep, and the rest.
const OPEN_FILES: u64 = 1 << 19;

/// Time to flush the tiers at an orderly end; the keeper allows 20 seconds for everything.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Longest time that a starting worker goes before the applications that wait for it.
const BOOST_LIMIT: Duration = Duration::from_secs(5);

/// How long it goes on to go first once it serves: what had to wait for it is answered then.
const BACKLOG: Duration = Duration::from_millis(200);

/// Threads of the runtime: network, fills and checksums; hits are answered on session threads.
const RUNTIME_THREADS: usize = 4;

/// Runs a worker until its keeper stops it, or until it is an orphan without mounts.
///
/// `usual` is the priority it has once it serves; by default the one it starts with.
pub(crate) fn run(usual: Option<Usual>) -> Result<()> {
    let boost = Boost::begin(usual);
    let (link, greeting) = WorkerLink::greeted().context(
        "take the keeper's orders from standard input; workers are started by terrace mount",
    )?;
    prepare_process();
    let config: NodeConfig = match serde_json::from_value(greeting.node.clone()) {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::new(&error, "upgrade the keeper too: terrace keeper --upgrade");
            link.fatal(failure);
            return Err(error).context("read the configuration of the keeper");
        }
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("terrace-io")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let session = SessionConfig {
        threads: config.fuse.threads,
    };
    let worker = Worker {
        link: link.clone(),
        node: Arc::new(SetOnce::new()),
        sources: Arc::new(Sources::new(config, runtime.handle().clone())),
        runtime: runtime.handle().clone(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        session,
        served: watch::Sender::new(0),
    };
    let mut orders = worker.clone();
    std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || link.run(&mut orders))
        .context("start the link thread")?;
    let result = worker.serve(greeting, boost, &runtime);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What the kernel should allow and spare: as many open files as we want, and, unlike the keeper, no
/// protection from the out-of-memory killer.
fn prepare_process() {
    if let Err(error) = raise_open_files() {
        tracing::warn!(%error, "limit of open files not raised");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "0") {
        tracing::debug!(%error, "oom_score_adj not reset");
    }
}

/// Every open hot object and every registered backing file is a descriptor of this process: the
/// usual soft limit of 1024 is for programs that use select(2), and the hard one is a guard against
/// leaks, where ours are counted. Root may raise it; others get what they may have.
fn raise_open_files() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The kernel's ceiling for any process.
    let ceiling = std::fs::read_to_string("/proc/sys/fs/nr_open");
    let ceiling = ceiling.ok().and_then(|text| text.trim().parse().ok());
    let wanted = OPEN_FILES.min(ceiling.unwrap_or(hard)).max(hard);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
}

/// Returns to the usual priority soon after `mounts` sessions have begun, or after a while.
async fn end_boost(boost: Option<Boost>, mut served: watch::Receiver<u32>, mounts: u32) {
    let all = served.wait_for(|number| *number >= mounts);
    if tokio::time::timeout(BOOST_LIMIT, all).await.is_err() {
        tracing::warn!(mounts, "some mounts are not served yet");
    } else {
        tokio::time::sleep(BACKLOG).await;
    }
    if let Some(boost) = boost {
        boost.end();
    }
}

/// What every order needs; clones share it.
#[derive(Clone, Debug)]
struct Worker {
    link: WorkerLink,
    /// Set when the tiers are open.
    node: Arc<SetOnce<Arc<Node>>>,
    sources: Arc<Sources>,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    session: SessionConfig,
    /// Mounts whose sessions have begun, or failed to.
    served: watch::Sender<u32>,
}

/// What a session serves.
enum Served {
    Tree(Arc<Mounted>),
    Volume(Arc<Volume>),
}

impl Worker {
    fn serve(
        &self,
        greeting: Greeting,
        boost: Option<Boost>,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<()> {
        let node = Node::open(Arc::clone(&self.sources)).inspect_err(|error| {
            let hint = "check the hot directory: terrace doctor --hot DIR";
            self.link.fatal(Failure::new(format!("{error:#}"), hint));
        })?;
        if self.node.set(Arc::clone(&node)).is_err() {
            unreachable!("the tiers are opened once");
        }
        self.link.ready();
        runtime.block_on(async {
            let served = self.served.subscribe();
            self.tasks.spawn(end_boost(boost, served, greeting.mounts));
            let services = std::os::unix::net::UnixListener::from(greeting.services);
            let control = control::server::serve(Arc::clone(&node), services, self.stop.clone())
                .inspect_err(|error| tracing::error!(%error, "no control socket"))
                .ok();
            if let Some(address) = node.config().node.metrics {
                let page = metrics::serve(Arc::clone(&node), address, self.stop.clone());
                self.tasks.spawn(page);
            }
            let reports = super::report::run(Arc::clone(&node), self.stop.clone());
            self.tasks.spawn(reports);
            self.stop.cancelled().await;
            self.tasks.close();
            if tokio::time::timeout(SHUTDOWN_LIMIT, node.shutdown())
                .await
                .is_err()
            {
                tracing::warn!("tiers not flushed in time; the next start checks them");
            }
            if let Some(control) = control {
                control.abort();
            }
        });
        Ok(())
    }

    /// Prepares a mount, and serves it when there is a device.
    async fn mount(self, spec: MountSpec, handles: OwnedFd, device: Option<Device>) {
        let opening = if device.is_some() {
            Opening::TakeOver
        } else {
            Opening::Mount
        };
        let id = spec.id.clone();
        let prepared = match MountOptions::of(&spec) {
            Ok(mut options) => match options.directory.take() {
                Some(of) => self.volume(spec, options, of, opening, handles).await,
                None => self.tree(spec, opening, handles).await,
            },
            Err(failure) => Err(failure),
        };
        match (prepared, device) {
            (Err(failure), _) => self.link.failed(&id, failure),
            (Ok(_), None) => self.link.prepared(&id),
            (Ok(served), Some(device)) => self.begin_session(served, device).await,
        }
    }

    async fn tree(
        &self,
        spec: MountSpec,
        opening: Opening,
        handles: OwnedFd,
    ) -> Result<Served, Failure> {
        // The tiers are being opened meanwhile.
        let reached = self.sources.reach(&spec, opening).await?;
        let mounted = self.node.wait().await.assemble(reached, handles)?;
        Ok(Served::Tree(mounted))
    }

    async fn volume(
        &self,
        spec: MountSpec,
        options: MountOptions,
        directory: DirectoryOptions,
        opening: Opening,
        handles: OwnedFd,
    ) -> Result<Served, Failure> {
        let sources = Arc::clone(&self.sources);
        let cold = match &directory.cold {
            None => None,
            Some(wanted) => {
                let held = directory.space.as_ref();
                let held = held.map(|space| held_directory(&space.base));
                Some(super::cold::open(&sources, &spec, wanted, held, opening).await?)
            }
        };
        // What a cold store has is no file's version.
        let ssd_cache = match directory.cold {
            Some(_) => SsdCache::Off,
            None => directory.ssd_cache,
        };
        let tenant = options.tenant.clone();
        // Opening its table reads and writes files.
        let opened = tokio::task::spawn_blocking(move || {
            Volume::open(&sources, spec, &options, &directory, opening, handles, cold)
        });
        let volume = opened.await.map_err(Failure::passing)??;
        let volume = Arc::new(volume);
        let node = self.node.wait().await;
        volume.keep_copies(
            ssd_cache,
            tenant.as_ref(),
            node.cache().hot(),
            &self.runtime,
        );
        node.add_volume(Arc::clone(&volume));
        Ok(Served::Volume(volume))
    }

    async fn attach(self, id: String, device: Device) {
        let node = self.node.wait().await;
        let mounted = node
            .mounts()
            .into_iter()
            .find(|mounted| mounted.spec.id == id)
            .map(Served::Tree)
            .or_else(|| {
                let mut volumes = node.volumes().into_iter();
                let found = volumes.find(|volume| volume.spec.id == id);
                found.map(Served::Volume)
            });
        match mounted {
            Some(served) => self.begin_session(served, device).await,
            None => self
                .link
                .failed(&id, Failure::passing("the mount was not prepared")),
        }
    }

    /// The handshake is a few system calls, but the library may log and allocate 16 MiB: not on a
    /// thread that answers requests.
    async fn begin_session(self, served: Served, device: Device) {
        let id = match &served {
            Served::Tree(mounted) => mounted.spec.id.clone(),
            Served::Volume(volume) => volume.spec.id.clone(),
        };
        let link = self.link.clone();
        let begun_sessions = self.served.clone();
        let name = id.clone();
        let begun = tokio::task::spawn_blocking(move || self.session(name, &served, device)).await;
        begun_sessions.send_modify(|number| *number += 1);
        let failed = match begun {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let hint = "terrace doctor tells what this kernel lacks";
        link.failed(&id, Failure::new(format!("serve: {failed}"), hint));
    }

    fn session(self, id: String, served: &Served, device: Device) -> std::io::Result<()> {
        let answered = |reply: &[u8]| self.link.answered(&id, reply);
        let session: SessionHandle = match served {
            Served::Tree(mounted) => {
                session::serve(Arc::clone(&mounted.fs), device, &self.session, answered)?
            }
            Served::Volume(volume) => {
                let fs = &volume.fs;
                directory::serve(fs, &self.runtime, device, &self.session, answered)?
            }
        };
        self.link.mounted(&id);
        let watcher = std::thread::Builder::new().name("session".to_owned());
        watcher.spawn(move || {
            if let Err(error) = session.join() {
                tracing::error!(%error, mount = %id, "session failed; the worker starts anew");
                std::process::abort();
            }
            if let Some(node) = self.node.get() {
                node.forget(&id);
            }
            self.link.ended(&id);
        })?;
        Ok(())
    }
}

impl Orders for Worker {
    fn mount(&mut self, spec: MountSpec, handles: OwnedFd, device: Option<Device>) {
        let task = self.clone().mount(spec, handles, device);
        self.tasks.spawn_on(task, &self.runtime);
    }

    fn attach(&mut self, id: &str, device: Device) {
        let task = self.clone().attach(id.to_owned(), device);
        self.tasks.spawn_on(task, &self.runtime);
    }

    fn unmounted(&mut self, id: &str) {
        if let Some(node) = self.node.get() {
            node.forget(id);
        }
    }

    fn stop(&mut self) {
        self.stop.cancel();
    }
}
