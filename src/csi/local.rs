//! The driver `local.terrace.io`: scratch volumes of the node, put together from its disk.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use terrace_cache::units::ByteSize;
use terrace_csi::Kubelet;
use terrace_csi::identity::Plugin;
use terrace_csi::local::{Controller, Grows, Local, NAME, Node, NodeParts};
use terrace_csi::locks::Locks;
use terrace_csi::metrics::ScratchNumbers;
use terrace_csi::scratch::{Expected, QuotaKind, Scratch, ScratchConfig};
use terrace_csi::wire::controller_server::ControllerServer;
use terrace_csi::wire::node_server::NodeServer;
use tonic::service::Routes;

use super::Driver;
use super::data::Start;

/// Options of the driver.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// Base directory of scratch volumes, made when absent
    #[arg(long, value_name = "DIR", default_value = "/var/lib/terrace/scratch")]
    scratch: PathBuf,
    /// Mount that the base directory must lie on [default: any but the root file system]
    #[arg(long, value_name = "DIR")]
    scratch_mount: Option<PathBuf>,
    /// Allow scratch volumes on the root file system
    #[arg(long)]
    scratch_on_root: bool,
    /// Who keeps limits: xfs-project, ext4-project, btrfs-qgroup, image-ext4, image-xfs or accounting
    /// (no limit) [default: the quotas of the file system]
    #[arg(long, value_name = "KIND")]
    scratch_limits: Option<QuotaKind>,
    /// Bytes of the disk that are never promised to a volume
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    scratch_keep_free: ByteSize,
    /// Leave the growing of volumes to each node's kubelet, where one resizer serves many nodes
    #[arg(long)]
    scratch_grow_by_node: bool,
}

/// Builds the driver: opens its base directory and serves what the role asks for. In a tokio runtime.
pub(crate) fn assemble(args: &LocalArgs, start: &Start<'_>) -> Result<Driver> {
    ensure!(
        !start.node.is_empty(),
        "scratch volumes are on a node, and this one has no name; name it with --node-id ID"
    );
    let config = ScratchConfig {
        expected: Expected {
            mount: args.scratch_mount.clone(),
            root: args.scratch_on_root,
        },
        kind: args.scratch_limits,
        keep_free: args.scratch_keep_free.0,
        ..ScratchConfig::new(&args.scratch)
    };
    let scratch = Scratch::open(&config)?;
    let (limits, base) = (scratch.kind(), scratch.base().display().to_string());
    if limits == QuotaKind::Accounting {
        tracing::warn!(
            base,
            "scratch volumes have no limit here: their bytes are only counted"
        );
    } else {
        tracing::info!(base, %limits, node = start.node, "scratch volumes have hard limits");
    }
    let locks = Locks::default();
    let local = Arc::new(Local::new(scratch, locks.clone(), start.node)?);
    let counted = Arc::clone(&local);
    let mut services = Routes::default();
    if start.role.controls() {
        let grows = if args.scratch_grow_by_node {
            Grows::ByNode
        } else {
            Grows::ByController
        };
        let controller = Controller::new(Arc::clone(&local), grows);
        services = services.add_service(ControllerServer::new(controller));
    }
    if start.role.mounts() {
        let kubelet = Kubelet::open(start.kubelet).context("find the kubelet's directory")?;
        let parts = NodeParts {
            local,
            kubelet: Arc::new(kubelet),
        };
        services = services.add_service(NodeServer::new(Node::new(parts)));
    }
    Ok(Driver {
        plugin: Plugin {
            name: NAME,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            topology: true,
            expansion: true,
        },
        services,
        locks,
        show: Box::new(move |page| ScratchNumbers::show(&counted, page)),
    })
}
