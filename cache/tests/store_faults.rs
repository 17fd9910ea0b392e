//! A misbehaving S3 server: never a wrong byte, the right kind of error, a bounded number of requests.
//!
//! Every test proves that its fault fired, and every byte tells its version and offset.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

#[path = "store_common/fault_server.rs"]
mod fault_server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fault_server::{Fault, FaultServer};
use futures::{StreamExt as _, TryStreamExt as _};
use store_common::{content, credentials, quick, read, read_error};
use terrace_cache::store::{ListEntry, Store, StoreConfig, StoreErrorKind as Kind, StoreUrl};
use terrace_cache::units::Span;
use terrace_cache::{ObjectId, Source as _};

const SIZE: usize = 300_000;

async fn open(server: &FaultServer, config: &StoreConfig) -> Store {
    let url: StoreUrl = "s3://bucket".parse().unwrap();
    Store::open(&url, config, &server.credentials())
        .await
        .unwrap()
}

/// A server with one object of version 1, a store, and the pinned object.
async fn world(config: StoreConfig) -> (FaultServer, Store, ObjectId) {
    let server = FaultServer::start().await;
    server.put("k", content(1, SIZE));
    let store = open(&server, &config).await;
    let meta = store.head("k").await.unwrap();
    assert_eq!(meta.version.size, SIZE as u64);
    let object = store.object(&meta);
    server.reset();
    (server, store, object)
}

// Without it one bad answer of a server or proxy would end a training job, or poison the cache.
#[tokio::test]
async fn one_fault_is_survived_without_a_wrong_byte() {
    let (server, store, object) = world(quick()).await;
    let xml = "<Error><Code>SlowDown</Code></Error>";
    for fault in [
        Fault::Cut(0),
        Fault::Cut(100_003),
        Fault::Cut(SIZE - 1),
        Fault::Stall(0),
        Fault::Stall(50_001),
        Fault::Silence,
        Fault::Fin,
        Fault::Reset,
        Fault::Whole,
        Fault::Shifted(1),
        Fault::Shifted(-1),
        Fault::PastEnd,
        Fault::ErrorBody,
        Fault::Gzip,
        Fault::Chunked(0),
        Fault::Chunked(1),
        Fault::Chunked(150_000),
        Fault::Chunked(-1),
        Fault::Chunked(-100_000),
        Fault::Without("etag"),
        Fault::Without("content-range"),
        Fault::WeakTag,
        Fault::Status(200, "", xml),
        Fault::Status(500, "", "<Error><Code>InternalError</Code></Error>"),
        Fault::Status(503, "", xml),
        Fault::Status(429, "retry-after: 0\r\n", ""),
        Fault::Status(408, "", ""),
        Fault::Status(
            502,
            "content-type: text/html\r\n",
            "<html>bad gateway</html>",
        ),
        Fault::Status(403, "", "<Error><Code>ExpiredToken</Code></Error>"),
        Fault::Status(
            404,
            "content-type: text/html\r\n",
            "<html>no backend</html>",
        ),
    ] {
        server.reset();
        server.script([fault.clone()]);
        let range = 7..SIZE as u64 - 5;
        let got = read(&store, &object, range).await;
        let got = got.unwrap_or_else(|(_, error)| panic!("{fault:?}: {error}"));
        assert!(
            got == content(1, SIZE)[7..SIZE - 5],
            "wrong bytes after {fault:?}"
        );
        assert_eq!(server.fired(), 1, "{fault:?}");
        assert!(
            server.seen().len() <= 2,
            "{fault:?}: {} requests",
            server.seen().len()
        );
    }
    assert_eq!(store.stats().in_flight, 0);
}

