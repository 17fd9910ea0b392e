//! The Controller service of `data.terrace.io`.
//!
//! A volume is a record: its name, what was asked for, and which version that came to. It is durable
//! before the first answer, so a call that comes again gets the same version, however far the dataset
//! has moved on. Deleting a volume of a version deletes its record and never data; that of a directory
//! removes what it made, see `directories.rs`.
//!
//! The size of a version is a promise about nothing: it has the size that it has, and a volume of it is answered
//! with the capacity that was asked for, because a claim is only bound to a volume that has it. The size of a
//! directory is its limit. Both may grow, and neither shrinks.

mod create;
mod directories;
mod modify;
mod snapshots;
mod sweep;

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use sweep::Sweeper;

use super::directory::Sharing;
use super::size::{Size, signed};
use super::{Bases, Catalog, Promises};
use crate::capability::Usage;
use crate::locks::Locks;
use crate::wire::controller_server::Controller as Service;
use crate::wire::controller_service_capability::rpc::Type as Offered;
use crate::wire::controller_service_capability::{Rpc, Type};
use crate::wire::validate_volume_capabilities_response::Confirmed;
use crate::wire::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerServiceCapability, CreateSnapshotRequest,
    CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetSnapshotRequest,
    GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest,
    ListVolumesResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    Volume, controller_get_volume_response,
};
use crate::{RecordState, Records, SnapshotRecord, VolumeId, VolumeRecord, copies, pages};

/// Calls that are served.
const OFFERED: [Offered; 6] = [
    Offered::CreateDeleteVolume,
    Offered::ListVolumes,
    Offered::GetVolume,
    Offered::ExpandVolume,
    Offered::ModifyVolume,
    Offered::SingleNodeMultiWriter,
];

/// What is served where the file system of a directory shares blocks between files.
const COPIES: [Offered; 4] = [
    Offered::CreateDeleteSnapshot,
    Offered::ListSnapshots,
    Offered::GetSnapshot,
    Offered::CloneVolume,
];

/// What the service needs.
pub struct Parts {
    /// Who knows versions.
    pub catalog: Arc<dyn Catalog>,
    /// What was promised; no other controller changes it at the same time.
    pub records: Arc<Records<VolumeRecord>>,
    /// Likewise, about snapshots.
    pub snapshots: Arc<Records<SnapshotRecord>>,
    /// Operations under way.
    pub locks: Locks,
    /// Directories below which volumes are made.
    pub bases: Bases,
    /// Who keeps what directories promise.
    pub promises: Arc<dyn Promises>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Parts");
        shown.field("bases", &self.bases).finish_non_exhaustive()
    }
}

/// The service. Cheap to clone; removes the files of deleted directories while one of its clones lives.
#[derive(Clone)]
pub struct Controller {
    catalog: Arc<dyn Catalog>,
    records: Arc<Records<VolumeRecord>>,
    snapshots: Arc<Records<SnapshotRecord>>,
    locks: Locks,
    bases: Bases,
    promises: Arc<dyn Promises>,
    sharing: Sharing,
    sweeper: Arc<Sweeper>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Controller");
        shown.field("locks", &self.locks).finish_non_exhaustive()
    }
}

impl Controller {
    /// Serves the volumes of a cluster. In a tokio runtime.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            catalog,
            records,
            snapshots,
            locks,
            bases,
            promises,
        } = parts;
        Self {
            catalog,
            sweeper: Arc::new(Sweeper::new(&records, &snapshots, &locks, &bases)),
            records,
            snapshots,
            locks,
            bases,
            promises,
            sharing: Sharing::default(),
        }
    }

    /// Whether the removal of a volume has begun.
    fn is_deleted(&self, id: &VolumeId) -> Result<bool, Status> {
        let found = self.records.get(id)?;
        Ok(found.is_none_or(|record| record.state == RecordState::Deleting))
    }

    /// The record of a volume; NOT_FOUND when there is none, also for what is no id at all.
    fn known(&self, id: &str) -> Result<VolumeRecord, Status> {
        let parsed = id.parse::<VolumeId>().ok();
        let found = parsed
            .map(|id| self.records.get(&id))
            .transpose()?
            .flatten();
        let answered = found.filter(|record| record.state == RecordState::Ready);
        answered.ok_or_else(|| unknown(id))
    }
}

/// Refuses an absent id.
fn named(id: &str) -> Result<(), Status> {
    if id.is_empty() {
        return Err(Status::invalid_argument("the request names no volume"));
    }
    Ok(())
}

