//! The pieces of a node, put together: one hot tier and one cache for all mounts, and for each mount
//! store -> (warm tier) -> namespace -> file system.
//!
//! The link to the keeper calls [`Node::prepare`]; the control socket and the metrics read. Nothing
//! here decides anything about bytes or names.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use terrace_cache::fill::Cache;
use terrace_cache::hot::{HotConfig, HotTier};
use terrace_cache::policy::EpochPolicy;
use terrace_cache::store::{Credentials, Store, StoreUrl};
use terrace_cache::warm::{WarmConfig, WarmSource, WarmTier};
use terrace_cache::{DatasetKey, Source};
use terrace_fuse::fs::{FileSystem, FileSystemConfig, FileSystemParts, Profile};
use terrace_fuse::handles::HandleTable;
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::Opening;
use terrace_fuse::namespace::Namespace;
use terrace_fuse::probe::{NoPassthrough, Passthrough};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::config::NodeConfig;
use super::names;
use super::options::MountOptions;

/// One mount of this node.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// What was asked for.
    pub(crate) spec: MountSpec,
    /// Options, as understood.
    pub(crate) options: MountOptions,
    /// The store.
    pub(crate) store: Store,
    /// Where bytes come from: the store, or the warm tier over it.
    pub(crate) source: Arc<dyn Source>,
    /// Whether that is the warm tier.
    pub(crate) has_warm: bool,
    /// What exists.
    pub(crate) namespace: Arc<dyn Namespace>,
    /// Whose budget its bytes use.
    pub(crate) dataset: DatasetKey,
    /// What answers the kernel.
    pub(crate) fs: Arc<FileSystem>,
}

/// A store and what reads it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The store.
    pub(crate) store: Store,
    /// The store, or the warm tier over it.
    pub(crate) source: Arc<dyn Source>,
    /// Whether it is the warm tier.
    pub(crate) has_warm: bool,
}

/// Everything a worker owns.
#[derive(Debug)]
pub(crate) struct Node {
    config: NodeConfig,
    cache: Cache,
    runtime: Handle,
    tasks: TaskTracker,
    mounts: Mutex<BTreeMap<String, Arc<Mounted>>>,
    /// One warm tier for each directory.
    warm: Mutex<BTreeMap<PathBuf, WarmTier>>,
    scratch: AtomicU64,
    started: Instant,
}

impl Node {
    /// Opens the hot tier and starts the cache.
    ///
    /// Errors: the directory is unusable or belongs to another running node.
    pub(crate) fn open(config: NodeConfig, runtime: Handle) -> Result<Arc<Self>> {
        let dir = &config.cache.hot.dir;
        let hot_config = hot_config(&config)?;
        let policy = EpochPolicy::new(hot_config.limit_bytes);
        let hot = HotTier::open(hot_config, Box::new(policy))
            .with_context(|| format!("open the hot tier {}", dir.display()))?;
        let cache = Cache::new(config.cache.fill.clone(), hot, runtime.clone());
        Ok(Arc::new(Self {
            config,
            cache,
            runtime,
            tasks: TaskTracker::new(),
            mounts: Mutex::default(),
            warm: Mutex::default(),
            scratch: AtomicU64::new(0),
            started: Instant::now(),
        }))
    }

    /// Reaches the store of a mount and builds its file system over the keeper's handle table.
    pub(crate) async fn prepare(
        &self,
        spec: &MountSpec,
        handles: OwnedFd,
        opening: Opening,
    ) -> Result<Arc<Mounted>, Failure> {
        let options: MountOptions =
            serde_json::from_value(spec.options.clone()).map_err(|error| {
                Failure::new(
                    error,
                    "mount with the same version of terrace that serves it",
                )
            })?;
        let warm = options.warm.clone().or_else(|| self.configured_warm());
        let opened = self
            .open_source(&spec.source, spec.credentials.0.clone(), warm)
            .await?;
        let namespace = self
            .namespace(&opened.store, spec, &options, opening)
            .await
            .map_err(|error| {
                Failure::new(format!("{error:#}"), "check the source and its permissions")
            })?;
        let dataset = DatasetKey(spec.source.as_str().into());
        let handles = HandleTable::open(handles)
            .map_err(|error| Failure::new(format!("handle table: {error}"), "mount again"))?;
        let fs = FileSystem::new(FileSystemParts {
            namespace: Arc::clone(&namespace),
            cache: self.cache.clone(),
            source: Arc::clone(&opened.source),
            dataset: dataset.clone(),
            handles,
            runtime: self.runtime.clone(),
            profile: if options.small_files {
                Profile::SmallFiles
            } else {
                Profile::Default
            },
            passthrough: self.passthrough(),
            config: FileSystemConfig {
                fill_on_open: self.config.fuse.fill_on_open.0,
                ..FileSystemConfig::default()
            },
        });
        let mounted = Arc::new(Mounted {
            spec: spec.clone(),
            options,
            store: opened.store,
            source: opened.source,
            has_warm: opened.has_warm,
            namespace,
            dataset,
            fs,
        });
        self.lock_mounts()
            .insert(spec.id.clone(), Arc::clone(&mounted));
        Ok(mounted)
    }

