//! Pods that name datasets: the webhooks, and warm-up when they are bound.

use serde_json::{Value, json};

use crate::world::{Controller, PATIENCE, World, patched};

const POD: &str = "Pod";

fn pod(annotations: Value, owner: Option<&str>) -> Value {
    let owners = owner.map(|uid| {
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "train", "uid": uid, "controller": true}])
    });
    json!({
        "metadata": {"generateName": "train-", "annotations": annotations, "ownerReferences": owners},
        "spec": {
            "containers": [{"name": "main", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
            "initContainers": [{"name": "first"}],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    })
}

async fn mutate(world: &World, controller: &Controller, namespace: &str, pod: &Value) -> Value {
    let url = format!("{}/mutate", controller.webhooks);
    world.review(&url, POD, namespace, pod).await
}

/// The dataset of the one volume that was added.
fn shown(pod: &Value) -> &str {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let ours = volumes
        .iter()
        .filter(|volume| volume["csi"]["driver"] == "data.terrace.io");
    let all: Vec<&Value> = ours.collect();
    assert_eq!(all.len(), 1, "{volumes:?}");
    assert_eq!(all[0]["csi"]["readOnly"], true);
    all[0]["csi"]["volumeAttributes"]["dataset"]
        .as_str()
        .unwrap()
}

// A mount that is missing in one container, or is there twice, is a pod that fails at its first read or is
// refused by the API server.
#[tokio::test]
async fn a_pod_gets_its_dataset_once() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    world.catalog.heat("ads.clicks", 12, "n1", 1000);
    world.catalog.heat("ads.clicks", 12, "n2", 600);
    world.catalog.heat("ads.clicks", 11, "n3", 1000);
    let node = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "host-1"}}});
    world.make("/api/v1/nodes", node).await;
    let controller = world.controller("one").await;
    world.ready(&controller).await;
    let made = pod(
        json!({"terrace.io/mount": "ads.clicks@v12:/data/clicks"}),
        None,
    );
    let response = mutate(&world, &controller, "ml", &made).await;
    assert_eq!(response["allowed"], true);
    let once = patched(&made, &response);
    assert_eq!(shown(&once), "ads.clicks@v12");
    for container in [
        &once["spec"]["containers"][0],
        &once["spec"]["initContainers"][0],
    ] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let ours = mounts
            .iter()
            .find(|mount| mount["mountPath"] == "/data/clicks")
            .unwrap();
        assert_eq!(ours["readOnly"], true);
    }
    assert_eq!(
        once["spec"]["containers"][0]["volumeMounts"][0]["name"],
        "tmp"
    );
    let resolved = &once["metadata"]["annotations"]["terrace.io/resolved"];
    assert_eq!(resolved, "ads.clicks@v12:/data/clicks");
    let preferred = &once["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    let hosts = |at: usize| preferred[at]["preference"]["matchExpressions"][0]["values"].clone();
    assert_eq!((hosts(0), hosts(1)), (json!(["host-1"]), json!(["n2"])));
    // Called again: nothing to add. After another webhook: only what it has added is completed.
    let again = mutate(&world, &controller, "ml", &once).await;
    assert!(again.get("patch").is_none(), "{again}");
    let mut more = once.clone();
    let sidecar = json!({"name": "sidecar"});
    more["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(sidecar);
    let completed = patched(&more, &mutate(&world, &controller, "ml", &more).await);
    let last = &completed["spec"]["containers"][1]["volumeMounts"][0];
    assert_eq!(last["mountPath"], "/data/clicks");
    assert_eq!(completed["spec"]["affinity"], once["spec"]["affinity"]);
    // Its own namespace and pods that ask for nothing are left alone.
    let own = mutate(&world, &controller, "terrace", &made).await;
    assert!(own["allowed"] == true && own.get("patch").is_none());
    let plain = mutate(&world, &controller, "ml", &pod(json!({}), None)).await;
    assert!(plain["allowed"] == true && plain.get("patch").is_none());
}

// Workers of one job that read two versions train on a mix that nobody can repeat.
#[tokio::test]
async fn all_pods_of_a_job_see_one_version() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    let controller = world.controller("one").await;
    world.ready(&controller).await;
    let of = |owner| {
        pod(
            json!({"terrace.io/mount": "ads.clicks:/data/clicks"}),
            Some(owner),
        )
    };
    let first = of("uid-1");
    let (one, two) = tokio::join!(
        mutate(&world, &controller, "ml", &first),
        mutate(&world, &controller, "ml", &first),
    );
    assert_eq!(shown(&patched(&first, &one)), "ads.clicks@v12");
    assert_eq!(shown(&patched(&first, &two)), "ads.clicks@v12");
    world.catalog.commit("ads.clicks", 13);
    // Another replica, after a kill, while the catalog is away: the record is in the cluster.
    drop(controller);
    let controller = world.controller("two").await;
    world.ready(&controller).await;
    world.catalog.set_away(true);
    let late = mutate(&world, &controller, "ml", &first).await;
    assert_eq!(shown(&patched(&first, &late)), "ads.clicks@v12");
    world.catalog.set_away(false);
    let other = of("uid-2");
    let next = mutate(&world, &controller, "ml", &other).await;
    assert_eq!(shown(&patched(&other, &next)), "ads.clicks@v13");
    let records = world.get("/api/v1/namespaces/ml/configmaps").await;
    let records = records["items"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    let owner = &records[0]["metadata"]["ownerReferences"][0];
    assert!(owner["kind"] == "Job" && owner["controller"] == false);
    // A dry run leaves nothing behind.
    let url = format!("{}/mutate", controller.webhooks);
    let mut dry = of("uid-3");
    dry["metadata"]["annotations"]["terrace.io/schedule"] = json!("ignore");
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "request": {"uid": "x", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "ml", "operation": "CREATE", "dryRun": true, "object": dry},
    });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = http
        .post(&url)
        .body(review.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let records = world.get("/api/v1/namespaces/ml/configmaps").await;
    assert_eq!(records["items"].as_array().unwrap().len(), 2);
}

