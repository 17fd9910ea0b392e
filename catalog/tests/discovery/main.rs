//! Discovery over real directories: what sync systems do to them, and what may go wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod faults;
mod formats;
mod life;
mod listing;
mod managed;
#[path = "../support/many.rs"]
mod many;
mod matrix;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../../../tests/support/numbers.rs"]
mod numbers;
mod sample;
mod scale;
mod spark;
mod store;
#[path = "../support/vault.rs"]
mod vault;
mod world;
mod writers;
