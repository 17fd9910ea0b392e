//! The life of a table: written, finished, appended to, replaced, deleted.

use terrace_catalog::discovery::{CompletionSpec, Outcome, RootSpec};
use terrace_catalog::schema::evolution::Policy;

use crate::world::{World, spec};

const TABLE: &str = "ele.orders";

// Nothing of a sync may be seen before it is finished, and all of it at once afterwards.
#[tokio::test(start_paused = true)]
async fn a_table_appears_when_its_marker_does_and_not_before() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/_temporary/0/a.csv", b"1,2\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert!(world.latest(TABLE).await.is_none());
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.remove("ele.db/orders/dt=1/_temporary");
    world.write("ele.db/orders/dt=1/b.csv", b"3,4\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(720).await;
    let why = world.why(TABLE).to_string();
    assert!(
        why.contains("dt=1: 1 file still changing, marker file missing, since 12 min"),
        "{why}"
    );
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    assert_eq!(world.files(TABLE).await, ["dt=1/a.csv", "dt=1/b.csv"]);
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert_eq!(world.why(TABLE).complete, 1);
}

// Late, replaced and deleted partitions are versions of their own; older versions keep what they had.
#[tokio::test(start_paused = true)]
async fn every_change_is_a_new_version() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/dt=2/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    // Late: the old marker says nothing about it.
    world.write("ele.db/orders/dt=3/a.csv", b"1,2\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(2));
    // Replaced, with other file names and a marker of its own.
    world.remove("ele.db/orders/dt=2/a.csv");
    world.write("ele.db/orders/dt=2/b.csv", b"5,6\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.write("ele.db/orders/dt=2/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Published(3));
    assert_eq!(
        world.files(TABLE).await,
        ["dt=1/a.csv", "dt=2/b.csv", "dt=3/a.csv"]
    );
    // Deleted: believed when it stays so.
    world.remove("ele.db/orders/dt=1");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(30).await;
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(31).await;
    assert_eq!(world.look(TABLE).await, Outcome::Published(4));
    assert_eq!(world.files(TABLE).await, ["dt=2/b.csv", "dt=3/a.csv"]);
    let old = format!("{TABLE}@v1");
    assert_eq!(world.files(&old).await, ["dt=1/a.csv", "dt=2/a.csv"]);
}

// A job that overwrites a table empties it first: that is no version, however long it takes.
#[tokio::test(start_paused = true)]
async fn an_emptied_table_is_not_published() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    world.look(TABLE).await;
    world.remove("ele.db/orders/dt=1");
    for _ in 0..3 {
        assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
        world.pass(3600).await;
    }
    world.remove("ele.db/orders");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    let why = world.why(TABLE);
    assert!(why.trouble.unwrap().reason.contains("gone"));
    assert_eq!(world.files(TABLE).await, ["dt=1/a.csv"]);
}

// A file that vanishes under an old marker is an accident or a job at work, until it stays away.
#[tokio::test(start_paused = true)]
async fn a_vanished_file_needs_a_new_marker_or_time() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/dt=1/b.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    world.look(TABLE).await;
    world.remove("ele.db/orders/dt=1/b.csv");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert!(
        world.why(TABLE).partitions[0]
            .reason
            .contains("1 published file gone")
    );
    world.pass(61).await;
    assert_eq!(world.look(TABLE).await, Outcome::Published(2));
    assert_eq!(world.files(TABLE).await, ["dt=1/a.csv"]);
}

// Quiescence counts by our clock over several looks, and only where somebody asked for it.
#[tokio::test(start_paused = true)]
async fn quiet_tables_are_published_when_asked_for() {
    let quiet = RootSpec {
        completion: CompletionSpec::Quiescence,
        quiet_seconds: 300,
        ..spec()
    };
    let world = World::with(quiet, |blobs| blobs).await;
    world.write("ele.db/orders/a.csv", b"1,2\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(299).await;
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.write("ele.db/orders/b.csv", b"1,2\n");
    world.pass(2).await;
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    world.pass(300).await;
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
}

// A manifest file is exact: one file too many or too few and nothing is published.
#[tokio::test(start_paused = true)]
async fn a_manifest_file_is_exact() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    let manifest = br#"{"files":[{"path":"dt=1/a.csv","size":4},{"path":"dt=1/b.csv","size":4}]}"#;
    world.write("ele.db/orders/_manifest.json", manifest);
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert!(world.why(TABLE).partitions[0].reason.contains("1 missing"));
    world.write("ele.db/orders/dt=1/b.csv", b"3,4\n");
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    world.write("ele.db/orders/dt=1/c.csv", b"5,6\n");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert_eq!(world.files(TABLE).await.len(), 2);
}

