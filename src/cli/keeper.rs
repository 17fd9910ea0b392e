//! `terrace keeper`.

use clap::Args;

use super::{Failure, Global};

/// Arguments of `terrace keeper`.
#[derive(Debug, Args)]
pub(crate) struct KeeperArgs {}

pub(crate) fn run(_args: &KeeperArgs, _global: &Global) -> Result<(), Failure> {
    Err(Failure("keeper: not wired yet".to_owned()))
}
