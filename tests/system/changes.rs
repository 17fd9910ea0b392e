//! A store that changes or disappears while it is mounted.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;

use crate::support::data::noise;
use crate::support::node::Node;
use crate::support::proxy::Proxy;
use crate::support::{need_mount, need_s3};

const TTL: &str = "200ms";

/// Waits until `done`, for at most ten seconds.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// SEMANTICS S1, S2, S11: an object is overwritten while it is read; a mix of both versions poisons training.
#[test]
fn an_overwritten_object_is_never_mixed() {
    need_mount!("an_overwritten_object_is_never_mixed");
    let server = need_s3!("an_overwritten_object_is_never_mixed");
    let bucket = server.bucket("changes");
    let versions: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 24 << 20)).collect();
    bucket.put("set/object", &versions[0]);
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--ttl", TTL]);
    let path = mount.join("object");

    for pair in versions.windows(2) {
        eventually("the current version", || {
            fs::read(&path).is_ok_and(|bytes| bytes == pair[0])
        });
        node.succeed(&["evict", path.to_str().unwrap()]);
        let old = File::open(&path).unwrap();
        let mut head = vec![0; 4096];
        old.read_exact_at(&mut head, 0).unwrap();
        assert!(head == pair[0][..4096]);
        bucket.put("set/object", &pair[1]);
        let mut position = 4096;
        let mut piece = vec![0; 1 << 20];
        while position < pair[0].len() {
            match old.read_at(&mut piece, position as u64) {
                Ok(count) => {
                    assert!(count > 0, "a short read before the end at {position}");
                    assert!(
                        piece[..count] == pair[0][position..position + count],
                        "another version at {position}"
                    );
                    position += count;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                    break;
                }
            }
        }
        eventually("the new version", || {
            fs::read(&path).is_ok_and(|bytes| bytes == pair[1])
        });
    }
}

// SEMANTICS S11: an object that appears or goes is seen within the TTL, or pipelines wait for ever.
#[test]
fn objects_appear_and_disappear() {
    need_mount!("objects_appear_and_disappear");
    let server = need_s3!("objects_appear_and_disappear");
    let bucket = server.bucket("appear");
    bucket.put("set/first", b"1");
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--ttl", TTL]);
    assert_eq!(
        fs::metadata(mount.join("second")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    bucket.put("set/second", b"22");
    eventually("a new object", || {
        fs::read(mount.join("second")).is_ok_and(|bytes| bytes == b"22")
    });
    eventually("the new listing", || listing(&mount) == ["first", "second"]);
    bucket.delete("set/first");
    eventually("a deleted object", || !mount.join("first").exists());
    eventually("the listing after it", || listing(&mount) == ["second"]);
}

// SEMANTICS S12: a pinned experiment must not see tomorrow's files.
#[test]
fn a_snapshot_stays_what_it_was() {
    need_mount!("a_snapshot_stays_what_it_was");
    let server = need_s3!("a_snapshot_stays_what_it_was");
    let bucket = server.bucket("snapshot");
    bucket.put("set/kept", b"old");
    let node = Node::new();
    let mount = node.mount(&bucket.url("set"), &["--snapshot"]);
    assert_eq!(fs::read(mount.join("kept")).unwrap(), b"old");
    bucket.put("set/new", b"new");
    node.kill_worker();
    assert_eq!(listing(&mount), ["kept"]);
    assert!(!mount.join("new").exists());
    assert_eq!(fs::read(mount.join("kept")).unwrap(), b"old");
}

// SEMANTICS S5, S6: an unreachable store must look unreachable, and never like deleted data.
#[test]
fn an_unreachable_store_is_not_an_empty_one() {
    need_mount!("an_unreachable_store_is_not_an_empty_one");
    let server = need_s3!("an_unreachable_store_is_not_an_empty_one");
    let bucket = server.bucket("outage");
    let bytes = noise(3, 3 << 20);
    bucket.put("set/local", &bytes);
    bucket.put("set/remote", &bytes);
    let proxy = Proxy::to(&std::env::var("TERRACE_TEST_S3").unwrap());
    let node = Node::new().with("AWS_ENDPOINT_URL", proxy.address());
    let mount = node.mount(&bucket.url("set"), &["--snapshot"]);
    assert!(fs::read(mount.join("local")).unwrap() == bytes);
    proxy.cut();
    assert!(
        fs::read(mount.join("local")).unwrap() == bytes,
        "local bytes of a store that is gone"
    );
    let began = Instant::now();
    let error = fs::read(mount.join("remote")).unwrap_err();
    assert_ne!(
        error.kind(),
        ErrorKind::NotFound,
        "unreachable was reported as deleted"
    );
    assert!(
        began.elapsed() < Duration::from_secs(90),
        "the error took {:?}",
        began.elapsed()
    );
    assert_eq!(listing(&mount), ["local", "remote"]);
    proxy.mend();
    eventually("the store's return", || {
        fs::read(mount.join("remote")).is_ok_and(|found| found == bytes)
    });
}

fn listing(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
