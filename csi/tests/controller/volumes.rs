//! Volumes and claims of namespaces that ask for them.

use serde_json::{Value, json};

use crate::claim;
use crate::world::World;

// Without it every team writes volumes by hand, with ids that are somebody else's.
#[tokio::test]
async fn pairs_are_made_and_taken_away_without_their_data() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    world.catalog.tag("ads.clicks@prod", 11);
    let annotations = json!({"terrace.io/datasets": "ads.clicks, ads.clicks@v12, ads.clicks@prod"});
    world
        .namespace("ml", json!({"terrace.io/datasets": "list"}), annotations)
        .await;
    let _controller = world.controller("one").await;
    let path = claim("ml", "ads.clicks");
    let made = world.until(&path, |found| !found.is_null()).await;
    assert_eq!(made["spec"]["accessModes"], json!(["ReadOnlyMany"]));
    let name = made["spec"]["volumeName"].as_str().unwrap().to_owned();
    let volume_path = format!("/api/v1/persistentvolumes/{name}");
    let volume = world.get(&volume_path).await;
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["spec"]["claimRef"]["name"], "ads.clicks");
    assert_eq!(volume["spec"]["csi"]["driver"], "data.terrace.io");
    assert_eq!(
        volume["spec"]["csi"]["volumeAttributes"]["dataset"],
        "ads.clicks"
    );
    assert!(volume["metadata"].get("finalizers").is_none());
    // Three selectors, three pairs; the tag is the version that it named.
    let list = "/api/v1/persistentvolumes";
    let three = |found: &Value| found["items"].as_array().is_some_and(|all| all.len() == 3);
    let all = world.until(list, three).await;
    let shown: Vec<&str> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| {
            volume["spec"]["csi"]["volumeAttributes"]["dataset"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert!(
        shown.contains(&"ads.clicks@v11") && shown.contains(&"ads.clicks@v12"),
        "{shown:?}"
    );
    // A pod uses the claim: it stays until that ends, and the volume with it.
    world
        .patch(
            &path,
            json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}}),
        )
        .await;
    world
        .patch(
            "/api/v1/namespaces/ml",
            json!({"metadata": {"labels": null}}),
        )
        .await;
    world
        .until(&path, |found| {
            !found["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    world
        .until(list, |found| {
            found["items"].as_array().is_some_and(|all| all.len() == 1)
        })
        .await;
    assert_eq!(
        world.get(&volume_path).await["metadata"]["uid"],
        volume["metadata"]["uid"]
    );
    world
        .patch(&path, json!({"metadata": {"finalizers": null}}))
        .await;
    world.until(&path, Value::is_null).await;
    world.until(&volume_path, Value::is_null).await;
}

// A claim that a user removed would never be bound again, and one of a user must not be taken over.
#[tokio::test]
async fn spent_volumes_are_made_anew_and_claims_of_users_stay() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    world.catalog.commit("ads.own", 1);
    world
        .namespace("ml", json!({"terrace.io/datasets": "ads"}), json!({}))
        .await;
    let own = json!({"metadata": {"name": "ads.own"}, "spec": {"volumeName": "mine"}});
    world
        .make("/api/v1/namespaces/ml/persistentvolumeclaims", own)
        .await;
    let _controller = world.controller("one").await;
    let path = claim("ml", "ads.clicks");
    let made = world.until(&path, |found| !found.is_null()).await;
    let name = made["spec"]["volumeName"].as_str().unwrap().to_owned();
    let volume_path = format!("/api/v1/persistentvolumes/{name}");
    let first = world.get(&volume_path).await;
    // What Kubernetes does when a bound claim is removed by hand.
    let bound = json!({"spec": {"claimRef": {"uid": made["metadata"]["uid"]}}, "status": {"phase": "Released"}});
    world.patch(&volume_path, bound).await;
    world.delete(&path).await;
    let other =
        |found: &Value| !found.is_null() && found["metadata"]["uid"] != first["metadata"]["uid"];
    world.until(&volume_path, other).await;
    world.until(&path, |found| !found.is_null()).await;
    let own = world.get(&claim("ml", "ads.own")).await;
    assert_eq!(own["spec"]["volumeName"], "mine");
    assert!(own["metadata"].get("deletionTimestamp").is_none());
}
