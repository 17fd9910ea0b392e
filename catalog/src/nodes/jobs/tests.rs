//! Jobs over a real embedded database.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use super::super::job;
use super::*;
use crate::kv::rocks::RocksKv;

const BYTES: u64 = 100;

struct World {
    jobs: Jobs,
    kv: Arc<dyn Kv>,
    _directory: tempfile::TempDir,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let kv: Arc<dyn Kv> = Arc::new(RocksKv::open(&directory.path().join("kv")).unwrap());
    World {
        jobs: Jobs::new(Arc::clone(&kv)),
        kv,
        _directory: directory,
    }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn work(nodes: &[&str]) -> Work {
    job::tests::work(nodes, BYTES)
}

impl World {
    async fn says(&self, name: &str, id: &JobId, state: State, done_bytes: u64) -> usize {
        let report = PartReport {
            state,
            done_bytes,
            error: Some("the store said no".to_owned()),
        };
        let said = [(id.clone(), report)];
        let orders = self.jobs.exchange(&node(name), &said, |_| None, 5).await;
        orders.unwrap().len()
    }

    async fn orders(&self, name: &str) -> usize {
        let orders = self.jobs.exchange(&node(name), &[], |_| None, 5).await;
        orders.unwrap().len()
    }
}

// The life of a job over two nodes; a step that is lost leaves a node working for ever, or a job open.
#[tokio::test]
async fn a_job_lives_from_orders_to_its_end() {
    let world = world();
    let job = world
        .jobs
        .create(None, work(&["b", "a", "b"]), 1)
        .await
        .unwrap();
    assert_eq!(job.work.nodes, [node("a"), node("b")]);
    assert_eq!(world.orders("c").await, 0);
    assert_eq!(world.orders("a").await, 1);
    assert_eq!(world.says("a", &job.id, State::Running, 40).await, 1);
    // Another catalog over the same database: the job goes on there.
    let other = Jobs::new(Arc::clone(&world.kv));
    let (seen, parts) = other.get(&job.id).await.unwrap();
    assert_eq!(
        (seen.state(&parts), parts[0].done_bytes),
        (State::Running, 40)
    );
    assert_eq!(world.says("a", &job.id, State::Done, BYTES).await, 0);
    assert_eq!(world.orders("a").await, 0, "a has done its part");
    assert_eq!(world.says("b", &job.id, State::Done, 1).await, 1);
    assert_eq!(world.says("b", &job.id, State::Done, BYTES).await, 0);
    let (job, parts) = world.jobs.get(&job.id).await.unwrap();
    assert_eq!(job.ended, Some((State::Done, 5)));
    assert!(parts.iter().all(|part| part.state == State::Done));
    assert!(world.jobs.active().await.unwrap().is_empty());
}

// A job that fails on one node must not be called done, and one that is cancelled must not go on.
#[tokio::test]
async fn failures_and_cancellation_end_a_job() {
    let world = world();
    let job = world.jobs.create(None, work(&["a", "b"]), 1).await.unwrap();
    world.says("a", &job.id, State::Failed, 10).await;
    world.says("b", &job.id, State::Done, BYTES).await;
    let (failed, parts) = world.jobs.get(&job.id).await.unwrap();
    assert_eq!(failed.state(&parts), State::Failed);
    assert_eq!(parts[0].error.as_deref(), Some("the store said no"));

    let job = world.jobs.create(None, work(&["a", "b"]), 2).await.unwrap();
    world.says("a", &job.id, State::Done, BYTES).await;
    let (cancelled, parts) = world.jobs.cancel(&job.id, 7).await.unwrap();
    assert_eq!(cancelled.ended, Some((State::Cancelled, 7)));
    let states: Vec<State> = parts.iter().map(|part| part.state).collect();
    assert_eq!(states, [State::Done, State::Cancelled]);
    assert_eq!(world.orders("b").await, 0);
    assert_eq!(world.says("b", &job.id, State::Done, BYTES).await, 0);
    let again = world.jobs.cancel(&job.id, 8).await.unwrap().0;
    assert_eq!(again.ended, Some((State::Cancelled, 7)));
    let listed = world.jobs.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0].id, job.id, "the newest is first");

    // A node whose token may not read the version.
    let job = world.jobs.create(None, work(&["a"]), 3).await.unwrap();
    let refused = |_: &Job| Some("may not".to_owned());
    let orders = world.jobs.exchange(&node("a"), &[], refused, 9).await;
    assert!(orders.unwrap().is_empty());
    let (job, parts) = world.jobs.get(&job.id).await.unwrap();
    assert_eq!(job.state(&parts), State::Failed);
    assert_eq!(parts[0].error.as_deref(), Some("may not"));
}

// Without limits a script that asks in a loop fills the database, and a lost node keeps its jobs open.
#[tokio::test]
async fn jobs_are_bounded_in_number_and_age() {
    let world = world();
    assert!(matches!(
        world.jobs.create(None, work(&[]), 1).await,
        Err(JobsError::Invalid(_))
    ));
    for _ in 0..MAX_ACTIVE {
        world.jobs.create(None, work(&["a"]), 1).await.unwrap();
    }
    assert!(matches!(
        world.jobs.create(None, work(&["a"]), 1).await,
        Err(JobsError::Full)
    ));
    assert_eq!(world.jobs.tidy(LONGEST_MS).await.unwrap(), 0);
    let late = LONGEST_MS + 2;
    assert_eq!(world.jobs.tidy(late).await.unwrap(), MAX_ACTIVE);
    let listed = world.jobs.list(None, usize::MAX).await.unwrap();
    assert!(
        listed
            .iter()
            .all(|job| job.ended == Some((State::Failed, late)))
    );
    world.jobs.tidy(late + KEPT_MS + 1).await.unwrap();
    assert!(world.jobs.list(None, usize::MAX).await.unwrap().is_empty());
    let left = KeyRange::prefix(PARTS);
    assert!(world.kv.scan(left, 10).await.unwrap().is_empty());
}

// Two replicas follow the same events: each version is warmed once.
#[tokio::test]
async fn a_job_with_an_id_is_made_once() {
    let world = world();
    let id: JobId = "0123456789ab".parse().unwrap();
    let create = |now| world.jobs.create(Some(id.clone()), work(&["a"]), now);
    create(1).await.unwrap();
    world.says("a", &id, State::Done, BYTES).await;
    let again = create(9).await.unwrap();
    assert_eq!((again.created_ms, again.ended), (1, Some((State::Done, 5))));
    assert_eq!(world.jobs.list(None, 10).await.unwrap().len(), 1);
}
