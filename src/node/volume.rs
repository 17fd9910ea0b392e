//! Directory volumes of a node: each a directory that is shown for reading and writing as it is.
//!
//! They need no tier, and no store but a cold one where that is wanted ([`super::cold`]). What of one
//! must outlive a worker lies in the mount's state directory: `nodes/` (file handles by number) and `intents`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use terrace_cache::hot::HotTier;
use terrace_cache::identity::DatasetKey;
use terrace_cache::units::{ByteSize, Count};
use terrace_fuse::directory::{
    ColdParts, DirectoryError, DirectoryFs, DirectoryParts, Durability, QuotaStatus, SpoolError,
    SpoolPlace,
};
use terrace_fuse::handles::HandleTable;
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::{Opening, TableError};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::options::{DirectoryOptions, MountOptions, SsdCache};
use super::sources::Sources;
use super::space::Space;
use super::tenants::TenantName;

/// One directory volume.
#[derive(Debug)]
pub(crate) struct Volume {
    /// What was asked for.
    pub(crate) spec: MountSpec,
    /// What answers the kernel.
    pub(crate) fs: Arc<DirectoryFs>,
    /// Its rules of durability.
    pub(crate) durability: Vec<String>,
    /// Moves what the volume's policy chooses, and tries again what level `cold` owes; ends with the
    /// volume.
    _policy: Option<AbortOnDropHandle<((), ())>>,
    /// The space that it is, if it is one.
    pub(crate) space: Option<Arc<Space>>,
}

impl Volume {
    /// Opens the volume of a mount over the keeper's handle table. Blocks.
    pub(crate) fn open(
        sources: &Sources,
        spec: MountSpec,
        options: &MountOptions,
        directory: &DirectoryOptions,
        opening: Opening,
        handles: OwnedFd,
        cold: Option<ColdParts>,
    ) -> Result<Self, Failure> {
        sources.check_tenant(options, opening)?;
        let (mut root, mut space, mut quota) = (directory.root.clone(), None, None);
        if let Some(of) = &directory.space {
            let (found, at, limits) = Space::open(of, opening)?;
            (root, space, quota) = (at, Some(Arc::new(found)), limits);
        }
        let state = sources.state_dir(&spec);
        let state =
            state.map_err(|error| Failure::new(format!("{error:#}"), "check the hot directory"))?;
        let handles = HandleTable::open(handles)
            .map_err(|error| Failure::new(format!("handle table: {error}"), "mount again"))?;
        let rules = Durability::parse(&directory.durability);
        let durability = rules.map_err(|error| Failure::new(error, "check --durability"))?;
        let spool = SpoolPlace {
            directory: match &directory.spool {
                Some(directory) => directory.clone(),
                None => beside(&sources.config().cache.hot.dir),
            },
            limit: directory
                .spool_size
                .or(sources.spool_budget(options))
                .map(|size| size.0),
        };
        let fs = DirectoryFs::open(DirectoryParts {
            root: &root,
            state: &state,
            fresh: opening == Opening::Mount,
            handles,
            passthrough: sources.config().fuse.passthrough,
            ttl: options.ttl.0,
            revalidate: directory.revalidate.map_or(Duration::ZERO, |time| time.0),
            local_locks: !directory.refuse_locks,
            durability,
            // Whose limit the file system keeps is written through: what is staged it does not see.
            spool: Some(spool).filter(|_| space.is_none() || quota.is_some()),
            cold,
            quota,
        });
        let fs = fs.map_err(|error| failure(error, opening))?;
        let policy = fs.tier_status().is_some().then(|| {
            let (follow, pay) = (Arc::clone(&fs).follow_policy(), Arc::clone(&fs).pay_debts());
            let both = async { tokio::join!(follow, pay) };
            AbortOnDropHandle::new(sources.runtime().spawn(both))
        });
        Ok(Self {
            spec,
            fs,
            durability: directory.durability.clone(),
            _policy: policy,
            space,
        })
    }

