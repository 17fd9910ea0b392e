//! The Controller service of scratch volumes.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::create::{capabilities, caps, create, size, volume};
use super::snapshots::{create_snapshot, snapshot};
use super::{Local, Sweeper, known, ordered, required, signed};
use crate::VolumeId;
use crate::pages;
use crate::scratch::IoControl;
use crate::wire::controller_server::Controller as Service;
use crate::wire::controller_service_capability::rpc::Type as Offered;
use crate::wire::controller_service_capability::{Rpc, Type};
use crate::wire::validate_volume_capabilities_response::Confirmed;
use crate::wire::*;

/// What is offered everywhere.
const OFFERED: [Offered; 7] = [
    Offered::CreateDeleteVolume,
    Offered::ListVolumes,
    Offered::GetCapacity,
    Offered::GetVolume,
    Offered::ExpandVolume,
    Offered::ModifyVolume,
    Offered::SingleNodeMultiWriter,
];

/// What is offered where the file system shares blocks.
const COPIES: [Offered; 4] = [
    Offered::CreateDeleteSnapshot,
    Offered::ListSnapshots,
    Offered::GetSnapshot,
    Offered::CloneVolume,
];

/// Who asks for a volume to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// Whoever speaks to the controller service of the volume's node.
    ByController,
    /// The kubelet of its node alone. A cluster has one resizer for all nodes, which asks the driver beside
    /// it, and that one knows the volumes of its own node only; where no controller offers to grow volumes it
    /// leaves them to the kubelets.
    ByNode,
}

/// The service. Cheap to clone; removes the files of deleted volumes while one of its clones lives.
#[derive(Clone, Debug)]
pub struct Controller(
    Arc<Local>,
    #[expect(dead_code, reason = "held")] Arc<Sweeper>,
    Grows,
);

impl Controller {
    /// Serves the volumes of a node. In a tokio runtime.
    pub fn new(local: Arc<Local>, grows: Grows) -> Self {
        let sweeper = local.sweeper();
        Self(local, Arc::new(sweeper), grows)
    }
}

#[tonic::async_trait]
impl Service for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "create a volume");
        let key = format!("name:{}", request.name);
        let made = self.0.run(&key, |local| create(local, request)).await?;
        Ok(Response::new(CreateVolumeResponse { volume: Some(made) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "volume id")?;
        // What is no id is no volume, and what is no volume is deleted.
        if let Ok(id) = request.volume_id.parse::<VolumeId>() {
            let key = id.to_string();
            self.0
                .run(&key, move |local| Ok(local.scratch.delete(&id)?))
                .await?;
            self.0.removed.notify_one();
        }
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "volume id")?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument(
                "the request has no volume capability",
            ));
        }
        let id = known(&request.volume_id)?;
        self.0
            .read(move |local| Ok(local.scratch.volume(&id)?))
            .await?;
        let (confirmed, message) = match capabilities(&request.volume_capabilities) {
            Ok(_) => {
                let confirmed = Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                };
                (Some(confirmed), String::new())
            }
            Err(why) => (None, why.message().to_owned()),
        };
        Ok(Response::new(ValidateVolumeCapabilitiesResponse {
            confirmed,
            message,
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let listed = self.0.read(move |local| {
            pages::volumes(&local.scratch.volumes, &request, |record| {
                volume(local, record)
            })
        });
        Ok(Response::new(listed.await?))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let here = request.accessible_topology.as_ref();
        let fits = here.is_none_or(|topology| self.0.is_here(topology))
            && (request.volume_capabilities.is_empty()
                || capabilities(&request.volume_capabilities).is_ok());
        let free = if fits {
            self.0.read(|local| Ok(local.scratch.capacity()?)).await?
        } else {
            0
        };
        Ok(Response::new(GetCapacityResponse {
            available_capacity: signed(free),
            maximum_volume_size: Some(signed(free)),
            minimum_volume_size: None,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let copies = if self.0.scratch.copies() {
            &COPIES[..]
        } else {
            &[]
        };
        let by_node = self.2 == Grows::ByNode;
        let offered = OFFERED.iter().chain(copies);
        let offered = offered.filter(|one| !(by_node && **one == Offered::ExpandVolume));
        let capability = |offered: &Offered| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: (*offered).into(),
            })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: offered.map(capability).collect(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let key = format!("snapshot:{}", request.name);
        let made = self
            .0
            .run(&key, |local| create_snapshot(local, request))
            .await?;
        Ok(Response::new(CreateSnapshotResponse {
            snapshot: Some(made),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        required(&request.snapshot_id, "snapshot id")?;
        if let Ok(id) = request.snapshot_id.parse::<VolumeId>() {
            let key = id.to_string();
            self.0
                .run(&key, move |local| Ok(local.scratch.delete_snapshot(&id)?))
                .await?;
            self.0.removed.notify_one();
        }
        Ok(Response::new(DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let listed = self
            .0
            .read(move |local| pages::snapshots(&local.scratch.snapshots, &request));
        Ok(Response::new(listed.await?))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let id = known(&request.into_inner().snapshot_id)?;
        let found = self
            .0
            .read(move |local| Ok(local.scratch.snapshot(&id)?))
            .await?;
        Ok(Response::new(GetSnapshotResponse {
            snapshot: Some(snapshot(found)),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        required(&request.volume_id, "volume id")?;
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument(
                "the request has no capacity range",
            ));
        }
        let id = known(&request.volume_id)?;
        let key = id.to_string();
        let grown = self.0.run(&key, move |local| {
            let now = local.scratch.volume(&id)?.size;
            Ok(local
                .scratch
                .expand(&id, size(request.capacity_range, now)?)?)
        });
        Ok(Response::new(ControllerExpandVolumeResponse {
            capacity_bytes: signed(grown.await?.size),
            node_expansion_required: false,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let id = known(&request.into_inner().volume_id)?;
        let found = self
            .0
            .read(move |local| Ok(volume(local, local.scratch.volume(&id)?)));
        Ok(Response::new(ControllerGetVolumeResponse {
            volume: Some(found.await?),
            status: Some(controller_get_volume_response::VolumeStatus::default()),
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = known(&request.volume_id)?;
        let mutable = ordered(request.mutable_parameters);
        let key = id.to_string();
        let changed = self.0.run(&key, move |local| {
            local.scratch.volume(&id)?;
            // Judged whole before any of it is kept.
            caps(&mutable)?;
            let record = local.scratch.modify(&id, &mutable)?;
            let caps = caps(&record.mutable)?;
            let staged = local.staged.get(&id)?;
            let pods = staged.iter().flat_map(|staged| staged.pods());
            // The kernel's control is needed only where something was capped, now or before.
            if let Ok(control) = IoControl::find() {
                for pod in pods {
                    control.cap_pod(pod, local.scratch.device(), caps)?;
                }
            }
            Ok(())
        });
        changed.await?;
        Ok(Response::new(ControllerModifyVolumeResponse {}))
    }
}
