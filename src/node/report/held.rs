//! What there is to report to one catalog: tiers, mounts, and how much of which version is near.
//!
//! A version is reported when a mount of the catalog shows it, or has its list of files from an earlier
//! look; at most [`MAX_VERSIONS`], those that are open first and then those with most bytes here.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use terrace_cache::warm::WarmTier;
use terrace_catalog::nodes::MAX_VERSIONS;
use terrace_catalog::rest::wire::{MountReport, TierItem, VersionReport};
use terrace_fuse::tables::{ManifestId, TableVersion};

use super::count::Counter;
use crate::catalog::view;
use crate::node::assembly::{Mounted, Node};

/// Versions that are looked at for one report, the ones shown last.
const LOOKED_AT: usize = 4 * MAX_VERSIONS;

/// Most mounts of one report: what the catalog takes.
const MOUNTS: usize = 256;

/// A version that may be here.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// `namespace.table`.
    pub(super) dataset: String,
    /// Its number.
    pub(super) number: u64,
    /// Its list of files, by name.
    pub(super) manifest: ManifestId,
    /// The same, on disk.
    pub(super) snapshot: PathBuf,
    /// Whether somebody reads it, or has it mounted.
    pub(super) is_open: bool,
    /// The warm tier before its store.
    pub(super) warm: Option<WarmTier>,
}

/// See the module text.
pub(super) struct Held {
    node: Arc<Node>,
    counter: Counter,
}

impl Held {
    pub(super) fn new(node: Arc<Node>, catalog: String) -> Self {
        tracing::debug!(catalog, "reports to a catalog");
        Self {
            node,
            counter: Counter::default(),
        }
    }

    /// Notes that copies in the warm tier may have come.
    pub(super) fn expire_warm(&mut self) {
        self.counter.expire_warm();
    }

    /// The hot tier, and the warm one where a mount has it.
    pub(super) fn tiers(&self, mounts: &[Arc<Mounted>]) -> Vec<TierItem> {
        let has_warm = mounts.iter().any(|mount| mount.has_warm);
        let all = crate::control::tiers::tiers(&self.node);
        let mut seen = HashSet::new();
        all.into_iter()
            .filter(|tier| tier.name == "hot" || tier.name == "warm" && has_warm)
            .filter(|tier| seen.insert(tier.name))
            .map(|tier| TierItem {
                name: tier.name.to_owned(),
                used_bytes: tier.used_bytes,
                limit_bytes: tier.limit_bytes,
            })
            .collect()
    }

    /// What is mounted.
    pub(super) fn mounts(mounts: &[Arc<Mounted>]) -> Vec<MountReport> {
        let report = |mount: &Arc<Mounted>| {
            let pinned = mount.options.version.as_ref();
            MountReport {
                mountpoint: mount.spec.mountpoint.to_string_lossy().into_owned(),
                dataset: pinned.map(|pinned| pinned.dataset.clone()),
                version: pinned.map(|pinned| pinned.number),
            }
        };
        // A directory whose name no text can have is not worth the whole report.
        let shown = |mount: &MountReport| !mount.mountpoint.contains(char::is_control);
        let reports = mounts.iter().map(report).filter(shown);
        reports.take(MOUNTS).collect()
    }

    /// How much of which version is near. What was never counted yet is left out.
    pub(super) async fn versions(&mut self, mounts: &[Arc<Mounted>]) -> Vec<VersionReport> {
        let (node, owned) = (Arc::clone(&self.node), mounts.to_vec());
        let looking = tokio::task::spawn_blocking(move || local(&node, &owned));
        let Ok(local) = looking.await else {
            return Vec::new();
        };
        self.counter.refresh(&self.node, &local).await;
        let mut reports: Vec<VersionReport> = local
            .iter()
            .filter_map(|version| {
                let counted = self.counter.get(&version.manifest)?;
                Some(VersionReport {
                    dataset: version.dataset.clone(),
                    version: version.number,
                    total_bytes: counted.total_bytes,
                    hot_bytes: counted.hot_bytes,
                    warm_bytes: counted.warm_bytes,
                    open: version.is_open,
                })
            })
            .collect();
        reports.sort_by_key(|report| std::cmp::Reverse((report.open, report.hot_bytes)));
        reports.truncate(MAX_VERSIONS);
        reports
    }
}

/// Every version that may be here, each once. Blocking: looks at the disk for each of them.
fn local(node: &Node, mounts: &[Arc<Mounted>]) -> Vec<Local> {
    let directory = view::directory(&node.config().cache.hot.dir);
    let mut all: BTreeMap<(String, u64), Local> = BTreeMap::new();
    let mut add = |mount: &Mounted, local: Local| {
        let key = (local.dataset.clone(), local.number);
        let known = all.entry(key).or_insert(local.clone());
        known.is_open |= local.is_open;
        known.warm = known.warm.take().or_else(|| warm_of(node, mount));
    };
    for mount in mounts {
        if let Some(pinned) = &mount.options.version
            && let Some(manifest) = ManifestId::from_hex(&pinned.manifest)
        {
            let local = Local {
                dataset: pinned.dataset.clone(),
                number: pinned.number,
                manifest,
                snapshot: node.sources().snapshot_of(&mount.spec),
                is_open: true,
                warm: None,
            };
            add(mount, local);
        }
        let Some(tree) = &mount.tree else {
            continue;
        };
        let open = mount.fs.open_inodes();
        let open = open.into_iter().filter_map(|ino| tree.version_of(ino));
        let open: HashSet<TableVersion> = open.collect();
        for version in tree.local_versions(LOOKED_AT) {
            let local = Local {
                dataset: version.dataset.to_string(),
                number: version.number,
                manifest: version.manifest,
                snapshot: view::snapshot_file(&directory, &version.manifest),
                is_open: open.contains(&version),
                warm: None,
            };
            add(mount, local);
        }
    }
    all.into_values().collect()
}

/// The warm tier of a mount, if it has one.
fn warm_of(node: &Node, mount: &Mounted) -> Option<WarmTier> {
    let named = mount.options.warm.clone();
    let dir = named.or_else(|| node.sources().configured_warm())?;
    // It was opened with the mount.
    node.sources().warm_tier(&dir).ok()
}
