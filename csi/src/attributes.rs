//! The attributes of a volume: parameters of a StorageClass or of an inline volume.
//!
//! ```text
//! one of     dataset: ads.clicks@v12     a dataset, read-only
//!            directory: home/alice       a read-write directory of a shared file system
//!            model: team/churn@v3        a saved model
//!            scratch: "true"             an empty directory of the node, deleted with the volume
//! and of     durability: local|shared|RULES    directory; see `durability.rs`
//!            cold: s3://bucket/prefix          directory; see `cold.rs`
//!            tierPolicy: older_than: 30d       directory, with cold
//!            tenant: vision                    dataset, directory, model
//!            warm: none|metadata|full          dataset, model
//!            pin: "true"|"false"               dataset, model
//!            mode: fuse|native|auto            dataset, model
//! ```
//!
//! An unknown key is refused, and so is one that the kind of volume has no use for: an attribute that
//! is silently ignored is a promise that nobody keeps. Keys that Kubernetes itself adds
//! (`csi.storage.k8s.io/...`, `storage.kubernetes.io/...`) are left to who asked for them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use terrace_catalog::{Selector, TagName, VersionRef};

use crate::TenantName;

pub use cold::ColdStore;
pub use directory::DirectoryPath;
pub use durability::Durability;

mod cold;
mod directory;
mod durability;

/// Keys with these prefixes are written by Kubernetes and its sidecars, not by the user.
const KUBERNETES_PREFIXES: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];

/// Why attributes are refused. The message names the key and what may be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// None, or more than one, of the four kinds is named.
    #[error("name exactly one of dataset, directory, model and scratch")]
    Kind,
    /// A key that is not in the list.
    #[error("unknown attribute {0:?}")]
    Unknown(String),
    /// A key that this kind of volume has no use for.
    #[error("attribute {0} says nothing about a {1} volume")]
    Unused(&'static str, &'static str),
    /// A value outside what the key takes.
    #[error("attribute {key}: {expected}")]
    Value {
        /// The attribute.
        key: &'static str,
        /// What it takes.
        expected: String,
    },
}

/// What is fetched before the volume is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarmUp {
    /// Nothing.
    #[default]
    None,
    /// The list of files.
    Metadata,
    /// Every byte.
    Full,
}

/// How pods see the files of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishMode {
    /// Through the node's mount.
    #[default]
    Fuse,
    /// As a native tree of files on the node's disk, once all of them are there.
    Native,
    /// As a native tree when all files are there at that moment, else through the mount.
    Auto,
}

impl PublishMode {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Native => "native",
            Self::Auto => "auto",
        }
    }
}

impl WarmUp {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Full => "full",
        }
    }
}

/// A saved model: `team/name` and which version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    name: Arc<str>,
    version: VersionRef,
}

/// What a volume is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// A dataset at a version.
    Dataset(Selector),
    /// A directory of a shared file system, to be written.
    Directory(DirectoryPath),
    /// A saved model.
    Model(ModelName),
    /// Empty, local and temporary.
    Scratch,
}

/// The attributes of one volume, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// What it is made from.
    pub source: VolumeSource,
    /// How durable acknowledged writes are.
    pub durability: Durability,
    /// Where contents go that nobody uses, and copies of those that must survive the directory.
    pub cold: Option<ColdStore>,
    /// Whose budgets its mounts use.
    pub tenant: Option<TenantName>,
    /// What is fetched before use.
    pub warm: WarmUp,
    /// Whether its data is exempt from eviction.
    pub pin: bool,
    /// How pods see it.
    pub mode: PublishMode,
}

impl VolumeRequest {
    /// Reads the attributes. Absent optional ones take their defaults.
    pub fn parse(attributes: &BTreeMap<String, String>) -> Result<Self, AttributeError> {
        let source = source(attributes)?;
        let mut request = Self {
            source,
            durability: Durability::default(),
            cold: None,
            tenant: None,
            warm: WarmUp::default(),
            pin: false,
            mode: PublishMode::default(),
        };
        for (key, value) in attributes {
            match key.as_str() {
                "dataset" | "directory" | "model" | "scratch" => {}
                "durability" => request.set_durability(value)?,
                "cold" => request.source.only_directory("cold")?,
                "tierPolicy" => request.source.only_directory("tierPolicy")?,
                "tenant" => request.set_tenant(value)?,
                "warm" => request.set_warm(value)?,
                "pin" => request.set_pin(value)?,
                "mode" => request.set_mode(value)?,
                key if is_of_kubernetes(key) => {}
                key => return Err(AttributeError::Unknown(key.chars().take(80).collect())),
            }
        }
        request.cold = ColdStore::parse(attributes.get("cold"), attributes.get("tierPolicy"))?;
        if request.cold.is_none() && request.durability.names("cold") {
            return Err(value_error(
                "durability",
                "the level cold needs a cold store behind the volume: name one with cold, or use shared",
            ));
        }
        Ok(request)
    }

