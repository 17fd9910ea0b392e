//! The ledger over a real RocksDB and a directory of blobs: commits, crashes, removals, rebuilds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod columns;
mod commit;
mod crash;
mod fault;
#[path = "../support/memory.rs"]
mod memory;
mod rebuild;
mod remove;
mod replicas;
mod search;
mod world;
