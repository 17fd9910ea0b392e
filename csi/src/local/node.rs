//! The Node service of scratch volumes.
//!
//! ```text
//! <kubelet>/plugins/kubernetes.io/csi/.../globalmount   staged: the volume, or its mounted image
//! <kubelet>/pods/<uid>/volumes/.../mount                published: a bind of it for each pod
//! ```

use std::path::Path;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::create::size;
use super::publish::{publish, stage, unpublish, unstage};
use super::{Local, NodeParts, known, required, signed};
use crate::wire::node_server::Node as Service;
use crate::wire::node_service_capability::rpc::Type as Offered;
use crate::wire::node_service_capability::{Rpc, Type};
use crate::wire::volume_usage::Unit;
use crate::wire::*;

const OFFERED: [Offered; 5] = [
    Offered::StageUnstageVolume,
    Offered::GetVolumeStats,
    Offered::ExpandVolume,
    Offered::SingleNodeMultiWriter,
    Offered::VolumeMountGroup,
];

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node(Arc<NodeParts>);

impl Node {
    /// Serves the volumes of a node.
    pub fn new(parts: NodeParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Does something with mounts, alone for the volume.
    async fn run<T: Send + 'static>(
        &self,
        volume: &str,
        work: impl FnOnce(&NodeParts) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let parts = Arc::clone(&self.0);
        self.0.local.run(volume, move |_| work(&parts)).await
    }
}

#[tonic::async_trait]
impl Service for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "stage a volume");
        let key = request.volume_id.clone();
        self.run(&key, |parts| stage(parts, request)).await?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let key = request.volume_id.clone();
        self.run(&key, |parts| unstage(parts, request)).await?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "publish a volume");
        let key = request.volume_id.clone();
        self.run(&key, |parts| publish(parts, request)).await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let key = request.volume_id.clone();
        self.run(&key, |parts| unpublish(parts, request)).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.local.read(move |local| stats(local, &request));
        Ok(Response::new(found.await?))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "volume id")?;
        required(&request.volume_path, "volume path")?;
        let id = known(&request.volume_id)?;
        let key = id.to_string();
        let grown = self.0.local.run(&key, move |local| {
            let now = local.scratch.volume(&id)?.size;
            Ok(local
                .scratch
                .expand(&id, size(request.capacity_range, now)?)?)
        });
        Ok(Response::new(NodeExpandVolumeResponse {
            capacity_bytes: signed(grown.await?.size),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |offered: Offered| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: offered.into(),
            })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: OFFERED.map(capability).into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.0.local.node.clone(),
            max_volumes_per_node: 0,
            accessible_topology: Some(self.0.local.topology()),
        }))
    }
}

/// Usage of a volume from who keeps its limit; the path is compared, never looked at.
fn stats(
    local: &Local,
    request: &NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    required(&request.volume_id, "volume id")?;
    required(&request.volume_path, "volume path")?;
    let id = known(&request.volume_id)?;
    let at = Path::new(&request.volume_path);
    let staged = local.staged.get(&id)?;
    let here = staged.filter(|s| s.path() == at || s.targets().contains_key(at));
    if here.is_none() {
        return Err(Status::not_found(format!(
            "volume {id} is not mounted at that path"
        )));
    }
    let usage = local.scratch.usage(&id)?;
    let amount = |unit: Unit, used: u64, total: u64| VolumeUsage {
        available: signed(total.saturating_sub(used)),
        total: signed(total),
        used: signed(used),
        unit: unit.into(),
    };
    let mut found = vec![amount(Unit::Bytes, usage.bytes, usage.byte_limit)];
    if let (Some(used), Some(limit)) = (usage.inodes, usage.inode_limit) {
        found.push(amount(Unit::Inodes, used, limit));
    }
    Ok(NodeGetVolumeStatsResponse {
        usage: found,
        volume_condition: None,
    })
}
