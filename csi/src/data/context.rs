//! What a volume is, as its context carries it from the controller to every node.
//!
//! ```text
//! version     ads.clicks@v12      what the selector meant when the volume was made
//! manifest    64 hex digits       digest of its list of files
//! committed   1700000000000       when it was committed, in milliseconds since 1970
//! files       3                   how many
//! bytes       1048576             and how much
//! mode        fuse|native|auto    how pods see it
//! warm        none|metadata|full
//! pin         true|false
//!
//! directory   file:///mnt/pfs/... the directory of a volume that is written
//! durability  local|shared|cold|rules
//! cold        s3://bucket/prefix  its cold store; absent: none
//! tierPolicy  YAML                what goes there without being asked; absent: nothing
//!
//! tenant      vision              whose budgets the mounts use, of either; absent: nobody's
//! ```
//!
//! A volume that a person wrote (a static PersistentVolume, an inline volume) has the attributes of a
//! StorageClass instead, and is resolved on the node; a directory is the same in both. Keys that Kubernetes
//! adds are left alone; any other one is refused.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use terrace_catalog::{DatasetName, Selector, VersionRef};
use tonic::Status;

use super::directory::DirectoryVolume;
use super::{Kind, Shown};
use crate::attributes::is_of_kubernetes;
use crate::{PublishMode, TenantName, VolumeRequest, VolumeSource, WarmUp};

/// One version of a dataset, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// `namespace.table`.
    pub dataset: String,
    /// Its number.
    pub number: u64,
    /// Digest of its list of files: 64 hexadecimal digits.
    pub manifest: String,
    /// When it was committed, in milliseconds since 1970.
    pub committed_ms: i64,
    /// Number of its files.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A version, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which version.
    pub version: Version,
    /// How pods see it.
    pub mode: PublishMode,
    /// What is fetched before it is used.
    pub warm: WarmUp,
    /// Whether it is exempt from eviction.
    pub pin: bool,
    /// Whose budgets its mounts use.
    pub tenant: Option<TenantName>,
}

/// What the context of a volume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// Everything.
    Resolved(Shown),
    /// What a person wrote; somebody has to ask the catalog.
    Named(VolumeRequest),
}

impl Version {
    /// `ads.clicks@v12`, by which its mounts are known.
    pub fn selector(&self) -> String {
        format!("{}@v{}", self.dataset, self.number)
    }
}

impl Plan {
    /// The context that says it.
    pub fn context(&self) -> BTreeMap<String, String> {
        let version = &self.version;
        let always = [
            ("version", version.selector()),
            ("manifest", version.manifest.clone()),
            ("committed", version.committed_ms.to_string()),
            ("files", version.files.to_string()),
            ("bytes", version.bytes.to_string()),
            ("mode", self.mode.as_str().to_owned()),
            ("warm", self.warm.as_str().to_owned()),
            ("pin", self.pin.to_string()),
        ];
        let tenant = self
            .tenant
            .as_ref()
            .map(|name| ("tenant", name.to_string()));
        let all = always.into_iter().chain(tenant);
        all.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What a request comes to, with the version that its selector means.
    pub fn of(request: &VolumeRequest, version: Version) -> Self {
        Self {
            version,
            mode: request.mode,
            warm: request.warm,
            pin: request.pin,
            tenant: request.tenant.clone(),
        }
    }
}

impl Context {
    /// Whose budgets it names.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Resolved(shown) => shown.tenant(),
            Self::Named(request) => request.tenant.as_ref(),
        }
    }

    /// Reads the context of a volume; what is not understood is INVALID_ARGUMENT.
    pub fn parse(context: &HashMap<String, String>) -> Result<Self, Status> {
        let own: BTreeMap<String, String> = context
            .iter()
            .filter(|(key, _)| !is_of_kubernetes(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if own.contains_key("version") {
            return Ok(Self::Resolved(Shown::Version(resolved(own)?)));
        }
        let request = VolumeRequest::parse(&own)?;
        match &request.source {
            VolumeSource::Directory(path) => {
                let directory = DirectoryVolume::of(&request, path.clone());
                Ok(Self::Resolved(Shown::Directory(directory)))
            }
            VolumeSource::Dataset(_) | VolumeSource::Model(_) | VolumeSource::Scratch => {
                Ok(Self::Named(request))
            }
        }
    }
}

/// The dataset that a request names, and what kind it must be.
///
/// Errors: INVALID_ARGUMENT for what has no versions.
pub fn selector(request: &VolumeRequest) -> Result<(Selector, Kind), Status> {
    match &request.source {
        VolumeSource::Dataset(selector) => Ok((selector.clone(), Kind::Dataset)),
        VolumeSource::Model(model) => {
            let name = model.name().replacen('/', ".", 1).parse::<DatasetName>();
            let name = name.map_err(|why| Status::invalid_argument(format!("model: {why}")))?;
            Ok((Selector::new(name, model.version().clone()), Kind::Model))
        }
        VolumeSource::Directory(path) => Err(Status::invalid_argument(format!(
            "directory {path}: a directory has no versions; name a dataset or a model"
        ))),
        VolumeSource::Scratch => Err(Status::invalid_argument(
            "scratch volumes belong to the driver local.terrace.io; name it as the provisioner",
        )),
    }
}

fn resolved(mut own: BTreeMap<String, String>) -> Result<Plan, Status> {
    let mut take = |key: &str| {
        own.remove(key)
            .ok_or_else(|| damaged(&format!("{key} is missing")))
    };
    let selector = take("version")?;
    let selector: Selector = selector
        .parse()
        .map_err(|why| damaged(&format!("version: {why}")))?;
    let VersionRef::Number(number) = *selector.version() else {
        return Err(damaged("version has no number"));
    };
    let manifest = take("manifest")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if manifest.len() != 64 || !manifest.bytes().all(is_hex) {
        return Err(damaged("manifest is no digest"));
    }
    let version = Version {
        dataset: selector.dataset().to_string(),
        number,
        manifest,
        committed_ms: number_of("committed", &take("committed")?)?,
        files: number_of("files", &take("files")?)?,
        bytes: number_of("bytes", &take("bytes")?)?,
    };
    // The rest are attributes, as a person would write them.
    own.insert("dataset".to_owned(), selector.to_string());
    Ok(Plan::of(&VolumeRequest::parse(&own)?, version))
}

fn number_of<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|_| damaged(&format!("{key} is no number")))
}

