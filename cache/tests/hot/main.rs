//! The hot tier on real directories and real disks: as its callers use it, with damaged files, with
//! failing disks, and killed at any step.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod disk;
mod faults;
mod integrity;
mod links;
mod room;
mod support;
mod tier;
mod upkeep;
