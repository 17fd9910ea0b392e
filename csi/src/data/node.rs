//! The Node service of `data.terrace.io`.
//!
//! ```text
//! <kubelet>/plugins/kubernetes.io/csi/.../globalmount   staged: the daemon's mount of the volume
//! <kubelet>/pods/<uid>/volumes/.../mount                published: a bind of it, or of a version's tree;
//!                                                       read-only, unless it is a directory to be written
//! <kubelet>/plugins/data.terrace.io/inline/<hash>       where inline volumes are staged
//! ```
//!
//! What is staged and published is noted before it is done and forgotten after it was undone, so a
//! driver that was killed in between finds on the next call what it began. The notes say what was
//! promised; what is mounted is read from mountinfo(5) each time. The driver holds no mount: its end
//! and its start touch none.
//!
//! No path behind a mount is asked: the file system may not answer. Sizes are those of the version. Only the
//! statistics of a directory come from its mount: on a thread of their own, and one question at a time.
//!
//! Lock order: the volume's name ([`Locks`]), for a whole operation; nothing below it.

mod expand;
mod publish;
mod stage;
mod staged;
mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

pub use staged::Staged;

use super::size::signed;
use super::{Bases, Catalog, Daemon, NAME};
use crate::locks::Locks;
use crate::wire::node_server::Node as Service;
use crate::wire::node_service_capability::rpc::Type as Offered;
use crate::wire::node_service_capability::{Rpc, Type};
use crate::wire::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use crate::{Kubelet, Records, VolumeId};

/// Calls that are served.
const OFFERED: [Offered; 5] = [
    Offered::StageUnstageVolume,
    Offered::GetVolumeStats,
    Offered::ExpandVolume,
    Offered::SingleNodeMultiWriter,
    Offered::VolumeMountGroup,
];

/// How long work on mounts may take. Nothing of it asks a file system, so more means that the kernel is
/// stuck; the call ends, and the thread when the kernel does.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// Who may have inline volumes, which pods name themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inline {
    /// Nobody.
    #[default]
    Never,
    /// Who brings a token of the catalog among the secrets of the volume.
    WithToken,
    /// Everybody, with the driver's own token.
    Any,
}

/// What the service needs.
pub struct Parts {
    /// Who knows versions.
    pub catalog: Arc<dyn Catalog>,
    /// Who has the mounts.
    pub daemon: Arc<dyn Daemon>,
    /// Below which every path lies.
    pub kubelet: Kubelet,
    /// What is staged on this node.
    pub records: Arc<Records<Staged>>,
    /// Operations under way.
    pub locks: Locks,
    /// Questions to mounts under way, which are no operations.
    pub asked: Locks,
    /// Directories below which volumes may lie.
    pub bases: Bases,
    /// Name of the node.
    pub node: String,
    /// Who may have inline volumes.
    pub inline: Inline,
    /// Audience of the tokens of pods: each pod's own must be allowed to read the version that it gets.
    /// `None`: pods are not asked who they are.
    pub pod_audience: Option<String>,
}

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node(Arc<Parts>);

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Parts");
        shown.field("node", &self.node).finish_non_exhaustive()
    }
}

impl Node {
    /// Serves the volumes of one node.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What is staged of a volume; `None` also for what is no id at all.
    fn staged(&self, id: &VolumeId) -> Result<Option<Staged>, Status> {
        Ok(self.0.records.get(id)?)
    }

    /// The volume that a request about its use names, by id and by a path where it is.
    ///
    /// Errors: INVALID_ARGUMENT without one of them, NOT_FOUND when it is not there.
    fn used(&self, id: &str, at: &str) -> Result<(Staged, PathBuf), Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("the request names no volume"));
        }
        let at = path(at, "volume path")?.to_owned();
        let id: VolumeId = id.parse().map_err(|_| not_here())?;
        let staged = self.staged(&id)?.ok_or_else(not_here)?;
        if *staged.path() != at && !staged.targets().contains_key(&at) {
            return Err(not_here());
        }
        Ok((staged, at))
    }

    /// Does something with mounts or records beside the runtime's threads.
    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parts) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let parts = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || work(&parts));
        match tokio::time::timeout(MOUNT_LIMIT, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(broken)) => Err(Status::internal(broken.to_string())),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the kernel does not answer within {MOUNT_LIMIT:?}; see terrace status"
            ))),
        }
    }
}

/// Reads the id of a volume that a request must name.
fn id(text: &str) -> Result<VolumeId, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument("the request names no volume"));
    }
    text.parse()
        .map_err(|why: crate::VolumeIdError| Status::invalid_argument(why.to_string()))
}

fn not_here() -> Status {
    Status::not_found("the volume is not on this node, or not at that path")
}

/// Refuses an absent path.
fn path<'a>(text: &'a str, what: &str) -> Result<&'a Path, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!(
            "the request names no {what}"
        )));
    }
    Ok(Path::new(text))
}

#[tonic::async_trait]
impl Service for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "stage a volume");
        stage::stage(self, request).await?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        stage::unstage(self, request.into_inner()).await?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "publish a volume");
        publish::publish(self, request).await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        publish::unpublish(self, request.into_inner()).await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let stats = stats::stats(self, request.into_inner()).await?;
        Ok(Response::new(stats))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let bytes = expand::expand(self, request.into_inner()).await?;
        Ok(Response::new(NodeExpandVolumeResponse {
            capacity_bytes: signed(bytes),
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
            node_id: self.0.node.clone(),
            max_volumes_per_node: 0,
            accessible_topology: None,
        }))
    }
}

/// Where an inline volume is staged.
fn inline_path(parts: &Parts, id: &VolumeId) -> PathBuf {
    let inline = parts
        .kubelet
        .root()
        .join("plugins")
        .join(NAME)
        .join("inline");
    inline.join(id.hash())
}
