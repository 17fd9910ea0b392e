//! The directory fails: full, away, hung. Reads stay right, and quick enough.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use terrace_cache::hot::DiskState;
use terrace_cache::store::StoreErrorKind;
use terrace_cache::units::{ByteSize, Span};
use terrace_cache::warm::WarmConfig;

use crate::support::{MIB, Node, Pattern, bytes_of, config, eventually, files, object, path};

/// A mount that goes away with the test.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

// Without this, a full shared file system would fail reads or fill up with useless parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_directory_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let options = Some("size=6m");
    let flags = MsFlags::empty();
    if mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, options).is_err() {
        println!("SKIP a_full_directory_is_a_miss: may not mount a tmpfs");
        return;
    }
    let _mounted = Mounted(dir.path());
    let node = Node::start(config(dir.path()), Pattern::default());
    for n in 0..4 {
        node.check(&object(&format!("big-{n}"), 4 * MIB)).await;
        node.settle().await;
    }
    let stats = node.stats();
    assert_eq!(
        (stats.fills, stats.fills_failed, stats.health),
        (1, 1, DiskState::Healthy)
    );
    assert_eq!(
        (files(dir.path(), ".part"), files(dir.path(), ".lease")),
        (vec![], vec![])
    );
    assert!(stats.cold_bytes > 8 * MIB, "{stats:?}");
}

// Without this, a hung shared file system would hang training on every node of the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_directory_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let deadline = Span(Duration::from_millis(200));
    let wait = Span(Duration::from_millis(500));
    let node = Node::start(
        WarmConfig {
            deadline,
            wait,
            io_threads: 4,
            ..config(dir.path())
        },
        Pattern::default(),
    );
    node.check(&object("before", MIB)).await;
    node.settle().await;

    // A FUSE mount that nobody serves: every operation waits until the descriptor is closed.
    let Ok(fuse) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    else {
        println!("SKIP a_hung_directory_is_given_up: no /dev/fuse");
        return;
    };
    let objects = dir.path().join("objects");
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        fuse.as_raw_fd()
    );
    let flags = MsFlags::empty();
    if mount(
        Some("hung"),
        &objects,
        Some("fuse"),
        flags,
        Some(options.as_str()),
    )
    .is_err()
    {
        println!("SKIP a_hung_directory_is_given_up: may not mount");
        return;
    }
    let mounted = Mounted(&objects);
    let begin = Instant::now();
    for n in 0..12 {
        let object = object(&format!("hung-{n}"), 100_000);
        let bytes = node.read(&object, 0..100_000).await.unwrap();
        assert!(bytes == bytes_of(&object, 0..100_000));
    }
    assert_eq!(node.stats().health, DiskState::Down);
    // The directory never answers: whoever waited for it would wait for ever.
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    let before = node.stats();
    node.check(&object("down", 5 * MIB)).await;
    let after = node.stats();
    let down = after.cold_down_bytes - before.cold_down_bytes;
    assert!(
        down >= 5 * MIB && down == after.cold_bytes - before.cold_bytes,
        "no wait while it is down: {after:?}"
    );

    drop(mounted);
    drop(fuse);
    eventually("the directory is used again", || {
        node.stats().health != DiskState::Down
    })
    .await;
    node.check(&object("after", MIB)).await;
    node.settle().await;
    assert!(path(dir.path(), &object("after", MIB), "").exists());
}

// Without this, a directory that is not there would fail mounts that have a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_used_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    let tier = terrace_cache::warm::WarmTier::new(
        config(&file.join("warm")),
        tokio::runtime::Handle::current(),
    )
    .unwrap();
    let cold = std::sync::Arc::new(Pattern::default());
    let inner: std::sync::Arc<dyn terrace_cache::Source> = std::sync::Arc::<Pattern>::clone(&cold);
    let node = Node {
        source: terrace_cache::warm::WarmSource::new(tier, inner),
        cold,
    };
    for n in 0..20 {
        node.check(&object(&format!("o-{n}"), 100_000)).await;
    }
    assert_eq!(node.served(), 2_000_000);
    assert_ne!(node.stats().health, DiskState::Healthy);
}

// Without this, an error of the store would be hidden, or leave a half copy and a lease behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_error_surfaces_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fails_at = Some(9 * MIB + 5);
    let node = Node::start(
        config(dir.path()),
        Pattern {
            fails_at,
            ..Pattern::default()
        },
    );
    let object = object("broken", 12 * MIB);
    let error = node.read(&object, 0..object.size()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    let bytes = node.read(&object, 0..8 * MIB).await.unwrap();
    assert!(
        bytes == bytes_of(&object, 0..8 * MIB),
        "what the store can read is read"
    );
    node.settle().await;
    for ending in [".part", ".lease", ".sum"] {
        assert!(files(dir.path(), ending).is_empty(), "{ending}");
    }
}

// Without this, fills would take the shared file system away from its other users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_keep_to_the_bandwidth() {
    let dir = tempfile::tempdir().unwrap();
    let bandwidth = ByteSize(8 * MIB);
    let node = Node::start(
        WarmConfig {
            bandwidth,
            ..config(dir.path())
        },
        Pattern::default(),
    );
    let begin = Instant::now();
    node.check(&object("capped", 20 * MIB)).await;
    node.settle().await;
    // A second's worth is free as a burst.
    assert!(
        begin.elapsed() >= Duration::from_millis(1_300),
        "{:?}",
        begin.elapsed()
    );
}

// Without this, the tier would grow without limit, or forget what is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copies_used_longest_ago_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let filler = Node::start(config(dir.path()), Pattern::default());
    let objects: Vec<_> = (0..10)
        .map(|n| object(&format!("o-{n}"), 2 * MIB))
        .collect();
    for (age, object) in objects.iter().enumerate() {
        filler.check(object).await;
        filler.settle().await;
        let sum = std::fs::File::open(path(dir.path(), object, ".sum")).unwrap();
        let used = SystemTime::now() - Duration::from_secs(100_000 - 1_000 * age as u64);
        sum.set_modified(used).unwrap();
    }
    // Read again by another daemon: this one is in use.
    Node::start(config(dir.path()), Pattern::default())
        .check(&objects[0])
        .await;
    let (budget, sweep) = (ByteSize(13 * MIB), Span(Duration::from_millis(100)));
    let settings = WarmConfig {
        budget,
        sweep,
        ..config(dir.path())
    };
    let sweeper = Node::start(settings.clone(), Pattern::default());
    let second = Node::start(settings, Pattern::default());
    eventually("room is made", || {
        sweeper.stats().evicted + second.stats().evicted == 5
    })
    .await;
    let kept: Vec<usize> = (0..10)
        .filter(|n| path(dir.path(), &objects[*n], "").exists())
        .collect();
    assert_eq!(kept, [0, 6, 7, 8, 9]);
    filler.check(&objects[1]).await;
}