    async fn namespace(
        &self,
        store: &Store,
        spec: &MountSpec,
        options: &MountOptions,
        opening: Opening,
    ) -> Result<Arc<dyn Namespace>> {
        let state = self.state_dir(spec)?;
        if options.snapshot {
            let snapshot = names::snapshot(&state, store, spec, options).await?;
            return Ok(Arc::new(snapshot));
        }
        let live = names::live(&state, store, options, opening)?;
        if opening == Opening::Mount {
            live.check().await?;
        }
        Ok(Arc::new(live))
    }

    /// Where a mount keeps what must outlive a worker: one directory for each source and mount
    /// point, so that inode numbers stay the same when the same thing is mounted again.
    fn state_path(&self, spec: &MountSpec) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(spec.source.as_bytes());
        hash.update([0]);
        hash.update(spec.mountpoint.as_os_str().as_encoded_bytes());
        let name: String = hash.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.config.cache.hot.dir.join("mounts").join(name)
    }

    fn state_dir(&self, spec: &MountSpec) -> Result<PathBuf> {
        let dir = self.state_path(spec);
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Opens a store and puts the warm tier over it when there is one.
    pub(crate) async fn open_source(
        &self,
        url: &str,
        credentials: BTreeMap<String, String>,
        warm: Option<PathBuf>,
    ) -> Result<Opened, Failure> {
        let failed = |error: terrace_cache::store::StoreError| {
            Failure::new(
                format!("{} {}: {}", error.operation, error.target, error.reason),
                error.kind.hint(),
            )
        };
        let url: StoreUrl = url.parse().map_err(failed)?;
        let credentials = Credentials::new(credentials);
        let store = Store::open(&url, &self.config.cache.store, &credentials)
            .await
            .map_err(failed)?;
        let source: Arc<dyn Source> = Arc::new(store.clone());
        let has_warm = warm.is_some();
        let source = match warm {
            None => source,
            Some(dir) => {
                let tier = self.warm_tier(&dir).map_err(|error| {
                    Failure::new(
                        format!("open the warm tier {}: {error:#}", dir.display()),
                        "check --warm",
                    )
                })?;
                Arc::new(WarmSource::new(tier, source))
            }
        };
        Ok(Opened {
            store,
            source,
            has_warm,
        })
    }

    /// The warm directory of the configuration, if it names one.
    fn configured_warm(&self) -> Option<PathBuf> {
        let dir = &self.config.cache.warm.dir;
        (!dir.as_os_str().is_empty()).then(|| dir.clone())
    }

    fn warm_tier(&self, dir: &Path) -> Result<WarmTier> {
        let mut tiers = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tier) = tiers.get(dir) {
            return Ok(tier.clone());
        }
        let config = WarmConfig {
            dir: dir.to_owned(),
            ..self.config.cache.warm.clone()
        };
        let tier = WarmTier::new(config, self.runtime.clone())?;
        tiers.insert(dir.to_owned(), tier.clone());
        Ok(tier)
    }

    /// Warm tiers in use.
    pub(crate) fn warm_tiers(&self) -> Vec<WarmTier> {
        let tiers = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        tiers.values().cloned().collect()
    }

    /// The snapshot file of a mount that shows one.
    pub(crate) fn snapshot_of(&self, spec: &MountSpec) -> PathBuf {
        names::snapshot_path(&self.state_path(spec), spec)
    }

    /// A file name of this worker's own, in the hot directory.
    pub(crate) fn scratch_file(&self, purpose: &str) -> PathBuf {
        let number = self.scratch.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{number}", std::process::id());
        self.config.cache.hot.dir.join("mounts").join(name)
    }

    /// Forgets a mount that was removed.
    pub(crate) fn forget(&self, id: &str) {
        self.lock_mounts().remove(id);
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
        &self.config
    }

    fn passthrough(&self) -> Passthrough {
        if self.config.fuse.passthrough {
            Passthrough::Wanted {
                directory: self.config.cache.hot.dir.clone(),
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
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Ends fills and tasks and writes down what the tiers know. For an orderly end; a killed worker
    /// loses nothing but work.
    pub(crate) async fn shutdown(&self) {
        self.tasks.close();
        self.cache.shutdown().await;
    }

    fn lock_mounts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Mounted>>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Budget when none is configured: this part of what is free or already used by the tier.
const DEFAULT_SHARE: f64 = 0.8;

fn hot_config(config: &NodeConfig) -> Result<HotConfig> {
    let section = &config.cache.hot;
    std::fs::create_dir_all(&section.dir)
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
