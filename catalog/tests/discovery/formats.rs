//! Formats that tests can write by hand; Parquet and table formats are in `writers.rs`.

use terrace_catalog::discovery::{Outcome, RootSpec, layout::Layout};
use terrace_catalog::manifest::Manifest;

use crate::world::{World, spec};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n....";

async fn format(files: &[(&str, &[u8])]) -> (String, Option<String>) {
    let flat = RootSpec {
        layout: Layout::Flat,
        ..spec()
    };
    let world = World::with(flat, |blobs| blobs).await;
    for (path, bytes) in files {
        world.write(&format!("t/{path}"), bytes);
    }
    world.write("t/_SUCCESS", b"");
    assert_eq!(world.look("default.t").await, Outcome::Published(1));
    let version = world.latest("default.t").await.unwrap();
    let manifest = Manifest::open(world.ledger.blobs(), &version.manifest)
        .await
        .unwrap();
    let header = manifest.header();
    (
        header.format.to_string(),
        header.schema.as_deref().map(str::to_owned),
    )
}

// A format that is named wrongly is opened with the wrong reader.
#[tokio::test(start_paused = true)]
async fn formats_are_told_apart() {
    let (name, schema) = format(&[("cats/1.png", PNG), ("dogs/2.png", PNG)]).await;
    assert_eq!(name, "images");
    assert!(schema.unwrap().contains("label"));
    let (name, schema) = format(&[("x.jsonl", b"{\"a\":1}\n{\"a\":2}\n")]).await;
    assert_eq!(name, "jsonl");
    assert!(schema.unwrap().contains("int64"));
    let (name, _) = format(&[("x.csv", b"a,b\n1,2\n")]).await;
    assert_eq!(name, "csv");
    let (name, schema) = format(&[("x.bin", b"\0\x01\x02"), ("y.csv", b"a,b\n1,2\n")]).await;
    assert_eq!((name.as_str(), schema), ("files", None));
    let (name, _) = format(&[("1.wav", b"RIFF....WAVEfmt ")]).await;
    assert_eq!(name, "audio");
}
