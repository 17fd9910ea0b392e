//! `terrace volume`: what users do with directory volumes.

mod durability;

use clap::{Args, Subcommand};

use super::{Failure, Global};

pub(crate) use durability::settle;

/// See how safe the files of a directory volume are, and make them safer.
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Bring files to a level of durability, and wait for it
    Flush(durability::FlushArgs),
    /// Say what is not in the directory yet, and what has failed
    Status(durability::StatusArgs),
}

pub(crate) fn run(args: &VolumeArgs, global: &Global) -> Result<(), Failure> {
    match &args.command {
        VolumeCommand::Flush(args) => durability::flush(args, global),
        VolumeCommand::Status(args) => durability::status(args, global),
    }
}
