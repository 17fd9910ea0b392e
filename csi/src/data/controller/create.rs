//! CreateVolume: a selector becomes a version, or a class's directory one of its own, once for each name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tonic::Status;

use super::{Controller, directories, modify};
use crate::capability::Usage;
use crate::data::Plan;
use crate::data::context::selector;
use crate::data::size::Size;
use crate::secrets::Secrets;
use crate::wire::CreateVolumeRequest;
use crate::{RecordState, VolumeId, VolumeRecord, VolumeRequest, VolumeSource, copies};

/// Longest name in bytes: the limit of the interface for a string.
pub(super) const NAME_MAX: usize = 128;

/// First part of this driver's volume ids.
const PREFIX: &str = "data";

/// Makes the volume of that name, or finds it.
///
/// Errors: ALREADY_EXISTS when the name has a volume that was asked for in another way.
pub(super) async fn create(
    controller: &Controller,
    request: CreateVolumeRequest,
) -> Result<VolumeRecord, Status> {
    if request.name.is_empty() || request.name.len() > NAME_MAX {
        return Err(Status::invalid_argument(format!(
            "a volume needs a name of 1 to {NAME_MAX} bytes"
        )));
    }
    if request.volume_capabilities.is_empty() {
        return Err(Status::invalid_argument("the request names no capability"));
    }
    let mut access = Vec::new();
    for capability in &request.volume_capabilities {
        access.push(Usage::parse(capability)?.access.as_str_name().to_owned());
    }
    let source = request.volume_content_source.map(copies::source);
    let source = source.transpose()?;
    let size = Size::parse(request.capacity_range.as_ref())?;
    let secrets = Secrets::parse(&request.secrets)?;
    let mutable = sorted(&request.mutable_parameters);
    let parameters = sorted(&request.parameters);
    let wanted = modify::merged(&parameters, &mutable)?;
    let promised = controller
        .promises
        .check(&wanted.durability, wanted.cold.as_ref());
    promised.map_err(Status::invalid_argument)?;
    let id = VolumeId::of_name(PREFIX, &request.name)
        .map_err(|why| Status::internal(why.to_string()))?;
    let key = id.to_string();
    let asked = VolumeRecord {
        id,
        name: request.name,
        state: RecordState::Ready,
        size: size.least,
        parameters,
        mutable,
        access,
        source,
        context: BTreeMap::new(),
    };
    let owned = controller.clone();
    let work = async move { make(&owned, asked, size, &wanted, &secrets).await };
    controller.locks.run(&key, work).await
}

async fn make(
    controller: &Controller,
    mut asked: VolumeRecord,
    size: Size,
    wanted: &VolumeRequest,
    secrets: &Secrets,
) -> Result<VolumeRecord, Status> {
    if let VolumeSource::Directory(path) = &wanted.source {
        return directories::make(controller, asked, size, path, wanted).await;
    }
    if asked.source.is_some() {
        return Err(Status::invalid_argument(
            "a version never changes, and its volumes are no copies: name the version, and leave dataSource out",
        ));
    }
    if let Some(there) = controller.records.get(&asked.id)? {
        return same(there, &asked, size);
    }
    let (selector, kind) = selector(wanted)?;
    let version = controller.catalog.resolve(&selector, kind, secrets).await?;
    asked.context = Plan::of(wanted, version).context();
    let (records, record) = (Arc::clone(&controller.records), asked.clone());
    let inserted = tokio::task::spawn_blocking(move || records.insert(&record)).await;
    let before = inserted.map_err(|broken| Status::internal(broken.to_string()))??;
    match before {
        Some(there) => same(there, &asked, size),
        None => {
            let version = asked.context.get("version");
            tracing::info!(volume = %asked.id, version, "volume made");
            Ok(asked)
        }
    }
}

/// The volume that is there, if it is what was asked for.
pub(super) fn same(
    there: VolumeRecord,
    asked: &VolumeRecord,
    size: Size,
) -> Result<VolumeRecord, Status> {
    let doubt = if !size.fits(there.size) {
        Some(format!("its size is {} bytes", there.size))
    } else if there.source != asked.source {
        Some("it is a copy of something else, or of nothing".to_owned())
    } else {
        (there.parameters != asked.parameters).then(|| "its parameters are others".to_owned())
    };
    match doubt {
        None => Ok(there),
        Some(why) => Err(Status::already_exists(format!(
            "volume {:?} exists, and {why}; use another name",
            there.name
        ))),
    }
}

/// Why a volume is not one with these parameters; parameters that are not given fit.
pub(super) fn conflict(
    record: &VolumeRecord,
    parameters: &HashMap<String, String>,
) -> Option<String> {
    let differs = !parameters.is_empty() && sorted(parameters) != record.parameters;
    differs.then(|| "the volume was made with other parameters".to_owned())
}

pub(super) fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}
