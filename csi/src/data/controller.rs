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
mod list;
mod modify;

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use directories::Sweeper;

use super::size::{Size, signed};
use super::{Bases, Catalog, RulesCheck};
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
    ControllerModifyVolumeResponse, ControllerServiceCapability, CreateVolumeRequest,
    CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, ListVolumesRequest,
    ListVolumesResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    Volume, controller_get_volume_response,
};
use crate::{RecordState, Records, VolumeId, VolumeRecord};

/// Calls that are served.
const OFFERED: [Offered; 6] = [
    Offered::CreateDeleteVolume,
    Offered::ListVolumes,
    Offered::GetVolume,
    Offered::ExpandVolume,
    Offered::ModifyVolume,
    Offered::SingleNodeMultiWriter,
];

/// What the service needs.
pub struct Parts {
    /// Who knows versions.
    pub catalog: Arc<dyn Catalog>,
    /// What was promised; no other controller changes it at the same time.
    pub records: Arc<Records<VolumeRecord>>,
    /// Operations under way.
    pub locks: Locks,
    /// Directories below which volumes are made.
    pub bases: Bases,
    /// Who judges rules of durability.
    pub rules: RulesCheck,
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
    locks: Locks,
    bases: Bases,
    rules: RulesCheck,
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
            locks,
            bases,
            rules,
        } = parts;
        Self {
            catalog,
            sweeper: Arc::new(Sweeper::new(&records, &locks, &bases)),
            records,
            locks,
            bases,
            rules,
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
        content_source: None,
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
        let page = list::page(&self.records, &request.into_inner())?;
        Ok(Response::new(page))
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
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: OFFERED.map(capability).into(),
        }))
    }
}
