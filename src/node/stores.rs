//! The stores below one mount: one, or as many as the versions of a catalog name.

use std::sync::Arc;

use terrace_cache::store::{RequestCount, Store, StoreStats};

use super::router::Router;

/// Where the objects of a mount lie.
#[derive(Clone, Debug)]
pub(crate) enum Stores {
    /// All in one store.
    One(Store),
    /// Wherever the versions that were opened have theirs.
    Routed(Arc<Router>),
}

impl Stores {
    /// The only store, when there is exactly one by construction.
    pub(crate) fn one(&self) -> Option<&Store> {
        match self {
            Self::One(store) => Some(store),
            Self::Routed(_) => None,
        }
    }

    /// Counters of all of them, added up.
    pub(crate) fn stats(&self) -> StoreStats {
        let stores = match self {
            Self::One(store) => return store.stats(),
            Self::Routed(router) => router.stores(),
        };
        let all = stores.iter().map(Store::stats);
        all.reduce(add).unwrap_or_default()
    }
}

fn add(mut sum: StoreStats, more: StoreStats) -> StoreStats {
    for row in more.requests {
        let same = |known: &&mut RequestCount| {
            known.operation == row.operation && known.outcome == row.outcome
        };
        match sum.requests.iter_mut().find(same) {
            Some(known) => known.count += row.count,
            None => sum.requests.push(row),
        }
    }
    sum.bytes += more.bytes;
    sum.retries += more.retries;
    sum.throttled += more.throttled;
    sum.in_flight += more.in_flight;
    sum.hidden_keys += more.hidden_keys;
    sum
}
