//! A real HDFS cluster, by native RPC and by WebHDFS: the same promises from both.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

#[path = "store_common/servers.rs"]
mod servers;

use futures::{StreamExt as _, TryStreamExt as _};
use servers::{encoded, http, server};
use store_common::{content, credentials, quick, read, read_error};
use terrace_cache::store::{
    Credentials, ListEntry, ObjectMeta, Store, StoreConfig, StoreErrorKind as Kind, StoreUrl,
};
use terrace_cache::units::Span;
use terrace_cache::{Source as _, Token};

/// A directory of its own on the cluster, removed at the end.
struct Cluster {
    native: String,
    web: String,
    dir: String,
    user: String,
}

impl Cluster {
    /// `None` (and a skip line) without servers.
    fn new(test: &str) -> Option<Self> {
        let native = server(test, "TERRACE_TEST_HDFS")?;
        let web = server(test, "TERRACE_TEST_WEBHDFS")?;
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap()
            .name;
        let dir = format!("store-{test}-{}", std::process::id());
        Some(Self {
            native,
            web,
            dir,
            user,
        })
    }

    fn operation(&self, name: &str, query: &str) -> String {
        let base = self.web.replace("webhdfs://", "http://");
        let path = encoded(&format!("{}/{name}", self.dir));
        format!("{base}/webhdfs/v1/{path}?{query}&user.name={}", self.user)
    }

    async fn write(&self, name: &str, bytes: &[u8]) {
        self.send("PUT", name, "op=CREATE&overwrite=true", bytes)
            .await;
    }