// Annotations come from everybody who may make a pod.
#[tokio::test]
async fn hostile_pods_are_refused_on_one_line() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    let controller = world.controller("one").await;
    world.ready(&controller).await;
    let long = format!("ads.{}:/x", "c".repeat(300));
    for bad in [
        "../../etc:/data",
        "ads.clicks:/data/../../etc",
        "ads.clicks:/etc/passwd",
        &long,
        "ads.clicks:/a:/b",
        "ads.clicks@../v1:/x",
        ":",
        "ads.clicks:/tmp",
        "ads.nothing:/data/x",
        "ads.clicks@nosuchtag:/data/x",
        "ads.clicks:/x,ads.clicks:/x",
    ] {
        let made = pod(json!({"terrace.io/mount": bad}), None);
        let response = mutate(&world, &controller, "ml", &made).await;
        assert_eq!(response["allowed"], false, "{bad}");
        let said = response["status"]["message"].as_str().unwrap();
        assert!(
            said.contains("terrace.io/mount") && !said.contains('\n'),
            "{said}"
        );
        assert!(response.get("patch").is_none());
    }
    let mut odd = pod(
        json!({"terrace.io/mount": "ads.clicks@v1:/x", "terrace.io/schedule": "often"}),
        None,
    );
    let response = mutate(&world, &controller, "ml", &odd).await;
    assert_eq!(response["allowed"], false);
    odd["metadata"]["annotations"]["terrace.io/schedule"] = json!("ignore");
    for hostile in [json!("x"), json!([1]), json!({"a": 1})] {
        odd["spec"]["volumes"] = hostile;
        let response = mutate(&world, &controller, "ml", &odd).await;
        assert_eq!(response["allowed"], false);
    }
    // What is no review at all is answered too.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for body in [
        "",
        "{}",
        "[]",
        "\u{0}",
        r#"{"apiVersion":"admission.k8s.io/v1beta1","request":{}}"#,
    ] {
        let url = format!("{}/mutate", controller.webhooks);
        let sent = http.post(&url).body(body).send().await.unwrap();
        assert_eq!(sent.status(), 400, "{body}");
    }
}

// Without it such a pod waits for ever for a volume that its node's driver refuses.
#[tokio::test]
async fn pods_are_refused_where_inline_volumes_are_off() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 1);
    let controller = world.controller_without_inline("one").await;
    world.ready(&controller).await;
    let made = pod(json!({"terrace.io/mount": "ads.clicks:/data"}), None);
    let response = mutate(&world, &controller, "ml", &made).await;
    assert_eq!(response["allowed"], false);
    let why = response["status"]["message"].as_str().unwrap();
    assert!(
        why.contains("csi.data.inline=any") && !why.contains('\n'),
        "{why}"
    );
    let other = mutate(&world, &controller, "ml", &pod(json!({}), None)).await;
    assert_eq!(other["allowed"], true);
}

