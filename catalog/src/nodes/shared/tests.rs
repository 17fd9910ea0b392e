//! Catalogs over one database, with tokens of it and a clock of the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::*;
use crate::access::{Access, Grants, Principal, TokenRequest};
use crate::kv::rocks::RocksKv;
use crate::kv::{DumpPage, Limits, TxnOutcome, Versioned, Watch};
use crate::nodes::presence::{Heat, Mounted, Said};

/// An embedded database that says others use it too, and counts what is written.
#[derive(Debug)]
struct Several {
    kv: RocksKv,
    written: Mutex<u64>,
}

#[async_trait]
impl Kv for Several {
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, KvError> {
        self.kv.get_many(keys).await
    }

    async fn scan(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, KvError> {
        self.kv.scan(range, limit).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, KvError> {
        *self.written.lock().unwrap() += 1;
        self.kv.txn(txn).await
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        self.kv.watch(key).await
    }

    fn dump(&self) -> BoxStream<'static, Result<DumpPage, KvError>> {
        self.kv.dump()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        self.kv.limits()
    }
}

struct World {
    kv: Arc<Several>,
    token: Principal,
    _directory: tempfile::TempDir,
}

/// One catalog of several.
struct Replica {
    shared: Shared,
    presence: Presence,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = |name| RocksKv::open(&directory.path().join(name)).unwrap();
        let access = Access::new(Arc::new(open("tokens")));
        let request = TokenRequest {
            name: "nodes".to_owned(),
            grants: Grants::parse(&["read:ads"]).unwrap(),
            expires_ms: None,
        };
        let (token, _) = access.issue(request, 1).await.unwrap();
        let token = access.check(&token, 1).await.unwrap();
        let kv = Arc::new(Several {
            kv: open("kv"),
            written: Mutex::default(),
        });
        Self {
            kv,
            token,
            _directory: directory,
        }
    }

    fn replica(&self) -> Replica {
        let kv: Arc<dyn Kv> = Arc::<Several>::clone(&self.kv);
        Replica {
            shared: Shared::new(kv),
            presence: Presence::default(),
        }
    }

    fn written(&self) -> u64 {
        *self.kv.written.lock().unwrap()
    }

    async fn hear(&self, replica: &Replica, node: &str, hot_bytes: u64, now_ms: i64) {
        let node = node.parse().unwrap();
        let heat = Heat {
            dataset: "ads.clicks".parse().unwrap(),
            version: 3,
            total_bytes: 10,
            hot_bytes,
            warm_bytes: Some(1),
            is_open: true,
        };
        let said = Said {
            version: "0.1.0".to_owned(),
            instance: "disk".to_owned(),
            mounts: vec![Mounted {
                mountpoint: "/data".to_owned(),
                version: None,
            }],
            heat: vec![heat],
            ..Said::default()
        };
        let token = self.token.clone();
        replica.presence.hear(&node, token, said, now_ms).unwrap();
        let told = replica.shared.tell(&replica.presence, &node, now_ms).await;
        told.unwrap();
    }
}

impl Replica {
    /// Nodes with their hot bytes, and whether they are fresh.
    async fn shows(&self, now_ms: i64) -> Vec<(String, u64, bool)> {
        self.shared.read(&self.presence, now_ms).await.unwrap();
        let nodes = self.presence.nodes(now_ms, |_| true).into_iter();
        nodes
            .map(|node| {
                let hot = node.said.heat.first().map_or(0, |heat| heat.hot_bytes);
                (node.name.to_string(), hot, node.is_fresh)
            })
            .collect()
    }
}

fn shown(node: &str, hot: u64, fresh: bool) -> (String, u64, bool) {
    (node.to_owned(), hot, fresh)
}

