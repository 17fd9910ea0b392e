//! The fault matrix. Two things must hold however a fault falls: nothing that is published is ever wrong,
//! and what is complete is published once the fault is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use terrace_catalog::blobs::{BlobError, BlobId, BlobName, Blobs, Listed};
use terrace_catalog::discovery::Outcome;
use terrace_catalog::ledger::VersionState;

use crate::store::Fault;
use crate::world::{World, data_below, spec};

const TABLE: &str = "ele.orders";

fn fill(world: &World, partitions: std::ops::Range<u32>) {
    for partition in partitions {
        for file in ["a.csv", "b.csv", "c.csv"] {
            world.write(&format!("ele.db/orders/dt={partition}/{file}"), b"1,2\n");
        }
    }
    world.write("ele.db/orders/_SUCCESS", b"");
}

/// A fault at the call or listing of a number.
type Kind = fn(u64) -> Fault;

/// Looks until nothing is left to do, letting time pass; at most ten times.
async fn settle(world: &World) {
    for _ in 0..10 {
        world.discovery.look_at_everything().await;
        world.pass(61).await;
    }
}

// A store that does not answer, goes away midway, or lists wrongly, at every call of a look.
#[tokio::test(start_paused = true)]
async fn the_store_fails_at_every_step() {
    // A look has about a dozen calls, of which half are listings.
    let kinds: [(Kind, u64); 6] = [
        (Fault::Unanswered, 12),
        (Fault::Away, 12),
        (Fault::Cut, 6),
        (Fault::Partial, 6),
        (Fault::Twice, 6),
        (Fault::Empty, 6),
    ];
    let (mut cases, mut fired) = (0, 0);
    for (kind, steps) in kinds {
        for at in 0..steps {
            let world = World::new().await;
            fill(&world, 0..4);
            world.faults.set(None);
            world.discovery.look_at_everything().await;
            let before = world.files(TABLE).await;
            assert_eq!(before.len(), 12);
            // The second sync: one partition more, one replaced.
            world.remove("ele.db/orders/dt=1");
            fill(&world, 3..5);
            world.faults.set(Some(kind(at)));
            world.discovery.look_at_everything().await;
            let during: BTreeSet<String> = world.files(TABLE).await.into_iter().collect();
            let old: BTreeSet<String> = before.iter().cloned().collect();
            let new: BTreeSet<String> = data_below(&world.path("ele.db/orders"))
                .into_iter()
                .collect();
            // Each partition is as it was or as it is now, never in between.
            for partition in 0..5 {
                let of = |files: &BTreeSet<String>| -> Vec<String> {
                    let prefix = format!("dt={partition}/");
                    files
                        .iter()
                        .filter(|file| file.starts_with(&prefix))
                        .cloned()
                        .collect()
                };
                let (now, was, is) = (of(&during), of(&old), of(&new));
                assert!(now == was || now == is, "{:?}: {now:?}", kind(at));
            }
            fired += world.faults.fired.swap(0, Ordering::Relaxed).min(1);
            world.faults.set(None);
            settle(&world).await;
            let after: BTreeSet<String> = world.files(TABLE).await.into_iter().collect();
            assert_eq!(
                after,
                new,
                "{:?}: something complete stayed unpublished",
                kind(at)
            );
            cases += 1;
        }
    }
    println!("store faults: {cases} cases, {fired} fired");
    assert!(fired >= 20, "only {fired} faults fired");
}

/// A store of manifests that fails at one call, and from then on: the process has died there.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn Blobs>,
    calls: Arc<AtomicI64>,
    fired: Arc<AtomicU64>,
}

impl Dying {
    fn step(&self) -> Result<(), BlobError> {
        if self.calls.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        self.fired.fetch_add(1, Ordering::Relaxed);
        Err(BlobError::Unavailable {
            operation: "put",
            name: "injected".to_owned(),
            reason: "died here".to_owned(),
        })
    }
}

#[async_trait]
impl Blobs for Dying {
    async fn put(&self, bytes: Bytes) -> Result<BlobId, BlobError> {
        self.step()?;
        self.inner.put(bytes).await
    }

    async fn get(&self, id: &BlobId) -> Result<Bytes, BlobError> {
        self.inner.get(id).await
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        self.inner.delete(id).await
    }

    async fn collect(&self, id: &BlobId, grace: std::time::Duration) -> Result<bool, BlobError> {
        self.inner.collect(id, grace).await
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, BlobError>> {
        self.inner.list()
    }

    async fn put_named(&self, name: &BlobName, bytes: Bytes) -> Result<(), BlobError> {
        self.step()?;
        self.inner.put_named(name, bytes).await
    }

    async fn get_named(&self, name: &BlobName) -> Result<Bytes, BlobError> {
        self.inner.get_named(name).await
    }

    async fn delete_named(&self, name: &BlobName) -> Result<(), BlobError> {
        self.inner.delete_named(name).await
    }

    fn list_named(&self, prefix: &str) -> BoxStream<'static, Result<BlobName, BlobError>> {
        self.inner.list_named(prefix)
    }
}

