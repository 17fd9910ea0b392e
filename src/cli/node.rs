//! `terrace node`.

use clap::Args;

use super::{Failure, Global};

/// Arguments of `terrace node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {}

pub(crate) fn run(_args: &NodeArgs, _global: &Global) -> Result<(), Failure> {
    Err(Failure("node: not wired yet".to_owned()))
}