fn damaged(why: &str) -> Status {
    Status::invalid_argument(format!(
        "the volume's context is not this driver's: {why}; write dataset, or leave it to the driver"
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::ColdStore;

    fn plan() -> Plan {
        Plan {
            version: Version {
                dataset: "ads.clicks".into(),
                number: 12,
                manifest: "0a".repeat(32),
                committed_ms: 1_700_000_000_000,
                files: 3,
                bytes: 1 << 20,
            },
            mode: PublishMode::Auto,
            warm: WarmUp::Full,
            pin: true,
            tenant: Some("vision".parse().unwrap()),
        }
    }

    // The context is all that a node knows: what it loses on the way, pods of one job disagree about.
    #[test]
    fn a_plan_comes_back_from_its_context() {
        let mut context: HashMap<String, String> = plan().context().into_iter().collect();
        for (key, value) in [
            ("csi.storage.k8s.io/pod.name", "p"),
            (
                "storage.kubernetes.io/csiProvisionerIdentity",
                "1-2-data.terrace.io",
            ),
        ] {
            context.insert(key.into(), value.into());
        }
        let shown = Shown::Version(plan());
        assert_eq!(Context::parse(&context).unwrap(), Context::Resolved(shown));
        let directory = DirectoryVolume {
            path: "file:///mnt/pfs/a".parse().unwrap(),
            durability: "ckpt/**:fsync=local;fsync=cold".parse().unwrap(),
            cold: ColdStore::parse(
                Some(&"s3://bucket/runs".to_owned()),
                Some(&"older_than: 30d\n".to_owned()),
            )
            .unwrap(),
            tenant: Some("vision".parse().unwrap()),
        };
        let context = directory.context().into_iter().collect();
        let shown = Shown::Directory(directory);
        assert_eq!(Context::parse(&context).unwrap(), Context::Resolved(shown));
    }

    // A context may have been written by anybody who may write a PersistentVolume.
    #[test]
    fn a_strange_context_is_refused() {
        let good: HashMap<String, String> = plan().context().into_iter().collect();
        for (key, value) in [
            ("version", "ads.clicks"),
            ("version", "../etc@v1"),
            ("manifest", "../../etc/passwd"),
            ("manifest", ""),
            ("files", "-1"),
            ("bytes", "many"),
            ("mode", "rw"),
            ("tenant", "../vision"),
            ("endpoint", "http://169.254.169.254"),
        ] {
            let mut bad = good.clone();
            bad.insert(key.into(), value.into());
            assert!(Context::parse(&bad).is_err(), "{key}={value} was accepted");
        }
        let named = HashMap::from([("dataset".to_owned(), "ads.clicks@prod".to_owned())]);
        assert!(matches!(Context::parse(&named), Ok(Context::Named(_))));
        assert!(Context::parse(&HashMap::new()).is_err());
    }
}
