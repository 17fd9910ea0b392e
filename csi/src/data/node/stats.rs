//! NodeGetVolumeStats: the sizes of the version, or what the file system says of a directory.
//!
//! The mount of a version is not asked, so one that hangs costs nothing. That of a directory is, and a
//! kubelet asks each minute: as long as one question has no answer no other one is put, so a mount that hangs
//! costs one thread.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tonic::Status;

use super::{Node, not_here};
use crate::data::Shown;
use crate::wire::volume_usage::Unit;
use crate::wire::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};
use crate::{VolumeId, mount_table};

/// How long the mount of a directory has to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn stats(
    node: &Node,
    request: NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    let (staged, at) = node.used(&request.volume_id, &request.volume_path)?;
    let mounted = node
        .off(move |parts| {
            // The kubelet may name the path by a link above its directory.
            let Some(target) = parts.kubelet.find(&at)? else {
                return Ok(false);
            };
            let table = mount_table()?;
            Ok(table.iter().any(|entry| entry.target == target.path()))
        })
        .await?;
    if !mounted {
        return Err(not_here());
    }
    let version = match staged.shown()? {
        Shown::Version(plan) => plan.version,
        Shown::Directory(_) => {
            return Ok(NodeGetVolumeStatsResponse {
                usage: ask(node, staged.id(), staged.path().clone()).await?,
                volume_condition: None,
            });
        }
    };
    // Of a version nothing is available to anybody: it is full of itself.
    let full = |unit: Unit, amount: u64| {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        VolumeUsage {
            available: 0,
            total: amount,
            used: amount,
            unit: unit.into(),
        }
    };
    Ok(NodeGetVolumeStatsResponse {
        usage: vec![
            full(Unit::Bytes, version.bytes),
            full(Unit::Inodes, version.files),
        ],
        volume_condition: None,
    })
}

/// What the file system of a mount says of itself, or of the part that it is limited to.
///
/// Errors: DEADLINE_EXCEEDED, also while an earlier question has no answer.
async fn ask(node: &Node, id: &VolumeId, mount: PathBuf) -> Result<Vec<VolumeUsage>, Status> {
    let late = || {
        Status::deadline_exceeded(format!(
            "the volume's mount does not answer within {ANSWER_LIMIT:?}; see terrace status"
        ))
    };
    let held = node.0.asked.hold(id.as_str()).map_err(|_| late())?;
    let question = tokio::task::spawn_blocking(move || {
        let answer = statvfs(&mount);
        drop(held);
        answer
    });
    let answer = tokio::time::timeout(ANSWER_LIMIT, question).await;
    let found = answer
        .map_err(|_| late())?
        .map_err(|broken| Status::internal(broken.to_string()))?
        .map_err(|errno| Status::unavailable(format!("ask the volume's mount: {errno}")))?;
    let usage = |unit: Unit, total: u64, free: u64, available: u64| {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        VolumeUsage {
            available: signed(available),
            total: signed(total),
            used: signed(total.saturating_sub(free)),
            unit: unit.into(),
        }
    };
    let block = found.fragment_size();
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    let (blocks, free) = (bytes(found.blocks()), bytes(found.blocks_free()));
    let mut all = vec![usage(
        Unit::Bytes,
        blocks,
        free,
        bytes(found.blocks_available()),
    )];
    // Some file systems count no files.
    if found.files() > 0 {
        let (files, free) = (found.files(), found.files_free());
        all.push(usage(Unit::Inodes, files, free, found.files_available()));
    }
    Ok(all)
}
