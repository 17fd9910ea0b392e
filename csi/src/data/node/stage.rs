//! Staging: the volume's one mount on the node, made and removed by the daemon.

use std::path::{Path, PathBuf};

use terrace_catalog::Selector;
use tonic::Status;

use super::{Node, Staged, id, path};
use crate::capability::Usage;
use crate::data::context::selector;
use crate::data::{Context, DirectoryVolume, FS_TYPE, Kind, MountRequest, Mounted, Plan, Shown};
use crate::secrets::Secrets;
use crate::wire::{NodeStageVolumeRequest, NodeUnstageVolumeRequest};
use crate::{MountEntry, VolumeId, WarmUp};

pub(super) async fn stage(node: &Node, request: NodeStageVolumeRequest) -> Result<(), Status> {
    let volume = id(&request.volume_id)?;
    let at = path(&request.staging_target_path, "staging path")?.to_owned();
    let usage = Usage::required(request.volume_capability.as_ref())?;
    let secrets = Secrets::parse(&request.secrets)?;
    let context = Context::parse(&request.volume_context)?;
    let key = volume.to_string();
    let owned = node.clone();
    let work = async move {
        let wanted = Wanted {
            volume,
            at,
            usage,
            context,
            secrets,
        };
        carry_out(&owned, wanted).await
    };
    node.0.locks.run(&key, work).await
}

/// One volume to stage.
struct Wanted {
    volume: VolumeId,
    at: PathBuf,
    usage: Usage,
    context: Context,
    secrets: Secrets,
}

async fn carry_out(node: &Node, wanted: Wanted) -> Result<(), Status> {
    let known = node.staged(&wanted.volume)?;
    let staged = match (known, &wanted.context) {
        (Some(staged), context) => {
            let known = staged.shown()?;
            let other = matches!(context, Context::Resolved(shown) if *shown != known);
            let conflict = staged.conflict(&wanted.at, &wanted.usage);
            let conflict = conflict.or_else(|| other.then(|| "it shows something else".to_owned()));
            if let Some(why) = conflict {
                return Err(Status::already_exists(format!(
                    "volume {}: {why}; unstage it first",
                    wanted.volume
                )));
            }
            staged
        }
        (None, context) => {
            let shown = shown(node, context, &wanted.secrets).await?;
            Staged::new(wanted.volume, &shown, wanted.at, &wanted.usage)
        }
    };
    begin(node, &staged, &wanted.secrets).await
}

/// What a context means. Who brings a token of his own must be allowed to read a version, also when the
/// node has its list of files already.
pub(super) async fn shown(
    node: &Node,
    context: &Context,
    secrets: &Secrets,
) -> Result<Shown, Status> {
    match context {
        Context::Resolved(Shown::Directory(directory)) => Ok(Shown::Directory(directory.clone())),
        Context::Resolved(Shown::Version(plan)) => {
            if secrets.token.is_some() {
                may_read(node, plan, secrets).await?;
            }
            Ok(Shown::Version(plan.clone()))
        }
        Context::Named(request) => {
            let (selector, kind) = selector(request)?;
            let version = node.0.catalog.resolve(&selector, kind, secrets).await?;
            Ok(Shown::Version(Plan::of(request, version)))
        }
    }
}

/// Asks the catalog whether these secrets may read the version.
///
/// Errors: PERMISSION_DENIED; UNAVAILABLE while the catalog does not answer.
pub(super) async fn may_read(node: &Node, plan: &Plan, secrets: &Secrets) -> Result<(), Status> {
    let selector = plan.version.selector().parse::<Selector>();
    let selector = selector.map_err(|why| Status::data_loss(why.to_string()))?;
    let resolved = node.0.catalog.resolve(&selector, Kind::Dataset, secrets);
    resolved.await?;
    Ok(())
}

/// Notes the volume, makes its mount, and begins to fetch it if that was asked for.
pub(super) async fn begin(node: &Node, staged: &Staged, secrets: &Secrets) -> Result<(), Status> {
    let noted = staged.clone();
    node.off(move |parts| Ok(parts.records.put(&noted)?))
        .await?;
    ensure_mounted(node, staged, secrets).await?;
    if let Shown::Version(plan) = staged.shown()?
        && (plan.warm == WarmUp::Full || plan.pin)
    {
        let begun = node.0.daemon.warm(staged.path(), plan.pin).await;
        if let Err(error) = begun {
            // The volume can be used without; it is as slow as the store.
            tracing::warn!(volume = %staged.id(), %error, "not warmed up");
        }
    }
    Ok(())
}

