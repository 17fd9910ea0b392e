//! `terrace csi`: one of the two drivers of Kubernetes volumes, on a unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use terrace_csi::identity::{Identity, Readiness};
use terrace_csi::metrics::{CallNumbers, Page};
use terrace_csi::server::{self, Endpoint};
use terrace_csi::wire::identity_server::IdentityServer;
use tokio_util::sync::CancellationToken;

use super::catalog::{Ends, runtime};
use super::{Failure, Global, pages};
use crate::csi::data::{DataArgs, Start};
use crate::csi::local::LocalArgs;
use crate::csi::{self, Driver};

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DriverArg {
    /// Datasets, models and directories: data.terrace.io
    Data,
    /// Scratch directories of the node: local.terrace.io
    Local,
}

/// Which services of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Volumes of the cluster, once
    Controller,
    /// Volumes of one node, on each
    Node,
    /// Both on one socket
    All,
}

impl Role {
    /// Whether the controller's service is a part of it.
    pub(crate) fn controls(self) -> bool {
        matches!(self, Self::Controller | Self::All)
    }

    /// Whether the node's service is a part of it.
    pub(crate) fn mounts(self) -> bool {
        matches!(self, Self::Node | Self::All)
    }
}

/// Serve Kubernetes volumes.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    terrace csi --endpoint unix:///csi/csi.sock --driver data --role controller\n  \
    terrace csi --endpoint unix:///csi/csi.sock --driver data --role node --node-id node-7\n\n\
    SIGTERM and SIGINT let calls under way end; no mount is touched.")]
pub(crate) struct CsiArgs {
    /// Where to listen: unix:// and an absolute path
    #[arg(long, value_name = "unix:///PATH")]
    endpoint: Endpoint,
    /// Which driver
    #[arg(long, value_name = "DRIVER")]
    driver: DriverArg,
    /// Which of its services
    #[arg(long, value_name = "ROLE", default_value = "all")]
    role: Role,
    /// Name of this node, as Kubernetes knows it; needed for roles with node
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// Where volumes are remembered; must outlive the driver [default: the driver's directory of
    /// plugins below the kubelet's directory; /var/lib/terrace/csi for a controller alone]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Directory of the kubelet; paths of volumes lie below it and nowhere else
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Address that serves /metrics and /readyz over plain HTTP [default: none]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    #[command(flatten, next_help_heading = "Driver data")]
    data: DataArgs,
    #[command(flatten, next_help_heading = "Driver local")]
    local: LocalArgs,
}

/// Longest name of a node: the limit of the interface for such a field is 256, of Kubernetes 253.
const NODE_ID_MAX: usize = 253;

pub(crate) fn run(args: &CsiArgs, global: &Global) -> Result<(), Failure> {
    let what = || format!("serve the driver at {}", args.endpoint.path().display());
    Ok(runtime()?
        .block_on(serve(args, global))
        .with_context(what)?)
}

/// Where records are kept when nobody says where: what a node remembers lies on the node.
fn state(args: &CsiArgs) -> PathBuf {
    let usual = || {
        if args.role.mounts() {
            args.kubelet_dir.join("plugins")
        } else {
            PathBuf::from("/var/lib/terrace/csi")
        }
    };
    args.state.clone().unwrap_or_else(usual)
}

async fn serve(args: &CsiArgs, global: &Global) -> Result<()> {
    let node = args.node_id.clone().unwrap_or_default();
    ensure!(
        !args.role.mounts() || (1..=NODE_ID_MAX).contains(&node.len()),
        "a node has no name, or one of more than {NODE_ID_MAX} bytes; name it with --node-id ID"
    );
    let asked = Ends::watch()?;
    let start = Start {
        role: args.role,
        node: &node,
        state: &state(args),
        kubelet: &args.kubelet_dir,
        global,
    };
    let driver: Driver = match args.driver {
        DriverArg::Data => csi::data::assemble(&args.data, &start)?,
        DriverArg::Local => csi::local::assemble(&args.local, &start)?,
    };
    let Driver {
        plugin,
        services,
        locks,
        show,
    } = driver;
    let ready = Readiness::default();
    let calls = CallNumbers::new(plugin.name);
    let mut page = Page::new(ready.clone());
    calls.show(&mut page);
    show(&mut page);
    let identity = IdentityServer::new(Identity::new(plugin, ready.clone()));
    let routes = services.add_service(identity);
    let end = CancellationToken::new();
    let shown = pages::show(page, args.metrics, &end).await?;
    let serving = server::serve(&args.endpoint, routes, calls, end.clone());
    tokio::pin!(serving);
    ready.set(true);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = asked.wait() => end.cancel(),
    }
    let served = serving.await;
    // A call whose caller has gone is carried out to its end.
    locks.drained().await;
    drop(shown);
    Ok(served?)
}
