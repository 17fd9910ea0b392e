//! Generates the gRPC code of the Container Storage Interface from `proto/`; needs no protoc.
//!
//! Beside it goes `csi.v1.bin`, the descriptor of what was compiled, which a test compares with the
//! published one. Messages with secrets get no derived `Debug`: `src/redact.rs` has theirs.

use std::io;
use std::path::PathBuf;

use prost::Message;

/// Messages that carry secrets, tokens or contexts.
const GUARDED: [&str; 17] = [
    "CreateVolumeRequest",
    "Volume",
    "DeleteVolumeRequest",
    "ControllerPublishVolumeRequest",
    "ControllerPublishVolumeResponse",
    "ControllerUnpublishVolumeRequest",
    "ValidateVolumeCapabilitiesRequest",
    "ValidateVolumeCapabilitiesResponse.Confirmed",
    "ControllerModifyVolumeRequest",
    "CreateSnapshotRequest",
    "DeleteSnapshotRequest",
    "ListSnapshotsRequest",
    "GetSnapshotRequest",
    "ControllerExpandVolumeRequest",
    "NodeStageVolumeRequest",
    "NodePublishVolumeRequest",
    "NodeExpandVolumeRequest",
];

fn main() -> io::Result<()> {
    let proto = "../proto/csi/v1/csi.proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile([proto], ["../proto"]).map_err(io::Error::other)?;
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    std::fs::write(PathBuf::from(out).join("csi.v1.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(true)
        .generate_default_stubs(true)
        .skip_debug(GUARDED.map(|name| format!("csi.v1.{name}")))
        .compile_fds(files)
}
