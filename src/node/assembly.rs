//! The pieces of a node, put together: one hot tier and one cache for all mounts, and for each mount
//! store -> (warm tier) -> namespace ([`Sources`]) -> file system.
//!
//! The link to the keeper calls [`Node::assemble`]; the control socket and the metrics read. Nothing
//! here decides anything about bytes or names.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use terrace_cache::fill::Cache;
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::EpochPolicy;
use terrace_cache::{DatasetKey, Source};
use terrace_fuse::fs::{FileSystem, FileSystemConfig, FileSystemParts, Profile};
use terrace_fuse::handles::HandleTable;
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::namespace::Namespace;
use terrace_fuse::probe::{NoPassthrough, Passthrough};
use terrace_fuse::tables::TableTree;
use tokio_util::task::TaskTracker;

use super::below::Below;
use super::config::NodeConfig;
use super::options::MountOptions;
use super::report::Reporting;
use super::sources::{Reached, Sources};
use super::stores::Stores;
use super::tenants::{self, TenantName};
use super::volume::Volume;

/// One mount of this node.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// What was asked for.
    pub(crate) spec: MountSpec,
    /// Options, as understood.
    pub(crate) options: MountOptions,
    /// Where its objects lie.
    pub(crate) stores: Stores,
    /// Where bytes come from: the store, or the warm tier over it.
    pub(crate) source: Arc<dyn Source>,
    /// Whether that is the warm tier.
    pub(crate) has_warm: bool,
    /// What exists.
    pub(crate) namespace: Arc<dyn Namespace>,
    /// The same, when it is the tree of all tables.
    pub(crate) tree: Option<TableTree>,
    /// Whose budget its bytes use.
    pub(crate) dataset: DatasetKey,
    /// What answers the kernel.
    pub(crate) fs: Arc<FileSystem>,
}

/// Everything a worker owns.
#[derive(Debug)]
pub(crate) struct Node {
    sources: Arc<Sources>,
    cache: Cache,
    tasks: TaskTracker,
    mounts: Mutex<BTreeMap<String, Arc<Mounted>>>,
    volumes: Mutex<BTreeMap<String, Arc<Volume>>>,
    /// What keeps limits of volumes: waited for at the end, so that its last word is written.
    limits: TaskTracker,
    started: Instant,
    reporting: Arc<Reporting>,
}

impl Node {
    /// Opens the hot tier and starts the cache.
    ///
    /// Errors: the directory is unusable or belongs to another running node.
    pub(crate) fn open(sources: Arc<Sources>) -> Result<Arc<Self>> {
        let config = sources.config();
        let dir = &config.cache.hot.dir;
        let hot_config = hot_config(config)?;
        let policy = EpochPolicy::new(hot_config.limit_bytes);
        let policy = policy.with_tenants(tenants::shares(&config.tenants));
        let hot = HotTier::open(hot_config, Box::new(policy))
            .with_context(|| format!("open the hot tier {}", dir.display()))?;
        let cache = Cache::new(config.cache.fill.clone(), hot, sources.runtime().clone());
        Ok(Arc::new(Self {
            sources,
            cache,
            tasks: TaskTracker::new(),
            mounts: Mutex::default(),
            volumes: Mutex::default(),
            limits: TaskTracker::new(),
            started: Instant::now(),
            reporting: Arc::default(),
        }))
    }

    /// Builds the file system of a mount over the keeper's handle table.
    pub(crate) fn assemble(
        &self,
        reached: Reached,
        handles: OwnedFd,
    ) -> Result<Arc<Mounted>, Failure> {
        let Reached {
            spec,
            options,
            below,
        } = reached;
        let Below {
            namespace,
            stores,
            source,
            has_warm,
            tree,
            late_cache,
        } = below;
        // The name space was opened beside the hot tier; a second set would be of the same cache.
        if let Some(late) = late_cache {
            late.set(self.cache.clone()).ok();
        }
        let tenant = options.tenant.as_ref().map(TenantName::as_str);
        let dataset = DatasetKey(spec.source.as_str().into()).of_tenant(tenant);
        let handles = HandleTable::open(handles)
            .map_err(|error| Failure::new(format!("handle table: {error}"), "mount again"))?;
        let fs = FileSystem::new(FileSystemParts {
            namespace: Arc::clone(&namespace),
            cache: self.cache.clone(),
            source: Arc::clone(&source),
            dataset: dataset.clone(),
            handles,
            runtime: self.sources.runtime().clone(),
            profile: if options.small_files {
                Profile::SmallFiles
            } else {
                Profile::Default
            },
            passthrough: self.passthrough(),
            config: FileSystemConfig {
                fill_on_open: self.config().fuse.fill_on_open.0,
                ..FileSystemConfig::default()
            },
        });
        let id = spec.id.clone();
        let mounted = Arc::new(Mounted {
            spec,
            options,
            stores,
            source,
            has_warm,
            namespace,
            tree,
            dataset,
            fs,
        });
        self.lock_mounts().insert(id, Arc::clone(&mounted));
        Ok(mounted)
    }

