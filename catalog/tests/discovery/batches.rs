//! The call of a sync system: repeated, reordered, wrong.

use terrace_catalog::discovery::completeness::Expect;
use terrace_catalog::discovery::{BatchError, BatchRequest, Mode, Outcome, Scope};
use terrace_catalog::ledger::Committed;

use crate::world::{World, batch_id, name};

const TABLE: &str = "ele.orders";

fn request(
    mode: Mode,
    partitions: &[&str],
    files: Option<u64>,
    source_seq: Option<u64>,
) -> BatchRequest {
    BatchRequest {
        source: None,
        scope: Scope {
            partitions: partitions.iter().map(|text| (*text).to_owned()).collect(),
        },
        mode,
        expect: Expect {
            files,
            ..Expect::default()
        },
        source_seq,
    }
}

async fn call(world: &World, id: &str, request: &BatchRequest) -> Result<(bool, u64), BatchError> {
    let committed = world
        .discovery
        .batch(&name(TABLE), &batch_id(id), request)
        .await?;
    Ok((
        matches!(committed, Committed::New(_)),
        committed.version().number,
    ))
}

// A caller that lost the answer calls again, and calls arrive in any order: one batch is one version,
// and an older one never covers a newer.
#[tokio::test(start_paused = true)]
async fn calls_are_idempotent_and_ordered() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    world.write("ele.db/orders/dt=2/a.csv", b"1,2\n");
    let first = request(Mode::Append, &["dt=1"], Some(1), Some(10));
    assert_eq!(call(&world, "b1", &first).await.unwrap(), (true, 1));
    assert_eq!(call(&world, "b1", &first).await.unwrap(), (false, 1));
    let second = request(
        Mode::ReplacePartitions,
        &["dt=1", "dt=2"],
        Some(2),
        Some(12),
    );
    assert_eq!(call(&world, "b2", &second).await.unwrap(), (true, 2));
    let late = request(Mode::DeletePartitions, &["dt=1"], None, Some(11));
    assert!(matches!(
        call(&world, "b3", &late).await,
        Err(BatchError::Stale(_))
    ));
    assert_eq!(call(&world, "b1", &first).await.unwrap(), (false, 1));
    assert_eq!(world.files(TABLE).await, ["dt=1/a.csv", "dt=2/a.csv"]);
    // The look that follows finds nothing to do.
    assert_eq!(world.look(TABLE).await, Outcome::Unchanged);
}

// An expectation that is not met publishes nothing at all.
#[tokio::test(start_paused = true)]
async fn expectations_are_exact() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    let expects = [
        Expect {
            files: Some(2),
            ..Expect::default()
        },
        Expect {
            bytes: Some(5),
            ..Expect::default()
        },
        Expect {
            rows: Some(1),
            ..Expect::default()
        },
    ];
    for expect in expects {
        let request = BatchRequest {
            expect,
            ..request(Mode::Append, &["dt=1"], None, None)
        };
        let error = call(&world, "b1", &request).await.unwrap_err();
        assert!(matches!(error, BatchError::NotMet(_)), "{error}");
    }
    assert!(world.latest(TABLE).await.is_none());
    let missing = request(Mode::Append, &["dt=1", "dt=9"], None, None);
    assert!(matches!(
        call(&world, "b1", &missing).await,
        Err(BatchError::NotMet(_))
    ));
    let good = BatchRequest {
        expect: Expect {
            files: Some(1),
            bytes: Some(4),
            rows: None,
        },
        ..request(Mode::Append, &["dt=1"], None, None)
    };
    assert_eq!(call(&world, "b1", &good).await.unwrap(), (true, 1));
}

// Each mode does what its name says, and no more.
#[tokio::test(start_paused = true)]
async fn modes() {
    let world = World::new().await;
    for partition in ["dt=1", "dt=2", "dt=3"] {
        world.write(&format!("ele.db/orders/{partition}/a.csv"), b"1,2\n");
    }
    call(
        &world,
        "all",
        &request(Mode::ReplaceTable, &[], Some(3), None),
    )
    .await
    .unwrap();
    // An append counts the new files, and must not lose an old one.
    world.write("ele.db/orders/dt=1/b.csv", b"1,2\n");
    call(
        &world,
        "append",
        &request(Mode::Append, &["dt=1"], Some(1), None),
    )
    .await
    .unwrap();
    world.remove("ele.db/orders/dt=1/a.csv");
    world.write("ele.db/orders/dt=1/c.csv", b"1,2\n");
    let lost = call(
        &world,
        "lost",
        &request(Mode::Append, &["dt=1"], Some(1), None),
    )
    .await;
    assert!(matches!(lost, Err(BatchError::NotMet(_))));
    call(
        &world,
        "replace",
        &request(Mode::ReplacePartitions, &["dt=1"], Some(2), None),
    )
    .await
    .unwrap();
    assert_eq!(
        world.files(TABLE).await,
        ["dt=1/b.csv", "dt=1/c.csv", "dt=2/a.csv", "dt=3/a.csv"]
    );
    call(
        &world,
        "delete",
        &request(Mode::DeletePartitions, &["dt=2"], None, None),
    )
    .await
    .unwrap();
    assert_eq!(
        world.files(TABLE).await,
        ["dt=1/b.csv", "dt=1/c.csv", "dt=3/a.csv"]
    );
    world.remove("ele.db/orders/dt=3");
    call(
        &world,
        "table",
        &request(Mode::ReplaceTable, &[], None, None),
    )
    .await
    .unwrap();
    assert_eq!(
        world.files(TABLE).await,
        ["dt=1/b.csv", "dt=1/c.csv", "dt=2/a.csv"]
    );
}

// A scope is a path from the network.
#[tokio::test(start_paused = true)]
async fn hostile_requests_are_refused() {
    let world = World::new().await;
    world.write("ele.db/orders/dt=1/a.csv", b"1,2\n");
    for bad in [
        "..",
        "../dt=1",
        "dt=1/..",
        "/dt=1",
        "",
        "plain",
        "dt=1/plain",
        "dt=a\0b",
        "dt=%FF",
    ] {
        let result = call(&world, "b", &request(Mode::Append, &[bad], None, None)).await;
        assert!(
            matches!(result, Err(BatchError::Invalid(_))),
            "{bad:?}: {result:?}"
        );
    }
    let request = BatchRequest {
        source: Some("file:///etc".to_owned()),
        ..request(Mode::Append, &[], None, None)
    };
    let result = world
        .discovery
        .batch(&name("x.y"), &batch_id("b"), &request)
        .await;
    assert!(matches!(result, Err(BatchError::Invalid(_))));
}
