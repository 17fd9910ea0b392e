//! What readers met, tier by tier: the same rows for `status` and the metrics.

use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

use crate::node::assembly::Node;

/// One tier.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tier {
    /// `window` (recently fetched blocks in memory), `hot`, `warm` or `store`.
    pub(crate) name: &'static str,
    /// Bytes in use, where the tier has a place of its own.
    pub(crate) used_bytes: Option<u64>,
    /// Budget, where it has one.
    pub(crate) limit_bytes: Option<u64>,
    /// Bytes readers got from here. For the hot tier also those of files opened in passthrough,
    /// counted at open with their whole length, since the kernel reads them without asking.
    pub(crate) hit_bytes: u64,
    /// Bytes readers asked for here and got further down.
    pub(crate) miss_bytes: u64,
    /// Time readers waited, summed. Fills and prefetches are readers of the warm tier.
    pub(crate) waited_seconds: f64,
}

/// Every tier of a node, fastest first.
pub(crate) fn tiers(node: &Arc<Node>) -> Vec<Tier> {
    let stats = node.cache().stats();
    let usage = node.cache().hot().usage();
    let passthrough: u64 = node
        .mounts()
        .iter()
        .map(|mount| mount.fs.status().passthrough_bytes)
        .sum();
    let mut tiers = vec![
        Tier {
            name: "window",
            used_bytes: Some(stats.window_bytes),
            limit_bytes: Some(node.config().cache.fill.window.0),
            hit_bytes: stats.window.hit_bytes,
            miss_bytes: stats.window.miss_bytes,
            waited_seconds: stats.window.waited.as_secs_f64(),
        },
        Tier {
            name: "hot",
            used_bytes: Some(usage.used_bytes),
            limit_bytes: Some(usage.limit_bytes),
            hit_bytes: stats.hot.hit_bytes + passthrough,
            miss_bytes: stats.hot.miss_bytes,
            waited_seconds: stats.hot.waited.as_secs_f64(),
        },
    ];
    for warm in node.sources().warm_tiers() {
        let stats = warm.stats();
        tiers.push(Tier {
            name: "warm",
            used_bytes: None,
            limit_bytes: Some(node.config().cache.warm.budget.0).filter(|bytes| *bytes > 0),
            hit_bytes: stats.hit_bytes + stats.streamed_bytes + stats.followed_bytes,
            miss_bytes: stats.cold_bytes,
            waited_seconds: Duration::from_nanos(stats.waited_nanos).as_secs_f64(),
        });
    }
    tiers.push(Tier {
        name: "store",
        used_bytes: None,
        limit_bytes: None,
        hit_bytes: stats.store.hit_bytes,
        miss_bytes: stats.store.miss_bytes,
        waited_seconds: stats.store.waited.as_secs_f64(),
    });
    tiers
}
