//! Scratch volumes of nodes that are gone.

use serde_json::{Value, json};

use crate::world::World;

const VOLUMES: &str = "/api/v1/persistentvolumes";

fn volume(name: &str, node: &str, reclaim: &str, annotations: Value, phase: &str) -> Value {
    let expression = json!({
        "key": "topology.local.terrace.io/node", "operator": "In", "values": [node],
    });
    json!({
        "metadata": {
            "name": name, "annotations": annotations,
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "example.com/own"],
        },
        "spec": {
            "csi": {"driver": "local.terrace.io", "volumeHandle": name},
            "persistentVolumeReclaimPolicy": reclaim,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
        "status": {"phase": phase},
    })
}

async fn world() -> World {
    let world = World::new().await;
    for node in ["n1", "n2"] {
        world
            .make("/api/v1/nodes", json!({"metadata": {"name": node}}))
            .await;
    }
    let delete = json!({"terrace.io/when-node-gone": "delete"});
    let keep = json!({"terrace.io/when-node-gone": "keep"});
    for (name, node, reclaim, annotations, phase) in [
        ("here", "n1", "Delete", delete.clone(), "Released"),
        ("told", "gone", "Retain", delete, "Bound"),
        ("kept", "gone", "Delete", keep, "Released"),
        ("freed", "gone", "Delete", json!({}), "Released"),
        ("bound", "gone", "Delete", json!({}), "Bound"),
        ("retained", "gone", "Retain", json!({}), "Released"),
    ] {
        world
            .make(VOLUMES, volume(name, node, reclaim, annotations, phase))
            .await;
    }
    world
}

fn at(name: &str) -> String {
    format!("{VOLUMES}/{name}")
}

// Objects of nodes that are gone wait for ever; what nobody allowed to remove must not go with them.
#[tokio::test]
async fn only_what_the_policy_names_goes() {
    let world = world().await;
    let _controller = world.controller_with("one", true).await;
    for name in ["told", "freed"] {
        let ending = |found: &Value| {
            let held = &found["metadata"]["finalizers"];
            !found["metadata"]["deletionTimestamp"].is_null() && *held == json!(["example.com/own"])
        };
        world.until(&at(name), ending).await;
    }
    for name in ["here", "kept", "bound", "retained"] {
        let found = world.get(&at(name)).await;
        assert!(
            found["metadata"].get("deletionTimestamp").is_none(),
            "{name}"
        );
        let marked = found["metadata"]["annotations"].get("terrace.io/node-gone-since");
        assert_eq!(marked.is_some(), name != "here", "{name}");
    }
    // The node comes back: the time starts anew when it goes again.
    world
        .make("/api/v1/nodes", json!({"metadata": {"name": "gone"}}))
        .await;
    let unmarked = |found: &Value| {
        found["metadata"]["annotations"]
            .get("terrace.io/node-gone-since")
            .is_none()
    };
    world.until(&at("kept"), unmarked).await;
}

// Whoever has not asked for removals gets none.
#[tokio::test]
async fn nothing_goes_without_being_asked_for() {
    let world = world().await;
    let _controller = world.controller("one").await;
    let marked = |found: &Value| {
        found["metadata"]["annotations"]
            .get("terrace.io/node-gone-since")
            .is_some()
    };
    world.until(&at("told"), marked).await;
    // A later pass has seen the mark when this one is there.
    world
        .make(
            VOLUMES,
            volume("later", "gone", "Delete", json!({}), "Released"),
        )
        .await;
    world.until(&at("later"), marked).await;
    for name in ["told", "freed", "later"] {
        assert!(
            world.get(&at(name)).await["metadata"]
                .get("deletionTimestamp")
                .is_none(),
            "{name}"
        );
    }
}

// A list of nodes that came back empty would remove every scratch volume of the cluster.
#[tokio::test]
async fn a_cluster_that_lost_most_nodes_is_not_believed() {
    let world = World::new().await;
    world
        .make("/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
        .await;
    for node in ["a", "b"] {
        let delete = json!({"terrace.io/when-node-gone": "delete"});
        world
            .make(VOLUMES, volume(node, node, "Delete", delete, "Released"))
            .await;
    }
    world
        .namespace("ml", json!({"terrace.io/datasets": "all"}), json!({}))
        .await;
    world.catalog.commit("a.b", 1);
    let controller = world.controller_with("one", true).await;
    // Other passes were made meanwhile.
    world
        .until(&crate::claim("ml", "a.b"), |found| !found.is_null())
        .await;
    controller.end().await;
    for node in ["a", "b"] {
        let found = world.get(&at(node)).await;
        assert!(
            found["metadata"]["annotations"]
                .get("terrace.io/node-gone-since")
                .is_none()
        );
    }
}
