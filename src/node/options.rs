//! What a mount was asked to be: written by `terrace mount`, carried by the keeper as JSON, read by
//! each worker that serves the mount. Unknown fields are refused, so that an older worker does not
//! silently serve a newer mount in another way.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use terrace_cache::units::{ByteSize, Span};
use terrace_csi::spaces::SpaceName;
use terrace_fuse::directory::TierPolicy;
use terrace_fuse::keeper::{Failure, MountSpec};

use super::tenants::TenantName;

/// Options of one mount. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountOptions {
    /// The listing is read once and shown for ever.
    pub(crate) snapshot: bool,
    /// Opens cost no round trip; no passthrough.
    pub(crate) small_files: bool,
    /// How long a name is believed (live mounts).
    pub(crate) ttl: Span,
    /// Owner shown for everything.
    pub(crate) uid: u32,
    /// Group shown for everything.
    pub(crate) gid: u32,
    /// Permission bits of files.
    pub(crate) file_mode: u16,
    /// Permission bits of directories.
    pub(crate) dir_mode: u16,
    /// Directory of the warm tier.
    pub(crate) warm: Option<PathBuf>,
    /// Whose budgets it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<TenantName>,
    /// The source is a directory, shown for reading and writing as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<DirectoryOptions>,
    /// Address of the catalog, for a tree of tables or a version of one. Its token is among the
    /// credentials.
    #[serde(default)]
    pub(crate) catalog: Option<String>,
    /// The file its token came from, which may be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) catalog_token: Option<PathBuf>,
    /// Certificates that the catalog's own must come from; none: those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) catalog_ca: Option<PathBuf>,
    /// The version to show, resolved once when it was mounted.
    #[serde(default)]
    pub(crate) version: Option<PinnedVersion>,
}

/// What a directory volume was asked to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectoryOptions {
    /// The directory, canonical.
    pub(crate) root: PathBuf,
    /// Refuse locks instead of keeping them on this node alone.
    pub(crate) refuse_locks: bool,
    /// Rules of how durable files are when close(2) and fsync(2) return, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) durability: Vec<String>,
    /// Where files are staged; none: beside the hot directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spool: Option<PathBuf>,
    /// Most bytes there; none: half of what is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spool_size: Option<ByteSize>,
    /// Where contents go that nobody uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cold: Option<ColdOptions>,
    /// The space that it is, with limits of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) space: Option<SpaceOptions>,
    /// Whether files that are read are copied to the hot tier.
    #[serde(default)]
    pub(crate) ssd_cache: SsdCache,
    /// How long an open believes what the shared file system's server said before; none: it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revalidate: Option<Span>,
}

/// When files of a directory volume that are read are copied to the hot tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SsdCache {
    /// Always.
    On,
    /// Never.
    Off,
    /// Unless the directory lies on a local file system.
    #[default]
    Auto,
}

/// The cold store of a directory volume. Its credentials are among the mount's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColdOptions {
    /// Its address.
    pub(crate) url: String,
    /// What moves without being asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<TierPolicy>,
}

/// Which space a directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceOptions {
    /// The directory that has the spaces, canonical.
    pub(crate) base: PathBuf,
    /// Its name.
    pub(crate) name: SpaceName,
}

/// Source of a tree of all tables.
pub(crate) const CATALOG_SOURCE: &str = "catalog:";

/// Name of the catalog's token among the credentials of a mount.
pub(crate) const CATALOG_TOKEN: &str = "TERRACE_TOKEN";

/// One version of a dataset, as a mount carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedVersion {
    /// `namespace.table`.
    pub(crate) dataset: String,
    /// Its number.
    pub(crate) number: u64,
    /// Digest of its list of files, hexadecimal.
    pub(crate) manifest: String,
    /// When it was committed.
    pub(crate) committed_ms: i64,
}

impl MountOptions {
    /// The options of a mount.
    pub(crate) fn of(spec: &MountSpec) -> Result<Self, Failure> {
        let hint = "mount with the same version of terrace that serves it";
        serde_json::from_value(spec.options.clone()).map_err(|error| Failure::new(error, hint))
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            snapshot: false,
            small_files: false,
            ttl: Span(Duration::from_secs(1)),
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            dir_mode: 0o555,
            warm: None,
            tenant: None,
            directory: None,
            catalog: None,
            catalog_token: None,
            catalog_ca: None,
            version: None,
        }
    }
}
