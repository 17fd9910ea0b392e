//! Staging and publishing: each step recorded before it is made, each one again without harm.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tonic::Status;

use super::create::{caps, single_node};
use super::staged::{Published, Staged};
use super::{NodeParts, known, required};
use crate::capability::Usage;
use crate::scratch::IoControl;
use crate::wire::volume_capability::access_mode::Mode;
use crate::wire::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeCapability,
};
use crate::{BindOptions, VolumeId, VolumeRecord};

/// Mode of a volume that belongs to the group of a pod: what is made in it gets the group, too.
const GROUP_MODE: u32 = 0o2777;

/// Uid of the pod, which kubelet writes into the context of a volume.
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

pub(super) fn stage(parts: &NodeParts, request: NodeStageVolumeRequest) -> Result<(), Status> {
    required(&request.volume_id, "volume id")?;
    required(&request.staging_target_path, "staging target path")?;
    let usage = usage(request.volume_capability.as_ref())?;
    let id = known(&request.volume_id)?;
    let local = &parts.local;
    local.scratch.volume(&id)?;
    let path = Path::new(&request.staging_target_path);
    match local.staged.get(&id)? {
        Some(staged) if staged.path() != path => {
            return Err(Status::failed_precondition(format!(
                "volume {id} is staged at another path; unstage it there first"
            )));
        }
        Some(staged) if !staged.is_used_as(&usage) => {
            return Err(Status::already_exists(format!(
                "volume {id} is staged with another capability; unstage it first"
            )));
        }
        _ => {}
    }
    let target = parts.kubelet.make(path)?;
    local
        .staged
        .insert(&Staged::new(id.clone(), path, &usage))?;
    local.scratch.attach(&id, &target)?;
    if let Some(group) = usage.group {
        let owned = chown(target.path(), None, Some(group)).and_then(|()| {
            std::fs::set_permissions(target.path(), PermissionsExt::from_mode(GROUP_MODE))
        });
        owned.map_err(|why| {
            Status::internal(format!("give volume {id} to the group {group}: {why}"))
        })?;
    }
    Ok(())
}

pub(super) fn unstage(parts: &NodeParts, request: NodeUnstageVolumeRequest) -> Result<(), Status> {
    required(&request.volume_id, "volume id")?;
    required(&request.staging_target_path, "staging target path")?;
    // What is no id was never staged.
    let Ok(id) = request.volume_id.parse::<VolumeId>() else {
        return Ok(());
    };
    let path = Path::new(&request.staging_target_path);
    take_down(parts, &id, path, false)?;
    let staged = parts.local.staged.get(&id)?;
    if staged.is_some_and(|staged| staged.path() == path) {
        parts.local.staged.remove(&id)?;
    }
    Ok(())
}

pub(super) fn publish(parts: &NodeParts, request: NodePublishVolumeRequest) -> Result<(), Status> {
    required(&request.volume_id, "volume id")?;
    required(&request.target_path, "target path")?;
    let usage = usage(request.volume_capability.as_ref())?;
    if request.staging_target_path.is_empty() {
        return Err(Status::failed_precondition(
            "the request has no staging target path",
        ));
    }
    let id = known(&request.volume_id)?;
    let record = parts.local.scratch.volume(&id)?;
    let staged = parts.local.staged.get(&id)?;
    let staged = staged.filter(|s| s.path() == Path::new(&request.staging_target_path));
    let staged = staged.ok_or_else(|| {
        Status::failed_precondition(format!("volume {id} is not staged at that path; stage it"))
    })?;
    let reader = usage.access == Mode::SingleNodeReaderOnly;
    let published = Published {
        read_only: request.readonly || usage.options.read_only || reader,
        no_exec: usage.options.no_exec,
        pod: request.volume_context.get(POD_UID).cloned(),
    };
    let path = PathBuf::from(&request.target_path);
    match staged.targets().get(&path) {
        Some(there) if *there != published => {
            return Err(Status::already_exists(format!(
                "volume {id} is published there in another way; unpublish it first"
            )));
        }
        None if !staged.targets().is_empty() && !usage.allows_many_targets() => {
            return Err(Status::failed_precondition(format!(
                "volume {id} is for one pod and is published already; unpublish it there first"
            )));
        }
        _ => {}
    }
    cap(parts, &record, &published)?;
    let options = BindOptions {
        read_only: published.read_only,
        no_exec: published.no_exec,
    };
    // A path that is refused leaves no record.
    let target = parts.kubelet.make(&path)?;
    let keep = |staged: &mut Staged| drop(staged.targets_mut().insert(path.clone(), published));
    parts.local.staged.update(&id, keep)?;
    Ok(target.bind(staged.path(), options)?)
}

pub(super) fn unpublish(
    parts: &NodeParts,
    request: NodeUnpublishVolumeRequest,
) -> Result<(), Status> {
    required(&request.volume_id, "volume id")?;
    required(&request.target_path, "target path")?;
    let Ok(id) = request.volume_id.parse::<VolumeId>() else {
        return Ok(());
    };
    let path = Path::new(&request.target_path);
    take_down(parts, &id, path, true)?;
    let forget = |staged: &mut Staged| drop(staged.targets_mut().remove(path));
    parts.local.staged.update(&id, forget)?;
    Ok(())
}

/// Unmounts what a path shows of a volume, and nothing else; then, for a target, removes the path.
fn take_down(parts: &NodeParts, id: &VolumeId, path: &Path, remove: bool) -> Result<(), Status> {
    let Some(target) = parts.kubelet.find(path)? else {
        return Ok(());
    };
    let own: Vec<u64> = parts
        .local
        .scratch
        .mounts(id)?
        .into_iter()
        .map(|entry| entry.id)
        .collect();
    target.unmount(|entry| own.contains(&entry.id))?;
    if remove {
        target.remove()?;
    }
    Ok(())
}

/// Puts the caps of a volume on the pod that gets it.
fn cap(parts: &NodeParts, record: &VolumeRecord, published: &Published) -> Result<(), Status> {
    let caps = caps(&record.mutable)?;
    if caps.is_empty() {
        return Ok(());
    }
    let pod = published.pod.as_deref().ok_or_else(|| {
        Status::failed_precondition(format!(
            "volume {} has caps, and the request names no pod; set podInfoOnMount of the driver",
            record.id
        ))
    })?;
    Ok(IoControl::find()?.cap_pod(pod, parts.local.scratch.device(), caps)?)
}

fn usage(capability: Option<&VolumeCapability>) -> Result<Usage, Status> {
    let missing = || Status::invalid_argument("the request has no volume capability");
    single_node(capability.ok_or_else(missing)?)
}
