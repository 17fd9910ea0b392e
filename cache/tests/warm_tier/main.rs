//! The warm tier on real directories: sharing between daemons, faults, and processes that die.
//!
//! The inner source is a pattern that counts what it serves: it is a double of no server, only of
//! bytes. The same promises against real stores are whole-system tests of the binary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/damage.rs"]
mod bits;
mod damage;
mod faults;
mod processes;
mod share;
mod support;