// Behind a balancer each question would be answered for half of the nodes.
#[tokio::test]
async fn every_catalog_answers_for_all_nodes() {
    let world = World::new().await;
    let (one, two) = (world.replica(), world.replica());
    world.hear(&one, "n1", 4, 100_000).await;
    world.hear(&two, "n2", 7, 100_000).await;
    let all = [shown("n1", 4, true), shown("n2", 7, true)];
    assert_eq!(one.shows(101_000).await, all);
    assert_eq!(two.shows(101_000).await, all);
    // What the token may read is known as well: jobs are asked of nodes of others.
    let dataset = "ads.clicks".parse().unwrap();
    let able = |replica: &Replica| {
        let able = replica
            .presence
            .able(&dataset, 3, crate::nodes::Tier::Hot, 101_000);
        able.len()
    };
    assert_eq!((able(&one), able(&two)), (2, 2));
    // The node goes on at another catalog, and says something new there.
    world.hear(&two, "n1", 9, 112_000).await;
    assert_eq!(one.shows(113_000).await[0], shown("n1", 9, true));
    // And it is not this catalog that tells of it any more.
    assert!(one.presence.own(113_000).is_empty());
    assert_eq!(two.presence.own(113_000).len(), 2);
    // Nobody speaks for a node that another catalog has heard a moment ago.
    let stranger = Principal::restored("another", &["read:*".to_owned()], None).unwrap();
    let stolen = one
        .presence
        .hear(&"n1".parse().unwrap(), stranger, Said::default(), 113_001);
    assert!(stolen.is_err());
}

// A write for each report of a thousand nodes is more than a database should have to bear for this.
#[tokio::test]
async fn nodes_that_say_nothing_new_cost_one_write_for_all_of_them() {
    let world = World::new().await;
    let (one, two) = (world.replica(), world.replica());
    let names: Vec<String> = (0..20).map(|at| format!("n{at:02}")).collect();
    for name in &names {
        world.hear(&one, name, 4, 100_000).await;
    }
    let before = world.written();
    for second in 1..=60 {
        for name in &names {
            world.hear(&one, name, 4, 100_000 + second * 1000).await;
        }
    }
    let beats = world.written() - before;
    assert!((10..=14).contains(&beats), "{beats} writes in a minute");
    let seen = two.shows(160_500).await;
    assert_eq!(seen.len(), names.len());
    assert!(seen.iter().all(|(_, _, fresh)| *fresh), "{seen:?}");
}

// Without it the records of every node that ever was would stay in the database.
#[tokio::test]
async fn what_is_gone_leaves_nothing() {
    let world = World::new().await;
    let (one, two, heir) = (world.replica(), world.replica(), world.replica());
    world.hear(&one, "n1", 4, 100_000).await;
    world.hear(&two, "n2", 4, 100_000).await;
    assert_eq!(heir.shows(101_000).await.len(), 2);
    // One catalog lives on and tidies up; the other one is gone with its node.
    let later = 100_000 + GONE_MS + 1;
    one.shared.tidy(&one.presence, later).await.unwrap();
    world.hear(&one, "n3", 4, later).await;
    assert_eq!(heir.shows(later).await, [shown("n3", 4, true)]);
    one.shared.tidy(&one.presence, later + 1).await.unwrap();
    let keys = async |prefix| {
        let found = world.kv.scan(KeyRange::prefix(prefix), 10).await.unwrap();
        found.len()
    };
    assert_eq!((keys(BEATS).await, keys(REPORTS).await), (1, 1));
}

// A report that cannot be kept whole must be kept in part: who is there matters more than every version.
#[test]
fn a_report_that_is_too_large_is_cut() {
    let heat = |number| Heat {
        dataset: format!("{}.{}", "n".repeat(60), "t".repeat(60))
            .parse()
            .unwrap(),
        version: number,
        total_bytes: u64::MAX,
        hot_bytes: u64::MAX,
        warm_bytes: Some(u64::MAX),
        is_open: true,
    };
    let mount = |at| Mounted {
        mountpoint: format!("/{}{at}", "m".repeat(4000)),
        version: None,
    };
    let heard = crate::nodes::presence::Heard {
        reporter: Principal::restored("token", &[], None).unwrap(),
        said: Said {
            heat: (0..1024).map(heat).collect(),
            mounts: (0..256).map(mount).collect(),
            ..Said::default()
        },
    };
    let bytes = encode_said(&heard).unwrap();
    assert!(bytes.len() <= crate::kv::MAX_VALUE, "{}", bytes.len());
    let read = decode_said(&bytes).unwrap();
    assert!(!read.said.mounts.is_empty());
    assert_eq!(read.reporter.label(), "token");
    for bad in ["", "{}", r#"{"reporter":"x"}"#] {
        assert!(decode_said(bad.as_bytes()).is_err());
    }
}
