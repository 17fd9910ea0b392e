//! Versions that descriptors do not keep, and collections that nobody asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use terrace_catalog::collect::{Item, ItemKind};
use terrace_catalog::descriptor::{Descriptor, Kind, Versions};
use terrace_catalog::kv::rocks::RocksKv;
use terrace_catalog::ledger::Version;
use terrace_catalog::scrub::Scrubber;
use terrace_catalog::upkeep::{Schedule, Upkeep};
use terrace_catalog::vault::Vaults;

use super::world::{World, name};

const DAY: Duration = Duration::from_secs(86_400);

impl World {
    /// A dataset, or a model, that keeps so much, with `count` versions.
    async fn keeping(&self, text: &str, kind: Kind, versions: Versions, count: u64) {
        let mut descriptor = Descriptor::new(kind, name(text), "s3://lake/table");
        descriptor.versions = versions;
        self.ledger.create(descriptor).await.unwrap();
        for at in 0..count {
            self.commit(&name(text), &[(at % 3, 2 + at)]).await;
        }
    }

    async fn numbers(&self, text: &str) -> Vec<u64> {
        let versions = self.ledger.versions(&name(text), 0, 100).await.unwrap();
        versions.iter().map(|version| version.number).collect()
    }

    async fn version(&self, text: &str) -> Version {
        self.ledger.resolve(&text.parse().unwrap()).await.unwrap()
    }
}

fn keep(keep: u64, keep_for: Option<Duration>) -> Versions {
    Versions {
        keep: Some(keep),
        keep_for,
    }
}

/// Names of the items by kind.
fn of(items: &[Item], kind: ItemKind) -> Vec<&str> {
    let own = items.iter().filter(|item| item.kind == kind);
    own.map(|item| item.name.as_str()).collect()
}

// Versions would pile up for ever, or one that somebody trains on would go with the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_descriptor_does_not_keep_goes_in_two_runs() {
    let world = World::new().await;
    world
        .keeping("ads.clicks", Kind::Dataset, keep(2, None), 7)
        .await;
    world
        .keeping("team.churn", Kind::Model, keep(1, None), 4)
        .await;
    world
        .keeping(
            "ads.all",
            Kind::Dataset,
            Versions {
                keep: None,
                keep_for: Some(DAY),
            },
            4,
        )
        .await;
    let tag = "prod".parse().unwrap();
    let tagged = world.version("ads.clicks@v2").await;
    world.ledger.tag(&tagged, &tag, None).await.unwrap();
    let holder = "mount:node-1".parse().unwrap();
    let held = world.version("ads.clicks@v4").await;
    world.ledger.hold(&held, &holder, None, "").await.unwrap();
    world.age();
    let (planned, plan) = world.collect(true).await;
    let expected = ["ads.clicks@v1", "ads.clicks@v3", "ads.clicks@v5"];
    assert_eq!(of(&plan, ItemKind::Retired), expected);
    assert_eq!(
        world.numbers("ads.clicks").await.len(),
        7,
        "a dry run does nothing"
    );
    let (done, taken) = world.collect(false).await;
    assert_eq!((&plan, planned.retired), (&taken, done.retired));
    assert_eq!(done.retired, 3);
    let gone = of(&taken, ItemKind::Version);
    assert!(gone.is_empty(), "they can still be saved: {gone:?}");
    assert_eq!(world.numbers("ads.clicks").await.len(), 7);
    // One of them is saved until the delay, which is none here, is over.
    let saved = world.version("ads.clicks@v3").await;
    world.ledger.keep_version(&saved).await.unwrap();
    world.ledger.hold(&saved, &holder, None, "").await.unwrap();

    let before = world.count("store/blobs");
    let (planned, plan) = world.collect(true).await;
    assert_eq!(
        of(&plan, ItemKind::Version),
        ["ads.clicks@v1", "ads.clicks@v5"]
    );
    let blobs = of(&plan, ItemKind::Blob).len();
    assert!(blobs >= 2, "what only they named goes with them: {plan:?}");
    let (done, taken) = world.collect(false).await;
    assert_eq!((&plan, planned.taken), (&taken, done.taken));
    assert_eq!(world.count("store/blobs"), before - blobs);
    assert_eq!(world.numbers("ads.clicks").await, [2, 3, 4, 6, 7]);
    assert_eq!(world.numbers("team.churn").await, [1, 2, 3, 4]);
    assert_eq!(world.numbers("ads.all").await, [1, 2, 3, 4]);
    for dataset in ["ads.clicks", "team.churn", "ads.all"] {
        for number in world.numbers(dataset).await {
            world
                .read(&world.version(&format!("{dataset}@v{number}")).await)
                .await;
        }
    }
    let (again, nothing) = world.collect(false).await;
    assert_eq!((again.taken, again.retired, nothing.len()), (0, 0, 0));
}

