//! Blobs in a directory: whole or not at all, checked, and under their own names only.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use terrace_catalog::blobs::{BlobError, BlobId, BlobName, Blobs, DirectoryBlobs, MAX_BLOB};

// A manifest that is not what was stored lists files that nobody wrote.
#[tokio::test]
async fn a_blob_is_what_was_put_or_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = DirectoryBlobs::open(directory.path()).unwrap();
    let id = blobs.put(Bytes::from_static(b"manifest")).await.unwrap();
    assert_eq!(id, BlobId::of(b"manifest"));
    assert_eq!(
        blobs.put(Bytes::from_static(b"manifest")).await.unwrap(),
        id
    );
    assert_eq!(blobs.get(&id).await.unwrap(), "manifest");
    let empty = blobs.put(Bytes::new()).await.unwrap();
    assert_eq!(blobs.get(&empty).await.unwrap(), "");
    let absent = BlobId::of(b"something else");
    assert!(matches!(
        blobs.get(&absent).await,
        Err(BlobError::NotFound(_))
    ));
    blobs.delete(&absent).await.unwrap();

    let name = id.to_string();
    let path = directory.path().join("blobs").join(&name[..2]).join(&name);
    std::fs::write(&path, b"manifesT").unwrap();
    assert!(matches!(blobs.get(&id).await, Err(BlobError::Corrupt(found)) if found == id));
    // What has rotted is mended by whoever has it still.
    blobs.put(Bytes::from_static(b"manifest")).await.unwrap();
    assert_eq!(blobs.get(&id).await.unwrap(), "manifest");
    let large = Bytes::from(vec![0; MAX_BLOB + 1]);
    assert!(matches!(
        blobs.put(large).await,
        Err(BlobError::TooLarge(_))
    ));

    let listed: Vec<_> = blobs.list().map(Result::unwrap).collect().await;
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|listed| listed.age < Duration::from_secs(3600))
    );
    blobs.delete(&id).await.unwrap();
    assert!(matches!(blobs.get(&id).await, Err(BlobError::NotFound(_))));
}

// The collector takes what is old: a blob that a new version names again must count as young.
#[tokio::test]
async fn putting_again_makes_a_blob_young() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = DirectoryBlobs::open(directory.path()).unwrap();
    let id = blobs.put(Bytes::from_static(b"shared")).await.unwrap();
    let name = id.to_string();
    let path = directory.path().join("blobs").join(&name[..2]).join(&name);
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(90 * 86_400);
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
    let age = async || blobs.list().next().await.unwrap().unwrap().age;
    assert!(age().await > Duration::from_secs(80 * 86_400));
    blobs.put(Bytes::from_static(b"shared")).await.unwrap();
    assert!(age().await < Duration::from_secs(3600));
}

// Mirror files are what a lost catalog is rebuilt from: all of them are listed, and nothing else is.
#[tokio::test]
async fn named_files_are_replaced_whole_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = DirectoryBlobs::open(directory.path()).unwrap();
    let name = |text: &str| text.parse::<BlobName>().unwrap();
    for (path, text) in [
        ("a/1/x.json", "one"),
        ("a/2/y.json", "two"),
        ("b/z.json", "three"),
    ] {
        blobs
            .put_named(&name(path), Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
    }
    blobs
        .put_named(&name("a/1/x.json"), Bytes::from_static(b"newer"))
        .await
        .unwrap();
    assert_eq!(blobs.get_named(&name("a/1/x.json")).await.unwrap(), "newer");
    let list = async |prefix: &str| {
        let mut found: Vec<String> = blobs
            .list_named(prefix)
            .map(|name| name.unwrap().to_string())
            .collect()
            .await;
        found.sort();
        found
    };
    assert_eq!(list("").await, ["a/1/x.json", "a/2/y.json", "b/z.json"]);
    assert_eq!(list("a").await, ["a/1/x.json", "a/2/y.json"]);
    assert_eq!(list("a/2/").await, ["a/2/y.json"]);
    assert!(list("c").await.is_empty());
    assert!(blobs.list_named("../..").next().await.unwrap().is_err());
    blobs.delete_named(&name("a/2/y.json")).await.unwrap();
    blobs.delete_named(&name("a/2/y.json")).await.unwrap();
    assert!(matches!(
        blobs.get_named(&name("a/2/y.json")).await,
        Err(BlobError::NotFound(_))
    ));
    // Nothing is left half written, and a second process sees the same.
    assert_eq!(
        std::fs::read_dir(directory.path().join("new"))
            .unwrap()
            .count(),
        0
    );
    let other = DirectoryBlobs::open(directory.path()).unwrap();
    assert_eq!(other.get_named(&name("b/z.json")).await.unwrap(), "three");
}

// What a killed writer left must not fill the disk, and what a living one writes must stay.
#[tokio::test]
async fn abandoned_files_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    drop(DirectoryBlobs::open(directory.path()).unwrap());
    let new = directory.path().join("new");
    for (name, days) in [("old", 2), ("young", 0)] {
        let file = std::fs::File::create(new.join(name)).unwrap();
        let modified = std::time::SystemTime::now() - Duration::from_secs(days * 86_400);
        file.set_modified(modified).unwrap();
    }
    DirectoryBlobs::open(directory.path()).unwrap();
    assert!(!new.join("old").exists());
    assert!(new.join("young").exists());
}
