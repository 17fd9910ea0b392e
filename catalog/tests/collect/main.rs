//! Saves, garbage collection and scrubbing over a real RocksDB (and PostgreSQL), a directory of blobs
//! and a directory as vault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod collection;
mod fuzz;
mod retire;
mod saves;
#[path = "../support/vault.rs"]
mod vault;
mod world;
