//! Resources and the catalog in step, both ways.

use serde_json::{Value, json};

use crate::resource;
use crate::world::World;

const RESOURCES: &str = "/apis/terrace.io/v1alpha1/namespaces/ml/datasets";

fn dataset(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

// Without it a table that was synced is found only by who knows that it exists.
#[tokio::test]
async fn datasets_appear_where_they_are_asked_for_and_go() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    world.catalog.commit("hr.salaries", 1);
    world.catalog.heat("ads.clicks", 12, "n1", 1000);
    world.catalog.heat("ads.clicks", 12, "n2", 10);
    world
        .namespace("ml", json!({"terrace.io/datasets": "ads"}), json!({}))
        .await;
    world.namespace("other", json!({}), json!({})).await;
    let _controller = world.controller("one").await;
    let path = resource("ml", "ads.clicks");
    let shown = world
        .until(&path, |found| found["status"]["version"] == 12)
        .await;
    let status = &shown["status"];
    assert_eq!(status["state"], "Ready");
    assert_eq!(status["selector"], "ads.clicks@v12");
    assert_eq!(status["freshness"], "2023-11-14T22:13:20Z");
    assert_eq!(status["heat"], json!({"nodes": 2, "complete": 1}));
    assert_eq!(status["conditions"][0]["status"], "True");
    assert_eq!(world.get(&resource("ml", "hr.salaries")).await, Value::Null);
    assert_eq!(
        world.get(&resource("other", "ads.clicks")).await,
        Value::Null
    );
    world.catalog.commit("ads.clicks", 13);
    let moved = world
        .until(&path, |found| found["status"]["version"] == 13)
        .await;
    let since = |object: &Value| object["status"]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(since(&moved), since(&shown), "it was ready before, too");
    // A resource that somebody removes by hand comes back; the catalog has lost nothing.
    world.delete(&path).await;
    world
        .until(&path, |found| found["status"]["version"] == 13)
        .await;
    world.catalog.remove("ads.clicks");
    world.until(&path, Value::is_null).await;
}

// A resource that registers nothing, or that anybody may overwrite another team's dataset with, is worse
// than none.
#[tokio::test]
async fn resources_register_where_their_namespace_may() {
    let world = World::new().await;
    world
        .namespace("ml", json!({}), json!({"terrace.io/register": "ads"}))
        .await;
    let _controller = world.controller("one").await;
    let spec = json!({"source": "s3://lake/ads/clicks", "format": "parquet"});
    world
        .make(RESOURCES, dataset("ads.clicks", spec.clone()))
        .await;
    let path = resource("ml", "ads.clicks");
    world
        .until(&path, |found| found["status"]["state"] == "Pending")
        .await;
    let registered = world.catalog.descriptor_of("ads.clicks").unwrap();
    assert_eq!(registered.source, "s3://lake/ads/clicks");
    world.catalog.commit("ads.clicks", 1);
    world
        .until(&path, |found| found["status"]["state"] == "Ready")
        .await;
    // A change of the resource is a change of the catalog.
    let changed = json!({"spec": {"source": "s3://lake/ads/v2"}});
    world.patch(&path, changed).await;
    world
        .until(&path, |found| found["status"]["observedGeneration"] == 2)
        .await;
    let registered = world.catalog.descriptor_of("ads.clicks").unwrap();
    assert_eq!(registered.source, "s3://lake/ads/v2");
    // Neither another namespace of the catalog, nor a second resource for the same dataset.
    world
        .make(RESOURCES, dataset("hr.salaries", spec.clone()))
        .await;
    let mut second = dataset("second", spec);
    second["spec"]["dataset"] = json!("ads.clicks");
    second["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
    world.make(RESOURCES, second).await;
    for name in ["hr.salaries", "second"] {
        let refused = |found: &Value| found["status"]["state"] == "Refused";
        let found = world.until(&resource("ml", name), refused).await;
        assert_eq!(found["status"]["conditions"][0]["status"], "False");
    }
    assert!(world.catalog.descriptor_of("hr.salaries").is_none());
    let kept = world.catalog.descriptor_of("ads.clicks").unwrap();
    assert_eq!(kept.source, "s3://lake/ads/v2");
    // Removing the resource removes nothing.
    world.delete(&path).await;
    world.until(&path, Value::is_null).await;
    assert!(world.catalog.descriptor_of("ads.clicks").is_some());
}

// What a user has written stays, and says what is wrong with it.
#[tokio::test]
async fn resources_of_users_stay() {
    let world = World::new().await;
    world.catalog.commit("a.b", 1);
    world
        .namespace("ml", json!({"terrace.io/datasets": "all"}), json!({}))
        .await;
    world
        .make(RESOURCES, dataset("mine", json!({"dataset": "a.b"})))
        .await;
    world
        .make(RESOURCES, dataset("gone", json!({"dataset": "a.gone"})))
        .await;
    world
        .make(RESOURCES, dataset("broken", json!({"colour": "red"})))
        .await;
    let _controller = world.controller("one").await;
    let state = |state: &'static str| move |found: &Value| found["status"]["state"] == state;
    world.until(&resource("ml", "mine"), state("Ready")).await;
    world.until(&resource("ml", "gone"), state("Missing")).await;
    world
        .until(&resource("ml", "broken"), state("Refused"))
        .await;
    assert_eq!(
        world.get(&resource("ml", "a.b")).await,
        Value::Null,
        "it is shown by `mine`"
    );
}
