//! The CSI driver of versions, on its sockets: a real catalog, a real keeper and worker, real mounts.
//!
//! `sanity` is the judgement of the programs that others wrote, `wire` the comparison of our copy of the
//! interface with theirs, `life` what a kubelet does, `faults` what must not matter, `security` what must
//! not be possible, `directories` all of it for volumes that are written, `limits` what these may take,
//! `levels` how durable they are and whom they are charged to, and `copies` snapshots and copies of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../cache/tests/hot/disk.rs"]
#[expect(dead_code, reason = "the tests of the cache make disks fail")]
mod disk;
#[path = "../support/sanity.rs"]
mod judge;
#[path = "../catalog/served.rs"]
#[expect(dead_code, reason = "the tests of the catalog use the rest of it")]
mod served;
#[path = "../support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the tests of the system use the rest of it"
)]
mod support;

mod copies;
mod directories;
mod faults;
mod levels;
mod life;
mod limits;
mod sanity;
mod security;
mod wire;
mod world;
