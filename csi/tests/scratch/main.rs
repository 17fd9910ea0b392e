//! Scratch storage on real file systems: limits that hold, kills at every step, and what is refused.
//!
//! Image, btrfs and plain directories are tested on loop devices of this machine; project quotas of
//! XFS and ext4, and caps of cgroup v2, in a guest kernel (`guest.rs`), because many kernels have
//! none. Every world takes its mounts down when it is dropped, also after a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caps;
mod copies;
mod guest;
mod kills;
mod limits;
mod refusals;
mod spaces;
mod world;
