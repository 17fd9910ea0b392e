//! The worker of a node: the hot tier, every file system of the node and the control socket.
//!
//! `assembly` turns a mount's source and options into store -> namespace -> file system and knows
//! what is mounted (the control service and the metrics read it); the link to the keeper calls it.

pub(crate) mod assembly;
pub(crate) mod config;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod options;
mod priority;
pub(crate) mod tree;