    async fn send(&self, method: &str, name: &str, query: &str, bytes: &[u8]) {
        let (_, location, _) = http(method, &self.operation(name, query), b"").await;
        let (status, _, body) = http(method, &location, bytes).await;
        assert!(
            status < 300,
            "{name}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }

    async fn call(&self, method: &str, name: &str, query: &str) {
        let (status, _, body) = http(method, &self.operation(name, query), b"").await;
        assert!(
            status < 300,
            "{name}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }

    fn credentials(&self) -> Credentials {
        credentials(&[("HADOOP_USER_NAME", &self.user)])
    }

    /// The cluster by both protocols.
    async fn stores(&self) -> [Store; 2] {
        let open = async |base: &str| {
            let url: StoreUrl = format!("{base}/{}", self.dir).parse().unwrap();
            Store::open(&url, &patient(), &self.credentials())
                .await
                .unwrap()
        };
        [open(&self.native).await, open(&self.web).await]
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let url = self.operation("", "op=DELETE&recursive=true");
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(http("DELETE", &url, b""));
        });
        let _ = removal.join();
    }
}

/// The JVMs of the cluster share two cores with everything else.
fn patient() -> StoreConfig {
    let seconds = |seconds| Span(std::time::Duration::from_secs(seconds));
    StoreConfig {
        attempt_timeout: seconds(15),
        stall_timeout: seconds(15),
        deadline: seconds(30),
        ..quick()
    }
}

// Without it ranges across HDFS blocks would be off, or names be mangled on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_found_and_read_by_ranges() {
    let Some(cluster) = Cluster::new("files_are_found_and_read_by_ranges") else {
        return;
    };
    // Blocks are 16 MiB.
    let size = (35 << 20) + 77;
    let bytes = content(1, size);
    cluster.write("big", &bytes).await;
    for name in [
        "d/with space",
        "d/plus+",
        "d/percent%20",
        "d/ünï",
        "d/e/x",
        "d/empty",
    ] {
        cluster
            .write(name, if name == "d/empty" { b"" } else { b"12345" })
            .await;
    }
    for store in cluster.stores().await {
        let meta = store.head(&cluster.key("big")).await.unwrap();
        assert_eq!(meta.version.size, size as u64);
        let object = store.object(&meta);
        let block = 16 << 20;
        for range in [
            0..size as u64,
            0..1,
            block - 1..block + 1,
            size as u64 - 1..size as u64,
            5_000_000..30_000_001,
        ] {
            let got = read(&store, &object, range.clone()).await;
            let got = got.unwrap_or_else(|(_, error)| panic!("{range:?}: {error}"));
            assert!(
                got == bytes[range.start as usize..range.end as usize],
                "{range:?}"
            );
        }
        let mut walked: Vec<ObjectMeta> = store.walk(&cluster.dir).try_collect().await.unwrap();
        walked.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(walked.len(), 7, "{walked:?}");
        for meta in &walked {
            assert_eq!(store.head(&meta.key).await.unwrap(), *meta);
        }
        let small = walked
            .iter()
            .find(|meta| meta.key.ends_with("percent%20"))
            .unwrap();
        assert_eq!(
            read(&store, &store.object(small), 0..5).await.unwrap(),
            "12345".as_bytes()
        );
        let entries: Vec<ListEntry> = store.list(&cluster.key("d")).try_collect().await.unwrap();
        assert_eq!(entries.len(), 6);
        assert!(entries.contains(&ListEntry::Directory(cluster.key("d/e"))));
        for missing in ["none", "d", "big/x"] {
            let error = store.head(&cluster.key(missing)).await.unwrap_err();
            assert_eq!(error.kind, Kind::NotFound, "{missing}: {error}");
        }
        for missing in ["none", "big"] {
            let error = store
                .list(&cluster.key(missing))
                .try_next()
                .await
                .unwrap_err();
            assert_eq!(error.kind, Kind::NotFound, "{missing}: {error}");
        }
    }
}

// Without it a sync system that rewrites a file would hand bytes of two versions to a reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwritten_and_deleted_files_are_changed() {
    let Some(cluster) = Cluster::new("overwritten_and_deleted_files_are_changed") else {
        return;
    };
    let size = 40 << 20;
    let (old, new) = (content(1, size), content(2, size));
    for (store, how) in cluster
        .stores()
        .await
        .iter()
        .flat_map(|store| ["replace", "append", "delete"].map(|how| (store.clone(), how)))
    {
        cluster.write("f", &old).await;
        let object = store.object(&store.head(&cluster.key("f")).await.unwrap());
        let mut stream = store.read(&object, 0..size as u64).await.unwrap();
        let mut got = stream.next().await.unwrap().unwrap().to_vec();
        match how {
            "replace" => cluster.write("f", &new).await,
            "append" => cluster.send("POST", "f", "op=APPEND", b"more").await,
            _ => cluster.call("DELETE", "f", "op=DELETE").await,
        }
        let mut end = None;
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => got.extend_from_slice(&piece),
                Err(error) => end = Some(error.kind),
            }
        }
        assert!(old.starts_with(&got), "mixed versions after {how}");
        assert_eq!(end, Some(Kind::Changed), "{how}: {} bytes", got.len());
        assert_eq!(
            read_error(&store, &object, 0..100, &old).await,
            Kind::Changed
        );
        match how {
            "delete" => {
                let error = store.head(&cluster.key("f")).await.unwrap_err();
                assert_eq!(error.kind, Kind::NotFound);
            }
            _ => {
                let fresh = store.object(&store.head(&cluster.key("f")).await.unwrap());
                assert_ne!(fresh.digest(), object.digest());
                let got = read(&store, &fresh, 0..size as u64).await.unwrap();
                assert!(got == if how == "replace" { &new } else { &old });
            }
        }
    }
}

