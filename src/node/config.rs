//! What a worker is started with: the configuration file's sections and the flags over them.
//!
//! One TOML file, one section for each crate, unknown keys refused. Flags win over the file, the
//! file over the defaults. `deploy/config.toml` documents every key and is tested against the
//! defaults. The keeper carries the result to each worker as JSON; it holds no credentials.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use terrace_cache::fill::CacheConfig;
use terrace_cache::store::StoreConfig;
use terrace_cache::units::{ByteSize, Span};
use terrace_cache::warm::WarmConfig;
use terrace_catalog::access::identity::IdentityConfig;
use terrace_catalog::nodes::NodeName;
use terrace_catalog::upkeep::Schedule;

use super::tenants::{self, TenantsSection};

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Bytes: tiers, fill and stores.
    pub(crate) cache: CacheSection,
    /// File systems.
    pub(crate) fuse: FuseSection,
    /// The daemons.
    pub(crate) node: NodeSection,
    /// A catalog, for `terrace catalog serve` and `terrace up`.
    pub(crate) catalog: CatalogSection,
    /// Spaces of users and projects.
    pub(crate) volumes: VolumesSection,
    /// Tenants, by name.
    pub(crate) tenants: TenantsSection,
}

/// `[volumes]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VolumesSection {
    /// Directory of the shared file system that has the volumes (`home/`, `project/`). Default: none.
    pub(crate) base: Option<PathBuf>,
    /// Between two counts of a volume whose limit the daemon keeps. Default: 10m.
    pub(crate) count_every: Span,
}

impl Default for VolumesSection {
    fn default() -> Self {
        Self {
            base: None,
            count_every: Span(Duration::from_secs(600)),
        }
    }
}

/// `[catalog]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CatalogSection {
    /// `[catalog.identity]`: whose tokens are believed besides the catalog's own.
    pub(crate) identity: IdentityConfig,
    /// `[catalog.upkeep]`: what the catalog does without being asked.
    pub(crate) upkeep: UpkeepSection,
}

/// `[catalog.upkeep]`. `0s`: only when somebody asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpkeepSection {
    /// Between two collections of garbage. Default: 24h.
    pub(crate) collect_every: Span,
    /// Between two scrubs, each of which reads everything that is saved. Default: 0s.
    pub(crate) scrub_every: Span,
    /// Most bytes that a scrub reads a second; 0B: no limit. Default: 100MiB.
    pub(crate) scrub_rate: ByteSize,
}

impl Default for UpkeepSection {
    fn default() -> Self {
        Self {
            collect_every: Span(Duration::from_secs(24 * 3600)),
            scrub_every: Span(Duration::ZERO),
            scrub_rate: ByteSize(100 << 20),
        }
    }
}

impl UpkeepSection {
    /// As the catalog takes it.
    pub(crate) fn schedule(&self) -> Schedule {
        let every = |span: Span| Some(span.0).filter(|span| !span.is_zero());
        Schedule {
            collect_every: every(self.collect_every),
            scrub_every: every(self.scrub_every),
            scrub_rate: self.scrub_rate.0,
        }
    }

    /// Refuses intervals that keep a store busy with nothing else.
    fn check(&self) -> Result<()> {
        let every = [
            ("collect_every", self.collect_every),
            ("scrub_every", self.scrub_every),
        ];
        for (key, span) in every {
            anyhow::ensure!(
                span.0.is_zero() || span.0 >= Duration::from_secs(600),
                "catalog.upkeep.{key} is {span}; at least 10m, or 0s for never"
            );
        }
        Ok(())
    }
}

/// `[cache]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CacheSection {
    /// `[cache.hot]`.
    pub(crate) hot: HotSection,
    /// `[cache.fill]`.
    pub(crate) fill: CacheConfig,
    /// `[cache.store]`.
    pub(crate) store: StoreConfig,
    /// `[cache.warm]`.
    pub(crate) warm: WarmConfig,
}

/// `[cache.hot]`: the tier on the node's SSD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HotSection {
    /// Directory. Default: /var/cache/terrace.
    pub(crate) dir: PathBuf,
    /// Budget. Default: 80% of what is free when the tier is first opened.
    pub(crate) size: Option<ByteSize>,
    /// Free space that is always left to others on the same disk. Default: 1GiB.
    pub(crate) keep_free: ByteSize,
    /// Speed of the background scrub, bytes a second. Default: 20MiB.
    pub(crate) scrub_rate: ByteSize,
    /// After so long an operation of the disk counts as hung and is bypassed. Default: 5s.
    pub(crate) deadline: Span,
}

impl Default for HotSection {
    fn default() -> Self {
        Self {
            dir: PathBuf::from(crate::cli::DEFAULT_HOT),
            size: None,
            keep_free: ByteSize(1 << 30),
            scrub_rate: ByteSize(20 << 20),
            deadline: Span(Duration::from_secs(5)),
        }
    }
}

