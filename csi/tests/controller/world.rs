//! A cluster of a test: an API server, a catalog, and controllers that can be killed.

use std::time::Duration;

use serde_json::{Value, json};
use terrace_csi::identity::Readiness;
use terrace_csi::kube::{KubeClient, LeaseSettings, ScratchPolicy, Settings, Webhooks, run};
use terrace_csi::metrics::ControllerNumbers;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::catalog::TestCatalog;

/// However busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Drivers that a node waits for.
pub(crate) const DRIVERS: [&str; 2] = ["data.terrace.io", "local.terrace.io"];

/// One controller; dropping it is `kill -9`.
pub(crate) struct Controller {
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// Address of its webhooks.
    pub(crate) webhooks: String,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Controller {
    /// Asks it to end, and waits for that.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended.expect("it does not end").unwrap();
    }
}

pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) catalog: TestCatalog,
    http: reqwest::Client,
}

impl World {
    /// Without a controller.
    pub(crate) async fn new() -> Self {
        Self {
            api: Api::start().await,
            catalog: TestCatalog::default(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// A controller that cleans scratch volumes at once, or only says so.
    pub(crate) async fn controller_with(&self, identity: &str, clean: bool) -> Controller {
        self.started(identity, clean, true).await
    }

    /// A controller on a cluster whose driver takes no inline volumes.
    pub(crate) async fn controller_without_inline(&self, identity: &str) -> Controller {
        self.started(identity, false, false).await
    }

    async fn started(&self, identity: &str, clean: bool, inline: bool) -> Controller {
        let base = self.api.url().parse().unwrap();
        let client = KubeClient::new(self.http.clone(), base, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhooks = format!("http://{}", listener.local_addr().unwrap());
        let lease = LeaseSettings {
            duration: Duration::from_secs(2),
            renew_within: Duration::from_millis(1500),
            every: Duration::from_millis(200),
            ..LeaseSettings::new("terrace", "terrace-controller", identity)
        };
        let settings = Settings {
            own_namespace: "terrace".to_owned(),
            lease,
            scratch: ScratchPolicy {
                gone_after: Duration::ZERO,
                delete: clean,
            },
            untaint: DRIVERS.map(str::to_owned).into(),
            webhooks: Some(Webhooks {
                listener,
                tls: None,
                inline,
            }),
            numbers: ControllerNumbers::default(),
            ready: Readiness::default(),
        };
        let catalog = std::sync::Arc::new(self.catalog.clone());
        let stop = CancellationToken::new();
        let end = stop.clone();
        let task = tokio::spawn(async move { run(client, catalog, settings, end).await.unwrap() });
        Controller {
            task,
            stop,
            webhooks,
        }
    }

    pub(crate) async fn controller(&self, identity: &str) -> Controller {
        self.controller_with(identity, false).await
    }

    /// One request of the API server; the status and the answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let url = format!("{}{path}", self.api.url());
        send(&self.http, method, &url, kind, body).await
    }

    /// Makes an object; `path` is that of its collection.
    pub(crate) async fn make(&self, path: &str, object: Value) -> Value {
        let (status, made) = self.ask("POST", path, &object).await;
        assert_eq!(status, 201, "{path}: {made}");
        made
    }

    /// The object, or null.
    pub(crate) async fn get(&self, path: &str) -> Value {
        match self.ask("GET", path, &Value::Null).await {
            (200, object) => object,
            _ => Value::Null,
        }
    }

    pub(crate) async fn patch(&self, path: &str, patch: Value) {
        let (status, answer) = self.ask("PATCH", path, &patch).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    pub(crate) async fn delete(&self, path: &str) {
        let (status, answer) = self.ask("DELETE", path, &json!({})).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// A namespace with labels and annotations.
    pub(crate) async fn namespace(&self, name: &str, labels: Value, annotations: Value) {
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        self.make("/api/v1/namespaces", json!({"metadata": metadata}))
            .await;
    }

    /// Waits until an object is as it should be.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.get(path).await;
            if is_so(&found) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{path} stays {found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks a webhook about an object; the response of the review.
    pub(crate) async fn review(
        &self,
        url: &str,
        kind: &str,
        namespace: &str,
        object: &Value,
    ) -> Value {
        let (group, name) = kind.rsplit_once('/').unwrap_or(("", kind));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                "kind": {"group": group, "version": "v1", "kind": name},
                "namespace": namespace, "operation": "CREATE", "object": object, "dryRun": false,
            },
        });
        let (status, answer) = send(&self.http, "POST", url, "application/json", &review).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    /// Waits until a controller has seen the cluster.
    pub(crate) async fn ready(&self, controller: &Controller) {
        let began = Instant::now();
        let url = format!("{}/readyz", controller.webhooks);
        while self.http.get(&url).send().await.unwrap().status() != 200 {
            assert!(began.elapsed() < PATIENCE, "it is never ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn send(
    http: &reqwest::Client,
    method: &str,
    url: &str,
    kind: &str,
    body: &Value,
) -> (u16, Value) {
    let request = http
        .request(method.parse().unwrap(), url)
        .header("content-type", kind)
        .body(body.to_string());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    let fallback = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| fallback()),
    )
}

/// Applies the patch of an answer as an API server does.
pub(crate) fn patched(object: &Value, response: &Value) -> Value {
    use base64::Engine;
    let mut object = object.clone();
    let Some(text) = response["patch"].as_str() else {
        return object;
    };
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    for step in patch {
        assert_eq!(step["op"], "add");
        let path = step["path"].as_str().unwrap();
        let (parent, last) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        parent[last.replace("~1", "/").replace("~0", "~").as_str()] = step["value"].clone();
    }
    object
}
