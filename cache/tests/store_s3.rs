//! A real S3 server: odd keys, pages, overwrites and deletions under a reader, refusals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

#[path = "store_common/servers.rs"]
mod servers;

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use servers::{encoded, http, server};
use store_common::{content, credentials, quick, read, read_error};
use terrace_cache::Source as _;
use terrace_cache::store::{
    Credentials, ListEntry, ObjectMeta, Store, StoreErrorKind as Kind, StoreUrl,
};

/// Credentials of the environment, as the binary passes them.
fn environment() -> Credentials {
    Credentials::new(std::env::vars())
}

/// A bucket of its own, seeded through the filer and removed at the end.
struct Bucket {
    filer: String,
    name: String,
}

impl Bucket {
    /// `None` (and a skip line) without servers.
    fn new(test: &str) -> Option<Self> {
        server(test, "TERRACE_TEST_S3")?;
        let filer = server(test, "TERRACE_TEST_S3_FILER")?;
        Some(Self {
            filer,
            name: format!("store-{}-{}", test.replace('_', "-"), std::process::id()),
        })
    }

    fn address(&self, key: &str) -> String {
        format!("{}/buckets/{}/{}", self.filer, self.name, encoded(key))
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        let (status, _, body) = http("PUT", &self.address(key), bytes).await;
        assert!(
            status < 300,
            "{key}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }

    async fn delete(&self, key: &str) {
        assert!(http("DELETE", &self.address(key), b"").await.0 < 300);
    }

    async fn store(&self, credentials: &Credentials) -> Store {
        let url: StoreUrl = format!("s3://{}", self.name).parse().unwrap();
        Store::open(&url, &quick(), credentials).await.unwrap()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let url = format!("{}/buckets/{}?recursive=true", self.filer, self.name);
        // A runtime of its own: the test's may be unwinding.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(http("DELETE", &url, b""));
        });
        let _ = removal.join();
    }
}

/// The names of a stretch below `dir`, and how far it reaches.
fn names(stretch: &terrace_cache::store::Stretch) -> (Vec<String>, Option<&str>) {
    let name = |entry: &ListEntry| match entry {
        ListEntry::Object(meta) => meta.key.to_string(),
        ListEntry::Directory(key) => format!("{key}/"),
    };
    let mut names: Vec<_> = stretch.entries.iter().map(name).collect();
    names.sort();
    (names, stretch.reaches.as_deref())
}

// Without it asking for many names at once would miss some, or answer for names it has not seen.
#[tokio::test]
async fn a_listing_begins_in_the_middle() {
    let Some(bucket) = Bucket::new("a_listing_begins_in_the_middle") else {
        return;
    };
    let keys = ["d/a-1", "d/b c+%", "d/b\u{e9}", "d/sub/x", "d/t", "e/z"];
    for key in keys {
        bucket.put(key, b"x").await;
    }
    let store = bucket.store(&environment()).await;
    let after = |key: &'static str| store.list_after("d", key);
    let stretch = after("d/a-0\u{10FFFD}").await.unwrap().unwrap();
    let all = ["d/a-1", "d/b c+%", "d/b\u{e9}", "d/sub/", "d/t"].map(str::to_owned);
    assert_eq!(names(&stretch), (all.to_vec(), None));
    let stretch = after("d/b c+%").await.unwrap().unwrap();
    assert_eq!(names(&stretch), (all[2..].to_vec(), None));
    let stretch = after("d/t").await.unwrap().unwrap();
    assert_eq!(names(&stretch), (Vec::new(), None));
    for n in 0..1_100 {
        bucket.put(&format!("d/m{n:04}"), b"").await;
    }
    let stretch = after("d/m0049\u{10FFFD}").await.unwrap().unwrap();
    let (listed, reaches) = names(&stretch);
    assert_eq!((&*listed[0], listed.len()), ("d/m0050", 1000));
    assert_eq!(reaches, Some("d/m1049"));
    let full = store.list("d").try_collect::<Vec<_>>().await.unwrap();
    assert!(stretch.entries.iter().all(|entry| full.contains(entry)));
}

// Without it ranges of a real server would be off, or keys be mangled on their way.
#[tokio::test]
async fn objects_are_found_and_read_by_their_exact_keys() {
    let Some(bucket) = Bucket::new("objects_are_found_and_read_by_their_exact_keys") else {
        return;
    };
    let store = bucket.store(&environment()).await;
    let keys = [
        "plain",
        "d/with space",
        "d/plus+sign",
        "d/percent%20",
        "d/ünï",
        "d/a=b&c;d",
        "d/colon:at@",
        "d/tilde~(x)'*!",
        "d/deep/er/x",
    ];
    let size = 2_500_000;
    let bytes = content(1, size);
    for key in keys {
        bucket.put(key, &bytes).await;
    }
    let mut walked: Vec<ObjectMeta> = store.walk("").try_collect().await.unwrap();
    walked.sort_by(|a, b| a.key.cmp(&b.key));
    let found: BTreeSet<&str> = walked.iter().map(|meta| &*meta.key).collect();
    assert_eq!(found, keys.into_iter().collect());
    for meta in &walked {
        let head = store.head(&meta.key).await.unwrap();
        // One version must have one identity, whoever tells it.
        assert_eq!(head, *meta);
        let object = store.object(&head);
        for range in [
            0..size as u64,
            0..1,
            1_234_567..1_234_568,
            99_999..2_499_999,
        ] {
            let got = read(&store, &object, range.clone()).await.unwrap();
            assert!(
                got == bytes[range.start as usize..range.end as usize],
                "{range:?}"
            );
        }
    }
    let entries: Vec<ListEntry> = store.list("d").try_collect().await.unwrap();
    assert!(entries.contains(&ListEntry::Directory("d/deep".into())));
    assert_eq!(entries.len(), 8);
    for missing in ["none", "d", "d/deep", "d/none/x"] {
        let error = store.head(missing).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
    }
    assert_eq!(
        store.list("none").try_next().await.unwrap_err().kind,
        Kind::NotFound
    );
}

