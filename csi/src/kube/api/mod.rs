//! What is asked of a Kubernetes API server, and no more: objects as JSON, lists, watches, leases.
//!
//! ```text
//! client.rs    one method for each kind of request, with a deadline and errors that say what to try
//! resource.rs  where each kind of object is
//! object.rs    the few fields of each kind that are read; everything else is not kept
//! cache.rs     list + watch -> the objects as they are now
//! lease.rs     one leader among the replicas
//! ```
//!
//! Sources: Kubernetes API conventions and API concepts (lists, `resourceVersion`, watches, bookmarks,
//! 410 Gone, server-side apply), as published for version 1.34.

mod cache;
mod client;
mod error;
mod lease;
mod object;
mod resource;

pub(crate) use cache::{CacheSet, Feed};
pub use client::KubeClient;
pub use error::KubeError;
pub(crate) use lease::Election;
pub use lease::LeaseSettings;
pub(crate) use object::{Claim, DatasetObject, Key, Meta, Namespace, Node, Pod, PodVolume, Volume};
pub(crate) use resource::{CONFIG_MAPS, DATASETS, NODES, VOLUME_CLAIMS, VOLUMES};