// Without it a resumed body could repeat or skip bytes, or come from another version.
#[tokio::test]
async fn a_cut_body_is_resumed_from_the_exact_offset_of_the_same_version() {
    let (server, store, object) = world(quick()).await;
    server.script([
        Fault::Cut(100_000),
        Fault::FromStart,
        Fault::Cut(70_000),
        Fault::Cut(9),
    ]);
    let got = read(&store, &object, 0..SIZE as u64).await.unwrap();
    assert!(got == content(1, SIZE), "wrong bytes");
    assert_eq!(server.fired(), 4);
    let seen = server.seen();
    let ranges: Vec<&str> = seen
        .iter()
        .map(|seen| seen.head["range"].as_str())
        .collect();
    let last = SIZE - 1;
    let expected = [0, 100_000, 100_000, 170_000, 170_009].map(|at| format!("bytes={at}-{last}"));
    assert_eq!(ranges, expected);
    assert!(seen.iter().all(|seen| seen.head["if-match"] == "\"v1\""));
    assert_eq!(store.stats().retries, 4);
}

// Without it a broken server would be asked for ever, or its error be told as another one.
#[tokio::test]
async fn lasting_faults_end_with_their_kind_after_few_requests() {
    let config = StoreConfig {
        deadline: Span(Duration::from_secs(3)),
        ..quick()
    };
    let (server, store, object) = world(config).await;
    let gone = "<Error><Code>AccessDenied</Code></Error>";
    for (fault, kind, most) in [
        (Fault::Whole, Kind::Corrupt, 3),
        (Fault::Shifted(3), Kind::Corrupt, 3),
        (Fault::PastEnd, Kind::Corrupt, 3),
        (Fault::ErrorBody, Kind::Corrupt, 3),
        (Fault::Gzip, Kind::Corrupt, 3),
        (Fault::Without("etag"), Kind::Corrupt, 3),
        (Fault::Status(200, "", "<Error/>"), Kind::Corrupt, 3),
        (Fault::Status(503, "", ""), Kind::Throttled, 5),
        (Fault::Status(429, "", ""), Kind::Throttled, 5),
        (Fault::Status(500, "", ""), Kind::Unreachable, 5),
        (Fault::Status(403, "", gone), Kind::Permission, 1),
        (
            Fault::Status(403, "", "<Error><Code>ExpiredToken</Code></Error>"),
            Kind::Permission,
            2,
        ),
        (Fault::Status(416, "", ""), Kind::Changed, 1),
        (
            Fault::Status(404, "content-type: text/html\r\n", "<html/>"),
            Kind::Unreachable,
            5,
        ),
        // One more where an idle connection is used again: it may have been closed before it was asked.
        (Fault::Reset, Kind::Unreachable, 6),
        (Fault::Fin, Kind::Unreachable, 6),
        (Fault::Silence, Kind::Unreachable, 6),
        (Fault::Stall(10), Kind::Unreachable, 8),
        (Fault::Trickle, Kind::Unreachable, 8),
        // Last, and one more: from here on the general client asks, because it knows chunks.
        (Fault::Chunked(-7), Kind::Corrupt, 4),
    ] {
        server.reset();
        server.always(fault.clone());
        let start = Instant::now();
        let found = read_error(&store, &object, 0..SIZE as u64, &content(1, SIZE)).await;
        assert_eq!(found, kind, "{fault:?}");
        let asked = server.seen().len();
        assert!(
            server.fired() > 0 && asked <= most,
            "{fault:?}: {asked} requests"
        );
        // The deadline, two seconds for the size, and one attempt.
        assert!(
            start.elapsed() < Duration::from_secs(6),
            "{fault:?}: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(store.stats().in_flight, 0);
}

// Without it one file would hold bytes of two versions.
#[tokio::test]
async fn an_object_overwritten_while_read_is_changed_and_never_mixed() {
    for unchecked in [false, true] {
        let (server, store, object) = world(quick()).await;
        let new = content(2, SIZE);
        let replace = match unchecked {
            true => Fault::ReplaceUnchecked(new.clone()),
            false => Fault::Replace(new.clone()),
        };
        // Between two ranges.
        let half = read(&store, &object, 0..150_000).await.unwrap();
        assert!(half == content(1, SIZE)[..150_000]);
        server.reset();
        server.script([replace.clone()]);
        let range = 150_000..SIZE as u64;
        assert_eq!(
            read_error(&store, &object, range, &content(1, SIZE)).await,
            Kind::Changed
        );
        assert_eq!((server.fired(), server.seen().len()), (1, 1));
        // Between a cut and its resumption.
        let now = store.object(&store.head("k").await.unwrap());
        assert_ne!(now.digest(), object.digest());
        server.reset();
        server.script([Fault::Cut(90_000), replace]);
        let (got, error) = read(&store, &now, 0..SIZE as u64).await.unwrap_err();
        assert_eq!((error.kind, server.fired()), (Kind::Changed, 2));
        assert!(new.starts_with(&got) && got.len() <= 90_000);
        // A fresh look reads the new version.
        let fresh = store.object(&store.head("k").await.unwrap());
        assert!(read(&store, &fresh, 0..SIZE as u64).await.unwrap() == new);
    }
}

// Without it a deleted object would read as an empty file, or an open handle would get ENOENT.
#[tokio::test]
async fn an_object_deleted_while_read_is_changed() {
    let (server, store, object) = world(quick()).await;
    server.script([Fault::Cut(50_000), Fault::Delete]);
    let kind = read_error(&store, &object, 0..SIZE as u64, &content(1, SIZE)).await;
    assert_eq!(
        (kind, server.fired(), server.seen().len()),
        (Kind::Changed, 2, 2)
    );
    assert_eq!(store.head("k").await.unwrap_err().kind, Kind::NotFound);
}

// Without it an outage would delete every file of a mount.
#[tokio::test]
async fn unreachable_is_never_deleted() {
    let config = StoreConfig {
        attempts: 2,
        ..quick()
    };
    let (server, store, object) = world(config.clone()).await;
    // A load balancer without backends: its 404 has no S3 error in it, whatever the method.
    server.always(Fault::Status(
        404,
        "content-type: text/plain\r\n",
        "default backend - 404",
    ));
    assert_eq!(store.head("k").await.unwrap_err().kind, Kind::Unreachable);
    assert_eq!(
        store.list("").try_next().await.unwrap_err().kind,
        Kind::Unreachable
    );
    assert!(server.fired() >= 2);
    // The server is gone.
    drop(server);
    let error = store.head("k").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    assert_eq!(
        store.list("").try_next().await.unwrap_err().kind,
        Kind::Unreachable
    );
    assert_eq!(
        store.walk("d").try_next().await.unwrap_err().kind,
        Kind::Unreachable
    );
    let kind = read_error(&store, &object, 0..10, &content(1, SIZE)).await;
    assert_eq!(kind, Kind::Unreachable);
    // A name that does not resolve.
    let nowhere = credentials(&[
        ("AWS_ENDPOINT_URL", "http://store.invalid:1"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let lost = Store::open(store.url(), &config, &nowhere).await.unwrap();
    assert_eq!(lost.head("k").await.unwrap_err().kind, Kind::Unreachable);
}

// Without it the readers of a node would answer an overload with a storm.
#[tokio::test]
async fn many_readers_share_one_retry_budget() {
    let config = StoreConfig {
        retry_burst: 10,
        retries_per_second: 1,
        ..quick()
    };
    let config = StoreConfig {
        deadline: Span(Duration::from_secs(5)),
        attempts: 50,
        ..config
    };
    let (server, store, object) = world(config).await;
    server.always(Fault::Status(503, "", ""));
    let start = Instant::now();
    let reads = (0..40).map(|_| read(&store, &object, 0..1000));
    let results = futures::future::join_all(reads).await;
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap_err().1.kind == Kind::Throttled)
    );
    let asked = server.seen().len();
    let earned = 1 + start.elapsed().as_secs() as usize;
    assert!((40..=40 + 10 + earned).contains(&asked), "{asked} requests");
    assert_eq!(server.fired(), asked);
    assert_eq!(store.stats().throttled as usize, asked);
}

// Without it one sick object would stop the reading of all others.
#[tokio::test]
async fn a_slow_object_does_not_hold_up_others() {
    let config = StoreConfig {
        stall_timeout: Span(Duration::from_secs(60)),
        ..quick()
    };
    let (server, store, object) = world(config).await;
    server.put("sick", content(3, SIZE));
    let sick = store.object(&store.head("sick").await.unwrap());
    server.reset();
    server.only_for("sick");
    server.always(Fault::Stall(1));
    let mut stuck = Vec::new();
    for _ in 0..16 {
        stuck.push(store.read(&sick, 0..SIZE as u64).await.unwrap());
    }
    let start = Instant::now();
    for _ in 0..20 {
        assert!(read(&store, &object, 0..SIZE as u64).await.unwrap() == content(1, SIZE));
    }
    // Long before the sick ones are given up.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(server.fired(), 16);
    assert_eq!(store.stats().in_flight, 16);
    // Dropping the streams cancels their requests.
    drop(stuck);
    assert_eq!(store.stats().in_flight, 0);
}

// Without it a limit on requests in flight could be passed, or block for ever.
#[tokio::test]
async fn slots_limit_requests_and_a_full_queue_ends_by_the_deadline() {
    let config = StoreConfig {
        concurrency: 2,
        deadline: Span(Duration::from_millis(600)),
        ..quick()
    };
    let (server, store, object) = world(config).await;
    server.script([Fault::Stall(1), Fault::Stall(1)]);
    let first = store.read(&object, 0..100).await.unwrap();
    let second = store.read(&object, 0..100).await.unwrap();
    let kind = read_error(&store, &object, 0..100, &content(1, SIZE)).await;
    assert_eq!((kind, server.seen().len()), (Kind::Unreachable, 2));
    drop((first, second));
    assert_eq!(
        read(&store, &object, 0..100).await.unwrap(),
        content(1, SIZE)[..100]
    );
}

// Without it a listing would lose, repeat or invent names when a page fails.
#[tokio::test]
async fn listings_survive_failing_pages() {
    let (server, store, _) = world(quick()).await;
    for number in 0..25 {
        server.put(&format!("d/f{number:02}"), Bytes::from_static(b"x"));
        server.put(&format!("d/sub{number:02}/x"), Bytes::from_static(b"y"));
    }
    server.page(7);
    server.script([
        Fault::Nothing,
        Fault::Status(503, "", ""),
        Fault::Cut(40),
        Fault::Nothing,
        Fault::Status(200, "", "<Error><Code>InternalError</Code></Error>"),
        Fault::Reset,
    ]);
    let entries: Vec<ListEntry> = store.list("d").try_collect().await.unwrap();
    let names: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            ListEntry::Object(meta) => meta.key.to_string(),
            ListEntry::Directory(dir) => dir.clone(),
        })
        .collect();
    let files = (0..25).map(|number| format!("d/f{number:02}"));
    let dirs = (0..25).map(|number| format!("d/sub{number:02}"));
    let mut expected: Vec<String> = files.chain(dirs).collect();
    let mut sorted = names.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    assert_eq!(server.fired(), 4);

    server.reset();
    server.script([Fault::Nothing, Fault::Cut(10)]);
    let all: Vec<_> = store.walk("d").try_collect().await.unwrap();
    assert_eq!((all.len(), server.fired()), (50, 1));
    assert_eq!(
        store.list("nothing").try_next().await.unwrap_err().kind,
        Kind::NotFound
    );
    let mut root = store.list("");
    assert!(root.next().await.unwrap().is_ok());
}

// Without it a reader could get bytes of another store, or a range the object does not have.
#[tokio::test]
async fn impossible_reads_are_refused_without_a_request() {
    let (server, store, object) = world(quick()).await;
    let other = ObjectId {
        store: "s3://other".into(),
        ..object.clone()
    };
    for (object, range) in [
        (&other, 0..10),
        (&object, 5..5),
        (&object, 0..SIZE as u64 + 1),
    ] {
        let error = store.read(object, range).await.err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);
    }
    assert_eq!(store.head("a/../b").await.unwrap_err().kind, Kind::Invalid);
    assert!(server.seen().is_empty());
}

// Without it plain http could be used unasked, and secrets travel in the clear.
#[tokio::test]
async fn plain_http_needs_to_be_allowed() {
    let server = FaultServer::start().await;
    let pairs: Vec<_> = server
        .credentials()
        .iter()
        .filter(|(name, _)| *name != "AWS_ALLOW_HTTP")
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let url: StoreUrl = "s3://bucket".parse().unwrap();
    let error = Store::open(&url, &quick(), &pairs.into_iter().collect())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.reason.contains("AWS_ALLOW_HTTP") && server.seen().is_empty());
}
