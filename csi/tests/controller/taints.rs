//! Nodes that wait for their drivers.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::world::{DRIVERS, World};

const NODES: &str = "/api/v1/nodes";
const CSI_NODES: &str = "/apis/storage.k8s.io/v1/csinodes";

/// A node that pods keep away from, and a taint of somebody else's.
async fn node(world: &World, name: &str) {
    let taints = json!([
        {"key": "terrace.io/agent-not-ready", "effect": "NoSchedule"},
        {"key": "example.com/other", "value": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"},
    ]);
    let made =
        json!({"metadata": {"name": name}, "spec": {"taints": taints, "podCIDR": "10.0.0.0/24"}});
    world.make(NODES, made).await;
}

/// What the kubelet of a node has registered; `null` is what Go writes for none.
async fn registered(world: &World, name: &str, drivers: &[&str]) {
    let drivers: Vec<Value> = drivers
        .iter()
        .map(|driver| json!({"name": driver, "nodeID": name}))
        .collect();
    let drivers = match drivers.is_empty() {
        true => Value::Null,
        false => Value::from(drivers),
    };
    let path = format!("{CSI_NODES}/{name}");
    let spec = json!({"drivers": drivers});
    match world.get(&path).await {
        Value::Null => {
            let made = json!({"metadata": {"name": name}, "spec": spec});
            world.make(CSI_NODES, made).await;
        }
        _ => world.patch(&path, json!({"spec": spec})).await,
    }
}

fn waits(found: &Value) -> bool {
    let taints = found["spec"]["taints"].as_array().unwrap();
    taints
        .iter()
        .any(|taint| taint["key"] == "terrace.io/agent-not-ready")
}

// A pod that comes before the drivers waits for volumes that nobody makes; a node that is never freed is lost.
#[tokio::test]
async fn a_node_is_freed_when_its_kubelet_has_every_driver() {
    let world = World::new().await;
    for name in ["all", "one", "none", "absent"] {
        node(&world, name).await;
    }
    registered(&world, "one", &DRIVERS[..1]).await;
    registered(&world, "none", &[]).await;
    registered(&world, "all", &["example.com", DRIVERS[1], DRIVERS[0]]).await;
    let _controller = world.controller("a").await;
    let freed = world
        .until(&format!("{NODES}/all"), |found| !waits(found))
        .await;
    let left = &freed["spec"]["taints"];
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["timeAdded"], "2026-01-01T00:00:00Z", "{left}");
    assert_eq!(freed["spec"]["podCIDR"], "10.0.0.0/24");
    // The pass that freed one has looked at the others.
    for name in ["one", "none", "absent"] {
        assert!(
            waits(&world.get(&format!("{NODES}/{name}")).await),
            "{name}"
        );
    }
    for name in ["one", "none", "absent"] {
        registered(&world, name, &DRIVERS).await;
        world
            .until(&format!("{NODES}/{name}"), |found| !waits(found))
            .await;
    }
    // A driver that goes takes no node out of service.
    registered(&world, "all", &[]).await;
    registered(&world, "last", &DRIVERS).await;
    node(&world, "last").await;
    world
        .until(&format!("{NODES}/last"), |found| !waits(found))
        .await;
    assert!(!waits(&world.get(&format!("{NODES}/all")).await));
}

// Two who change one node at once: what the other one has written must stay, and the node is freed all the same.
#[tokio::test]
async fn conflicts_are_tried_again() {
    let world = World::new().await;
    node(&world, "busy").await;
    registered(&world, "busy", &DRIVERS).await;
    world.api.faults().conflicts.store(2, Ordering::SeqCst);
    let _controller = world.controller("a").await;
    // What wakes the next pass, as a kubelet does every few seconds.
    let beats = async {
        for beat in 0_u64.. {
            world
                .patch(
                    &format!("{NODES}/busy"),
                    json!({"metadata": {"labels": {"beat": beat.to_string()}}}),
                )
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let path = format!("{NODES}/busy");
    tokio::select! {
        () = beats => {}
        found = world.until(&path, |found| !waits(found)) => {
            assert_eq!(found["spec"]["taints"].as_array().unwrap().len(), 1);
        }
    }
    assert!(world.api.faults().conflicted.load(Ordering::SeqCst) > 0);
}
