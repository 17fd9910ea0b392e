//! File systems of a node: what a path means, how it is opened, and who answers the kernel.
//!
//! [`namespace`] says what names exist, [`fs`] what an operation on them does (no kernel type in
//! it), [`adapter`] turns kernel requests into calls of it, [`session`] takes a mount over from a
//! dead worker, [`keeper`] holds the mounts while workers come and go, [`snapshot`], [`live`] and
//! [`tables`] are the name spaces. [`directory`] is the read-write file system beside [`fs`].

pub mod adapter;
pub mod directory;
pub mod fs;
pub mod handles;
pub mod keeper;
pub mod live;
pub mod materialize;
mod names;
pub mod namespace;
pub mod ownership;
pub mod probe;
pub mod session;
pub mod snapshot;
pub mod tables;
mod token;
mod xattr;