    /// Stores and name spaces.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What became of the reports to catalogs.
    pub(crate) fn reporting(&self) -> Arc<Reporting> {
        Arc::clone(&self.reporting)
    }

    /// Forgets a mount that was removed.
    pub(crate) fn forget(&self, id: &str) {
        self.lock_mounts().remove(id);
        let volume = self.lock_volumes().remove(id);
        if let Some(space) = volume.and_then(|volume| volume.space.clone()) {
            space.ended.cancel();
        }
    }

    /// Takes a directory volume in, and keeps its limit.
    pub(crate) fn add_volume(&self, volume: Arc<Volume>) {
        if let Some(space) = &volume.space {
            let every = self.config().volumes.count_every.0;
            let count = Arc::clone(space).count(Arc::clone(&volume.fs), every);
            let follow = Arc::clone(space).follow(Arc::clone(&volume.fs));
            self.limits.spawn_on(count, self.sources.runtime());
            self.limits.spawn_on(follow, self.sources.runtime());
        }
        let id = volume.spec.id.clone();
        self.lock_volumes().insert(id, volume);
    }

    /// Every directory volume.
    pub(crate) fn volumes(&self) -> Vec<Arc<Volume>> {
        self.lock_volumes().values().cloned().collect()
    }

    /// The directory volume at a mount point.
    pub(crate) fn volume_at(&self, mountpoint: &str) -> Option<Arc<Volume>> {
        let volumes = self.lock_volumes();
        volumes
            .values()
            .find(|volume| volume.spec.mountpoint == Path::new(mountpoint))
            .cloned()
    }

    /// Every mount.
    pub(crate) fn mounts(&self) -> Vec<Arc<Mounted>> {
        self.lock_mounts().values().cloned().collect()
    }

    /// The mount at a mount point.
    pub(crate) fn at(&self, mountpoint: &str) -> Option<Arc<Mounted>> {
        let mounts = self.lock_mounts();
        mounts
            .values()
            .find(|m| m.spec.mountpoint == Path::new(mountpoint))
            .cloned()
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &NodeConfig {
        self.sources.config()
    }

    fn passthrough(&self) -> Passthrough {
        if self.config().fuse.passthrough {
            Passthrough::Wanted {
                directory: self.config().cache.hot.dir.clone(),
            }
        } else {
            Passthrough::Off(NoPassthrough::Disabled)
        }
    }

    /// When this worker started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Runs a task that ends by itself; [`Node::shutdown`] waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, self.sources.runtime());
    }

    /// Ends fills and tasks and writes down what the tiers know. For an orderly end; a killed worker
    /// loses nothing but work.
    pub(crate) async fn shutdown(&self) {
        self.tasks.close();
        self.limits.close();
        for volume in self.volumes() {
            if let Some(space) = &volume.space {
                space.ended.cancel();
            }
        }
        tokio::join!(self.cache.shutdown(), self.limits.wait());
    }

    fn lock_volumes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Volume>>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mounts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Mounted>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Budget when none is configured: this part of what is free or already used by the tier.
const DEFAULT_SHARE: f64 = 0.8;

fn hot_config(config: &NodeConfig) -> Result<HotConfig> {
    let section = &config.cache.hot;
    make_private(&section.dir)
        .with_context(|| format!("make the hot directory {}", section.dir.display()))?;
    let mut hot = HotConfig::new(&section.dir);
    hot.limit_bytes = match section.size {
        Some(size) => size.0,
        None => default_budget(&section.dir)?,
    };
    hot.min_free_bytes = section.keep_free.0;
    hot.scrub_bytes_per_second = section.scrub_rate.0;
    hot.operation_timeout = section.deadline.0;
    Ok(hot)
}

/// Makes the hot directory; nobody but this user may enter it, also when it was there before: what one
/// tenant reads lies in it as plain files.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir)?;
    let found = std::fs::metadata(dir)?;
    let open = found.permissions().mode() & 0o077 != 0;
    if open && found.uid() == nix::unistd::geteuid().as_raw() {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Free space at the first start; later starts find the figure of the first one in `budget`, so
/// that a filled tier does not shrink its own budget.
fn default_budget(dir: &Path) -> Result<u64> {
    let memo = dir.join("budget");
    if let Some(bytes) = std::fs::read_to_string(&memo)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    {
        return Ok(bytes);
    }
    let stat = nix::sys::statvfs::statvfs(dir)
        .with_context(|| format!("ask how much is free at {}", dir.display()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    let budget = (free as f64 * DEFAULT_SHARE) as u64;
    std::fs::write(&memo, format!("{budget}\n"))
        .with_context(|| format!("note the budget at {}", memo.display()))?;
    Ok(budget)
}
