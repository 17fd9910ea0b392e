//! The Container Storage Interface of Terrace: what Kubernetes says about volumes, checked and done.
//!
//! Volume ids and attributes come from outside the node and end near paths and mount options. This
//! crate turns them into types that cannot hold anything else: [`VolumeId`] and [`VolumeRequest`].
//! What was promised about a volume lies in [`Records`], what is mounted goes through [`Kubelet`].
//! [`wire`] is the interface, [`server`] a socket with services on it, [`identity`] the service that
//! all drivers have, [`locks`] keeps the operations on one volume apart, [`capability`] is how a volume
//! is used, [`metrics`] is what is counted. [`data`] is the driver of versions, [`local`] that of [`scratch`] volumes. The crate knows no
//! bytes of datasets and reaches the node daemon only through its socket. [`kube`] is the
//! controller of a whole cluster. [`spaces`] are the directories of a shared file system that users and
//! projects have.

mod attributes;
pub mod capability;
mod contents;
mod copies;
pub mod data;
pub mod identity;
pub mod kube;
pub mod local;
pub mod locks;
pub mod metrics;
mod mounts;
mod pages;
mod pod_token;
mod records;
pub mod redact;
pub mod scratch;
mod secrets;
pub mod server;
pub mod spaces;
mod status;
mod tenant;
mod volume_id;
pub mod wire;

pub use attributes::{
    AttributeError, ColdStore, DirectoryPath, Durability, ModelName, PublishMode, VolumeRequest,
    VolumeSource, WarmUp,
};
pub use contents::{Contents, ContentsError, Standing};
pub use mounts::{
    BindOptions, Kubelet, MountEntry, MountError, Target, mount_of, mount_table, mounts_showing,
};
pub use records::{
    ContentSource, Record, RecordError, RecordState, Records, SnapshotRecord, VolumeRecord,
};
pub use secrets::{Secrets, TOKEN};
pub use tenant::{TenantName, TenantNameError};
pub use volume_id::{VolumeId, VolumeIdError};
