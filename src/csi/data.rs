//! The driver `data.terrace.io`: datasets, models and directories of the cluster.

use terrace_csi::identity::Plugin;
use terrace_csi::locks::Locks;
use tonic::service::Routes;

use super::Driver;
use crate::cli::Role;

/// Builds the driver for a role on a node.
pub(crate) fn assemble(role: Role, node: &str) -> Driver {
    let (controls, mounts) = (role.controls(), role.mounts());
    tracing::info!(controls, mounts, node, "the driver begins");
    Driver {
        plugin: Plugin {
            name: "data.terrace.io",
            version: env!("CARGO_PKG_VERSION").to_owned(),
            topology: false,
            expansion: false,
        },
        services: Routes::default(),
        locks: Locks::default(),
    }
}
