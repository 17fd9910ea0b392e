//! Nodes, heat and warm-up jobs over HTTP.

use serde_json::{Value, json};
use terrace_catalog::nodes;

use crate::support::{Answer, Catalog};

const TREE: &str = "/data";

/// A report of a node that mounts everything and has `hot` bytes of ads.clicks@v2.
fn report(hot: u64, open: bool, jobs: &Value) -> Vec<u8> {
    let heat = |dataset: &str| {
        json!({"dataset": dataset, "version": 2, "total_bytes": 30, "hot_bytes": hot,
            "warm_bytes": null, "open": open})
    };
    let report = json!({
        "version": "0.1.0",
        "instance": "i1",
        "tiers": [{"name": "hot", "used_bytes": 5, "limit_bytes": 50}],
        "mounts": [{"mountpoint": TREE}],
        "datasets": [heat("ads.clicks"), heat("hr.pay")],
        "jobs": jobs,
    });
    report.to_string().into_bytes()
}

async fn world() -> (Catalog, String) {
    let catalog = Catalog::start().await;
    for name in ["ads.clicks", "hr.pay"] {
        let (one, two): (&[_], &[_]) = (&[("", "a", 10)], &[("", "a", 10), ("", "b", 20)]);
        catalog.publish(name, &[one, two]).await;
    }
    let admin = catalog.token(&["admin:*"]).await;
    (catalog, admin)
}

impl Catalog {
    async fn says(&self, node: &str, token: &str, body: &[u8]) -> Answer {
        let path = format!("/api/v1/nodes/{node}/report");
        self.ask("POST", &path, Some(token), body).await
    }

    async fn get(&self, path: &str, token: &str) -> Value {
        let answer = self.ask("GET", path, Some(token), b"").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    async fn warm(&self, token: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.ask("POST", "/api/v1/warm", Some(token), body.as_bytes())
            .await
    }
}

// The console and the mounts read exactly these names.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_seen_in_nodes_and_heat() {
    let (catalog, admin) = world().await;
    let answer = catalog
        .says("n1", &admin, &report(20, true, &json!([])))
        .await;
    assert_eq!(answer.json(), json!({"jobs": []}), "{}", answer.body);
    let nodes = catalog.get("/api/v1/nodes", &admin).await;
    let node = &nodes["items"][0];
    let seen_ms = node["seen_ms"].as_i64().unwrap();
    let expected = json!({"node": "n1", "seen_ms": seen_ms, "fresh": true, "version": "0.1.0",
        "tiers": [{"name": "hot", "used_bytes": 5, "limit_bytes": 50}], "mounts": [TREE],
        "datasets": 2});
    assert_eq!(*node, expected);
    let heat = catalog
        .get("/api/v1/datasets/ads.clicks/heat", &admin)
        .await;
    let since = heat["holds"][0]["since_ms"].as_i64().unwrap();
    let expected = json!({
        "dataset": "ads.clicks",
        "items": [{"node": "n1", "version": 2, "total_bytes": 30, "tiers": {"hot": 20, "warm": null},
            "seen_ms": seen_ms, "fresh": true}],
        "holds": [{"holder": "mount:n1", "kind": "mount", "version": 2, "since_ms": since}],
    });
    assert_eq!(heat, expected);
    // Nothing reads it any more: the hold is released at once.
    catalog
        .says("n1", &admin, &report(20, false, &json!([])))
        .await;
    let heat = catalog
        .get("/api/v1/datasets/ads.clicks/heat", &admin)
        .await;
    assert_eq!(heat["holds"], json!([]));
    let metrics = catalog.ask("GET", "/metrics", None, b"").await.body;
    assert!(metrics.contains("terrace_catalog_nodes 1"), "{metrics}");
}

