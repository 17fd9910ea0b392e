//! The node's daemon, as the data driver needs it: mounts by the keeper, the rest by the worker.
//!
//! ```text
//! keeper.sock   mount, unmount, what is held
//! node.sock     warm, presence, native trees
//! HOT/trees/<name>   native trees of volumes; mode 0700 above them, pods get binds
//! ```
//!
//! The driver starts no daemon: in a cluster it would die with the driver's container, and every mount
//! with it.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use terrace_csi::Secrets;
use terrace_csi::data::{Daemon, Failure, MountRequest, Mounted, Presence, Promises, Version};
use terrace_fuse::keeper::{
    ClientError, KeeperClient, KernelOptions, MountSpec, RunDir, Secrets as Credentials,
};
use tonic::Status;
use tonic::transport::Channel;

use super::promises::Judge;
use super::written::{self, SpoolArgs};
use crate::catalog::place::CatalogArgs;
use crate::cli::credential_environment;
use crate::cli::mount::{self, MOUNT_LIMIT};
use crate::cli::umount;
use crate::control::proto::node_client::NodeClient;
use crate::control::proto::target::Kind;
use crate::control::proto::{
    MaterializeRequest, MountPath, PresenceRequest, StatusRequest, Target, Tier, WarmRequest,
};
use crate::control::{client, instance};
use crate::node::options::{CATALOG_TOKEN, MountOptions, PinnedVersion};

/// How long a question to keeper or worker may take; a worker that is just replaced takes a part of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long linking a tree of files that are all there may take: millions of files take minutes.
const TREE_LIMIT: Duration = Duration::from_secs(1800);

/// Directory of trees below the hot directory.
const TREES: &str = "trees";

/// What the keeper says of a mount that it has taken away, while somebody still uses it.
const DETACHED: &str = "detached";

/// What the driver was told about mounts.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// Hot directory of the daemon; without one it is looked for at each call.
    pub(super) hot: Option<PathBuf>,
    /// Where the catalog is.
    pub(super) catalog: CatalogArgs,
    /// Where daemons of this machine are found.
    pub(super) run_base: PathBuf,
    /// Where what pods write is staged.
    pub(super) spool: SpoolArgs,
    /// Who judges what directories promise.
    pub(super) judge: Judge,
}

/// The daemon of a hot directory, or the only one of this machine.
#[derive(Clone, Debug)]
pub(super) struct Local(Given);

impl Local {
    /// The daemon need not run yet.
    pub(super) fn new(given: Given) -> Self {
        Self(given)
    }

    fn run(&self) -> Result<RunDir> {
        let found = instance::choose(&self.0.run_base, self.0.hot.as_deref());
        found.context("reach the keeper; start it with terrace keeper --stay --hot DIR")
    }

    fn keeper(&self, limit: Duration) -> Result<KeeperClient> {
        KeeperClient::connect(&self.run()?, limit).context("reach the keeper")
    }

    /// A connection to the worker.
    async fn worker(&self) -> Result<NodeClient<Channel>, Failure> {
        let this = self.clone();
        let run = beside(move || this.run()).await?;
        client::connect(&run).await.map_err(unavailable)
    }

    fn spec(&self, request: &MountRequest) -> Result<MountSpec> {
        let (mut options, credentials) = match &request.of {
            Mounted::Version(version) => self.version(version, request)?,
            Mounted::Directory {
                root,
                durability,
                cold,
                space,
            } => {
                let cold = cold.as_ref().map(|cold| self.0.judge.cold(cold));
                let cold = cold.transpose()?;
                // Nothing but a cold store is asked with anybody's rights.
                let credentials = match cold {
                    Some(_) => credentials(&request.secrets, None),
                    None => Credentials::default(),
                };
                let spool = &self.0.spool;
                let options = spool.options(root, durability, cold, space.as_ref())?;
                (options, credentials)
            }
        };
        options.tenant = request.tenant.clone();
        let usual = KernelOptions::default();
        Ok(MountSpec {
            id: mount::new_id()?,
            mountpoint: request.at.clone(),
            source: request.source.clone(),
            kernel: KernelOptions {
                writable: matches!(request.of, Mounted::Directory { .. }),
                read_ahead_kb: request.read_ahead_kb.unwrap_or(usual.read_ahead_kb),
                ..usual
            },
            options: serde_json::to_value(options).context("encode the options")?,
            credentials,
        })
    }

    /// How a version is mounted, and with whose rights it is read.
    fn version(
        &self,
        version: &Version,
        request: &MountRequest,
    ) -> Result<(MountOptions, Credentials)> {
        let place = self.0.catalog.place(&self.0.run_base)?;
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        let own = request.secrets.token.is_none();
        let defaults = MountOptions::default();
        let options = MountOptions {
            snapshot: true,
            gid: request.group.unwrap_or(defaults.gid),
            catalog: Some(place.url),
            catalog_token: absolute(place.token_file.filter(|_| own))?,
            catalog_ca: absolute(place.ca_file)?,
            version: Some(PinnedVersion {
                dataset: version.dataset.clone(),
                number: version.number,
                manifest: version.manifest.clone(),
                committed_ms: version.committed_ms,
            }),
            ..defaults
        };
        Ok((options, credentials(&request.secrets, place.token)))
    }

    fn mount_now(&self, request: &MountRequest) -> Result<()> {
        let spec = self.spec(request)?;
        mount::ask(&spec, &|| self.keeper(MOUNT_LIMIT))?;
        mount::answers(&request.at)
    }

