//! The worker of a node: the hot tier, every file system of the node and the control socket.
//!
//! `sources` turns a mount's source and options into store and namespace, `assembly` these into a
//! file system over the tiers; it knows what is mounted (the control service and the metrics read it); the link to the keeper calls it.

pub(crate) mod assembly;
mod below;
mod cold;
pub(crate) mod config;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod priority;
pub(crate) mod report;
pub(crate) mod residency;
pub(crate) mod router;
pub(crate) mod sources;
pub(crate) mod space;
pub(crate) mod stores;
mod tables;
pub(crate) mod tenants;
pub(crate) mod tree;
pub(crate) mod volume;
