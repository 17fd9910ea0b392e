//! Collections beside committers, savers, removers and readers, at random and from a seed: who holds a
//! version never loses a block or a file of it, and in the end nothing is left but what is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use terrace_catalog::kv::Kv;
use terrace_catalog::kv::postgres::{PostgresConfig, PostgresKv};
use terrace_catalog::ledger::{Holder, Ledger, LedgerError, Purpose, Version};
use terrace_catalog::saves::{Progress, save_id};
use tokio_postgres::NoTls;

use super::world::{World, name};

/// Things that each task does between two rests.
const STEPS: usize = 12;
/// Rests, after each of which everything that is there has become old.
const ROUNDS: usize = 5;

/// What was counted, so that a run that did nothing fails.
#[derive(Default)]
struct Counts {
    commits: AtomicU64,
    saves: AtomicU64,
    given_up: AtomicU64,
    removed: AtomicU64,
    refused: AtomicU64,
    held: AtomicU64,
    read: AtomicU64,
    runs: AtomicU64,
    taken: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::SeqCst);
}

async fn commits(world: &World, counts: &Counts, mut random: StdRng) {
    let table = name("ads.clicks");
    for _ in 0..STEPS {
        let changed: Vec<_> = (0..random.random_range(1..4))
            .map(|_| (random.random_range(0..30), random.random_range(1..40)))
            .collect();
        world.commit(&table, &changed).await;
        add(&counts.commits, 1);
    }
}

async fn saves(world: &World, counts: &Counts, mut random: StdRng) {
    for _ in 0..STEPS / 2 {
        let id = format!("{:x}", random.random::<u64>());
        let files: Vec<_> = ["a", "b/c", "d"]
            .map(|path| (path, vec![random.random(); random.random_range(0..3000)]))
            .to_vec();
        if random.random_bool(0.3) {
            let (model, id) = (name("team.churn"), save_id(&id).unwrap());
            let begun = world.saves.begin(&model, &id, None).await.unwrap();
            if let Progress::Writing(save) = begun {
                world.write(&save.location(), &files).await;
            }
            if random.random_bool(0.5) {
                world.saves.abandon(&model, &id).await.unwrap();
            }
            add(&counts.given_up, 1);
            continue;
        }
        world.save("team.churn", &id, &files).await.unwrap();
        add(&counts.saves, 1);
    }
}

/// Some version, and what it takes to remove it.
async fn some_version(ledger: &Ledger, random: &mut StdRng) -> Option<(Version, Purpose)> {
    let (dataset, purpose) = match random.random_bool(0.5) {
        true => ("ads.clicks", Purpose::Ordinary),
        false => ("team.churn", Purpose::Model),
    };
    let versions = ledger.versions(&name(dataset), 0, 1000).await.ok()?;
    let at = random.random_range(0..versions.len().max(1));
    Some((versions.into_iter().nth(at)?, purpose))
}