// Heat, mounts and jobs of one tenant are nothing that another one may see, steer or report.
#[tokio::test(flavor = "multi_thread")]
async fn each_token_sees_its_own_namespaces() {
    let (catalog, admin) = world().await;
    let ads = catalog.token(&["read:ads"]).await;
    let hr = catalog.token(&["read:hr"]).await;
    catalog
        .says("n1", &ads, &report(20, true, &json!([])))
        .await;
    let pay = catalog.get("/api/v1/datasets/hr.pay/heat", &admin).await;
    assert_eq!((&pay["items"], &pay["holds"]), (&json!([]), &json!([])));
    let nodes = catalog.get("/api/v1/nodes", &hr).await;
    assert_eq!(nodes["items"][0]["datasets"], 0);
    let stolen = catalog.says("n1", &hr, &report(20, true, &json!([]))).await;
    assert_eq!((stolen.status, stolen.error()), (409, "conflict".into()));

    let warm = json!({"selector": "ads.clicks", "nodes": null, "tier": "hot", "pin": false});
    let refused = catalog.warm(&hr, &warm).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let pinned = json!({"selector": "ads.clicks", "pin": true});
    assert_eq!(catalog.warm(&ads, &pinned).await.status, 403);
    let made = catalog.warm(&ads, &warm).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("/api/v1/warm/{}", made.json()["id"].as_str().unwrap());
    for method in ["GET", "DELETE"] {
        let answer = catalog.ask(method, &path, Some(&hr), b"").await;
        assert_eq!(answer.status, 403, "{method}");
    }
    assert_eq!(catalog.get("/api/v1/warm", &hr).await["items"], json!([]));
    let other = catalog.token(&["read:ads"]).await;
    let not_its_own = catalog.ask("DELETE", &path, Some(&other), b"").await;
    assert_eq!(not_its_own.status, 403);
    // A node that may not read the version ends its part, and says why.
    let named = json!({"selector": "hr.pay", "nodes": ["n1"]});
    let made = catalog.warm(&admin, &named).await.json();
    catalog
        .says("n1", &ads, &report(20, true, &json!([])))
        .await;
    let path = format!("/api/v1/warm/{}", made["id"].as_str().unwrap());
    let failed = catalog.get(&path, &admin).await;
    assert_eq!(failed["state"], "failed");
    let why = failed["nodes"][0]["error"].as_str().unwrap();
    assert!(why.contains("does not grant read over hr"), "{why}");
}

// A percentage that is complete before the bytes are there starts jobs on a cold node.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_complete_when_every_node_has_every_byte() {
    let (catalog, admin) = world().await;
    let idle = json!([]);
    let warm = json!({"selector": "ads.clicks@v2"});
    let nobody = catalog.warm(&admin, &warm).await;
    assert_eq!((nobody.status, nobody.error()), (409, "conflict".into()));
    for node in ["n1", "n2"] {
        catalog.says(node, &admin, &report(0, false, &idle)).await;
    }
    let made = catalog.warm(&admin, &warm).await.json();
    assert_eq!(
        (&made["state"], &made["percent"], &made["total_bytes"]),
        (&json!("waiting"), &json!(0.0), &json!(60))
    );
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/warm/{id}");
    let orders = catalog
        .says("n1", &admin, &report(0, false, &idle))
        .await
        .json();
    let expected = json!({"id": id, "dataset": "ads.clicks", "version": 2, "tier": "hot",
        "pin": false, "unpin_older": false, "total_bytes": 30});
    assert_eq!(orders["jobs"], json!([expected]));
    let steps = [
        ("n1", "running", 10, "running", 16.6),
        ("n1", "done", 29, "running", 48.3),
        ("n1", "done", 30, "running", 50.0),
        ("n2", "running", 30, "running", 99.9),
        ("n1", "running", 0, "running", 99.9),
        ("n2", "done", 30, "done", 100.0),
        ("n2", "failed", 0, "done", 100.0),
    ];
    for (node, said, bytes, state, percent) in steps {
        let jobs = json!([{"id": id, "state": said, "done_bytes": bytes, "error": null}]);
        let answer = catalog.says(node, &admin, &report(0, false, &jobs)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let job = catalog.get(&path, &admin).await;
        let step = (node, said, bytes);
        assert_eq!(
            (&job["state"], &job["percent"]),
            (&json!(state), &json!(percent)),
            "{step:?}: {job}"
        );
    }
    let list = catalog.get("/api/v1/warm?dataset=ads.clicks", &admin).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let other = catalog.get("/api/v1/warm?dataset=hr.pay", &admin).await;
    assert_eq!(other["items"], json!([]));
}