    /// Where the trees are: beside the objects they link to.
    async fn trees(&self) -> Result<PathBuf, Failure> {
        let mut worker = self.worker().await?;
        let status = worker.status(StatusRequest {}).await.map_err(refused)?;
        let json = status.into_inner().json;
        let document: serde_json::Value = serde_json::from_str(&json).map_err(unavailable)?;
        let hot = document["hot"]
            .as_str()
            .map(|hot| Path::new(hot).join(TREES));
        hot.ok_or_else(|| Failure::Unavailable("the worker names no hot directory".to_owned()))
    }

    /// Builds or removes a tree; its last word is the result.
    async fn materialize(&self, request: MaterializeRequest) -> Result<(), Failure> {
        let mut client = self.worker().await?;
        let mut reports = client.materialize(request).await.map_err(refused)?;
        let reports = reports.get_mut();
        while let Some(report) = reports.message().await.map_err(refused)? {
            if report.finished && report.error.is_empty() {
                return Ok(());
            }
            if report.finished {
                return Err(Failure::Refused(report.error));
            }
        }
        Err(Failure::Unavailable("the node's worker ended".to_owned()))
    }
}

/// The driver's own credentials, with those of the volume in their place.
fn credentials(secrets: &Secrets, own: Option<String>) -> Credentials {
    let mut all = credential_environment();
    all.extend(secrets.store.clone());
    let token = secrets.token.clone().or(own);
    all.extend(token.map(|token| (CATALOG_TOKEN.to_owned(), token)));
    Credentials(all)
}

/// A whole mount.
fn whole(at: &Path) -> Target {
    let mountpoint = at.to_string_lossy().into_owned();
    Target {
        kind: Some(Kind::Mount(MountPath {
            mountpoint,
            path: Vec::new(),
        })),
    }
}

fn unavailable(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    Failure::Unavailable(format!("{error:#}"))
}

fn refused(status: Status) -> Failure {
    let text = status.message().to_owned();
    match status.code() {
        tonic::Code::NotFound => Failure::NotFound(text),
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => Failure::Refused(text),
        _ => Failure::Unavailable(text),
    }
}

/// Blocking questions to the keeper, beside the runtime's threads.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(unavailable)?.map_err(unavailable)
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| {
        Err(Failure::Unavailable(format!(
            "the node's worker does not answer within {limit:?}; see terrace status"
        )))
    })
}

#[tonic::async_trait]
impl Daemon for Local {
    async fn mount(&self, request: MountRequest) -> Result<(), Failure> {
        if let Mounted::Directory {
            durability, cold, ..
        } = &request.of
        {
            // Those of a class were judged when the volume was made, those that a person wrote were not.
            let judged = self.0.judge.check(durability, cold.as_ref());
            judged.map_err(Failure::Refused)?;
        }
        let this = self.clone();
        beside(move || {
            let what = || format!("mount {}", request.source);
            this.mount_now(&request).with_context(what)
        })
        .await
    }

    async fn unmount(&self, at: &Path) -> Result<(), Failure> {
        written::settle(at, &self.0.run_base).await;
        let (this, at) = (self.clone(), at.to_owned());
        beside(move || {
            let what = || format!("unmount {}", at.display());
            let held = umount::keeper_of(&at, &this.0.run_base).with_context(what)?;
            match held.map(|keeper| keeper.umount(&at)) {
                // It says no when it holds no such mount, or cannot unmount; the caller looks.
                None | Some(Ok(_) | Err(ClientError::Refused(_) | ClientError::Gone)) => Ok(()),
                Some(Err(error)) => Err(error).with_context(what),
            }
        })
        .await
    }

    async fn holds(&self, at: &Path) -> Result<bool, Failure> {
        let (this, at) = (self.clone(), at.to_owned());
        beside(move || {
            let (_, mounts) = this.keeper(ANSWER_LIMIT)?.status()?;
            let is_it = |state: &str, path: &Path| path == at && state != DETACHED;
            Ok(mounts
                .iter()
                .any(|held| is_it(&held.state, &held.mountpoint)))
        })
        .await
    }

    async fn warm(&self, at: &Path, pin: bool) -> Result<(), Failure> {
        let request = WarmRequest {
            target: Some(whole(at)),
            tier: Tier::Hot.into(),
            pin,
            wait: false,
        };
        within(ANSWER_LIMIT, async {
            let mut client = self.worker().await?;
            client.warm(request).await.map_err(refused).map(drop)
        })
        .await
    }

    async fn presence(&self, at: &Path) -> Result<Presence, Failure> {
        let mountpoint = at.to_string_lossy().into_owned();
        within(ANSWER_LIMIT, async {
            let mut client = self.worker().await?;
            let reply = client.presence(PresenceRequest { mountpoint }).await;
            let reply = reply.map_err(refused)?.into_inner();
            Ok(Presence {
                files: reply.files,
                complete: reply.complete_files,
            })
        })
        .await
    }

    async fn tree(&self, at: &Path, name: &str) -> Result<PathBuf, Failure> {
        let trees = self.trees().await?;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&trees);
        made.with_context(|| format!("make {}", trees.display()))
            .map_err(unavailable)?;
        let tree = trees.join(name);
        let request = MaterializeRequest {
            target: Some(whole(at)),
            directory: tree.to_string_lossy().into_owned(),
            remove: false,
        };
        within(TREE_LIMIT, self.materialize(request)).await?;
        Ok(tree)
    }

    async fn remove_tree(&self, name: &str) -> Result<(), Failure> {
        let tree = self.trees().await?.join(name);
        let beside = tree.with_file_name(format!("{name}.terrace-materialized"));
        if !tree.exists() && !beside.exists() {
            return Ok(());
        }
        let request = MaterializeRequest {
            target: None,
            directory: tree.to_string_lossy().into_owned(),
            remove: true,
        };
        within(TREE_LIMIT, self.materialize(request)).await
    }
}
