//! The few fields of each kind of object that are read.
//!
//! Types of the wire: a field that is absent has its default, an unknown one is dropped with the parse,
//! so a cache holds some hundred bytes of a pod and not its whole specification.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resource::{
    CSI_NODES, DATASETS, NAMESPACES, NODES, PODS, Resource, VOLUME_CLAIMS, VOLUMES,
};

/// Namespace (empty for objects of the cluster) and name.
pub(crate) type Key = (String, String);

/// A kind of object that a cache can keep.
pub(crate) trait Kept: DeserializeOwned + Debug + Send + Sync + 'static {
    /// Where its objects are.
    const RESOURCE: Resource;

    /// The metadata.
    fn meta(&self) -> &Meta;
}

/// Metadata of every object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) generation: i64,
    pub(crate) creation_timestamp: Option<String>,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) finalizers: Vec<String>,
}

impl Meta {
    /// Namespace and name.
    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// Whether it is on its way out.
    pub(crate) fn is_ending(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    pub(crate) metadata: Meta,
}

/// A node: what keeps pods away from it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) metadata: Meta,
    pub(crate) spec: NodeSpec,
}

/// See [`Node`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    /// As they are written: those of others are written back as they were.
    pub(crate) taints: Vec<Value>,
}

/// Which drivers the kubelet of the node of that name has registered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CsiNode {
    pub(crate) metadata: Meta,
    pub(crate) spec: CsiNodeSpec,
}

/// See [`CsiNode`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CsiNodeSpec {
    #[serde(deserialize_with = "absent_or_null")]
    pub(crate) drivers: Vec<RegisteredDriver>,
}

/// See [`CsiNode`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RegisteredDriver {
    pub(crate) name: String,
}

/// A pod: where it runs and which volumes it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Meta,
    pub(crate) spec: PodSpec,
    pub(crate) status: Phase,
}

/// See [`Pod`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) volumes: Vec<PodVolume>,
}

/// A volume of a pod, as far as it can be one of ours.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodVolume {
    pub(crate) name: String,
    pub(crate) csi: Option<InlineVolume>,
    pub(crate) persistent_volume_claim: Option<ClaimName>,
}

/// A volume that lives with its pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InlineVolume {
    pub(crate) driver: String,
    pub(crate) volume_attributes: BTreeMap<String, String>,
}

/// A claim in the pod's namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClaimName {
    pub(crate) claim_name: String,
}

/// `status.phase`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Phase {
    pub(crate) phase: String,
}

/// A volume of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) metadata: Meta,
    pub(crate) spec: VolumeSpec,
    pub(crate) status: Phase,
}

/// See [`Volume`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeSpec {
    pub(crate) csi: Option<InlineVolume>,
    pub(crate) claim_ref: Option<ClaimRef>,
    pub(crate) persistent_volume_reclaim_policy: String,
    /// As it is written: only one shape of it is understood.
    pub(crate) node_affinity: Value,
}

/// The claim that a volume belongs to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimRef {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// A claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Claim {
    pub(crate) metadata: Meta,
    pub(crate) spec: ClaimSpec,
}

/// See [`Claim`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClaimSpec {
    pub(crate) volume_name: String,
}

/// Our own resource, as it is written; `kube::dataset` understands it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DatasetObject {
    pub(crate) metadata: Meta,
    pub(crate) spec: Value,
    pub(crate) status: Value,
}

/// A list that Go writes as `null` when it is empty.
fn absent_or_null<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

macro_rules! kept {
    ($($kind:ty => $resource:expr),* $(,)?) => {
        $(impl Kept for $kind {
            const RESOURCE: Resource = $resource;

            fn meta(&self) -> &Meta {
                &self.metadata
            }
        })*
    };
}

kept! {
    Namespace => NAMESPACES,
    Node => NODES,
    CsiNode => CSI_NODES,
    Pod => PODS,
    Volume => VOLUMES,
    Claim => VOLUME_CLAIMS,
    DatasetObject => DATASETS,
}
