//! Publishing: a bind of the staged mount, or of its native tree, for one pod.

use std::path::{Path, PathBuf};

use tonic::Status;

use super::staged::Published;
use super::{Inline, Node, Parts, Staged, id, inline_path, path, stage};
use crate::capability::Usage;
use crate::data::{Context, Shown};
use crate::pod_token;
use crate::secrets::Secrets;
use crate::wire::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use crate::{BindOptions, MountEntry, PublishMode, Target, VolumeId};

/// Key by which Kubernetes marks the context of an inline volume.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// One volume to publish.
struct Wanted {
    volume: VolumeId,
    staging: String,
    target: PathBuf,
    usage: Usage,
    read_only: bool,
    inline: Option<Context>,
    secrets: Secrets,
    /// Who the pod is, where pods are asked; or that it does not say.
    pod: Option<Result<Secrets, Status>>,
}

pub(super) async fn publish(node: &Node, request: NodePublishVolumeRequest) -> Result<(), Status> {
    let volume = id(&request.volume_id)?;
    let target = path(&request.target_path, "target path")?.to_owned();
    let usage = Usage::required(request.volume_capability.as_ref())?;
    let mut secrets = Secrets::parse(&request.secrets)?;
    let pod = pod(node, &request, &secrets);
    let ephemeral = request.volume_context.get(EPHEMERAL);
    let inline = if ephemeral.is_some_and(|text| text == "true") {
        // The volume is the pod's own: it is mounted as the pod, too.
        secrets = pod.clone().transpose()?.unwrap_or(secrets);
        may_be_inline(node.0.inline, &secrets)?;
        let context = Context::parse(&request.volume_context)?;
        if matches!(context, Context::Resolved(Shown::Directory(_))) {
            // A pod's author would choose whose directory it is.
            return Err(Status::invalid_argument(
                "a directory cannot be an inline volume; use a PersistentVolumeClaim",
            ));
        }
        if context.tenant().is_some() {
            // He would choose whom the node charges, too.
            return Err(Status::invalid_argument(
                "tenant: an inline volume cannot say whose budgets it uses; use a PersistentVolumeClaim",
            ));
        }
        Some(context)
    } else {
        None
    };
    if inline.is_none() && request.staging_target_path.is_empty() {
        return Err(Status::failed_precondition(
            "the request names no staging path; stage the volume first",
        ));
    }
    let wanted = Wanted {
        volume,
        staging: request.staging_target_path,
        target,
        usage,
        read_only: request.readonly,
        inline,
        secrets,
        pod,
    };
    let key = wanted.volume.to_string();
    let owned = node.clone();
    let work = async move { carry_out(&owned, wanted).await };
    node.0.locks.run(&key, work).await
}

/// Who the pod is: a token among its secrets, or that of its service account. `None` where pods are not asked.
fn pod(
    node: &Node,
    request: &NodePublishVolumeRequest,
    secrets: &Secrets,
) -> Option<Result<Secrets, Status>> {
    let audience = node.0.pod_audience.as_ref()?;
    let mut pod = secrets.clone();
    if pod.token.is_none() {
        match pod_token::of(&request.volume_context, audience) {
            Ok(token) => pod.token = Some(token),
            Err(refused) => return Some(Err(refused)),
        }
    }
    Some(Ok(pod))
}

fn may_be_inline(inline: Inline, secrets: &Secrets) -> Result<(), Status> {
    match inline {
        Inline::Any => Ok(()),
        Inline::WithToken if secrets.token.is_some() => Ok(()),
        Inline::WithToken => Err(Status::permission_denied(
            "an inline volume needs a token of the catalog; name a secret with TERRACE_TOKEN in \
             nodePublishSecretRef",
        )),
        Inline::Never => Err(Status::permission_denied(
            "inline volumes are off on this cluster; use a PersistentVolumeClaim",
        )),
    }
}

async fn carry_out(node: &Node, wanted: Wanted) -> Result<(), Status> {
    let is_inline = wanted.inline.is_some();
    let staged = match &wanted.inline {
        Some(context) => inline_stage(node, &wanted, context).await?,
        None => staged(node, &wanted)?,
    };
    // Of directories the catalog knows nothing.
    if let (Some(pod), Shown::Version(plan)) = (&wanted.pod, staged.shown()?) {
        stage::may_read(node, &plan, pod.as_ref().map_err(Status::clone)?).await?;
    }
    let id = staged.id().clone();
    let shown = show(node, staged, &wanted).await;
    if shown.is_err() && is_inline {
        // Nobody promises to call again for an inline volume that failed.
        if let Err(error) = forget(node, &id, &wanted.target).await {
            tracing::warn!(volume = %id, %error, "what is left of an inline volume");
        }
    }
    shown
}

/// The volume as it was staged.
fn staged(node: &Node, wanted: &Wanted) -> Result<Staged, Status> {
    let staged = node.staged(&wanted.volume)?;
    let there = staged.filter(|staged| *staged.path() == Path::new(&wanted.staging));
    there.ok_or_else(|| {
        Status::failed_precondition(format!(
            "volume {} is not staged there; stage it first",
            wanted.volume
        ))
    })
}