// Without it a fail-over of the NameNode, or a cluster known only by its name, could not be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_service_is_read_past_a_dead_name_node() {
    let Some(cluster) = Cluster::new("a_name_service_is_read_past_a_dead_name_node") else {
        return;
    };
    cluster.write("f", b"12345").await;
    let live = cluster.native.strip_prefix("hdfs://").unwrap();
    let property = |name: &str, value: &str| {
        format!("<property><name>{name}</name><value>{value}</value></property>")
    };
    let site = [
        property("dfs.nameservices", "testns"),
        property("dfs.ha.namenodes.testns", "nn1,nn2"),
        property("dfs.namenode.rpc-address.testns.nn1", "127.0.0.1:1"),
        property("dfs.namenode.rpc-address.testns.nn2", live),
    ];
    let conf = tempfile::tempdir().unwrap();
    let document =
        |inner: &str| format!("<?xml version=\"1.0\"?><configuration>{inner}</configuration>");
    std::fs::write(conf.path().join("hdfs-site.xml"), document(&site.concat())).unwrap();
    std::fs::write(conf.path().join("core-site.xml"), document("")).unwrap();
    let credentials = credentials(&[
        ("HADOOP_CONF_DIR", conf.path().to_str().unwrap()),
        ("HADOOP_USER_NAME", &cluster.user),
    ]);
    let url: StoreUrl = "hdfs://testns".parse().unwrap();
    let store = Store::open(&url, &patient(), &credentials).await.unwrap();
    let meta = store.head(&cluster.key("f")).await.unwrap();
    assert_eq!(
        read(&store, &store.object(&meta), 0..5).await.unwrap(),
        "12345".as_bytes()
    );
    assert_eq!(store.object(&meta).store.as_ref(), "hdfs://testns");
}

// Without it an outage would delete every file of a mount, or a refusal look like one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_and_forbidden_are_never_deleted() {
    let Some(cluster) = Cluster::new("unreachable_and_forbidden_are_never_deleted") else {
        return;
    };
    cluster.write("private/f", b"12345").await;
    cluster
        .call("PUT", "private", "op=SETPERMISSION&permission=700")
        .await;
    let stranger = credentials(&[("HADOOP_USER_NAME", "stranger")]);
    for base in [&cluster.native, &cluster.web] {
        let url: StoreUrl = base.parse().unwrap();
        let store = Store::open(&url, &patient(), &stranger).await.unwrap();
        let error = store.head(&cluster.key("private/f")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Permission, "{error}");
        let listed = store.list(&cluster.key("private")).try_next().await;
        assert_eq!(listed.unwrap_err().kind, Kind::Permission);
    }
    let config = StoreConfig {
        attempts: 2,
        ..quick()
    };
    for url in [
        "hdfs://127.0.0.1:1/x",
        "webhdfs://127.0.0.1:1/x",
        "hdfs://nowhere.invalid:1/x",
    ] {
        let store = Store::open(&url.parse().unwrap(), &config, &stranger)
            .await
            .unwrap();
        let error = store.head("x/f").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        assert_eq!(
            store.list("x").try_next().await.unwrap_err().kind,
            Kind::Unreachable
        );
    }
}

// Without it the strongest part of the pin would be lost where the protocol tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_id_is_part_of_the_pin_over_webhdfs() {
    let Some(cluster) = Cluster::new("the_file_id_is_part_of_the_pin_over_webhdfs") else {
        return;
    };
    cluster.write("f", b"12345").await;
    let [_, web] = cluster.stores().await;
    let first = web.head(&cluster.key("f")).await.unwrap();
    let time = first.version.mtime_ns / 1_000_000;
    // The same length and the same times: only the file id tells the versions apart.
    cluster.write("f", b"54321").await;
    cluster
        .call("PUT", "f", &format!("op=SETTIMES&modificationtime={time}"))
        .await;
    let second = web.head(&cluster.key("f")).await.unwrap();
    assert_eq!(first.version.mtime_ns, second.version.mtime_ns);
    assert_ne!(first.version, second.version);
    assert!(matches!(second.version.token, Token::Hdfs { file_id } if file_id > 0));
    let kind = read_error(&web, &web.object(&first), 0..5, b"12345").await;
    assert_eq!(kind, Kind::Changed);
}
