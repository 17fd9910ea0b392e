//! RocksDB: the fixture, and what only an embedded store can get wrong.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::kv::{Kv, KvError, Txn};

use super::Fixture;
use super::suite::{bytes, revision};

/// Says to the child of the crash test where its store is.
const CHILD: &str = "TERRACE_KV_CHILD";

pub(crate) async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
    Fixture {
        other: Arc::clone(&kv),
        kv,
        _directory: Some(directory),
    }
}

// What was answered must be there after a restart, and revisions must go on from there.
#[tokio::test]
async fn a_store_is_the_same_after_it_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kv");
    let mut last = 0;
    for round in 0..3 {
        let kv = RocksKv::open(&path).unwrap();
        let txn = Txn::new()
            .put(bytes(&format!("{round}")), bytes("x"))
            .append(bytes("log/"), bytes("x"));
        let now = revision(kv.txn(txn).await.unwrap());
        assert!(now > last);
        last = now;
        assert!(kv.get(b"0").await.unwrap().is_some());
        assert!(
            matches!(RocksKv::open(&path), Err(KvError::Unavailable(_))),
            "opened twice"
        );
    }
}

// A sync for each of thousands of registrations takes minutes; two with one revision lose an event.
#[tokio::test]
async fn many_callers_share_a_sync() {
    let directory = tempfile::tempdir().unwrap();
    let kv = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..2000u32 {
        let kv = Arc::clone(&kv);
        tasks.spawn(async move {
            let key = bytes(&number.to_string());
            let txn = Txn::new().unchanged(key.clone(), None).put(key, bytes("x"));
            revision(kv.txn(txn).await.unwrap())
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 2000, "two transactions had one revision");
}

// The child of the test below: writes pairs until it is killed. Does nothing in an ordinary run.
#[tokio::test]
async fn child_of_the_crash_test() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let kv = RocksKv::open(Path::new(&path)).unwrap();
    for number in 0.. {
        let value = bytes(&format!("{number:0>2000}"));
        let txn = Txn::new()
            .put(bytes("left"), value.clone())
            .put(bytes("right"), value)
            .append(bytes("log/"), bytes(&number.to_string()));
        let at = revision(kv.txn(txn).await.unwrap());
        println!("\ncommitted {number} {at}");
    }
}

// A power cut in the middle of a commit must leave the version before or the version after.
#[tokio::test]
async fn kill_9_leaves_whole_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kv");
    let mut before = 0;
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rocks::child_of_the_crash_test", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = (0, 0);
        let committed = lines.map_while(Result::ok).filter_map(|line| {
            let (number, at) = line.strip_prefix("committed ")?.split_once(' ')?;
            Some((number.parse::<u64>().ok()?, at.parse::<u64>().ok()?))
        });
        let enough = 5 + round * 13;
        for found in committed.take(enough as usize) {
            acknowledged = found;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.0 + 1, enough, "the child ended too early");

        let kv = RocksKv::open(&path).unwrap();
        let left = kv.get(b"left").await.unwrap().unwrap();
        let right = kv.get(b"right").await.unwrap().unwrap();
        assert_eq!(left, right, "half a transaction");
        let number: u64 = std::str::from_utf8(&left.value).unwrap().parse().unwrap();
        assert!(number >= acknowledged.0, "lost what was answered");
        assert!(left.revision >= acknowledged.1 && acknowledged.1 > before);
        before = left.revision;
    }
}