// What is no report, no job and no tier must be a clear refusal.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused() {
    let (catalog, admin) = world().await;
    let idle = report(0, false, &json!([]));
    assert_eq!(catalog.says("a%2Fb", &admin, &idle).await.status, 400);
    let strange = json!([{"id": "x", "state": "running", "done_bytes": 1, "error": null}]);
    let answer = catalog
        .says("n1", &admin, &report(0, false, &strange))
        .await;
    assert_eq!((answer.status, answer.error()), (400, "invalid".into()));
    let long: Vec<Value> = (0..nodes::MAX_VERSIONS + 1)
        .map(|_| {
            json!({"dataset": "a.b", "version": 1, "total_bytes": 1, "hot_bytes": 1,
                "warm_bytes": null, "open": false})
        })
        .collect();
    let long = json!({"version": "1", "instance": "i", "tiers": [], "mounts": [], "datasets": long, "jobs": []});
    let long = long.to_string();
    assert_eq!(
        catalog.says("n1", &admin, long.as_bytes()).await.status,
        413
    );
    for (body, status) in [
        (json!({"selector": "ads.clicks", "tier": "cold"}), 400),
        (json!({"selector": "ads.clicks", "nodes": []}), 400),
        (json!({"selector": "ads.clicks", "nodes": ["a b"]}), 400),
        (
            json!({"selector": "ads.clicks", "nodes": ["n1"], "tier": "warm", "pin": true}),
            400,
        ),
        (json!({"selector": "ads.clicks@v9", "nodes": ["n1"]}), 404),
        (json!({"selector": "ads.none", "nodes": ["n1"]}), 404),
        (json!({"selector": "ads.clicks", "unknown": 1}), 400),
    ] {
        let answer = catalog.warm(&admin, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        answer.error();
    }
    for method in ["GET", "DELETE"] {
        let answer = catalog
            .ask(method, "/api/v1/warm/0123456789ab", Some(&admin), b"")
            .await;
        assert_eq!((answer.status, answer.error()), (404, "not_found".into()));
    }
}

// A descriptor that wants every version warm must get it without anybody asking, once, and not go on
// with a version that is out of date.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_warmed_as_its_descriptor_says() {
    let (catalog, admin) = world().await;
    let stop = tokio_util::sync::CancellationToken::new();
    // Two catalogs over one database follow the same events.
    let followers =
        [0, 1].map(|_| tokio::spawn(nodes::follow(catalog.nodes.clone(), stop.clone())));
    // A catalog that starts for the first time follows what happens from then on.
    while catalog.kv.get(b"wc").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    catalog
        .says("n1", &admin, &report(0, false, &json!([])))
        .await;
    let body = "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {name: ads.clicks}\n\
        spec: {source: \"file:///data/x\", warm: {tier: full, pin: true}}\n";
    let path = "/api/v1/datasets/ads.clicks";
    let set = catalog
        .ask("PUT", path, Some(&admin), body.as_bytes())
        .await;
    assert_eq!(set.status, 200, "{}", set.body);
    let mut seen = Vec::new();
    for (version, size) in [(3, 40), (4, 50)] {
        catalog
            .commit("ads.clicks", version - 1, &[("", "a", size)])
            .await;
        let job = loop {
            let list = catalog.get("/api/v1/warm", &admin).await;
            let jobs = list["items"].as_array().unwrap().clone();
            if let Some(job) = jobs.iter().find(|job| job["version"] == version) {
                break job.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(
            (
                &job["total_bytes"],
                &job["pin"],
                &job["tier"],
                &job["nodes"][0]["node"]
            ),
            (&json!(size), &json!(true), &json!("hot"), &json!("n1"))
        );
        assert_eq!(job["by"], "the descriptor of ads.clicks");
        seen.push(job["id"].as_str().unwrap().to_owned());
    }
    let older = catalog
        .get(&format!("/api/v1/warm/{}", seen[0]), &admin)
        .await;
    assert_eq!(older["state"], "cancelled");
    let all = catalog.get("/api/v1/warm", &admin).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    stop.cancel();
    for follower in followers {
        follower.await.unwrap();
    }
}
