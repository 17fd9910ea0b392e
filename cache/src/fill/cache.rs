//! The cache: what all objects share, and the map of objects that somebody holds.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::Budget;
use super::config::CacheConfig;
use super::engine::Engine;
use super::object::Object;
use super::stats::{CacheStats, Counters};
use super::stream::Active;
use super::window::Window;
use crate::buffers::Pool;
use crate::hot::HotTier;
use crate::identity::{DatasetKey, Digest, ObjectId};
use crate::source::Source;

/// The node's cache of immutable objects. Cheap to clone; see the module [`fill`](crate::fill).
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// What the engines of all objects share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: CacheConfig,
    pub(super) hot: HotTier,
    pub(super) window: Window,
    pub(super) budget: Budget,
    pub(super) pool: Pool,
    pub(super) active: Active,
    pub(super) counters: Counters,
    pub(super) runtime: Handle,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
    objects: Mutex<HashMap<Digest, Weak<Object>>>,
    serials: AtomicU64,
}

impl Cache {
    /// A cache over `hot` whose tasks run on `runtime`.
    pub fn new(config: CacheConfig, hot: HotTier, runtime: Handle) -> Self {
        let shared = Shared {
            window: Window::new(config.window.0),
            budget: Budget::new(config.in_flight.0),
            config,
            hot,
            runtime,
            pool: Pool::default(),
            active: Active::default(),
            counters: Counters::default(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            objects: Mutex::default(),
            serials: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The object `id`, read from `source` where this node does not have it. The same instance
    /// for everybody who asks while somebody holds it; `source` and `dataset` are then those of
    /// the first. No I/O.
    pub fn object(
        &self,
        id: &ObjectId,
        source: &Arc<dyn Source>,
        dataset: &DatasetKey,
    ) -> Arc<Object> {
        let digest = id.digest();
        let mut objects = self.shared.objects();
        if let Some(object) = objects.get(&digest).and_then(Weak::upgrade) {
            return object;
        }
        let shared = Arc::clone(&self.shared);
        let engine = Engine::new(
            shared,
            id.clone(),
            digest,
            dataset.clone(),
            Arc::clone(source),
        );
        let object = Arc::new(Object::new(Arc::new(engine)));
        objects.insert(digest, Arc::downgrade(&object));
        object
    }

    /// The hot tier below.
    pub fn hot(&self) -> &HotTier {
        &self.shared.hot
    }

    /// All counters now.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            window_bytes: self.shared.window.bytes(),
            in_flight_bytes: self.shared.budget.used(),
            objects: self.shared.objects().len() as u64,
            ..self.shared.counters.snapshot()
        }
    }

    /// Stops fetching and waits until every task has ended. Blocks that are being written to the
    /// hot tier are written. Afterwards hits are still answered; misses are
    /// [`ReadError::Closed`](super::ReadError::Closed).
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tracker.close();
        self.shared.tracker.wait().await;
    }
}

impl Shared {
    pub(super) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Relaxed)
    }

    /// Runs a task that [`Cache::shutdown`] waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Takes an object that is being dropped out of the map, unless another took its place.
    pub(super) fn forget(&self, digest: &Digest, object: *const Object) {
        let mut objects = self.objects();
        if objects
            .get(digest)
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), object))
        {
            objects.remove(digest);
        }
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Object>>> {
        self.objects
            .lock()
            .expect("no code under this lock can panic")
    }
}
