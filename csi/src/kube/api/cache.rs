//! The objects of a kind as they are now: a list, then a watch behind it, again and again.
//!
//! ```text
//! list (pages) -> replace everything -> watch from the list's version
//!     event, version newer than any seen -> one object changes
//!     event, same version again          -> a duplicate, ignored
//!     event, older version               -> out of order: list again
//!     410 Gone, ERROR, a broken line     -> list again
//!     end of the watch                   -> watch from the last version
//! every RELIST                           -> list again, whatever the watch said
//! ```
//!
//! So whatever a watch loses, repeats or mixes up is put right by a list, and readers only ever ask what
//! is, never what happened. Readers are woken through one counter, which cannot overflow or queue. The
//! one lock is held for a look or a change in memory. When the API server is away, the last state stays
//! readable; it says what was.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Event, KubeClient};
use super::error::KubeError;
use super::object::{Claim, CsiNode, DatasetObject, Kept, Key, Meta, Namespace, Node, Pod, Volume};
use crate::kube::pause::Pause;
use crate::metrics::ControllerNumbers;

/// Most objects of a kind: the largest clusters have 150,000 pods. More would be held in vain, because
/// half of a list leads to removals of what the other half names.
const MAX_OBJECTS: usize = 200_000;

/// A full list at least this often.
const RELIST: Duration = Duration::from_secs(1800);

/// A watch that lasted so long was a good one, also when nothing happened.
const LASTING: Duration = Duration::from_secs(10);

type Objects<T> = BTreeMap<Key, Arc<T>>;

#[derive(Debug)]
struct State<T> {
    objects: Objects<T>,
    /// A whole list has been seen.
    is_synced: bool,
}

/// The objects of one kind. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    state: Arc<RwLock<State<T>>>,
    changes: watch::Sender<u64>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            changes: self.changes.clone(),
        }
    }
}

/// Where a watch goes on.
#[derive(Debug, Default)]
struct Place {
    version: String,
    number: Option<u64>,
}

/// What an event asks for.
enum Step {
    GoOn,
    Relist(&'static str),
}

impl<T: Kept> Cache<T> {
    /// Empty and not synced. `changes` is counted up with every change.
    pub(crate) fn new(changes: watch::Sender<u64>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            is_synced: false,
        };
        Self {
            state: Arc::new(RwLock::new(state)),
            changes,
        }
    }

