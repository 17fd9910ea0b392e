//! `terrace volume`: what users do with directory volumes.

mod durability;
mod tiering;

use clap::{Args, Subcommand};

use super::{Failure, Global};

pub(crate) use durability::settle;
pub(crate) use tiering::read_policy;

/// See how safe the files of a directory volume are, make them safer, and work on its cold store.
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
    /// Move contents to the cold store; files stay, with all their attributes
    Demote(tiering::DemoteArgs),
    /// Bring contents back from the cold store
    Recall(tiering::RecallArgs),
    /// Say what there is and what the policy would move
    Scan(tiering::ScanArgs),
    /// Keep files, or all below a directory, out of the cold store
    Pin(tiering::PinArgs),
    /// End a pin
    Unpin(tiering::PinArgs),
    /// Remove objects of the cold store that no file names any more
    Collect(tiering::CollectArgs),
}

pub(crate) fn run(args: &VolumeArgs, global: &Global) -> Result<(), Failure> {
    match &args.command {
        VolumeCommand::Flush(args) => durability::flush(args, global),
        VolumeCommand::Status(args) => durability::status(args, global),
        VolumeCommand::Demote(args) => tiering::demote(args, global),
        VolumeCommand::Recall(args) => tiering::recall(args, global),
        VolumeCommand::Scan(args) => tiering::scan(args, global),
        VolumeCommand::Pin(args) => tiering::pin(args, true, global),
        VolumeCommand::Unpin(args) => tiering::pin(args, false, global),
        VolumeCommand::Collect(args) => tiering::collect(args, global),
    }
}
