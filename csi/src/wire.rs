//! Messages, clients and servers generated from `proto/csi/v1/csi.proto`, which carries their
//! documentation.
//!
//! Calls that a server does not implement are answered UNIMPLEMENTED. Messages with secrets print
//! theirs as `***` ([`crate::redact`]).

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    reason = "generated from proto/csi/v1/csi.proto"
)]

tonic::include_proto!("csi.v1");

/// The compiled interface, an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/csi.v1.bin"));
