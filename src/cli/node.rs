//! `terrace node`: the worker; the keeper starts it with its link as standard input.

use clap::Args;

use super::{Failure, Global};

/// Arguments of `terrace node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {}

pub(crate) fn run(_args: &NodeArgs, _global: &Global) -> Result<(), Failure> {
    Ok(crate::node::link::run()?)
}
