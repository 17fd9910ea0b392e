//! What is removed, when, and what never is.

use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::ledger::{LedgerError, Purpose, VersionState};
use terrace_catalog::{DatasetName, Selector};

use super::world::{DAY, World, commit_of};

fn is_refused<T: std::fmt::Debug>(answer: Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Refused(_)))
}

// A table that somebody trains on vanishes, or one that was removed by mistake cannot be had back.
#[tokio::test]
async fn a_dataset_is_removed_in_two_steps() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let versions = world.versions(&ledger, &name, 2).await;
    let holder = "mount:node-1".parse().unwrap();
    ledger.hold(&versions[0], &holder, None, "").await.unwrap();
    assert!(is_refused(
        ledger.begin_removal(&name, Purpose::Ordinary).await
    ));
    ledger.release(&versions[0], &holder).await.unwrap();

    assert!(is_refused(
        ledger.finish_removal(&name, Purpose::Ordinary).await
    ));
    ledger
        .begin_removal(&name, Purpose::Ordinary)
        .await
        .unwrap();
    assert!(
        is_refused(ledger.finish_removal(&name, Purpose::Ordinary).await),
        "no delay"
    );
    // Readers go on; new versions and new holds do not.
    let latest: Selector = "ads.clicks".parse().unwrap();
    ledger.resolve(&latest).await.unwrap();
    let more = world.manifest(&ledger, &[("dt=9", 1)]).await;
    assert!(
        ledger
            .commit(commit_of(&name, Some(2), more))
            .await
            .is_err()
    );
    let held = ledger.hold(&versions[1], &holder, None, "").await;
    assert!(matches!(held, Err(LedgerError::Removing(_))));
    ledger.keep(&name).await.unwrap();
    ledger
        .commit(commit_of(&name, Some(2), more))
        .await
        .unwrap();

    world.begin_removal(&ledger, &name).await;
    ledger
        .finish_removal(&name, Purpose::Ordinary)
        .await
        .unwrap();
    assert!(matches!(
        ledger.resolve(&latest).await,
        Err(LedgerError::NoDataset(_))
    ));
    // The name is free, and what it means now has nothing of what it meant.
    world.dataset(&ledger, "ads.clicks").await;
    assert!(matches!(
        ledger.resolve(&latest).await,
        Err(LedgerError::NoVersion(..))
    ));
}

// A saved model is what a year of training leaves: no policy may take it away.
#[tokio::test]
async fn a_model_is_removed_only_by_who_says_so() {
    let world = World::new();
    let ledger = world.open().await;
    let name: DatasetName = "team.churn".parse().unwrap();
    ledger
        .create(Descriptor::new(Kind::Model, name.clone(), ""))
        .await
        .unwrap();
    let versions = world.versions(&ledger, &name, 2).await;
    assert!(is_refused(
        ledger.begin_removal(&name, Purpose::Ordinary).await
    ));
    let ordinary = ledger
        .begin_version_removal(&versions[0], Purpose::Ordinary)
        .await;
    assert!(is_refused(ordinary));
    ledger
        .begin_version_removal(&versions[0], Purpose::Model)
        .await
        .unwrap();
    world.pass(DAY);
    let ordinary = ledger
        .finish_version_removal(&versions[0], Purpose::Ordinary)
        .await;
    assert!(is_refused(ordinary));
    ledger
        .finish_version_removal(&versions[0], Purpose::Model)
        .await
        .unwrap();
    ledger.begin_removal(&name, Purpose::Model).await.unwrap();
    assert!(
        is_refused(ledger.finish_removal(&name, Purpose::Model).await),
        "no delay"
    );
    world.pass(DAY);
    ledger.finish_removal(&name, Purpose::Model).await.unwrap();
}