fn unknown(id: &str) -> Status {
    let shown: String = id.chars().take(128).collect();
    Status::not_found(format!("volume {shown:?} does not exist"))
}

fn volume(record: VolumeRecord) -> Volume {
    Volume {
        capacity_bytes: signed(record.size),
        volume_id: record.id.to_string(),
        volume_context: record.context.into_iter().collect(),
        content_source: record.source.map(copies::shown),
        accessible_topology: Vec::new(),
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
        let record = create::create(self, request).await?;
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(volume(record)),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        named(&request.volume_id)?;
        // What is no id was never a volume.
        if let Ok(id) = request.volume_id.parse::<VolumeId>() {
            let (controller, volume) = (self.clone(), id.clone());
            let work = async move { directories::delete(&controller, volume).await };
            let deleted = self.locks.run(id.as_str(), work).await;
            let existed = match deleted {
                // The sweep is at it: it is gone for everybody.
                Err(busy) if busy.code() == Code::Aborted && self.is_deleted(&id)? => true,
                deleted => deleted?,
            };
            self.sweeper.wake();
            tracing::info!(volume = %id, existed, "volume deleted");
        }
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        named(&request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("the request names no capability"));
        }
        let record = self.known(&request.volume_id)?;
        let mut doubt = create::conflict(&record, &request.parameters);
        for capability in &request.volume_capabilities {
            if let Err(refused) = Usage::parse(capability) {
                doubt = Some(refused.message().to_owned());
            }
        }
        let confirmed = doubt.is_none().then_some(Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        });
        Ok(Response::new(ValidateVolumeCapabilitiesResponse {
            confirmed,
            message: doubt.unwrap_or_default(),
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let (records, request) = (Arc::clone(&self.records), request.into_inner());
        let page = directories::beside(move || pages::volumes(&records, &request, volume));
        Ok(Response::new(page.await?))
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let request = request.into_inner();
        named(&request.volume_id)?;
        let record = self.known(&request.volume_id)?;
        Ok(Response::new(ControllerGetVolumeResponse {
            volume: Some(volume(record)),
            status: Some(controller_get_volume_response::VolumeStatus::default()),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        named(&request.volume_id)?;
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument("the request names no size"));
        }
        let size = Size::parse(request.capacity_range.as_ref())?;
        let id = self.known(&request.volume_id)?.id;
        let (controller, volume) = (self.clone(), id.clone());
        let work = async move { directories::grow(&controller, volume, size).await };
        let bytes = self.locks.run(id.as_str(), work).await?;
        Ok(Response::new(ControllerExpandVolumeResponse {
            capacity_bytes: signed(bytes),
            // Its nodes follow the limit by themselves.
            node_expansion_required: false,
        }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "modify a volume");
        modify::modify(self, request).await?;
        Ok(Response::new(ControllerModifyVolumeResponse {}))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |offered: Offered| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc {
                r#type: offered.into(),
            })),
        };
        let (sharing, bases) = (self.sharing.clone(), self.bases.clone());
        let copies = directories::beside(move || Ok(sharing.is_anywhere(&bases))).await?;
        let copies = COPIES.into_iter().filter(|_| copies);
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: OFFERED.into_iter().chain(copies).map(capability).collect(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(?request, "take a snapshot");
        let record = snapshots::create(self, request).await?;
        Ok(Response::new(CreateSnapshotResponse {
            snapshot: Some(copies::snapshot(record)),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        snapshots::named(&request.snapshot_id)?;
        // What is no id was never a snapshot.
        if let Ok(id) = request.snapshot_id.parse::<VolumeId>() {
            match snapshots::delete(self, id.clone()).await {
                // The sweep is at it: it is gone for everybody.
                Err(busy) if busy.code() == Code::Aborted && snapshots::is_deleted(self, &id)? => {}
                deleted => deleted?,
            }
            self.sweeper.wake();
        }
        Ok(Response::new(DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let (records, request) = (Arc::clone(&self.snapshots), request.into_inner());
        let page = directories::beside(move || pages::snapshots(&records, &request));
        Ok(Response::new(page.await?))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let request = request.into_inner();
        snapshots::named(&request.snapshot_id)?;
        let record = snapshots::known(self, &request.snapshot_id)?;
        Ok(Response::new(GetSnapshotResponse {
            snapshot: Some(copies::snapshot(record)),
        }))
    }
}