async fn removes(world: &World, counts: &Counts, mut random: StdRng) {
    for _ in 0..STEPS {
        let Some((version, purpose)) = some_version(&world.ledger, &mut random).await else {
            continue;
        };
        let begun = world.ledger.begin_version_removal(&version, purpose).await;
        let done = match begun {
            Ok(_) if random.random_bool(0.2) => world.ledger.keep_version(&version).await,
            Ok(_) => world.ledger.finish_version_removal(&version, purpose).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => add(&counts.removed, 1),
            Err(
                LedgerError::Refused(_)
                | LedgerError::NoVersion(..)
                | LedgerError::Busy(_)
                | LedgerError::Removing(_),
            ) => add(&counts.refused, 1),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Holds versions over several collections, and reads them again and again.
async fn reads(world: &World, counts: &Counts, mut random: StdRng, number: usize) {
    let holder: Holder = format!("job:reader-{number}").parse().unwrap();
    for _ in 0..STEPS {
        let Some((version, _)) = some_version(&world.ledger, &mut random).await else {
            continue;
        };
        match world.ledger.hold(&version, &holder, None, "fuzz").await {
            Ok(()) => {}
            Err(LedgerError::Removing(_) | LedgerError::NoVersion(..)) => continue,
            Err(error) => panic!("{error}"),
        }
        add(&counts.held, 1);
        for _ in 0..random.random_range(1..4) {
            add(&counts.read, world.read(&version).await);
            tokio::task::yield_now().await;
        }
        world.ledger.release(&version, &holder).await.unwrap();
    }
}

async fn collects(world: &World, counts: &Counts, ended: &AtomicBool) {
    while !ended.load(Ordering::SeqCst) {
        let (done, _) = world.collect(false).await;
        add(&counts.runs, 1);
        add(&counts.taken, done.taken);
    }
}

/// Works at one catalog, and collects at others.
async fn run(world: &World, collectors: &[&World], seed: u64) {
    println!("seed {seed}, {} collect", collectors.len());
    let counts = Counts::default();
    world.dataset("ads.clicks").await;
    for round in 0..ROUNDS {
        let random = |task: u64| StdRng::seed_from_u64(seed * 1000 + round as u64 * 10 + task);
        let ended = AtomicBool::new(false);
        let work = async {
            tokio::join!(
                commits(world, &counts, random(0)),
                commits(world, &counts, random(1)),
                saves(world, &counts, random(2)),
                removes(world, &counts, random(3)),
                reads(world, &counts, random(4), 0),
                reads(world, &counts, random(5), 1),
            );
            ended.store(true, Ordering::SeqCst);
        };
        let collecting = collectors
            .iter()
            .map(|collector| collects(collector, &counts, &ended));
        tokio::join!(work, join_all(collecting));
        world.age();
    }
    // Saves that nobody ended are over after a day.
    (0..13).for_each(|_| world.age());
    let (planned, plan) = world.collect(true).await;
    let (done, taken) = world.collect(false).await;
    assert_eq!((plan, planned.taken), (taken, done.taken));
    add(&counts.taken, done.taken);
    for dataset in ["ads.clicks", "team.churn"] {
        for version in world
            .ledger
            .versions(&name(dataset), 0, 1000)
            .await
            .unwrap()
        {
            world.read(&version).await;
        }
    }
    let (last, _) = world.collect(false).await;
    assert_eq!((last.taken, last.young), (0, 0), "{last:?}");
    let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    println!(
        "{} commits, {} saves, {} given up, {} removed, {} refused, {} held, {} files read, \
         {} runs took {}",
        get(&counts.commits),
        get(&counts.saves),
        get(&counts.given_up),
        get(&counts.removed),
        get(&counts.refused),
        get(&counts.held),
        get(&counts.read),
        get(&counts.runs),
        get(&counts.taken),
    );
    let least = [
        (&counts.commits, 100),
        (&counts.saves, 10),
        (&counts.given_up, 3),
        (&counts.removed, 10),
        (&counts.held, 20),
        (&counts.read, 1000),
        (&counts.runs, ROUNDS as u64),
        (&counts.taken, 100),
    ];
    for (at, (counter, least)) in least.into_iter().enumerate() {
        assert!(get(counter) >= least, "counter {at}: {}", get(counter));
    }
}

// A block that is taken while somebody needs it is training data that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_loses_what_they_hold() {
    for seed in 1..3 {
        let world = World::new().await;
        run(&world, &[&world], seed).await;
    }
}

/// A schema of its own on the server; without a server, says what is skipped.
async fn schema(test: &str) -> Option<String> {
    let Ok(url) = std::env::var("TERRACE_TEST_POSTGRES") else {
        println!("SKIP {test}: TERRACE_TEST_POSTGRES is not set (no PostgreSQL)");
        return None;
    };
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let schema = format!("{test}_{:08x}", std::process::id());
    let statement = format!("drop schema if exists {schema} cascade; create schema {schema}");
    client.batch_execute(&statement).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    Some(format!("{url} options='-c search_path={schema}'"))
}

async fn connect(place: &str) -> Arc<dyn Kv> {
    Arc::new(PostgresKv::open(PostgresConfig::new(place)).await.unwrap())
}

// The same on PostgreSQL, where other replicas commit at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_loses_what_they_hold_on_postgres() {
    let Some(place) = schema("collect_held").await else {
        return;
    };
    let world = World::over(tempfile::tempdir().unwrap(), connect(&place).await).await;
    run(&world, &[&world], 3).await;
}

// Two that collect see the same garbage: the second must neither fail at what is gone nor take what the
// third has published since it looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_catalogs_collect_while_a_third_publishes() {
    let Some(place) = schema("collect_two").await else {
        return;
    };
    let publisher = World::over(tempfile::tempdir().unwrap(), connect(&place).await).await;
    let one = publisher.beside(connect(&place).await).await;
    let two = publisher.beside(connect(&place).await).await;
    run(&publisher, &[&one, &two], 4).await;
}
