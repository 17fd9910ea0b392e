//! What Kubernetes says about a volume, checked before anything acts on it.
//!
//! Volume ids and attributes come from outside the node and end near paths and mount options. This
//! crate turns them into types that cannot hold anything else: [`VolumeId`] and [`VolumeRequest`].
//! It knows no bytes and reaches the node daemon only through its socket.

mod attributes;
mod volume_id;

pub use attributes::{
    AttributeError, DirectoryPath, Durability, ModelName, VolumeRequest, VolumeSource, WarmUp,
};
pub use volume_id::{VolumeId, VolumeIdError};
