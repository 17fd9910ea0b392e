//! NodeGetVolumeStats: the sizes of the version. The mount is not asked, so one that hangs costs nothing.

use tonic::Status;

use super::{Node, path};
use crate::wire::volume_usage::Unit;
use crate::wire::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};
use crate::{VolumeId, mount_table};

pub(super) async fn stats(
    node: &Node,
    request: NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    if request.volume_id.is_empty() {
        return Err(Status::invalid_argument("the request names no volume"));
    }
    let at = path(&request.volume_path, "volume path")?.to_owned();
    let unknown = || Status::not_found("the volume is not on this node, or not at that path");
    let id: VolumeId = request.volume_id.parse().map_err(|_| unknown())?;
    let staged = node.staged(&id)?.ok_or_else(unknown)?;
    if *staged.path() != at && !staged.targets().contains_key(&at) {
        return Err(unknown());
    }
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
        return Err(unknown());
    }
    let version = staged.plan()?.version;
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
