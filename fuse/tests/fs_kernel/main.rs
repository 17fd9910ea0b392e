//! The read side of POSIX through a real mount: what programs may do with a read-only tree, the
//! same in each way of opening files (passthrough, page cache, no opens at all).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
#[path = "../fs_support/mod.rs"]
mod fs_support;
mod large;
#[path = "../fs_support/mount.rs"]
mod mount;
mod names;
mod reads;
mod support;
