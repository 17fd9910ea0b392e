//! ControllerModifyVolume: what of a volume may change, all of it or nothing.
//!
//! `warm` and `pin` change what nodes hold, not what the volume is. The nodes that show the version are
//! told through the catalog, and the record is changed when they were; a node that stages the volume for
//! the first time later goes by the context that the volume was made with.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;

use super::create::sorted;
use super::{Controller, named, unknown};
use crate::data::{Context, Plan, Shown};
use crate::secrets::Secrets;
use crate::wire::ControllerModifyVolumeRequest;
use crate::{VolumeId, VolumeRecord, VolumeRequest};

/// Keys of a VolumeAttributesClass.
const MUTABLE: [&str; 2] = ["pin", "warm"];

/// Parameters with the mutable ones over them; INVALID_ARGUMENT when a key or a value is not known.
pub(super) fn merged(
    parameters: &BTreeMap<String, String>,
    mutable: &BTreeMap<String, String>,
) -> Result<VolumeRequest, Status> {
    if let Some(key) = mutable.keys().find(|key| !MUTABLE.contains(&key.as_str())) {
        let shown: String = key.chars().take(80).collect();
        return Err(Status::invalid_argument(format!(
            "mutable parameter {shown:?} is not known; known are {}",
            MUTABLE.join(" and ")
        )));
    }
    let mut all = parameters.clone();
    all.extend(mutable.clone());
    Ok(VolumeRequest::parse(&all)?)
}

pub(super) async fn modify(
    controller: &Controller,
    request: ControllerModifyVolumeRequest,
) -> Result<(), Status> {
    named(&request.volume_id)?;
    let id: VolumeId = controller.known(&request.volume_id)?.id;
    let mutable = sorted(&request.mutable_parameters);
    let secrets = Secrets::parse(&request.secrets)?;
    let key = id.to_string();
    let owned = controller.clone();
    let work = async move { apply(&owned, id, mutable, &secrets).await };
    controller.locks.run(&key, work).await
}

async fn apply(
    controller: &Controller,
    id: VolumeId,
    mutable: BTreeMap<String, String>,
    secrets: &Secrets,
) -> Result<(), Status> {
    let record = controller.known(id.as_str())?;
    let mut all = record.mutable.clone();
    all.extend(mutable);
    // Refuses what means nothing for the kind of volume, which for a directory is everything.
    let wanted = merged(&record.parameters, &all)?;
    let Shown::Version(before) = shown(&record)? else {
        return Ok(());
    };
    if before.pin && !wanted.pin {
        return Err(Status::invalid_argument(
            "pin cannot be taken back from here: other volumes may rely on it; use terrace unpin on \
             the nodes",
        ));
    }
    let after = Plan::of(&wanted, before.version.clone());
    if after != before {
        controller.catalog.warm(&after, secrets).await?;
    }
    let (records, context) = (Arc::clone(&controller.records), after.context());
    let kept = tokio::task::spawn_blocking(move || {
        records.update(&id, |record| {
            record.mutable = all;
            record.context = context;
        })
    });
    let kept = kept
        .await
        .map_err(|broken| Status::internal(broken.to_string()))??;
    kept.map(drop).ok_or_else(|| unknown(record.id.as_str()))
}

fn shown(record: &VolumeRecord) -> Result<Shown, Status> {
    match Context::parse(&record.context.clone().into_iter().collect())? {
        Context::Resolved(shown) => Ok(shown),
        Context::Named(_) => Err(Status::data_loss("the volume's record names no version")),
    }
}
