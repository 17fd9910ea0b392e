//! Directories that pods write, as the node's daemon is asked for them.
//!
//! ```text
//! SPOOL/<key>   what was written at the level `local`, until the directory <key> stands for has it
//! ```
//!
//! Before a mount goes, everything that was written is on this node's disk, and what is there only is told.
//! Nothing keeps a mount from going: what was acknowledged is where it was promised to be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use terrace_cache::units::ByteSize;
use terrace_csi::data::SpaceOf;

use crate::cli::umount;
use crate::cli::volume::{self, Settled};
use crate::node::options::{ColdOptions, DirectoryOptions, MountOptions, SpaceOptions, SsdCache};

/// How long an unmount waits until what was written to a directory is on the node's disk. What was acknowledged
/// is, so this is for the rest; the kubelet itself gives up after two minutes.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// Where what pods write is staged.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SpoolArgs {
    /// Where files of directories are staged at the level local, on a disk that nobody clears [default:
    /// beside the daemon's hot directory]
    #[arg(long, value_name = "DIR", requires = "directories")]
    spool: Option<PathBuf>,
    /// Most bytes staged there for each volume [default: its tenant's, or half of what is free]
    #[arg(long, value_name = "SIZE", requires = "directories")]
    spool_size: Option<ByteSize>,
}

impl SpoolArgs {
    /// How a directory is mounted, with these rules of durability and this store behind it.
    pub(super) fn options(
        &self,
        root: &Path,
        durability: &terrace_csi::Durability,
        cold: Option<ColdOptions>,
        space: Option<&SpaceOf>,
    ) -> Result<MountOptions> {
        let spool = self.spool.as_deref().map(std::path::absolute);
        let directory = DirectoryOptions {
            root: root.to_owned(),
            refuse_locks: false,
            durability: durability.rules(),
            spool: spool.transpose()?,
            spool_size: self.spool_size,
            cold,
            space: space.map(|space| SpaceOptions {
                base: space.base.clone(),
                name: space.name.clone(),
            }),
            ssd_cache: SsdCache::default(),
            revalidate: None,
        };
        Ok(MountOptions {
            directory: Some(directory),
            ..MountOptions::default()
        })
    }
}

/// Brings what was written to a directory to this node's disk before its mount goes. Of other mounts, and where
/// nobody holds the mount, there is nothing to bring.
pub(super) async fn settle(at: &Path, run_base: &Path) {
    let (path, run_base) = (at.to_owned(), run_base.to_owned());
    let settled = tokio::task::spawn_blocking(move || match umount::holder(&path, &run_base)? {
        Some((run, _)) => volume::settle(&run, &path, false),
        None => Ok(None),
    });
    match tokio::time::timeout(SETTLE_LIMIT, settled).await {
        Ok(Ok(settled)) => tell(at, settled),
        Ok(Err(broken)) => tell(at, Err(broken.into())),
        Err(late) => tell(at, Err(late.into())),
    }
}

/// Tells what of a directory is on this node's disk only.
fn tell(at: &Path, settled: Result<Option<Settled>>) {
    let mount = at.display();
    match settled {
        Ok(None) => {}
        Ok(Some(left)) => tracing::warn!(
            %mount,
            files = left.files,
            bytes = left.bytes,
            spool = left.directory,
            "not in the directory yet: safe on this node, goes up when the volume is staged here again"
        ),
        Err(error) => {
            tracing::warn!(%mount, error = format!("{error:#}"), "not settled before its end")
        }
    }
}
