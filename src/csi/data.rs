//! The driver `data.terrace.io`, put together: its services, the catalog, and the node's daemon.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use terrace_csi::data::controller::{self, Controller};
use terrace_csi::data::node::{self, Inline, Node};
use terrace_csi::data::{Bases, Catalog, NAME};
use terrace_csi::identity::Plugin;
use terrace_csi::locks::Locks;
use terrace_csi::metrics::VolumeNumbers;
use terrace_csi::wire::controller_server::ControllerServer;
use terrace_csi::wire::node_server::NodeServer;
use terrace_csi::{Kubelet, Records};
use tonic::service::Routes;

use super::Driver;
use super::daemon::{Given, Local};
use super::promises::ColdArgs;
use super::versions::Versions;
use super::written::SpoolArgs;
use crate::catalog::place::CatalogArgs;
use crate::cli::{Global, Role};

/// Options of the driver.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(flatten)]
    catalog: CatalogArgs,
    /// Hot directory of the node's daemon [default: that of the only one that runs]
    #[arg(long, value_name = "DIR")]
    hot: Option<PathBuf>,
    /// Who may have inline volumes, which pods name themselves
    #[arg(long, value_name = "WHO", default_value = "never")]
    inline: InlineArg,
    /// Audience of service account tokens, as in the CSIDriver's tokenRequests: a pod gets a version only if
    /// its own account may read it [default: pods are not asked]
    #[arg(long, value_name = "AUDIENCE")]
    pod_tokens: Option<String>,
    /// Directory of a shared file system below which volumes may be directories that are written; may be
    /// given again [default: no such volumes]
    #[arg(long, value_name = "DIR")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    spool: SpoolArgs,
    #[command(flatten)]
    cold: ColdArgs,
}

/// See [`Inline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InlineArg {
    /// Nobody
    Never,
    /// Who brings a token of the catalog in nodePublishSecretRef
    WithToken,
    /// Everybody, with the driver's own token
    Any,
}

/// What every driver is told.
pub(crate) struct Start<'a> {
    /// Which services.
    pub(crate) role: Role,
    /// Name of the node; empty when none is served.
    pub(crate) node: &'a str,
    /// Where records are kept.
    pub(crate) state: &'a Path,
    /// The kubelet's directory.
    pub(crate) kubelet: &'a Path,
    /// Options of every command.
    pub(crate) global: &'a Global,
}

/// Builds the driver.
///
/// Errors: a directory cannot be used.
pub(crate) fn assemble(args: &DataArgs, start: &Start<'_>) -> Result<Driver> {
    let run_base = start.global.run_base();
    let locks = Locks::default();
    let bases = Bases::new(&args.directories).context("use --directories")?;
    let catalog: Arc<dyn Catalog> = Arc::new(Versions::new(args.catalog.clone(), run_base.clone()));
    let mut numbers = VolumeNumbers::default();
    let mut services = Routes::default();
    if start.role.controls() {
        let kept = directory(start.state, "volumes")?;
        let records = Arc::new(Records::open(&kept)?);
        numbers.count_made(&records);
        let controller = Controller::new(controller::Parts {
            catalog: Arc::clone(&catalog),
            records,
            snapshots: Arc::new(Records::open(&kept)?),
            locks: locks.clone(),
            bases: bases.clone(),
            promises: Arc::new(args.cold.judge()),
        });
        services = services.add_service(ControllerServer::new(controller));
    }
    if start.role.mounts() {
        let spool = args.spool.clone();
        let daemon = Local::new(Given {
            hot: args.hot.clone(),
            catalog: args.catalog.clone(),
            run_base,
            spool,
            judge: args.cold.judge(),
        });
        let records = Arc::new(Records::open(&directory(start.state, "staged")?)?);
        numbers.count_staged(&records);
        let node = Node::new(node::Parts {
            catalog,
            daemon: Arc::new(daemon),
            kubelet: Kubelet::open(start.kubelet)?,
            records,
            locks: locks.clone(),
            asked: Locks::default(),
            bases,
            node: start.node.to_owned(),
            inline: match args.inline {
                InlineArg::Never => Inline::Never,
                InlineArg::WithToken => Inline::WithToken,
                InlineArg::Any => Inline::Any,
            },
            pod_audience: args.pod_tokens.clone(),
        });
        services = services.add_service(NodeServer::new(node));
    }
    Ok(Driver {
        plugin: Plugin {
            name: NAME,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            topology: false,
            expansion: true,
        },
        services,
        locks,
        show: Box::new(move |page| numbers.show(page)),
    })
}

/// `STATE/data.terrace.io/<part>`; what is above it is made for this user only.
fn directory(state: &Path, part: &str) -> Result<PathBuf> {
    let above = state.join(NAME);
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&above);
    made.with_context(|| format!("make {}; try --state", above.display()))?;
    Ok(above.join(part))
}
