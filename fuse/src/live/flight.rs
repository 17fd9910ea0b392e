//! Single flight: equal questions asked at the same time are asked once.
//!
//! The answer is shared by everyone who waits. Nobody owns the work but the waiters: it goes on as
//! long as one of them does, and stops when the last one goes away.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

/// One question on its way, by key.
type Open<K, T> = HashMap<K, (u64, WeakShared<BoxFuture<'static, T>>)>;

/// Questions on their way. `T` is cloned for each waiter.
pub(crate) struct Flights<K, T: Clone> {
    open: Arc<Mutex<(u64, Open<K, T>)>>,
}

impl<K, T: Clone> std::fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flights")
    }
}

fn lock<K, T: Clone>(open: &Mutex<(u64, Open<K, T>)>) -> MutexGuard<'_, (u64, Open<K, T>)> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a flight off the list when it ends, answered or not.
struct Landing<K: Hash + Eq, T: Clone> {
    open: Arc<Mutex<(u64, Open<K, T>)>>,
    key: K,
    id: u64,
}

impl<K: Hash + Eq, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if open.1.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            open.1.remove(&self.key);
        }
    }
}

impl<K, T> Flights<K, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self {
            open: Arc::new(Mutex::new((0, HashMap::new()))),
        }
    }

    /// Waits for the answer to `key`: of the flight under way, or of `ask`.
    pub(crate) async fn join<F>(&self, key: K, ask: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.board(key, ask).await
    }

    fn board<F>(&self, key: K, ask: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut open = lock(&self.open);
        if let Some(flight) = open.1.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        open.0 += 1;
        let id = open.0;
        let landing = Landing {
            open: Arc::clone(&self.open),
            key: key.clone(),
            id,
        };
        let work = ask();
        let flight = async move {
            let _landing = landing;
            work.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            open.1.insert(key, (id, weak));
        }
        flight
    }
}
