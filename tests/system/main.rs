//! Tests of the binary as users run it: real kernel mounts, real stores, real processes.
//!
//! One test program, so that it is linked once. Each module is one subject; promises of
//! `docs/SEMANTICS.md` are named where they are checked.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../catalog/served.rs"]
#[expect(dead_code, reason = "the tests of the catalog use the rest of it")]
mod served;
#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod changes;
mod demo;
mod discovery;
mod life;
mod models;
mod nodes;
mod refusals;
mod soak;
mod sql;
mod synced;
mod tables;
mod tenants;
mod tiers;
