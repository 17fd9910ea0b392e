//! `terrace node`: the worker; the keeper starts it with its link as standard input.

use clap::Args;

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
    let usual = args.nice.map(|nice| Usual {
        nice,
        group: args.group_nice,
    });
    Ok(crate::node::link::run(usual)?)
}