/// Stages an inline volume, or finds it staged by the same call before.
async fn inline_stage(node: &Node, wanted: &Wanted, context: &Context) -> Result<Staged, Status> {
    if let Some(staged) = node.staged(&wanted.volume)? {
        if staged.is_inline() {
            return Ok(staged);
        }
        return Err(Status::already_exists(
            "the volume is staged, and no inline volume",
        ));
    }
    let shown = stage::shown(node, context, &wanted.secrets).await?;
    let at = inline_path(&node.0, &wanted.volume);
    let staged = Staged::new(wanted.volume.clone(), &shown, at, &wanted.usage).inline();
    let begun = stage::begin(node, &staged, &wanted.secrets).await;
    match begun {
        Ok(()) => Ok(staged),
        Err(error) => {
            if let Err(error) = stage::end(node, staged).await {
                tracing::warn!(volume = %wanted.volume, %error, "what is left of an inline volume");
            }
            Err(error)
        }
    }
}

async fn show(node: &Node, mut staged: Staged, wanted: &Wanted) -> Result<(), Status> {
    let published = Published::new(&wanted.usage, wanted.read_only);
    staged.allows(&wanted.target, &published, &wanted.usage)?;
    stage::ensure_mounted(node, &staged, &wanted.secrets).await?;
    let tree = tree(node, &mut staged).await?;
    let is_version = matches!(staged.shown()?, Shown::Version(_));
    let options = BindOptions {
        read_only: is_version || published.is_for_reading(),
        no_exec: published.no_exec(),
    };
    let targets = staged.targets_mut();
    targets.insert(wanted.target.clone(), published);
    let path = wanted.target.clone();
    node.off(move |parts| {
        // Before it is noted: a target that is refused must not be remembered as one to undo.
        let target = parts.kubelet.make(&path)?;
        parts.records.put(&staged)?;
        let source = tree.as_ref().unwrap_or(staged.path());
        clear(parts, &target, &staged, tree.is_some())?;
        Ok(target.bind(source, options)?)
    })
    .await?;
    tracing::info!(volume = %wanted.volume, target = %wanted.target.display(), "volume published");
    Ok(())
}

/// The native tree of the volume, when its mode wants one now.
///
/// Errors: UNAVAILABLE for `native` as long as files are missing; they are being fetched.
async fn tree(node: &Node, staged: &mut Staged) -> Result<Option<PathBuf>, Status> {
    let mode = match staged.shown()? {
        Shown::Version(plan) => plan.mode,
        Shown::Directory(_) => return Ok(None),
    };
    if mode == PublishMode::Fuse {
        return Ok(None);
    }
    let daemon = &node.0.daemon;
    let presence = daemon.presence(staged.path()).await?;
    if presence.complete < presence.files {
        if mode == PublishMode::Auto {
            return Ok(None);
        }
        daemon.warm(staged.path(), false).await?;
        return Err(Status::unavailable(format!(
            "{} of {} files are on this node; the volume's mode is native, and it is published when \
             all are",
            presence.complete, presence.files
        )));
    }
    let mut noted = staged.clone();
    noted.begin_tree();
    staged.begin_tree();
    node.off(move |parts| Ok(parts.records.put(&noted)?))
        .await?;
    Ok(Some(daemon.tree(staged.path(), &staged.id().hash()).await?))
}

/// Takes away what an earlier publish of this volume left at the target and is not it any more: a bind
/// of a mount that died.
fn clear(parts: &Parts, target: &Target, staged: &Staged, native: bool) -> Result<(), Status> {
    let Some(entry) = target.mounted()? else {
        return Ok(());
    };
    let living = parts.kubelet.find(staged.path())?;
    let living = living.map(|at| at.mounted()).transpose()?.flatten();
    let same = living.is_some_and(|living| living.device == entry.device);
    if native != is_tree(&entry, staged.id()) || !native && !same {
        target.unmount(|entry| is_publication(entry, staged.id()))?;
    }
    Ok(())
}

/// Whether a mount shows the native tree of a volume.
fn is_tree(entry: &MountEntry, id: &VolumeId) -> bool {
    entry
        .root
        .file_name()
        .is_some_and(|name| name == id.hash().as_str())
}

fn is_publication(entry: &MountEntry, id: &VolumeId) -> bool {
    stage::is_ours(entry) || is_tree(entry, id)
}

pub(super) async fn unpublish(
    node: &Node,
    request: NodeUnpublishVolumeRequest,
) -> Result<(), Status> {
    let volume = id(&request.volume_id)?;
    let target = path(&request.target_path, "target path")?.to_owned();
    let key = volume.to_string();
    let owned = node.clone();
    let work = async move { forget(&owned, &volume, &target).await };
    node.0.locks.run(&key, work).await
}

/// Unmounts and removes a target, then its note, then an inline volume itself.
async fn forget(node: &Node, volume: &VolumeId, target: &Path) -> Result<(), Status> {
    let (id, path) = (volume.clone(), target.to_owned());
    let left = node
        .off(move |parts| {
            if let Some(target) = parts.kubelet.find(&path)? {
                target.unmount(|entry| is_publication(entry, &id))?;
                target.remove()?;
            }
            let left = parts.records.update(&id, |staged: &mut Staged| {
                staged.targets_mut().remove(&path);
            })?;
            Ok(left)
        })
        .await?;
    match left {
        Some(staged) if staged.is_inline() && staged.targets().is_empty() => {
            stage::end(node, staged).await
        }
        _ => Ok(()),
    }
}
