//! Discovery over real directories: what sync systems do to them, and what may go wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod faults;
mod formats;
mod life;
#[path = "../support/memory.rs"]
mod memory;
mod sample;
mod scale;
mod store;
mod world;
mod writers;