    /// Every object, once a whole list was seen.
    pub(crate) fn all(&self) -> Option<Vec<Arc<T>>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let all = || state.objects.values().map(Arc::clone).collect();
        state.is_synced.then(all)
    }

    /// One object; also none when no list was seen yet.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        state.objects.get(&key).map(Arc::clone)
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Keeps the objects in step until `stop`.
    pub(crate) async fn follow(
        self,
        client: KubeClient,
        numbers: ControllerNumbers,
        stop: CancellationToken,
    ) {
        let plural = T::RESOURCE.plural;
        let mut pause = Pause::default();
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.list_and_watch(&client, &numbers, &mut pause) => outcome,
            };
            match outcome {
                Ok(why) => tracing::debug!(plural, why, "list again"),
                Err(error) => tracing::warn!(plural, %error, "list again after a pause"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause.wait() => {}
            }
        }
    }

    /// Returns with the reason to list again.
    async fn list_and_watch(
        &self,
        client: &KubeClient,
        numbers: &ControllerNumbers,
        pause: &mut Pause,
    ) -> Result<&'static str, KubeError> {
        let listed = self.list(client).await;
        numbers.listed(T::RESOURCE.plural, listed.is_ok());
        let mut place = listed?;
        let end = Instant::now() + RELIST;
        loop {
            let watch = client.watch(&T::RESOURCE, &place.version).await;
            let mut watch = match watch {
                Err(error) if error.is_expired() => return Ok("the version is too old"),
                watch => watch?,
            };
            let began = Instant::now();
            loop {
                let event = tokio::time::timeout_at(end, watch.next()).await;
                let Ok(event) = event else {
                    return Ok("it is time");
                };
                let Some(event) = event? else { break };
                if let Step::Relist(why) = self.take(event, &mut place) {
                    return Ok(why);
                }
                pause.reset();
            }
            // A server that ends every watch at once is not asked in a tight loop.
            if began.elapsed() >= LASTING {
                pause.reset();
            }
            pause.wait().await;
        }
    }

    async fn list(&self, client: &KubeClient) -> Result<Place, KubeError> {
        let mut objects = BTreeMap::new();
        let mut next = String::new();
        let version = loop {
            let page = client.page(&T::RESOURCE, &next).await?;
            for value in page.items {
                // What one user has written in a way that is not understood must not hide the others.
                if let Some(object) = parse::<T>(value) {
                    objects.insert(object.meta().key(), Arc::new(object));
                }
            }
            if objects.len() > MAX_OBJECTS {
                return Err(KubeError::TooMany {
                    plural: T::RESOURCE.plural,
                    limit: MAX_OBJECTS,
                });
            }
            next = page.metadata.next;
            if next.is_empty() {
                break page.metadata.resource_version;
            }
        };
        self.change(|state| {
            state.objects = objects;
            state.is_synced = true;
        });
        Ok(Place {
            number: version.parse().ok(),
            version,
        })
    }

    fn take(&self, event: Event, place: &mut Place) -> Step {
        if event.kind == "ERROR" {
            return Step::Relist("the watch ended with an error");
        }
        let meta = event.object.get("metadata").cloned();
        let Ok(meta) = serde_json::from_value::<Meta>(meta.unwrap_or_default()) else {
            return Step::Relist("an event without metadata");
        };
        let number: Option<u64> = meta.resource_version.parse().ok();
        match (number, place.number) {
            (Some(new), Some(seen)) if new < seen => return Step::Relist("events out of order"),
            (Some(new), Some(seen)) if new == seen && event.kind != "BOOKMARK" => {
                return Step::GoOn;
            }
            _ => {}
        }
        place.version = meta.resource_version.clone();
        place.number = number;
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => self.put(&meta, event.object),
            "DELETED" => self.change(|state| {
                state.objects.remove(&meta.key());
            }),
            _ => {}
        }
        Step::GoOn
    }

    fn put(&self, meta: &Meta, value: Value) {
        let parsed = parse::<T>(value);
        self.change(|state| match parsed {
            Some(object) => {
                state.objects.insert(meta.key(), Arc::new(object));
            }
            None => {
                state.objects.remove(&meta.key());
            }
        });
    }
}

fn parse<T: Kept>(value: Value) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::debug!(plural = T::RESOURCE.plural, %error, "an object is not understood");
            None
        }
    }
}

/// Every kind that is watched, and who is woken by which.
#[derive(Clone, Debug)]
pub(crate) struct CacheSet {
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) nodes: Cache<Node>,
    /// Followed only where nodes wait for their drivers.
    pub(crate) csi_nodes: Cache<CsiNode>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) volumes: Cache<Volume>,
    pub(crate) claims: Cache<Claim>,
    pub(crate) datasets: Cache<DatasetObject>,
}

/// The counters behind a [`CacheSet`]: pods change all the time and wake only who looks at pods.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Namespaces, volumes, claims, datasets, nodes and their drivers.
    pub(crate) slow: watch::Sender<u64>,
    /// Pods.
    pub(crate) pods: watch::Sender<u64>,
}

impl CacheSet {
    /// Empty ones.
    pub(crate) fn new() -> (Self, Feed) {
        let feed = Feed {
            slow: watch::Sender::new(0),
            pods: watch::Sender::new(0),
        };
        let caches = Self {
            namespaces: Cache::new(feed.slow.clone()),
            nodes: Cache::new(feed.slow.clone()),
            csi_nodes: Cache::new(feed.slow.clone()),
            pods: Cache::new(feed.pods.clone()),
            volumes: Cache::new(feed.slow.clone()),
            claims: Cache::new(feed.slow.clone()),
            datasets: Cache::new(feed.slow.clone()),
        };
        (caches, feed)
    }
}