// A resource that can only fail is refused while its author still looks.
#[tokio::test]
async fn resources_are_refused_before_they_are_kept() {
    let world = World::new().await;
    world
        .namespace("ml", json!({}), json!({"terrace.io/register": "ads"}))
        .await;
    let spec = json!({"source": "s3://lake/ads"});
    let first = json!({"metadata": {"name": "ads.first"}, "spec": spec});
    world
        .make(
            "/apis/terrace.io/v1alpha1/namespaces/ml/datasets",
            first.clone(),
        )
        .await;
    let controller = world.controller("one").await;
    world.ready(&controller).await;
    world
        .until(&crate::resource("ml", "ads.first"), |found| {
            !found["status"].is_null()
        })
        .await;
    let url = format!("{}/validate", controller.webhooks);
    let kind = "terrace.io/Dataset";
    let mut taken = first.clone();
    taken["metadata"]["name"] = json!("other");
    taken["spec"]["dataset"] = json!("ads.first");
    for (object, allowed) in [
        (json!({"metadata": {"name": "ads.clicks"}}), true),
        (json!({"metadata": {"name": "ads.new"}, "spec": spec}), true),
        (first, true),
        (taken, false),
        (json!({"metadata": {"name": "hr.new"}, "spec": spec}), false),
        (json!({"metadata": {"name": "clicks"}}), false),
        (json!({"metadata": {"generateName": "a.b"}}), false),
        (
            json!({"metadata": {"name": "a.b"}, "spec": {"colour": "red"}}),
            false,
        ),
        (
            json!({"metadata": {"name": "a.b", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"x": 1}}),
            true,
        ),
        (json!("x"), false),
    ] {
        let response = world.review(&url, kind, "ml", &object).await;
        assert_eq!(response["allowed"], allowed, "{object}: {response}");
    }
}

/// A pod with a volume of its own.
fn inline(name: &str, node: &str, attributes: Value, phase: &str) -> Value {
    let volume = json!({"driver": "data.terrace.io", "volumeAttributes": attributes});
    json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "volumes": [{"name": "d", "csi": volume}]},
        "status": {"phase": phase},
    })
}

/// Waits for so many jobs of the catalog.
async fn jobs(world: &World, count: usize) -> Vec<String> {
    let began = tokio::time::Instant::now();
    while world.catalog.jobs().len() < count {
        assert!(began.elapsed() < PATIENCE, "{:?}", world.catalog.jobs());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.catalog.jobs()
}

// A node that begins to fetch when the container reads makes a thousand processors wait.
#[tokio::test]
async fn nodes_of_bound_pods_are_warmed() {
    let world = World::new().await;
    world.catalog.commit("ads.clicks", 12);
    for node in ["n1", "n2", "n3"] {
        world.catalog.node(node, 10_000);
    }
    world.catalog.node("small", 10);
    world.catalog.heat("ads.clicks", 12, "n3", 1000);
    world
        .namespace("ml", json!({"terrace.io/datasets": "ads"}), json!({}))
        .await;
    let clicks = json!({"dataset": "ads.clicks@v12"});
    for (name, node, attributes, phase) in [
        ("one", "n1", clicks.clone(), "Pending"),
        ("complete", "n3", clicks.clone(), "Pending"),
        ("large", "small", clicks.clone(), "Pending"),
        ("runs", "n2", clicks.clone(), "Running"),
        ("unbound", "", clicks.clone(), "Pending"),
        (
            "unwanted",
            "n2",
            json!({"dataset": "ads.clicks@v12", "warm": "none"}),
            "Pending",
        ),
        ("unknown", "elsewhere", clicks, "Pending"),
        ("hostile", "n2", json!({"dataset": "../x"}), "Pending"),
    ] {
        world
            .make(
                "/api/v1/namespaces/ml/pods",
                inline(name, node, attributes, phase),
            )
            .await;
    }
    let controller = world.controller("one").await;
    let mut made = jobs(&world, 2).await;
    made.sort();
    assert_eq!(
        made,
        ["ads.clicks@v12 hot n1", "ads.clicks@v12 metadata small"]
    );
    // By a claim, on another node; and a controller that was killed does not ask again for the first.
    drop(controller);
    let _controller = world.controller("two").await;
    let claim = crate::claim("ml", "ads.clicks");
    let found = world.until(&claim, |found| !found.is_null()).await;
    assert!(found["spec"]["volumeName"].is_string());
    let by_claim = json!({
        "metadata": {"name": "two"},
        "spec": {"nodeName": "n2", "volumes": [
            {"name": "d", "persistentVolumeClaim": {"claimName": "ads.clicks"}}]},
        "status": {"phase": "Pending"},
    });
    world.make("/api/v1/namespaces/ml/pods", by_claim).await;
    assert_eq!(
        jobs(&world, 3).await.last().unwrap(),
        "ads.clicks@v12 hot n2"
    );
    assert_eq!(world.catalog.jobs().len(), 3);
}
