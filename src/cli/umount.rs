//! `terrace umount`: through the keeper, and without one.
//!
//! Nothing here touches the mount point's file system, so nothing hangs with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use terrace_cache::units::{ByteSize, Count};
use terrace_fuse::keeper::{ClientError, KeeperClient, RunDir, kernel};

use super::{Failure, Global, volume};

/// How long a keeper may take; ending the worker after the last mount may take twenty seconds.
const KEEPER_LIMIT: Duration = Duration::from_secs(30);

/// How long a keeper may take to say what it holds; a hung one is passed over.
const STATUS_LIMIT: Duration = Duration::from_secs(3);

/// Take MOUNTPOINT away, busy or not.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A busy mount disappears from the tree at once and is served until its \
    last user closes. Without a keeper, its users get errors instead. The last umount ends the \
    node's processes."
)]
pub(crate) struct UmountArgs {
    /// Where something is mounted
    mountpoint: PathBuf,
    /// Wait until everything written is in the directory (a read mount has nothing to wait for)
    #[arg(long)]
    drain: bool,
}

pub(crate) fn run(args: &UmountArgs, global: &Global) -> Result<(), Failure> {
    let what = || format!("umount {}", args.mountpoint.display());
    let mountpoint = canonical_mountpoint(&args.mountpoint).with_context(what)?;
    settle(&mountpoint, args.drain, global).with_context(what)?;
    if umount(&mountpoint, &global.run_base())? {
        eprintln!(
            "terrace: {} was busy: it is detached, and ends when its last user closes",
            mountpoint.display()
        );
    }
    Ok(())
}

/// Waits until a volume has what it was promised on this node's SSD, or with `drain` in its directory.
/// Without `drain` nothing of it keeps a mount from being removed.
fn settle(mountpoint: &Path, drain: bool, global: &Global) -> anyhow::Result<()> {
    let Some((run, _)) = holder(mountpoint, &global.run_base())? else {
        return Ok(());
    };
    match volume::settle(&run, mountpoint, drain) {
        Ok(None) => {}
        Ok(Some(left)) => tell(mountpoint, &left),
        Err(error) if drain => {
            return Err(error.context("drain; without --drain it is unmounted all the same"));
        }
        Err(error) => eprintln!("terrace: {}: {error:#}", mountpoint.display()),
    }
    Ok(())
}

/// Says what is not where it is to be in the end.
fn tell(mountpoint: &Path, left: &volume::Settled) {
    let mountpoint = mountpoint.display();
    if left.files > 0 {
        eprintln!(
            "terrace: {} ({}) of {mountpoint} not in the directory yet: safe in {}, and copied when it is \
             mounted again; terrace umount --drain waits for that",
            Count(left.files, "file"),
            ByteSize(left.bytes),
            left.directory,
        );
    }
    if left.owed > 0 {
        eprintln!(
            "terrace: {} of {mountpoint} not in the cold store as was promised: mount it again, and terrace \
             volume flush --level cold brings them there",
            Count(left.owed, "file"),
        );
    }
}

/// Removes what is mounted at a canonical path; `true` when it was busy.
pub(super) fn umount(mountpoint: &Path, run_base: &Path) -> anyhow::Result<bool> {
    if let Some(client) = keeper_of(mountpoint, run_base)? {
        match client.umount(mountpoint) {
            Ok(busy) => return Ok(busy),
            // Ended or hung meanwhile: do it without.
            Err(ClientError::Gone | ClientError::TimedOut(_) | ClientError::Absent) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("umount {}", mountpoint.display()));
            }
        }
    }
    without_keeper(mountpoint).with_context(|| format!("umount {}", mountpoint.display()))
}

/// The keeper that holds the mount, if one answers.
pub(crate) fn keeper_of(
    mountpoint: &Path,
    run_base: &Path,
) -> anyhow::Result<Option<KeeperClient>> {
    let found = holder(mountpoint, run_base)?;
    Ok(found.and_then(|(run, _)| KeeperClient::connect(&run, KEEPER_LIMIT).ok()))
}

/// The node that holds the mount.
pub(crate) fn holder(
    mountpoint: &Path,
    run_base: &Path,
) -> anyhow::Result<Option<(RunDir, KeeperClient)>> {
    for run in RunDir::existing(run_base).context("look for keepers")? {
        let Ok(asked) = KeeperClient::connect(&run, STATUS_LIMIT) else {
            continue;
        };
        let Ok((_, mounts)) = asked.status() else {
            continue;
        };
        let holds = mounts
            .iter()
            .any(|mount| mount.mountpoint == mountpoint && mount.state != "detached");
        if holds {
            return Ok(Some((run, asked)));
        }
    }
    Ok(None)
}

fn without_keeper(mountpoint: &Path) -> anyhow::Result<bool> {
    let Some(entry) = kernel::find_mount(mountpoint).context("read the mount table")? else {
        bail!("nothing is mounted there; terrace status lists all mounts");
    };
    if entry.fs_type != kernel::FS_TYPE {
        bail!(
            "it is a {} mount and not ours; use umount(8)",
            entry.fs_type
        );
    }
    let removed = kernel::unmount(mountpoint).context("run as root or with CAP_SYS_ADMIN")?;
    if removed == kernel::Removed::Detached {
        // Nobody would ever end it: those who still use it get errors now. It has ended already
        // when its worker is dead too.
        if let Err(error) = kernel::abort(entry.minor) {
            tracing::debug!(%error, "connection not aborted");
        }
    }
    Ok(removed == kernel::Removed::Detached)
}

/// Canonical path of a mount point without asking what is mounted there: its parent is made
/// canonical, its own name is taken as it is (`.` and `..` at the end are resolved).
pub(super) fn canonical_mountpoint(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            let direct = parent.canonicalize()?.join(name);
            // A symbolic link to a mount point is followed; the link itself is no mount point.
            match std::fs::read_link(&direct) {
                Ok(_) => direct.canonicalize(),
                Err(_) => Ok(direct),
            }
        }
        _ => absolute.canonicalize(),
    }
}