// "Keep 90 days" must not mean "keep one version".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_age_keeps_versions_beyond_the_number() {
    let world = World::new().await;
    world
        .keeping("ads.clicks", Kind::Dataset, keep(1, Some(DAY)), 3)
        .await;
    world
        .clock
        .fetch_add(DAY.as_millis() as i64 - 1, Ordering::SeqCst);
    assert_eq!(world.collect(false).await.0.retired, 0);
    world.commit(&name("ads.clicks"), &[(1, 9)]).await;
    world.clock.fetch_add(60_000, Ordering::SeqCst);
    let (_, taken) = world.collect(false).await;
    let expected = ["ads.clicks@v1", "ads.clicks@v2", "ads.clicks@v3"];
    assert_eq!(of(&taken, ItemKind::Retired), expected);
}

/// An upkeep of a catalog of this world, whose clock is the world's.
fn upkeep(world: &World, kv: &Arc<RocksKv>) -> Upkeep {
    let collector = world.collector();
    let scrubber = Scrubber::new(world.ledger.clone(), Vaults::new(Vec::new()));
    let schedule = Schedule {
        collect_every: Some(DAY),
        scrub_every: None,
        scrub_rate: 0,
    };
    let clock = Arc::clone(&world.clock);
    Upkeep::new(
        Arc::<RocksKv>::clone(kv),
        Arc::new(collector),
        Arc::new(scrubber),
        schedule,
    )
    .with_clock(Arc::new(move || clock.load(Ordering::SeqCst)))
}

// What nobody asks for is not done: garbage grows until a disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_come_by_themselves_and_at_one_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let kv = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
    let world = World::over(directory, Arc::<RocksKv>::clone(&kv)).await;
    world
        .keeping("ads.clicks", Kind::Dataset, keep(2, None), 5)
        .await;
    let (one, two) = (upkeep(&world, &kv), upkeep(&world, &kv));
    one.look().await;
    let state = async || {
        let mut states = BTreeMap::new();
        for version in world
            .ledger
            .versions(&name("ads.clicks"), 0, 9)
            .await
            .unwrap()
        {
            states.insert(version.number, format!("{:?}", version.state));
        }
        states
    };
    let first = state().await;
    assert!(
        first.values().all(|state| state == "Committed"),
        "{first:?}"
    );
    world
        .clock
        .fetch_add(DAY.as_millis() as i64, Ordering::SeqCst);
    tokio::join!(one.look(), two.look());
    let marked = state().await;
    let count = marked
        .values()
        .filter(|state| state.starts_with("Removing"))
        .count();
    assert_eq!(count, 3, "{marked:?}");
    // Had both had a turn, the second one would have removed them: the delay is none here.
    assert_eq!(marked.len(), 5);
    two.look().await;
    assert_eq!(state().await.len(), 5, "the next turn is a day later");
    world
        .clock
        .fetch_add(DAY.as_millis() as i64, Ordering::SeqCst);
    two.look().await;
    assert_eq!(state().await.keys().collect::<Vec<_>>(), [&4, &5]);
    world.read(&world.version("ads.clicks").await).await;
}