    /// Reads from copies in the hot tier from now on, where it was asked to. They count against the
    /// budgets of the mount's tenant, as what a read-only mount reads does.
    pub(crate) fn keep_copies(
        &self,
        when: SsdCache,
        tenant: Option<&TenantName>,
        hot: &HotTier,
        runtime: &Handle,
    ) {
        let wanted = match when {
            SsdCache::On => true,
            SsdCache::Off => false,
            SsdCache::Auto => self.fs.is_shared(),
        };
        // With rules a file may be staged while it is open: its bytes have one place of their own then.
        if wanted && self.durability.is_empty() {
            let dataset = DatasetKey(self.spec.source.as_str().into());
            let dataset = dataset.of_tenant(tenant.map(TenantName::as_str));
            self.fs.keep_copies(hot.clone(), dataset, runtime);
        }
    }

    /// Its part of `terrace status --json`; see `docs/OPERATIONS.md` for the fields.
    pub(crate) fn document(&self) -> Value {
        let status = self.fs.status();
        let spool = self.fs.spool_status(b"").ok().flatten().map(|mut spool| {
            spool.list.clear();
            spool
        });
        json!({
            "id": self.spec.id,
            "writable": true,
            "passthrough": {"on": status.passthrough},
            "opens": {"passthrough": status.opens_passthrough, "cached": status.opens_served},
            "handles": status.handles,
            "nodes": status.nodes,
            "requests": status.requests,
            "resent": status.resent,
            "recognised": status.recognised,
            "durability": self.durability,
            "spool": spool,
            "cold": self.fs.tier_status(),
            "space": self.space.as_ref().map(|space| json!({
                "name": space.name(),
                "kept_by": space.enforcer(),
            })),
            "quota": status.quota,
            "copies": status.copies,
            "summary": format!(
                "read-write, passthrough {}, {} open{}{}",
                if status.passthrough { "on" } else { "off" },
                status.handles,
                spool.map_or(String::new(), |spool| format!(
                    ", {} ({}) on the SSD only",
                    Count(spool.files, "file"),
                    ByteSize(spool.bytes)
                )),
                status.quota.map_or(String::new(), |quota| quota_summary(&quota)),
            ),
        })
    }
}

/// The spool's place when none is named: not in the hot directory, which anybody may clear, but on the
/// same disk.
fn beside(hot: &Path) -> PathBuf {
    let mut name = hot.file_name().unwrap_or_default().to_owned();
    name.push("-spool");
    hot.with_file_name(name)
}

fn quota_summary(quota: &QuotaStatus) -> String {
    let used = ByteSize(quota.used.bytes);
    match quota.limits.bytes {
        Some(limit) => format!(", {used} of {} used", ByteSize(limit)),
        None => format!(", {used} used"),
    }
}

/// What is told of a volume that does not open. What a mount held that was just removed (also by umount(8), which
/// waits for nobody) is let go in a moment: its part of the spool, and the table of a mount at the same place.
fn failure(error: DirectoryError, opening: Opening) -> Failure {
    let hint = match &error {
        DirectoryError::Spool(SpoolError::InUse(_)) => {
            "unmount that one first, or name another place with --spool"
        }
        _ => "check the directory and its file system; terrace doctor tells about privileges",
    };
    let again = match &error {
        DirectoryError::Spool(SpoolError::InUse(_)) => true,
        DirectoryError::Table(TableError::Database(_)) => opening == Opening::Mount,
        _ => false,
    };
    Failure {
        again,
        ..Failure::new(error, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it `umount` and `mount` of the same place, one after the other, fail on a busy node: the worker still has
    // the table open.
    #[test]
    fn what_was_just_unmounted_is_asked_for_again() {
        let held = || DirectoryError::from(TableError::Database("lock".to_owned()));
        assert!(failure(held(), Opening::Mount).again);
        // A worker that takes over is the only one.
        assert!(!failure(held(), Opening::TakeOver).again);
        let damaged = TableError::Damaged("a handle");
        assert!(!failure(damaged.into(), Opening::Mount).again);
    }
}