    fn set_durability(&mut self, value: &str) -> Result<(), AttributeError> {
        // A version is read, and a model is saved by other means.
        self.source.only_directory("durability")?;
        self.durability = value.parse()?;
        Ok(())
    }

    fn set_tenant(&mut self, value: &str) -> Result<(), AttributeError> {
        self.source.refuse("tenant", &["scratch"])?;
        let name = value.parse::<TenantName>();
        self.tenant = Some(name.map_err(|why| value_error("tenant", &why.to_string()))?);
        Ok(())
    }

    fn set_warm(&mut self, value: &str) -> Result<(), AttributeError> {
        self.source.refuse("warm", &["directory", "scratch"])?;
        self.warm = match value {
            "none" => WarmUp::None,
            "metadata" => WarmUp::Metadata,
            "full" => WarmUp::Full,
            _ => return Err(value_error("warm", "none, metadata or full")),
        };
        Ok(())
    }

    fn set_mode(&mut self, value: &str) -> Result<(), AttributeError> {
        self.source.refuse("mode", &["directory", "scratch"])?;
        self.mode = match value {
            "fuse" => PublishMode::Fuse,
            "native" => PublishMode::Native,
            "auto" => PublishMode::Auto,
            _ => return Err(value_error("mode", "fuse, native or auto")),
        };
        Ok(())
    }

    fn set_pin(&mut self, value: &str) -> Result<(), AttributeError> {
        self.source.refuse("pin", &["directory", "scratch"])?;
        self.pin = match value {
            "true" => true,
            "false" => false,
            _ => return Err(value_error("pin", "\"true\" or \"false\"")),
        };
        Ok(())
    }
}

impl VolumeSource {
    /// The attribute that names this kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Directory(_) => "directory",
            Self::Model(_) => "model",
            Self::Scratch => "scratch",
        }
    }

    fn only_directory(&self, key: &'static str) -> Result<(), AttributeError> {
        self.refuse(key, &["dataset", "model", "scratch"])
    }

    fn refuse(&self, key: &'static str, kinds: &[&str]) -> Result<(), AttributeError> {
        if kinds.contains(&self.kind()) {
            return Err(AttributeError::Unused(key, self.kind()));
        }
        Ok(())
    }
}

impl ModelName {
    /// `team/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which version of it.
    pub fn version(&self) -> &VersionRef {
        &self.version
    }
}

impl FromStr for ModelName {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let refused = || value_error("model", "team/name, or team/name@version");
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, version.parse().map_err(|_| refused())?),
            None => (text, VersionRef::Latest),
        };
        let parts: Vec<&str> = name.split('/').collect();
        // The parts of a model's name follow the rules of tags, which are those of a repository name.
        if parts.len() != 2 || parts.iter().any(|part| part.parse::<TagName>().is_err()) {
            return Err(refused());
        }
        Ok(Self {
            name: Arc::from(name),
            version,
        })
    }
}

/// Whether a key was written by Kubernetes or one of its sidecars.
pub(crate) fn is_of_kubernetes(key: &str) -> bool {
    KUBERNETES_PREFIXES
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// Finds the one attribute that says what the volume is.
fn source(attributes: &BTreeMap<String, String>) -> Result<VolumeSource, AttributeError> {
    let mut found = Vec::new();
    if let Some(text) = attributes.get("dataset") {
        let selector = text.parse::<Selector>();
        let selector = selector.map_err(|why| value_error("dataset", &why.to_string()))?;
        found.push(VolumeSource::Dataset(selector));
    }
    if let Some(text) = attributes.get("directory") {
        found.push(VolumeSource::Directory(text.parse()?));
    }
    if let Some(text) = attributes.get("model") {
        found.push(VolumeSource::Model(text.parse()?));
    }
    if let Some(text) = attributes.get("scratch") {
        if text != "true" {
            return Err(value_error("scratch", "\"true\", or leave it out"));
        }
        found.push(VolumeSource::Scratch);
    }
    match (found.pop(), found.is_empty()) {
        (Some(source), true) => Ok(source),
        _ => Err(AttributeError::Kind),
    }
}

fn value_error(key: &'static str, expected: &str) -> AttributeError {
    AttributeError::Value {
        key,
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests;
