//! The driver `data.terrace.io`: versions of datasets and models as read-only volumes, and directories of a
//! shared file system for reading and writing.
//!
//! ```text
//! CreateVolume    selector -> version, once; kept in a record and in the volume's context
//!                 directory of a class -> a directory of its own in it, likewise
//! NodeStage       the volume's one mount on the node, made by the node's daemon
//! NodePublish     a bind of that mount, or of the version's native tree, for each pod
//! ```
//!
//! What the driver cannot do itself stands behind two traits: [`Catalog`] knows versions, [`Daemon`]
//! has the mounts. Both are implemented by the binary; neither hands out bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tonic::Status;

pub mod context;
pub mod controller;
pub mod directory;
pub mod node;
mod size;

pub use context::{Context, Plan, Version};
pub use directory::{Bases, DirectoryVolume, SpaceOf};

use crate::{ColdStore, Contents, Durability, Secrets, TenantName};
use terrace_catalog::Selector;

/// Name of the driver.
pub const NAME: &str = "data.terrace.io";

/// File system type of the daemon's mounts, as mountinfo(5) shows it.
pub const FS_TYPE: &str = "fuse.terrace";

/// Why the catalog or the daemon did not do something. The text is one line for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Who asks may not.
    #[error("{0}")]
    Denied(String),
    /// It cannot be done as things are, however often it is tried.
    #[error("{0}")]
    Refused(String),
    /// Somebody does not answer; the same request may succeed later.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound(why) => Self::not_found(why),
            Failure::Denied(why) => Self::permission_denied(why),
            Failure::Refused(why) => Self::failed_precondition(why),
            Failure::Unavailable(why) => Self::unavailable(why),
        }
    }
}

/// Who keeps what a directory volume promises: the node's daemon, which is not in this crate.
pub trait Promises: Send + Sync + 'static {
    /// Judges rules of durability, as [`Durability::rules`] has them, and the cold store behind them. The error
    /// is one line, with the attribute that it is about.
    fn check(&self, durability: &Durability, cold: Option<&ColdStore>) -> Result<(), String>;

    /// Whether files may be on a node only, and not in the directory yet, after their writer was told that
    /// they are safe.
    fn stages(&self, durability: &Durability) -> bool;

    /// Where the contents of files are.
    fn contents(&self) -> &dyn Contents;
}

/// Which kind of dataset a volume names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A dataset, of any kind.
    Dataset,
    /// A model; anything else of that name is not found.
    Model,
}

/// Who knows the versions. Calls have deadlines of their own, and may be dropped.
#[tonic::async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// Which version a selector means now.
    async fn resolve(
        &self,
        selector: &Selector,
        kind: Kind,
        secrets: &Secrets,
    ) -> Result<Version, Failure>;

    /// Lets the nodes that show the version fetch it, and keep it when `pin` says so. Done when it is
    /// asked for; that there is no such node is no failure.
    async fn warm(&self, plan: &Plan, secrets: &Secrets) -> Result<(), Failure>;
}

/// What a volume shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A version, which nobody can write.
    Version(Plan),
    /// A directory.
    Directory(DirectoryVolume),
}

/// What a mount is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A version.
    Version(Version),
    /// A directory.
    Directory {
        /// Its path, without links.
        root: PathBuf,
        /// What has happened to written data before the write is acknowledged.
        durability: Durability,
        /// Where contents go that nobody uses.
        cold: Option<ColdStore>,
        /// The space that it is, whose limit holds.
        space: Option<SpaceOf>,
    },
}

/// One mount to make.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// Of what.
    pub of: Mounted,
    /// By what name its mount is known in mountinfo(5).
    pub source: String,
    /// An existing directory, without links in its path.
    pub at: PathBuf,
    /// Group that the files of a version show.
    pub group: Option<u32>,
    /// Readahead in KiB, when it is not to be the usual one.
    pub read_ahead_kb: Option<u32>,
    /// Whose budgets it uses.
    pub tenant: Option<TenantName>,
    /// Who asks.
    pub secrets: Secrets,
}

impl Shown {
    /// Whose budgets its mounts use.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Version(plan) => plan.tenant.as_ref(),
            Self::Directory(directory) => directory.tenant.as_ref(),
        }
    }

    /// The context that says it.
    pub fn context(&self) -> BTreeMap<String, String> {
        match self {
            Self::Version(plan) => plan.context(),
            Self::Directory(directory) => directory.context(),
        }
    }
}

/// How much of a mounted version is on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Files of the version.
    pub files: u64,
    /// Those of which every byte is there.
    pub complete: u64,
}

/// The node's daemon. Calls have deadlines of their own; one that is dropped may have been carried out.
#[tonic::async_trait]
pub trait Daemon: Send + Sync + 'static {
    /// Mounts; returns when the mount answers.
    async fn mount(&self, request: MountRequest) -> Result<(), Failure>;

    /// Removes a mount. One that nobody holds is removed already. What was written to a directory is on the
    /// node's disk before, at the least; what of it is not in the directory yet is told in the log.
    async fn unmount(&self, at: &Path) -> Result<(), Failure>;

    /// Whether somebody holds a mount there. An answer means that it lives, however slow it is.
    async fn holds(&self, at: &Path) -> Result<bool, Failure>;

    /// Begins to fetch everything that is mounted there; with `pin` it is kept.
    async fn warm(&self, at: &Path, pin: bool) -> Result<(), Failure>;

    /// How much of what is mounted there is on the node.
    async fn presence(&self, at: &Path) -> Result<Presence, Failure>;

    /// Builds a native tree of what is mounted there, under a name of its own, or finds it; where it
    /// is. Everything has to be on the node.
    async fn tree(&self, at: &Path, name: &str) -> Result<PathBuf, Failure>;

    /// Removes a native tree; one that does not exist is removed already.
    async fn remove_tree(&self, name: &str) -> Result<(), Failure>;
}