// Without it a reader could get bytes of two versions from a server as it really is.
#[tokio::test]
async fn overwritten_and_deleted_objects_are_changed() {
    let Some(bucket) = Bucket::new("overwritten_and_deleted_objects_are_changed") else {
        return;
    };
    let store = bucket.store(&environment()).await;
    let size = 24 << 20;
    let (old, new) = (content(1, size), content(2, size));
    bucket.put("k", &old).await;
    let object = store.object(&store.head("k").await.unwrap());
    let mut stream = store.read(&object, 0..size as u64).await.unwrap();
    let mut got = stream.next().await.unwrap().unwrap().to_vec();
    bucket.put("k", &new).await;
    let mut end = None;
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => end = Some(error.kind),
        }
    }
    assert!(old.starts_with(&got), "mixed versions");
    assert!(end == Some(Kind::Changed) || got.len() == size, "{end:?}");
    assert_eq!(
        read_error(&store, &object, 8..100, &old).await,
        Kind::Changed
    );
    let fresh = store.object(&store.head("k").await.unwrap());
    assert!(read(&store, &fresh, 0..size as u64).await.unwrap() == new);
    bucket.delete("k").await;
    assert_eq!(
        read_error(&store, &fresh, 8..100, &new).await,
        Kind::Changed
    );
    assert_eq!(store.head("k").await.unwrap_err().kind, Kind::NotFound);
}

// Without it a listing longer than one page would lose or repeat entries.
#[tokio::test]
async fn long_listings_come_page_by_page() {
    let Some(bucket) = Bucket::new("long_listings_come_page_by_page") else {
        return;
    };
    let store = bucket.store(&environment()).await;
    let puts = (0..2345).map(|number| {
        let (key, bucket) = (format!("d/f{number:05}"), &bucket);
        async move { bucket.put(&key, b"x").await }
    });
    futures::stream::iter(puts)
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    let entries: Vec<ListEntry> = store.list("d").try_collect().await.unwrap();
    assert_eq!(entries.len(), 2345);
    // A busy server asks for patience: what was asked again is no other page.
    let pages = || store.stats().requests_of("list") - store.stats().retries;
    let before = pages();
    // Some servers end with an empty page.
    assert!((3..=4).contains(&before), "{before} pages");
    let first: Vec<_> = store.list("d").take(10).try_collect().await.unwrap();
    assert_eq!((first.len(), pages()), (10, before + 1));
    assert_eq!(
        store.walk("d").try_collect::<Vec<_>>().await.unwrap().len(),
        2345
    );
}

// Without it wrong keys or a missing bucket would be told as something else.
#[tokio::test]
async fn refusals_are_told_apart() {
    let Some(bucket) = Bucket::new("refusals_are_told_apart") else {
        return;
    };
    bucket.put("k", b"x").await;
    let good = bucket.store(&environment()).await;
    let object = good.object(&good.head("k").await.unwrap());
    let right = environment();
    let wrong = right.iter().map(|(name, value)| match name {
        "AWS_SECRET_ACCESS_KEY" => (name.to_string(), "wrong".to_string()),
        _ => (name.to_string(), value.to_string()),
    });
    let wrong = bucket.store(&wrong.collect()).await;
    assert_eq!(wrong.head("k").await.unwrap_err().kind, Kind::Permission);
    assert_eq!(
        wrong.list("").try_next().await.unwrap_err().kind,
        Kind::Permission
    );
    assert_eq!(
        read_error(&wrong, &object, 0..1, b"x").await,
        Kind::Permission
    );
    // Without a signature the server knows nobody.
    let nobody = credentials(&[
        ("AWS_ENDPOINT_URL", right.get("AWS_ENDPOINT_URL").unwrap()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ]);
    let nobody = bucket.store(&nobody).await;
    assert_eq!(nobody.head("k").await.unwrap_err().kind, Kind::Permission);
    let none: StoreUrl = "s3://no-such-bucket-at-all".parse().unwrap();
    let none = Store::open(&none, &quick(), &environment()).await.unwrap();
    assert_eq!(none.head("k").await.unwrap_err().kind, Kind::NotFound);
}
