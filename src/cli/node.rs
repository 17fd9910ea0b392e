//! `terrace node`: the worker; the keeper starts it with its link as standard input.

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Failure, Global};
use crate::node::priority::Usual;

/// Arguments of `terrace node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Nice value of a worker that serves; it starts with the keeper's
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    nice: Option<i32>,
    /// Nice value of the session of a worker that serves
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    group_nice: Option<i32>,
}

pub(crate) fn run(args: &NodeArgs, _global: &Global) -> Result<(), Failure> {
    raise_open_files();
    let usual = args.nice.map(|nice| Usual {
        nice,
        group: args.group_nice,
    });
    Ok(crate::node::link::run(usual)?)
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
