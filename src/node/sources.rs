//! What of a mount needs no tier: its options, its store (with the warm tier over it) and its name
//! space.
//!
//! A worker that starts reaches these while its hot tier is opened, so that applications which wait
//! for it wait for the slower of the two and not for both. Below the hot directory it owns `mounts/`,
//! one directory for each source and mount point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use terrace_cache::Source;
use terrace_cache::store::{Bandwidth, Credentials, Store, StoreUrl};
use terrace_cache::units::ByteSize;
use terrace_cache::warm::{WarmConfig, WarmTier};
use terrace_fuse::keeper::{Failure, MountSpec};
use terrace_fuse::live::Opening;
use tokio::runtime::Handle;

use super::below::{Below, below};
use super::config::NodeConfig;
use super::names;
use super::options::MountOptions;
use super::tenants::Bandwidths;

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

/// A mount that only lacks its cache.
#[derive(Debug)]
pub(crate) struct Reached {
    /// What was asked for.
    pub(crate) spec: MountSpec,
    /// Options, as understood.
    pub(crate) options: MountOptions,
    /// What exists, and where bytes come from.
    pub(crate) below: Below,
}

/// Opens stores and name spaces; see the module text.
#[derive(Debug)]
pub(crate) struct Sources {
    config: NodeConfig,
    runtime: Handle,
    /// One warm tier for each directory.
    warm: Mutex<BTreeMap<PathBuf, WarmTier>>,
    scratch: AtomicU64,
    bandwidths: Bandwidths,
}

impl Sources {
    /// Nothing is opened yet. Tasks of stores and tiers run on `runtime`.
    pub(crate) fn new(config: NodeConfig, runtime: Handle) -> Self {
        Self {
            bandwidths: Bandwidths::new(&config.tenants),
            config,
            runtime,
            warm: Mutex::default(),
            scratch: AtomicU64::new(0),
        }
    }

    /// Reaches the store of a mount and opens its name space. The store is asked only for a mount
    /// that no kernel knows yet ([`Opening::Mount`]).
    pub(crate) async fn reach(
        &self,
        spec: &MountSpec,
        opening: Opening,
    ) -> Result<Reached, Failure> {
        let options = MountOptions::of(spec)?;
        self.check_tenant(&options, opening)?;
        let below = below(self, spec, &options, opening).await?;
        Ok(Reached {
            spec: spec.clone(),
            options,
            below,
        })
    }

    /// Refuses a new mount of a tenant that this node does not know. One that is taken over goes on
    /// without budgets.
    pub(super) fn check_tenant(
        &self,
        options: &MountOptions,
        opening: Opening,
    ) -> Result<(), Failure> {
        match &options.tenant {
            Some(name) if !self.config.tenants.contains_key(name) => {
                let why = format!("tenant {name} is not in the configuration of this node");
                if opening == Opening::Mount {
                    let hint =
                        "add [tenants.NAME] to the file of --config and start the keeper anew";
                    return Err(Failure::new(why, hint));
                }
                tracing::warn!(tenant = %name, "not in the configuration: no budgets");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Most bytes of a mount's tenant in the spool.
    pub(super) fn spool_budget(&self, options: &MountOptions) -> Option<ByteSize> {
        self.config.tenants.get(options.tenant.as_ref()?)?.spool
    }

    /// The bandwidth limit that a mount shares with others of its tenant.
    pub(super) fn bandwidth(&self, options: &MountOptions) -> Option<Arc<Bandwidth>> {
        self.bandwidths.of(options.tenant.as_ref())
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

    pub(super) fn state_dir(&self, spec: &MountSpec) -> Result<PathBuf> {
        let dir = self.state_path(spec);
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    /// Opens a store and puts the warm tier over it when there is one.
    pub(crate) async fn open(
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
        let tier = match warm {
            None => None,
            Some(dir) => Some(self.warm_tier(&dir).map_err(|error| {
                Failure::new(
                    format!("open the warm tier {}: {error:#}", dir.display()),
                    "check --warm",
                )
            })?),
        };
        Ok(Opened::new(store, tier))
    }

    /// The warm directory of the configuration, if it names one.
    pub(super) fn configured_warm(&self) -> Option<PathBuf> {
        let dir = &self.config.cache.warm.dir;
        (!dir.as_os_str().is_empty()).then(|| dir.clone())
    }

    pub(super) fn warm_tier(&self, dir: &Path) -> Result<WarmTier> {
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

    /// The configuration.
    pub(crate) fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Where tasks run.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
