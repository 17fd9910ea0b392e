//! Generates the gRPC code of the control socket from `proto/`; needs no protoc.

use std::io;

fn main() -> io::Result<()> {
    let proto = "proto/terrace/node/v1/node.proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile([proto], ["proto"]).map_err(io::Error::other)?;
    tonic_prost_build::configure()
        .build_transport(true)
        .compile_fds(files)
}