/// Makes the mount of a volume unless it is there and lives. One whose daemon died together with the
/// keeper is replaced; pods that still hold the dead one get errors from it until they end.
pub(super) async fn ensure_mounted(
    node: &Node,
    staged: &Staged,
    secrets: &Secrets,
) -> Result<(), Status> {
    let shown = staged.shown()?;
    let tenant = shown.tenant().cloned();
    let source = match &shown {
        Shown::Version(plan) => plan.version.selector(),
        Shown::Directory(directory) => {
            let path = node.0.bases.resolve(&directory.path)?;
            format!("file://{}", path.display())
        }
    };
    let (at, wanted) = (staged.path().clone(), source.clone());
    let found = node.off(move |parts| look(parts, &at, &wanted)).await?;
    if found && node.0.daemon.holds(staged.path()).await? {
        return Ok(());
    }
    if found {
        tracing::warn!(volume = %staged.id(), "the mount is dead and is made anew");
        let at = staged.path().clone();
        node.off(move |parts| take_down(parts, &at)).await?;
    }
    let of = match shown {
        Shown::Version(plan) => Mounted::Version(plan.version),
        Shown::Directory(directory) => {
            let group = staged.group();
            node.off(move |parts| prepare(parts, &directory, group))
                .await?
        }
    };
    let request = MountRequest {
        of,
        source,
        at: staged.path().clone(),
        group: staged.group(),
        read_ahead_kb: staged.read_ahead_kb(),
        tenant,
        secrets: secrets.clone(),
    };
    node.0.daemon.mount(request).await?;
    tracing::info!(volume = %staged.id(), at = %staged.path().display(), "volume staged");
    Ok(())
}

/// Finds the directory of a volume and gives it to its group. A directory that was there before the volume
/// keeps its own.
fn prepare(
    parts: &super::Parts,
    directory: &DirectoryVolume,
    group: Option<u32>,
) -> Result<Mounted, Status> {
    let place = parts.bases.find_volume(&directory.path)?;
    match group {
        Some(group) if directory.is_own() => place.give_to(group)?,
        Some(group) => {
            tracing::info!(path = %directory.path, group, "a directory of its own keeps its group");
        }
        None => {}
    }
    Ok(Mounted::Directory {
        root: place.path().to_owned(),
        durability: directory.durability.clone(),
        cold: directory.cold.clone(),
        space: place.space()?,
    })
}

/// Makes the directory; whether the volume is mounted there. Something else there is an error.
fn look(parts: &super::Parts, at: &Path, source: &str) -> Result<bool, Status> {
    let target = parts.kubelet.make(at)?;
    match target.mounted()? {
        None => Ok(false),
        Some(entry) if is_ours(&entry) && entry.source == *source => Ok(true),
        Some(entry) => Err(Status::failed_precondition(format!(
            "{} is occupied: {} {} is mounted there; unmount it first",
            at.display(),
            entry.fs_type,
            entry.source.to_string_lossy()
        ))),
    }
}

/// Unmounts what is dead.
fn take_down(parts: &super::Parts, at: &Path) -> Result<(), Status> {
    if let Some(target) = parts.kubelet.find(at)? {
        target.unmount(is_ours)?;
    }
    Ok(())
}

/// Whether a mount is one of the daemon's.
pub(super) fn is_ours(entry: &MountEntry) -> bool {
    entry.fs_type == FS_TYPE
}

pub(super) async fn unstage(node: &Node, request: NodeUnstageVolumeRequest) -> Result<(), Status> {
    let volume = id(&request.volume_id)?;
    let at = path(&request.staging_target_path, "staging path")?.to_owned();
    let key = volume.to_string();
    let owned = node.clone();
    let work = async move {
        match owned.staged(&volume)? {
            Some(staged) if *staged.path() == at => end(&owned, staged).await,
            // What is not staged there is unstaged already.
            _ => Ok(()),
        }
    };
    node.0.locks.run(&key, work).await
}

/// Undoes what [`begin`] did.
///
/// Errors: FAILED_PRECONDITION while a pod has the volume.
pub(super) async fn end(node: &Node, staged: Staged) -> Result<(), Status> {
    let targets: Vec<PathBuf> = staged.targets().keys().cloned().collect();
    let used = node
        .off(move |parts| still_mounted(parts, &targets))
        .await?;
    if let Some(target) = used {
        return Err(Status::failed_precondition(format!(
            "volume {} is published at {}; unpublish it first",
            staged.id(),
            target.display()
        )));
    }
    if staged.has_tree() {
        node.0.daemon.remove_tree(&staged.id().hash()).await?;
    }
    node.0.daemon.unmount(staged.path()).await?;
    node.off(move |parts| {
        // What the daemon did not hold: a dead mount.
        take_down(parts, staged.path())?;
        if staged.is_inline()
            && let Some(target) = parts.kubelet.find(staged.path())?
        {
            target.remove()?;
        }
        let forgotten = parts.records.remove(staged.id())?;
        tracing::info!(volume = %staged.id(), forgotten, "volume unstaged");
        Ok(())
    })
    .await
}

/// The first of the targets that something is mounted on.
fn still_mounted(parts: &super::Parts, targets: &[PathBuf]) -> Result<Option<PathBuf>, Status> {
    for path in targets {
        if let Some(target) = parts.kubelet.find(path)?
            && target.mounted()?.is_some()
        {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}
