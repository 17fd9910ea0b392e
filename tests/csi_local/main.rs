//! The driver of scratch volumes as Kubernetes meets it: the binary on its sockets, on a btrfs of its
//! own, judged by `csi-sanity` and by calls in an order that nobody asked for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/sanity.rs"]
mod judge;
mod life;
mod sanity;
mod world;
