//! Whose tokens are believed: forged ones by the dozen, keys that are rotated and cannot be had, and
//! service accounts as an API server knows them. Keys are made anew for each run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod forged;
mod keys;
mod signer;
mod world;
