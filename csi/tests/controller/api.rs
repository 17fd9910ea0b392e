//! An API server of a test: lists, watches, changes and conditions as the controller uses them, over real
//! HTTP, with faults that a test asks for and that are counted when they happen.
//!
//! What it does not do, it refuses with a 405. Server-side apply is there for a status: fields that the same
//! manager named before and names no longer go. Nothing is validated: a real API server has its own suite
//! (`tests/kubernetes`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod changes;
mod follow;

use changes::{create, delete, patch, replace};
use follow::follow;

/// Plural, namespace, name.
type Key = (String, String, String);

/// Faults, and how often each happened.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Every request is answered with 503.
    pub(crate) is_down: AtomicBool,
    /// Every event of a watch comes twice.
    pub(crate) duplicate: AtomicBool,
    /// Two events that are ready are exchanged.
    pub(crate) reorder: AtomicBool,
    /// So many changes with a condition are refused as conflicts.
    pub(crate) conflicts: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) reordered: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) conflicted: AtomicU64,
}

#[derive(Debug, Default)]
struct World {
    version: u64,
    /// Events up to this version are forgotten.
    floor: u64,
    objects: BTreeMap<Key, Value>,
    /// Version, plural, type, object.
    events: Vec<(u64, String, &'static str, Value)>,
    /// What a manager has applied to a status.
    applied: BTreeMap<Key, Value>,
    /// Watches of an older epoch end.
    epoch: u64,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    changes: watch::Sender<u64>,
    faults: Faults,
}

/// The server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            changes: watch::Sender::new(0),
            faults: Faults::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            shared,
            address,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Ends every watch that is open.
    pub(crate) fn drop_watches(&self) {
        self.shared.lock().epoch += 1;
        self.shared.faults.dropped.fetch_add(1, Ordering::SeqCst);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Forgets what has happened: a watch from before is 410 Gone.
    pub(crate) fn compact(&self) {
        let mut world = self.shared.lock();
        world.version += 1;
        world.floor = world.version;
        world.events.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl World {
    fn put(&mut self, key: Key, mut object: Value, kind: &'static str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), object.clone());
        self.events
            .push((self.version, key.0, kind, object.clone()));
        object
    }

    fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.events
                .push((self.version, key.0.clone(), "DELETED", object));
        }
    }

    /// Stores a change; an object on its way out that nothing holds any more is gone.
    fn change(&mut self, key: Key, object: Value) -> Value {
        let held = object
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array);
        let is_ending = object.pointer("/metadata/deletionTimestamp").is_some();
        if is_ending && held.is_none_or(Vec::is_empty) {
            self.remove(&key);
            return object;
        }
        self.put(key, object, "MODIFIED")
    }
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message,
    });
    (StatusCode::from_u16(code).unwrap(), answered(body)).into_response()
}

fn answered(value: impl serde::Serialize) -> Response {
    serde_json::to_string(&value).unwrap().into_response()
}

/// Parts of a path behind the group and version.
struct Target {
    namespace: String,
    plural: String,
    name: Option<String>,
    subresource: Option<String>,
}

fn target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').skip(1);
    match parts.next()? {
        "api" => parts.next(),
        "apis" => parts.nth(1),
        _ => return None,
    }?;
    let parts: Vec<&str> = parts.collect();
    let (namespace, rest) = match parts.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    Some(Target {
        namespace: namespace.to_owned(),
        plural: (*rest.first()?).to_owned(),
        name: rest.get(1).map(|name| (*name).to_owned()),
        subresource: rest.get(2).map(|name| (*name).to_owned()),
    })
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.faults.is_down.load(Ordering::SeqCst) {
        shared.faults.refused.fetch_add(1, Ordering::SeqCst);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (head, body) = request.into_parts();
    let Some(target) = target(head.uri.path()) else {
        return status(404, "NotFound", "no such path");
    };
    let query = head.uri.query().unwrap_or_default().to_owned();
    let find = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let kind = head.headers.get("content-type").cloned();
    let kind = kind
        .map(|kind| kind.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match (head.method, &target.name) {
        (Method::GET, None) if find("watch").as_deref() == Some("true") => {
            follow(shared, target.plural, find("resourceVersion").unwrap())
        }
        (Method::GET, None) => list(&shared, &target, find("limit"), find("continue")),
        (Method::GET, Some(_)) => get(&shared, &target),
        (Method::POST, None) => create(&shared, &target, body),
        (Method::PUT, Some(_)) => replace(&shared, &target, body),
        (Method::PATCH, Some(_)) => patch(&shared, &target, &kind, &body),
        (Method::DELETE, Some(_)) => delete(&shared, &target, &body),
        _ => status(405, "MethodNotAllowed", "not in this server"),
    }
}

impl Target {
    fn key(&self) -> Key {
        (
            self.plural.clone(),
            self.namespace.clone(),
            self.name.clone().unwrap_or_default(),
        )
    }
}

fn list(shared: &Shared, target: &Target, limit: Option<String>, next: Option<String>) -> Response {
    let world = shared.lock();
    let limit: usize = limit.map_or(usize::MAX, |limit| limit.parse().unwrap());
    let skip: usize = next.map_or(0, |next| next.parse().unwrap());
    let of_kind = world.objects.iter().filter(|((plural, namespace, _), _)| {
        *plural == target.plural && (target.namespace.is_empty() || *namespace == target.namespace)
    });
    let all: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
    let items: Vec<&Value> = all.iter().skip(skip).take(limit).copied().collect();
    let more = skip + items.len() < all.len();
    let next = more.then(|| (skip + items.len()).to_string());
    let metadata = json!({
        "resourceVersion": world.version.to_string(), "continue": next.unwrap_or_default(),
    });
    answered(json!({"kind": "List", "metadata": metadata, "items": items})).into_response()
}

fn get(shared: &Shared, target: &Target) -> Response {
    match shared.lock().objects.get(&target.key()) {
        Some(object) => answered(object).into_response(),
        None => status(404, "NotFound", "there is none"),
    }
}
