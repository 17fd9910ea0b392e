//! What fails around a controller: the API server, the catalog, watches, and the controller itself.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{Controller, PATIENCE, World};
use crate::{claim, resource};

async fn asking() -> World {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 1);
    world
        .namespace("ml", json!({"terrace.io/datasets": "ads"}), json!({}))
        .await;
    world
}

async fn shows(world: &World, version: u64) {
    let path = resource("ml", "ads.clicks");
    world
        .until(&path, |found| found["status"]["version"] == version)
        .await;
}

fn fired(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

// Without it an hour without the API server ends in a controller that sees nothing any more.
#[tokio::test]
async fn an_api_server_that_was_away_is_caught_up_with() {
    let world = asking().await;
    let _controller = world.controller("one").await;
    shows(&world, 1).await;
    let faults = world.api.faults();
    faults.is_down.store(true, Ordering::SeqCst);
    world.api.drop_watches();
    world.catalog.commit("ads.clicks", 2);
    while fired(&faults.refused) < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.api.compact();
    faults.is_down.store(false, Ordering::SeqCst);
    shows(&world, 2).await;
}

// A catalog that is away must neither remove what it cannot list nor stop what needs no answer.
#[tokio::test]
async fn a_catalog_that_is_away_or_empty_removes_nothing() {
    let world = asking().await;
    let _controller = world.controller("one").await;
    shows(&world, 1).await;
    world
        .until(&claim("ml", "ads.clicks"), |found| !found.is_null())
        .await;
    world.catalog.set_away(true);
    let before = world.catalog.unanswered();
    while world.catalog.unanswered() < before + 3 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    shows(&world, 1).await;
    // A new database behind the same address: empty, but there.
    world.catalog.remove("ads.clicks");
    world.catalog.set_away(false);
    let missing = |found: &Value| found["status"]["state"] == "Missing";
    world.until(&resource("ml", "ads.clicks"), missing).await;
    let kept = world.get(&claim("ml", "ads.clicks")).await;
    assert!(!kept.is_null() && kept["metadata"].get("deletionTimestamp").is_none());
    world.catalog.commit("ads.clicks", 2);
    shows(&world, 2).await;
}

// Watches end, repeat themselves, mix up their events and lose their place; what is wanted stays the same.
#[tokio::test]
async fn broken_watches_change_nothing() {
    let world = asking().await;
    let faults = world.api.faults();
    faults.duplicate.store(true, Ordering::SeqCst);
    faults.reorder.store(true, Ordering::SeqCst);
    faults.conflicts.store(3, Ordering::SeqCst);
    let _controller = world.controller("one").await;
    shows(&world, 1).await;
    for turn in 0..4 {
        let name = format!("team-{turn}");
        let path = format!("/api/v1/namespaces/{name}");
        world
            .namespace(&name, json!({"terrace.io/datasets": "ads"}), json!({}))
            .await;
        if turn % 2 == 0 {
            // The watch of namespaces is behind when it starts again.
            world.api.compact();
        }
        world.api.drop_watches();
        world
            .until(&resource(&name, "ads.clicks"), |found| !found.is_null())
            .await;
        world
            .patch(&path, json!({"metadata": {"labels": null}}))
            .await;
        world
            .until(&resource(&name, "ads.clicks"), Value::is_null)
            .await;
        world
            .until(&claim(&name, "ads.clicks"), Value::is_null)
            .await;
    }
    // Two changes in one moment, so that there is something to exchange.
    let began = tokio::time::Instant::now();
    while fired(&faults.reordered) == 0 {
        assert!(began.elapsed() < PATIENCE, "{faults:?}");
        let label = json!({"metadata": {"labels": {"x": fired(&faults.duplicated).to_string()}}});
        let (one, two) = tokio::join!(
            world.ask("PATCH", "/api/v1/namespaces/team-0", &label),
            world.ask("PATCH", "/api/v1/namespaces/team-1", &label),
        );
        assert_eq!((one.0, two.0), (200, 200));
    }
    faults.reorder.store(false, Ordering::SeqCst);
    world.catalog.commit("ads.clicks", 2);
    shows(&world, 2).await;
    for counter in [
        &faults.duplicated,
        &faults.dropped,
        &faults.expired,
        &faults.conflicted,
    ] {
        assert!(fired(counter) > 0, "a fault never happened: {faults:?}");
    }
}

// Two leaders make everything twice; none makes nothing.
#[tokio::test]
async fn one_of_several_leads_and_is_followed_when_it_is_killed() {
    let world = asking().await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/terrace/leases/terrace-controller";
    let holder = |object: &Value| {
        object["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let mut all: Vec<(String, Controller)> = Vec::new();
    for name in ["a", "b", "c"] {
        all.push((name.to_owned(), world.controller(name).await));
    }
    let led = world.until(lease, |found| !holder(found).is_empty()).await;
    let first = holder(&led);
    shows(&world, 1).await;
    // kill -9 of the leader.
    all.retain(|(name, _)| *name != first);
    let led = world.until(lease, |found| holder(found) != first).await;
    let second = holder(&led);
    assert!(led["spec"]["leaseTransitions"].as_u64().unwrap() >= 1);
    world.catalog.commit("ads.clicks", 2);
    shows(&world, 2).await;
    // One that ends in order lets go at once.
    let at = all.iter().position(|(name, _)| *name == second).unwrap();
    all.swap_remove(at).1.end().await;
    let last = all[0].0.clone();
    world.until(lease, |found| holder(found) == last).await;
    world.catalog.commit("ads.clicks", 3);
    shows(&world, 3).await;
}

// A controller that is killed between two steps, and the next one, must come to the same end.
#[tokio::test]
async fn a_controller_may_be_killed_at_any_moment() {
    let world = asking().await;
    for turn in 0..6_u64 {
        let controller = world.controller(&format!("turn-{turn}")).await;
        world.catalog.commit(&format!("ads.t{turn}"), 1);
        // Somewhere in its work, further each time.
        let path = match turn % 3 {
            0 => "/apis/coordination.k8s.io/v1/namespaces/terrace/leases/terrace-controller"
                .to_owned(),
            1 => resource("ml", &format!("ads.t{turn}")),
            _ => claim("ml", &format!("ads.t{turn}")),
        };
        world.until(&path, |found| !found.is_null()).await;
        drop(controller);
    }
    let _controller = world.controller("last").await;
    for turn in 0..6 {
        let name = format!("ads.t{turn}");
        world
            .until(&resource("ml", &name), |found| {
                found["status"]["version"] == 1
            })
            .await;
        world
            .until(&claim("ml", &name), |found| !found.is_null())
            .await;
    }
    let volumes = world.get("/api/v1/persistentvolumes").await;
    assert_eq!(volumes["items"].as_array().unwrap().len(), 7);
}
