//! Trees of hard links over a real hot tier: what is in them, what crashes leave, what remove does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod life;
mod support;
mod tree;
