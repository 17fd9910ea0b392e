//! The drivers of Kubernetes volumes, put together from `terrace_csi` and what this machine has.

use terrace_csi::identity::Plugin;
use terrace_csi::locks::Locks;
use terrace_csi::metrics::Page;
use tonic::service::Routes;

mod daemon;
pub(crate) mod data;
pub(crate) mod local;
mod promises;
mod versions;
mod written;

/// One driver, ready to be served.
pub(crate) struct Driver {
    /// What it says of itself.
    pub(crate) plugin: Plugin,
    /// Its services besides Identity.
    pub(crate) services: Routes,
    /// Its operations under way.
    pub(crate) locks: Locks,
    /// Shows what it counts besides its calls.
    pub(crate) show: Box<dyn FnOnce(&mut Page)>,
}
