//! What this node has staged and published of a volume, kept in `<base>/node` ([`crate::Records`]).
//!
//! A record is written before the mount that it speaks of, so that a driver which is killed between the
//! two finds what it has to look for. Mounts themselves are read from the kernel, never from here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capability::Usage;
use crate::{Record, VolumeId};

/// One staged volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    id: VolumeId,
    /// Where it is staged.
    path: PathBuf,
    /// How it is used, to be compared with what is asked again.
    usage: String,
    /// Where it is published.
    targets: BTreeMap<PathBuf, Published>,
}

/// One published target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Nothing may be written through it.
    pub read_only: bool,
    /// No program may be started from it.
    pub no_exec: bool,
    /// Uid of the pod, when it was told.
    pub pod: Option<String>,
}

impl Record for Staged {
    const KIND: &'static str = "staged";

    fn id(&self) -> &VolumeId {
        &self.id
    }
}

impl Staged {
    /// A volume that is to be staged there.
    pub fn new(id: VolumeId, path: &Path, usage: &Usage) -> Self {
        Self {
            id,
            path: path.to_owned(),
            usage: text(usage),
            targets: BTreeMap::new(),
        }
    }

    /// Where it is staged.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is staged for that use.
    pub fn is_used_as(&self, usage: &Usage) -> bool {
        self.usage == text(usage)
    }

    /// Where it is published.
    pub fn targets(&self) -> &BTreeMap<PathBuf, Published> {
        &self.targets
    }

    /// Where it is published, to be changed.
    pub fn targets_mut(&mut self) -> &mut BTreeMap<PathBuf, Published> {
        &mut self.targets
    }

    /// Uids of the pods that it is published for.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.targets
            .values()
            .filter_map(|target| target.pod.as_deref())
    }
}

/// A use as it is compared.
fn text(usage: &Usage) -> String {
    let options = &usage.options;
    format!(
        "{} group={:?} ro={} noexec={}",
        usage.access.as_str_name(),
        usage.group,
        options.read_only,
        options.no_exec
    )
}
