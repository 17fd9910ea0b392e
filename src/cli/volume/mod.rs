//! `terrace volume`: the directories that users and projects have on a shared file system.
//!
//! `create` makes one, `delete` and `purge` take it away in two steps, `list` and `usage` look. These work
//! on the base directory itself, without a daemon: the shared file system is where volumes are, whatever
//! runs on this node. The others ask the worker that serves a mount.

mod create;
mod durability;
mod list;
mod remove;
mod tiering;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use terrace_csi::spaces::Spaces;

use super::{Failure, Global};
use crate::node::config::Config;

pub(crate) use durability::{Settled, settle};
pub(crate) use tiering::{parse_policy, read_policy};

/// Spaces of users (home/USER) and projects (project/NAME); how safe the files of volumes are, and their
/// cold stores.
#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Make a volume, with its owner and its limits
    Create(create::CreateArgs),
    /// List volumes, with what they may take and take
    List(list::ListArgs),
    /// Say what volumes take
    Usage(list::UsageArgs),
    /// Change what a volume may take
    Quota(create::QuotaArgs),
    /// Move a volume into the trash
    Delete(remove::DeleteArgs),
    /// Bring a volume back from the trash
    Restore(remove::RestoreArgs),
    /// Remove the volumes in the trash whose time has come, for ever
    Purge(remove::PurgeArgs),
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

/// Where volumes are.
#[derive(Clone, Debug, Args)]
pub(crate) struct BaseArgs {
    /// Directory of the shared file system that has the volumes [default: volumes.base of the
    /// configuration]
    #[arg(long = "base", value_name = "DIR")]
    base: Option<PathBuf>,
}

impl BaseArgs {
    /// The base directory that was named.
    pub(crate) fn path(&self, global: &Global) -> Result<PathBuf> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let config = Config::load(global.config.as_deref())?;
        config.volumes.base.context(
            "no directory of volumes is named; use --base DIR, or volumes.base in the file of --config",
        )
    }

    /// The volumes there.
    fn open(&self, global: &Global) -> Result<Spaces> {
        Ok(Spaces::open(&self.path(global)?)?)
    }
}

pub(crate) fn run(args: &VolumeArgs, global: &Global) -> Result<(), Failure> {
    let done = match &args.command {
        VolumeCommand::Create(args) => create::create(args, global),
        VolumeCommand::List(args) => list::list(args, global),
        VolumeCommand::Usage(args) => list::usage(args, global),
        VolumeCommand::Quota(args) => create::quota(args, global),
        VolumeCommand::Delete(args) => remove::delete(args, global),
        VolumeCommand::Restore(args) => remove::restore(args, global),
        VolumeCommand::Purge(args) => remove::purge(args, global),
        VolumeCommand::Flush(args) => return durability::flush(args, global),
        VolumeCommand::Status(args) => return durability::status(args, global),
        VolumeCommand::Demote(args) => return tiering::demote(args, global),
        VolumeCommand::Recall(args) => return tiering::recall(args, global),
        VolumeCommand::Scan(args) => return tiering::scan(args, global),
        VolumeCommand::Pin(args) => return tiering::pin(args, true, global),
        VolumeCommand::Unpin(args) => return tiering::pin(args, false, global),
        VolumeCommand::Collect(args) => return tiering::collect(args, global),
    };
    Ok(done?)
}

/// What the name of a volume begins with when it is to be mounted.
pub(crate) const SOURCE: &str = "volume:";

/// What a mounted volume is called in the table of mounts: two bases may have the same names.
pub(crate) fn source_of(directory: &Path) -> String {
    format!("{SOURCE}{}", directory.display())
}

/// Where the volume with that directory is mounted on this machine.
fn mounted(directory: &Path) -> Result<Vec<PathBuf>> {
    let source = source_of(directory);
    let entries = terrace_csi::mount_table().context("see where it is mounted")?;
    let here = entries
        .into_iter()
        .filter(|entry| entry.source == *source)
        .map(|entry| entry.target);
    Ok(here.collect())
}

/// A path as a message shows it.
fn shown(paths: &[PathBuf]) -> String {
    let shown = paths.iter().map(|path: &PathBuf| Path::display(path));
    shown
        .map(|path| path.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
