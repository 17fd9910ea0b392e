//! The HTTP face of the catalog: a real server on a port of its own, over a real database and a
//! directory of manifests, asked with bytes on a socket.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod console;
mod document;
mod events;
mod flow;
mod hostile;
mod iceberg;
mod nodes;
mod support;
