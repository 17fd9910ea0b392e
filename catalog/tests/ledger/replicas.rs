//! Several replicas of the catalog on one PostgreSQL, and the way there from a single one.

use std::sync::Arc;

use terrace_catalog::kv::postgres::{PostgresConfig, PostgresKv};
use terrace_catalog::kv::{Kv, export, import};
use terrace_catalog::ledger::{EventKind, Ledger, Query};
use tokio_postgres::NoTls;

use super::memory::MemoryBlobs;
use super::world::{World, commit_in_turn, commit_of};

/// A schema of its own on the server; without a server, says what is skipped.
async fn schema(test: &str) -> Option<String> {
    let Ok(url) = std::env::var("TERRACE_TEST_POSTGRES") else {
        println!("SKIP ledger::replicas::{test}: TERRACE_TEST_POSTGRES is not set (no PostgreSQL)");
        return None;
    };
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let name = format!("l_{test}_{:08x}", std::process::id());
    let statement = format!("drop schema if exists {name} cascade; create schema {name}");
    client.batch_execute(&statement).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    Some(format!("{url} options='-c search_path={name}'"))
}

async fn replica(world: &World, url: &str, blobs: &Arc<MemoryBlobs>) -> Ledger {
    let kv = PostgresKv::open(PostgresConfig::new(url)).await.unwrap();
    let blobs = Arc::clone(blobs);
    Ledger::open(Arc::new(kv), blobs, world.config())
        .await
        .unwrap()
}

// Two replicas that both believe they are first would give one number to two versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_commit_one_after_another_and_see_each_other() {
    let Some(url) = schema("commit").await else {
        return;
    };
    let (world, blobs) = (World::new(), MemoryBlobs::shared());
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(replica(&world, &url, &blobs).await);
    }
    let name = world.dataset(&replicas[0], "ads.clicks").await;
    let mut tasks = tokio::task::JoinSet::new();
    for files in 0..9u64 {
        let ledger = replicas[files as usize % 3].clone();
        let manifest = world.manifest(&ledger, &[("dt=1", files + 1)]).await;
        let name = name.clone();
        tasks.spawn(async move { commit_in_turn(&ledger, &name, manifest).await });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=9).collect::<Vec<u64>>());
    for ledger in &replicas {
        let latest = ledger
            .resolve(&"ads.clicks".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(latest.number, 9);
        let events = ledger.events(0, 100).await.unwrap();
        let committed: Vec<u64> = events
            .iter()
            .filter_map(|event| match event.what {
                EventKind::VersionCommitted { version, .. } => Some(version),
                _ => None,
            })
            .collect();
        assert_eq!(committed, (1..=9).collect::<Vec<u64>>(), "out of order");
        let query = Query {
            text: "click".into(),
            ..Query::default()
        };
        assert_eq!(ledger.datasets(&query, None, 10).await.unwrap().len(), 1);
    }
}

// Whoever outgrows one replica must not have to register everything anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_one_replica_becomes_many() {
    let Some(url) = schema("move").await else {
        return;
    };
    let (world, blobs) = (World::new(), MemoryBlobs::shared());
    let kv = world.kv();
    let one = Ledger::open(
        Arc::clone(&kv),
        Arc::<MemoryBlobs>::clone(&blobs),
        world.config(),
    )
    .await
    .unwrap();
    let name = world.dataset(&one, "ads.clicks").await;
    for files in 1..=3u64 {
        let manifest = world.manifest(&one, &[("dt=1", files)]).await;
        let head = (files > 1).then_some(files - 1);
        one.commit(commit_of(&name, head, manifest)).await.unwrap();
    }
    let mut backup = Vec::new();
    export(kv.as_ref(), &mut backup).await.unwrap();
    let target: Arc<dyn Kv> = Arc::new(PostgresKv::open(PostgresConfig::new(&url)).await.unwrap());
    import(target.as_ref(), &mut backup.as_slice())
        .await
        .unwrap();

    let moved = replica(&world, &url, &blobs).await;
    let versions = moved.versions(&name, 0, 10).await.unwrap();
    assert_eq!(versions, one.versions(&name, 0, 10).await.unwrap());
    let last = one.events(0, 100).await.unwrap().pop().unwrap().sequence;
    let manifest = world.manifest(&moved, &[("dt=9", 1)]).await;
    moved
        .commit(commit_of(&name, Some(3), manifest))
        .await
        .unwrap();
    assert_eq!(moved.events(last, 10).await.unwrap().len(), 1);
}
