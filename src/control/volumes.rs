//! What the control socket answers about directory volumes: how safe their files are.

use std::sync::Arc;

use serde_json::json;
use terrace_fuse::directory::{Flushed, Level};
use tokio::sync::mpsc;
use tonic::Status;

use super::proto::{MountPath, VolumeFlushProgress};
use crate::node::assembly::Node;
use crate::node::volume::Volume;

/// The volume of a path, and the path below it.
pub(super) fn find(node: &Node, at: Option<MountPath>) -> Result<(Arc<Volume>, Vec<u8>), Status> {
    let at = at.ok_or_else(|| Status::invalid_argument("name a path of a volume"))?;
    let volume = node.volume_at(&at.mountpoint).ok_or_else(|| {
        let name = at.mountpoint;
        Status::not_found(format!("{name} is no directory that is mounted with --rw"))
    })?;
    Ok((volume, at.path))
}

fn refused(path: &[u8], errno: nix::errno::Errno) -> Status {
    let path = String::from_utf8_lossy(path);
    Status::failed_precondition(format!("find {path}: {errno}"))
}

/// The document of `terrace volume status --json`.
pub(super) fn document(volume: &Volume, path: &[u8], acknowledge: bool) -> Result<String, Status> {
    let failed = |errno| refused(path, errno);
    let spool = volume.fs.spool_status(path).map_err(failed)?;
    let cold = volume.fs.cold_debts(path).map_err(failed)?;
    let acknowledged = if acknowledge {
        volume.fs.acknowledge_below(path).map_err(failed)?
    } else {
        0
    };
    let document = json!({
        "mountpoint": volume.spec.mountpoint,
        "source": volume.spec.source,
        "durability": volume.durability,
        "acknowledged": acknowledged,
        "spool": spool,
        "cold": cold,
    });
    Ok(document.to_string())
}

/// Brings files to a level and tells how far it has come; ends when nobody listens. Blocks.
pub(super) fn flush(
    volume: &Volume,
    path: &[u8],
    level: Level,
    reports: &mpsc::Sender<Result<VolumeFlushProgress, Status>>,
) {
    let mut tell = |flushed: &Flushed| reports.blocking_send(Ok(progress(flushed, false))).is_ok();
    let done = volume.fs.flush_below(path, level, &mut tell);
    let last = done.map(|flushed| progress(&flushed, true));
    // Nobody listens any more: nobody is told.
    reports
        .blocking_send(last.map_err(|errno| refused(path, errno)))
        .ok();
}

/// Brings files to level `cold`, all or only those that are owed, and tells how far it has come; ends when
/// nobody listens.
pub(super) async fn flush_to_cold(
    volume: Arc<Volume>,
    path: Vec<u8>,
    only_owed: bool,
    reports: mpsc::Sender<Result<VolumeFlushProgress, Status>>,
) {
    let (tell, mut heard) = mpsc::channel(1);
    let work = async {
        let done = volume.fs.flush_to_cold(path, only_owed, &tell).await;
        drop(tell);
        done
    };
    let listen = async {
        while let Some(flushed) = heard.recv().await {
            if reports.send(Ok(progress(&flushed, false))).await.is_err() {
                break;
            }
        }
        drop(heard);
    };
    let (done, ()) = tokio::join!(work, listen);
    let last = done.map(|flushed| progress(&flushed, true));
    // Nobody listens any more: nobody is told.
    let last = last.map_err(|error| Status::failed_precondition(error.to_string()));
    reports.send(last).await.ok();
}

fn progress(flushed: &Flushed, finished: bool) -> VolumeFlushProgress {
    VolumeFlushProgress {
        done: flushed.done,
        total: flushed.total,
        bytes: flushed.bytes,
        failed: flushed.failed,
        error: flushed.error.clone(),
        finished,
    }
}