/// `[fuse]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FuseSection {
    /// Files up to this size are filled before open(2) returns. Default: 16MiB.
    pub(crate) fill_on_open: ByteSize,
    /// Threads that take requests from the kernel, for each mount. Default: 2.
    pub(crate) threads: usize,
    /// Use kernel passthrough where it works. Default: true.
    pub(crate) passthrough: bool,
}

impl Default for FuseSection {
    fn default() -> Self {
        Self {
            fill_on_open: ByteSize(16 << 20),
            threads: 2,
            passthrough: true,
        }
    }
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeSection {
    /// Address of the metrics page (`/metrics`); none: only `terrace status --metrics`.
    /// Default: none.
    pub(crate) metrics: Option<SocketAddr>,
    /// Without a worker for so long, connections are aborted so that nothing hangs for ever.
    /// Default: 1m.
    pub(crate) abort_after: Span,
    /// What the node is called in catalogs; every node has a name of its own. Default: the host name.
    pub(crate) name: Option<String>,
    /// How often the node says what it has to the catalogs of its mounts. Default: 5s.
    pub(crate) report_every: Span,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            metrics: None,
            abort_after: Span(Duration::from_secs(60)),
            name: None,
            report_every: Span(Duration::from_secs(5)),
        }
    }
}

/// What a worker gets: the configuration with the flags applied.
pub(crate) type NodeConfig = Config;

impl Config {
    /// Reads `path`, or gives the defaults without one, and checks the values.
    ///
    /// Errors name the file, the line and the key.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read the configuration {}", path.display()))?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| {
                // The library's message is several lines with a drawing; keep what is said.
                let line = error
                    .span()
                    .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                anyhow::anyhow!("line {line}: {}", error.message())
            })
            .with_context(|| format!("read the configuration {}", path.display()))?;
        config
            .check()
            .with_context(|| format!("check the configuration {}", path.display()))?;
        Ok(config)
    }

    /// Refuses values that cannot work, naming key and range.
    pub(crate) fn check(&self) -> Result<()> {
        self.catalog.upkeep.check()?;
        tenants::check(self)?;
        anyhow::ensure!(
            self.volumes.count_every.0 >= Duration::from_secs(1),
            "volumes.count_every is {}; at least 1s",
            self.volumes.count_every
        );
        let warm = &self.cache.warm;
        if !warm.dir.as_os_str().is_empty() {
            warm.check()
                .map_err(|error| anyhow::anyhow!("cache.warm.{error}"))?;
        }
        self.cache
            .fill
            .check()
            .map_err(|error| anyhow::anyhow!("cache.fill.{error}"))?;
        self.cache
            .store
            .check()
            .map_err(|error| anyhow::anyhow!("cache.store: {}", error.reason))?;
        anyhow::ensure!(
            (1..=64).contains(&self.fuse.threads),
            "fuse.threads is {}; allowed are 1 to 64",
            self.fuse.threads
        );
        anyhow::ensure!(
            self.fuse.fill_on_open.0 <= 1 << 30,
            "fuse.fill_on_open is {}; at most 1GiB",
            self.fuse.fill_on_open
        );
        anyhow::ensure!(
            self.node.abort_after.0 >= Duration::from_secs(1),
            "node.abort_after is {}; at least 1s",
            self.node.abort_after
        );
        // Catalogs take a node for gone after 30 s.
        anyhow::ensure!(
            (Duration::from_millis(100)..=Duration::from_secs(10))
                .contains(&self.node.report_every.0),
            "node.report_every is {}; allowed are 100ms to 10s",
            self.node.report_every
        );
        if let Some(Err(error)) = self.node.name.as_ref().map(|name| name.parse::<NodeName>()) {
            anyhow::bail!("node.name: {error}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    // Without it the documented reference would drift from what the program does.
    #[test]
    fn the_reference_file_is_the_defaults() {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config.toml");
        assert_eq!(Config::load(Some(&reference)).unwrap(), Config::default());
    }

    // Without it a misspelt key would silently do nothing.
    #[test]
    fn unknown_keys_and_bad_values_name_their_place() {
        let error = format!("{:#}", load("[fuse]\nthreds = 2\n").unwrap_err());
        assert!(
            error.contains("threds") && error.contains("line 2"),
            "{error}"
        );
        let error = format!("{:#}", load("[fuse]\nthreads = 0\n").unwrap_err());
        assert!(
            error.contains("fuse.threads") && error.contains("1 to 64"),
            "{error}"
        );
        let error = format!("{:#}", load("[cache.hot]\nsize = \"10\"\n").unwrap_err());
        assert!(error.contains("64GiB"), "{error}");
    }

    // Without it a worker restarted by the keeper could run with another configuration.
    #[test]
    fn the_configuration_survives_the_way_through_the_keeper() {
        let config = load("[cache.hot]\nsize = \"3GiB\"\n[node]\nabort_after = \"5s\"\n").unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
    }
}
