//! The open-mode machine against the kernel's rules: random opens, releases, completions,
//! evictions and restarts of the worker over a real cache, and a model of the kernel that says
//! where an application would have seen EIO.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fs_support/mod.rs"]
mod fs_support;
mod kernel;
mod rules;
mod run;
