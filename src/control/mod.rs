//! The control socket: gRPC of the worker, for `terrace status`, `warm`, `evict`, `pin`,
//! `materialize` and, on the same socket, the CSI driver.
//!
//! `proto` is generated from `proto/terrace/node/v1/node.proto`; `client` is what commands use;
//! `server` answers from the pieces that [`crate::node`] assembled; `target` turns what a user
//! named (a path, a URL) into objects. The socket is 0600 in a 0700 directory; peers with another
//! user id than the worker's or root's are refused.

pub(crate) mod client;
pub(crate) mod instance;
pub(crate) mod jobs;
pub(crate) mod server;
mod status;
pub(crate) mod target;
mod tiering;
pub(crate) mod tiers;
mod volumes;

pub(crate) use jobs::Reports;

/// Generated messages, client and server.
#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    reason = "generated from proto/terrace/node/v1/node.proto, which carries the documentation"
)]
pub(crate) mod proto {
    tonic::include_proto!("terrace.node.v1");
}
