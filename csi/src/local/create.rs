//! CreateVolume: what is asked for, read whole before anything is made.

use tonic::Status;

use super::{Local, NAME, ordered, required, signed};
use crate::capability::Usage;
use crate::scratch::{IoCaps, IoControl, NewVolume};
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::{CapacityRange, CreateVolumeRequest, Volume, VolumeCapability};
use crate::{ContentSource, VolumeRecord, copies};

/// Longest name: the limit of the interface for a text.
const NAME_MAX: usize = 128;

/// Size of a volume that is asked for without one.
const SIZE_DEFAULT: u64 = 1 << 30;

/// Keys that Kubernetes adds for whoever wants them.
const KUBERNETES: &str = "csi.storage.k8s.io/";

/// Makes a volume, or answers the one that is there.
pub(super) fn create(local: &Local, request: CreateVolumeRequest) -> Result<Volume, Status> {
    required(&request.name, "name")?;
    if request.name.len() > NAME_MAX {
        return Err(Status::invalid_argument(
            "the name is longer than 128 bytes",
        ));
    }
    let access = capabilities(&request.volume_capabilities)?;
    let parameters = ordered(request.parameters);
    for (key, value) in &parameters {
        parameter(key, value)?;
    }
    let mutable = ordered(request.mutable_parameters);
    caps(&mutable)?;
    let requirements = request.accessibility_requirements.unwrap_or_default();
    let wanted = requirements.requisite;
    if !wanted.is_empty() && !wanted.iter().any(|topology| local.is_here(topology)) {
        return Err(Status::resource_exhausted(format!(
            "the volume is wanted on other nodes than {}; ask the driver of one of those",
            local.node
        )));
    }
    let source = request.volume_content_source;
    let source = source.map(copies::source).transpose()?;
    let least = match &source {
        None => SIZE_DEFAULT,
        Some(ContentSource::Volume(id)) => local.scratch.volume(id)?.size,
        Some(ContentSource::Snapshot(id)) => local.scratch.snapshot(id)?.size,
    };
    let record = local.scratch.create(&NewVolume {
        name: request.name,
        size: size(request.capacity_range, least)?,
        parameters,
        mutable,
        access,
        source,
        context: Default::default(),
    })?;
    Ok(volume(local, record))
}

/// A volume as answers show it.
pub(super) fn volume(local: &Local, record: VolumeRecord) -> Volume {
    Volume {
        capacity_bytes: signed(record.size),
        volume_id: record.id.into(),
        volume_context: record.context.into_iter().collect(),
        content_source: record.source.map(copies::shown),
        accessible_topology: vec![local.topology()],
    }
}

/// Judges the capabilities of a request, which must have some; the names of their access modes.
pub(super) fn capabilities(asked: &[VolumeCapability]) -> Result<Vec<String>, Status> {
    if asked.is_empty() {
        return Err(Status::invalid_argument(
            "the request has no volume capability",
        ));
    }
    asked
        .iter()
        .map(|capability| Ok(single_node(capability)?.access.as_str_name().to_owned()))
        .collect()
}

/// Reads a capability; a directory of one node is not for several.
pub(super) fn single_node(capability: &VolumeCapability) -> Result<Usage, Status> {
    let usage = Usage::parse(capability)?;
    match usage.access {
        Mode::SingleNodeWriter
        | Mode::SingleNodeReaderOnly
        | Mode::SingleNodeSingleWriter
        | Mode::SingleNodeMultiWriter => Ok(usage),
        Mode::MultiNodeReaderOnly
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter
        | Mode::Unknown => Err(Status::invalid_argument(format!(
            "a volume of {NAME} is on one node; ask for ReadWriteOnce or ReadWriteOncePod"
        ))),
    }
}

/// Reads caps; one that this node cannot keep is refused.
pub(super) fn caps(mutable: &std::collections::BTreeMap<String, String>) -> Result<IoCaps, Status> {
    let caps = IoCaps::parse(mutable)?;
    if !caps.is_empty() {
        IoControl::find()?;
    }
    Ok(caps)
}

/// The size within a range; `least` where the range names none.
pub(super) fn size(range: Option<CapacityRange>, least: u64) -> Result<u64, Status> {
    let range = range.unwrap_or_default();
    let part = |bytes: i64| {
        u64::try_from(bytes).map_err(|_| Status::out_of_range("a size cannot be negative"))
    };
    let (required, limit) = (part(range.required_bytes)?, part(range.limit_bytes)?);
    if limit > 0 && required > limit {
        return Err(Status::out_of_range("the required size is above the limit"));
    }
    Ok(match (required, limit) {
        (0, 0) => least,
        (0, limit) => least.min(limit),
        (required, _) => required,
    })
}

fn parameter(key: &str, value: &str) -> Result<(), Status> {
    match key {
        "scratch" if value == "true" => Ok(()),
        "scratch" => Err(Status::invalid_argument(
            "parameter scratch: write \"true\"",
        )),
        "inodes" if value.parse().is_ok_and(|number: u64| number > 0) => Ok(()),
        "inodes" => Err(Status::invalid_argument(
            "parameter inodes: write a whole number above 0",
        )),
        key if key.starts_with(KUBERNETES) => Ok(()),
        key => Err(Status::invalid_argument(format!(
            "unknown parameter {key:.80?}; {NAME} takes scratch and inodes"
        ))),
    }
}