// A crash at every write of a commit: the version before, or the new one whole; after a restart the new.
#[tokio::test(start_paused = true)]
async fn a_crash_at_every_step_of_a_commit() {
    let (mut cases, mut died) = (0, 0);
    for at in 0..24 {
        let calls = Arc::new(AtomicI64::new(i64::MAX));
        let fired = Arc::new(AtomicU64::new(0));
        let (left, count) = (Arc::clone(&calls), Arc::clone(&fired));
        let mut world = World::with(spec(), move |inner| {
            Arc::new(Dying {
                inner,
                calls: left,
                fired: count,
            })
        })
        .await;
        fill(&world, 0..3);
        assert_eq!(world.look(TABLE).await, Outcome::Published(1));
        fill(&world, 2..6);
        calls.store(at, Ordering::Relaxed);
        world.discovery.look_at_everything().await;
        let files = world.files(TABLE).await.len();
        assert!(files == 9 || files == 18, "step {at}: {files} files");
        died += fired.load(Ordering::Relaxed).min(1);
        calls.store(i64::MAX, Ordering::Relaxed);
        world.restart();
        world.discovery.look_at_everything().await;
        assert_eq!(world.files(TABLE).await.len(), 18, "step {at}");
        cases += 1;
    }
    println!("commit crashes: {cases} cases, {died} died");
    assert!(died >= 5, "only {died} crashes fired");
}

// A store whose clock is years off, in both directions, publishes neither early nor never.
#[tokio::test(start_paused = true)]
async fn skewed_clocks() {
    let years = [1, 3, 30, 300].map(|years: i64| years * 31_556_952_000);
    let skews = years.into_iter().flat_map(|skew| [-skew, skew]).chain([0]);
    let mut cases = 0;
    for skew in skews {
        cases += 1;
        let world = World::new().await;
        world.store.skew_ms.store(skew, Ordering::Relaxed);
        world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
        assert_eq!(world.look(TABLE).await, Outcome::Unchanged, "{skew}");
        world.write("ele.db/orders/_SUCCESS", b"");
        assert_eq!(world.look(TABLE).await, Outcome::Published(1), "{skew}");
        world.write("ele.db/orders/dt=1/b.csv", b"1,2\n");
        world.pass(86_400).await;
        assert_eq!(world.look(TABLE).await, Outcome::Unchanged, "{skew}");
    }
    println!("skewed clocks: {cases} cases");
}

// A file overwritten after the commit: the version keeps naming the bytes it was made of, and the new
// bytes wait for their marker.
#[tokio::test(start_paused = true)]
async fn overwritten_files_are_other_files() {
    use terrace_catalog::manifest::Manifest;
    let world = World::new().await;
    fill(&world, 0..1);
    world.look(TABLE).await;
    let token = async |world: &World, selector: &str| {
        let version = world.latest(selector).await.unwrap();
        let manifest = Manifest::open(world.ledger.blobs(), &version.manifest)
            .await
            .unwrap();
        manifest.file("dt=0/a.csv").await.unwrap().unwrap().token
    };
    let before = token(&world, TABLE).await;
    world.write("ele.db/orders/dt=0/a.csv", b"9,9\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.look(TABLE).await;
    let state = world.latest(TABLE).await.unwrap().state;
    assert!(matches!(state, VersionState::Degraded { .. }), "{state:?}");
    assert_eq!(token(&world, TABLE).await, before);
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(2));
    assert_ne!(token(&world, TABLE).await, before);
    assert_eq!(token(&world, "ele.orders@v1").await, before);
}

// A marker of the same second as the data proves nothing at first sight, and must not be waited for
// for ever.
#[tokio::test(start_paused = true)]
async fn a_marker_as_old_as_its_data_is_looked_at_again() {
    let world = World::new().await;
    world.write_at("ele.db/orders/a.csv", b"1,2\n", 1_795_000_000_000);
    world.write_at("ele.db/orders/_SUCCESS", b"", 1_795_000_000_000);
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(2).await;
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
}

// Thousands of partitions in one table: quick, and a late one costs one listing more.
#[tokio::test(start_paused = true)]
async fn many_partitions() {
    let world = World::new().await;
    let partitions = 2_000;
    for partition in 0..partitions {
        world.write_at(
            &format!("ele.db/orders/dt={partition}/a.csv"),
            b"1,2\n",
            1_000,
        );
    }
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    world.write_at("ele.db/orders/dt=late/a.csv", b"1,2\n", 1_000);
    world.faults.set(None);
    assert_eq!(world.look(TABLE).await, Outcome::Published(2));
    assert!(
        world.faults.calls() < 10,
        "{} calls for one late partition",
        world.faults.calls()
    );
    assert_eq!(
        world.latest(TABLE).await.unwrap().totals.partitions,
        partitions + 1
    );
}