// Names that Hive escapes, default partitions and hostile names: what is good is published as it is in
// the store, what is not never leaves its partition and is explained.
#[tokio::test(start_paused = true)]
async fn names_of_all_kinds() {
    let world = World::new().await;
    world.write("ele.db/orders/ts=2026-11-20 07%3A00/a.csv", b"1,2\n");
    world.write(
        "ele.db/orders/ts=__HIVE_DEFAULT_PARTITION__/a.csv",
        b"1,2\n",
    );
    world.write("ele.db/orders/ts=a\nb/a.csv", b"1,2\n");
    world.write("ele.db/orders/ts=%FF/a.csv", b"1,2\n");
    world.write("ele.db/orders/other=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/stray.csv", b"1,2\n");
    world.write("Ele.db/Orders/a.csv", b"1,2\n");
    world.write("ele.db/ordérs/a.csv", b"1,2\n");
    world.write("ele.db/fine/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    let looked = world.discovery.look_at_everything().await;
    let names: Vec<&str> = looked.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["ele.fine"], "two directories are called ele.orders");
    let status = world.discovery.roots_status().remove(0);
    assert!(status.refused["ele.orders"].contains("two directories"));
    assert!(status.refused.contains_key("ele.db/ordérs"));
    world.remove("Ele.db");
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    let partitions = world.partitions(TABLE).await;
    let values: Vec<Option<&str>> = partitions
        .iter()
        .map(|p| p.values[0].1.as_deref())
        .collect();
    assert_eq!(values, [Some("2026-11-20 07:00"), None]);
    let why = world.why(TABLE);
    assert_eq!((why.complete, why.refused), (2, 3), "{why}");
    assert!(why.warnings[0].contains("files left out: 1"));
}

// Columns that change are published with a warning, or refused where the dataset says so.
#[tokio::test(start_paused = true)]
async fn columns_follow_the_policy() {
    for (policy, expected) in [
        (Policy::Warn, Outcome::Published(2)),
        (Policy::Refuse, Outcome::Unchanged),
    ] {
        let world = World::with(
            RootSpec {
                evolution: policy,
                ..spec()
            },
            |blobs| blobs,
        )
        .await;
        world.write("ele.db/orders/dt=1/a.csv", b"id,name\n1,x\n2,y\n");
        world.write("ele.db/orders/_SUCCESS", b"");
        assert_eq!(world.look(TABLE).await, Outcome::Published(1));
        world.write("ele.db/orders/dt=2/a.csv", b"id,price\n1,2\n2,3\n");
        world.write("ele.db/orders/_SUCCESS", b"");
        assert_eq!(world.look(TABLE).await, expected);
        let why = world.why(TABLE).to_string();
        assert!(why.contains("column name is gone"), "{policy:?}: {why}");
    }
}

// A dataset that somebody has registered for another place keeps its name.
#[tokio::test(start_paused = true)]
async fn a_taken_name_stays_taken() {
    use terrace_catalog::descriptor::{Descriptor, Kind};
    let world = World::new().await;
    let other = Descriptor::new(
        Kind::Dataset,
        crate::world::name(TABLE),
        "s3://elsewhere/orders",
    );
    world.ledger.create(other).await.unwrap();
    world.write("ele.db/orders/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    assert!(
        world
            .why(TABLE)
            .trouble
            .unwrap()
            .reason
            .contains("s3://elsewhere/orders")
    );
    assert!(world.latest(TABLE).await.is_none());
}

// A watched root needs nobody: a table appears by itself, and soon.
#[tokio::test]
async fn a_watched_root_publishes_by_itself() {
    use std::sync::Arc;
    use terrace_catalog::discovery::Discovery;
    use terrace_catalog::upstream::Upstream;
    let world = World::new().await;
    let watching = RootSpec {
        interval_seconds: 1,
        active_seconds: 1,
        ..spec()
    };
    let discovery = Discovery::new(world.ledger.clone());
    discovery
        .add_root(watching, Arc::clone(&world.faults) as Arc<dyn Upstream>)
        .unwrap();
    world.write("ele.db/orders/a.csv", b"1,2\n");
    world.write("ele.db/orders/_SUCCESS", b"");
    let began = std::time::Instant::now();
    while world.latest(TABLE).await.is_none() {
        assert!(
            began.elapsed().as_secs() < 60,
            "{:?}",
            discovery.roots_status()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    println!(
        "a table appeared {} ms after its marker",
        began.elapsed().as_millis()
    );
}

// Half of a job's partitions, because the clock of the store was too coarse for the others, is a version
// that nobody has written.
#[tokio::test(start_paused = true)]
async fn partitions_of_one_job_appear_together() {
    let world = World::new().await;
    world.write_at("ele.db/orders/dt=1/a.csv", b"1,2\n", 1_000);
    world.write_at("ele.db/orders/dt=2/a.csv", b"1,2\n", 2_000);
    world.write_at("ele.db/orders/_SUCCESS", b"", 2_000);
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
    let why = world.why(TABLE).to_string();
    assert!(
        why.contains("dt=1: complete; waiting for partitions of the same job"),
        "{why}"
    );
    world.pass(2).await;
    assert_eq!(world.look(TABLE).await, Outcome::Published(1));
    assert_eq!(world.partitions(TABLE).await.len(), 2);
}
