//! `terrace umount`.

use clap::Args;

use super::{Failure, Global};

/// Arguments of `terrace umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {}

pub(crate) fn run(_args: &UmountArgs, _global: &Global) -> Result<(), Failure> {
    Err(Failure("umount: not wired yet".to_owned()))
}
