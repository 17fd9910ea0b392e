//! `terrace node`: the worker; the keeper starts it with its link as standard input.

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Failure, Global};

/// Arguments of `terrace node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {}

pub(crate) fn run(_args: &NodeArgs, _global: &Global) -> Result<(), Failure> {
    raise_open_files();
    Ok(crate::node::link::run()?)
}

/// Every open hot object and every registered backing file is a descriptor of this process: the
/// usual soft limit of 1024 is for programs that use select(2). Failing costs speed only.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}