// A version that a tag, a mount or `latest` names must stay readable.
#[tokio::test]
async fn a_needed_version_is_not_removed() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let versions = world.versions(&ledger, &name, 4).await;
    let begin = async |number: usize| {
        ledger
            .begin_version_removal(&versions[number - 1], Purpose::Ordinary)
            .await
    };
    assert!(is_refused(begin(4).await), "the latest");
    let prod = "prod".parse().unwrap();
    ledger.tag(&versions[1], &prod, None).await.unwrap();
    assert!(is_refused(begin(2).await), "tagged");
    let holder = "job:train".parse().unwrap();
    let lease = std::time::Duration::from_secs(3 * 86_400);
    ledger
        .hold(&versions[2], &holder, Some(lease), "")
        .await
        .unwrap();
    assert!(is_refused(begin(3).await), "held");

    begin(1).await.unwrap();
    // From here on nobody can begin to need it.
    assert!(matches!(
        ledger.tag(&versions[0], &prod, None).await,
        Err(LedgerError::Removing(_))
    ));
    let held = ledger.hold(&versions[0], &holder, None, "").await;
    assert!(matches!(held, Err(LedgerError::Removing(_))));
    ledger.keep_version(&versions[0]).await.unwrap();
    ledger
        .hold(&versions[0], &holder, Some(lease), "")
        .await
        .unwrap();
    ledger.release(&versions[0], &holder).await.unwrap();
    begin(1).await.unwrap();
    world.pass(DAY);
    ledger
        .finish_version_removal(&versions[0], Purpose::Ordinary)
        .await
        .unwrap();
    assert!(
        ledger
            .resolve(&"ads.clicks@v1".parse().unwrap())
            .await
            .is_err()
    );
    let left = ledger.versions(&name, 0, 10).await.unwrap();
    assert_eq!(left.iter().map(|v| v.number).collect::<Vec<_>>(), [2, 3, 4]);
    // The lease ends, and with it the hold.
    world.pass(3 * DAY);
    begin(3).await.unwrap();
}

// The day's name must mean the newest of that day that is left.
#[tokio::test]
async fn a_day_without_its_version_means_the_one_before() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let first = world.versions(&ledger, &name, 2).await;
    world.pass(DAY);
    let next = world.manifest(&ledger, &[("dt=2", 1)]).await;
    ledger
        .commit(commit_of(&name, Some(2), next))
        .await
        .unwrap();
    let of_day = async || {
        let selector = "ads.clicks@2026-11-20".parse().unwrap();
        ledger
            .resolve(&selector)
            .await
            .ok()
            .map(|version| version.number)
    };
    assert_eq!(of_day().await, Some(2));
    for (version, left) in [(&first[1], Some(1)), (&first[0], None)] {
        world.remove_version(&ledger, version).await;
        assert_eq!(of_day().await, left);
    }
}

// A clock that is set back must not make a newer version look older.
#[tokio::test]
async fn a_clock_that_goes_back_does_not_reorder_versions() {
    let world = World::new();
    let ledger = world.open().await;
    let name = world.dataset(&ledger, "ads.clicks").await;
    let one = world.manifest(&ledger, &[("dt=1", 1)]).await;
    ledger.commit(commit_of(&name, None, one)).await.unwrap();
    world.pass(-3 * DAY);
    let two = world.manifest(&ledger, &[("dt=1", 2)]).await;
    ledger.commit(commit_of(&name, Some(1), two)).await.unwrap();
    let versions = ledger.versions(&name, 0, 10).await.unwrap();
    assert!(versions[0].created_ms <= versions[1].created_ms);
    assert_eq!(
        ledger
            .resolve(&"ads.clicks@2026-11-20".parse().unwrap())
            .await
            .unwrap()
            .number,
        2
    );
    ledger
        .mark_degraded(&versions[0], "dt=1/000000 was overwritten")
        .await
        .unwrap();
    let now = ledger
        .resolve(&"ads.clicks@v1".parse().unwrap())
        .await
        .unwrap();
    assert!(matches!(now.state, VersionState::Degraded { .. }));
}
