//! The worker's part of `terrace status --json`.

use std::sync::Arc;

use serde_json::{Value, json};
use terrace_cache::units::ByteSize;
use terrace_cache::warm::WarmTier;
use terrace_fuse::tables::TableTree;

use super::tiers::tiers;
use crate::node::assembly::{Mounted, Node};

/// A tier that readers waited for longer than this share of the worker's life is worth a line.
const SLOW_SHARE: f64 = 0.1;

/// See `docs/OPERATIONS.md` for the fields.
pub(super) fn document(node: &Arc<Node>) -> Value {
    let stats = node.cache().stats();
    let usage = node.cache().hot().usage();
    let tiers = tiers(node);
    let life = node.started().elapsed().as_secs_f64();
    let slow: Vec<String> = tiers
        .iter()
        // Fills wait for the warm tier, applications for the source as a whole.
        .filter(|tier| tier.name != "warm" && tier.waited_seconds > life * SLOW_SHARE)
        .map(|tier| {
            format!(
                "applications waited {:.1}s for the {} tier in {life:.0}s",
                tier.waited_seconds, tier.name
            )
        })
        .collect();
    json!({
        "hot": node.config().cache.hot.dir,
        "version": env!("CARGO_PKG_VERSION"),
        "mounts": mounts(node),
        "tiers": tiers,
        "slow": slow,
        "reporting": node.reporting().document(),
        "fill": {
            "in_flight_bytes": stats.in_flight_bytes, "fetched_bytes": stats.fetched_bytes,
            "parts": stats.parts, "parts_failed": stats.parts_failed,
            "parts_cancelled": stats.parts_cancelled, "joined": stats.joined,
            "fills": stats.fills, "fills_failed": stats.fills_failed,
            "hot_refused": stats.hot_refused, "objects": stats.objects,
        },
        "hot_tier": {
            "objects": usage.objects, "pinned": usage.pinned, "zombie_bytes": usage.zombie_bytes,
            "pending": usage.pending, "quarantined": usage.quarantined,
            "disk": format!("{:?}", usage.disk).to_lowercase(),
        },
        "tenants": node.cache().hot().tenants().iter().map(|tenant| json!({
            "name": &*tenant.share.name,
            "hot_bytes": tenant.resident_bytes,
            "share_bytes": tenant.share.guaranteed,
            "cap_bytes": tenant.share.cap,
        })).collect::<Vec<_>>(),
        "warm_tiers": node.sources().warm_tiers().iter().map(describe_warm).collect::<Vec<_>>(),
    })
}

/// Trees, and directory volumes.
fn mounts(node: &Node) -> Vec<Value> {
    let mut mounts: Vec<Value> = node.mounts().iter().map(|mount| describe(mount)).collect();
    mounts.extend(node.volumes().iter().map(|volume| volume.document()));
    mounts
}

fn describe_warm(tier: &WarmTier) -> Value {
    let stats = tier.stats();
    json!({
        "dir": tier.config().dir,
        "disk": format!("{:?}", stats.health).to_lowercase(),
        "copies_bytes": stats.hit_bytes, "streamed_bytes": stats.streamed_bytes,
        "followed_bytes": stats.followed_bytes,
        "filled_bytes": stats.fill_bytes, "fills": stats.fills, "fills_failed": stats.fills_failed,
        "cold_bytes": {
            "down": stats.cold_down_bytes, "crowded": stats.cold_crowded_bytes,
            "late": stats.cold_late_bytes, "failed": stats.cold_failed_bytes,
        },
        "leases_lost": stats.leases_lost, "leases_broken": stats.leases_broken,
        "quarantined": stats.quarantined, "evicted_bytes": stats.evicted_bytes,
        "faults": stats.faults,
    })
}

fn describe(mount: &Mounted) -> Value {
    let status = mount.fs.status();
    let store = mount.stores.stats();
    let tree = mount.tree.as_ref().map(TableTree::status);
    let requests: Vec<Value> = store
        .requests
        .iter()
        .map(|r| json!({"operation": r.operation, "outcome": r.outcome, "count": r.count}))
        .collect();
    json!({
        "id": mount.spec.id,
        "snapshot": mount.options.snapshot,
        "small_files": mount.options.small_files,
        "passthrough": {"on": status.passthrough, "off_because": status.passthrough_off_because},
        "opens": {"passthrough": status.opens_passthrough, "cached": status.opens_cached},
        "passthrough_bytes": status.passthrough_bytes,
        "handles": status.open_handles,
        "reincarnations": status.reincarnations,
        "requests": status.requests,
        "errors": status.errors,
        "store": {
            "requests": requests, "bytes": store.bytes, "retries": store.retries,
            "throttled": store.throttled, "in_flight": store.in_flight,
            "hidden_keys": store.hidden_keys,
        },
        "catalog": tree.as_ref().map(|tree| json!({
            "answers": tree.catalog_down.is_none(),
            "down_seconds": tree.catalog_down.as_ref().map(|(since, _)| since.as_secs()),
            "error": tree.catalog_down.as_ref().map(|(_, why)| why),
            "stale_answers": tree.stale_answers,
            "slots": tree.slots,
        })),
        "summary": format!(
            "passthrough {}, {} open, {} from the store{}",
            if status.passthrough { "on" } else { "off" },
            status.open_handles,
            ByteSize(store.bytes),
            tree.and_then(|tree| tree.catalog_down).map_or(String::new(), |(since, _)| format!(
                ", no catalog for {}s: last known versions",
                since.as_secs()
            )),
        ),
    })
}
