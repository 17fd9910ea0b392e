//! Metrics of a node for Prometheus: read from the parts' own counters when asked, kept nowhere.
//!
//! Labels are bounded: tier (window, hot, warm, store), outcome and operation (fixed lists), mount
//! (mount points of this node), tenant (names in the configuration). No path, key or dataset is ever a
//! label. Every name here is listed with unit and meaning in docs/OPERATIONS.md; the tidy test compares both.

mod cold;
mod spools;
mod tenants;

use std::fmt::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use terrace_cache::warm::{WarmStats, WarmTier};
use terrace_fuse::tables::TableTree;
use tokio_util::sync::CancellationToken;

use crate::node::assembly::Node;

/// Label names and values of one row.
type Labels = Vec<(&'static str, String)>;

/// All metrics of `node` in Prometheus' text format.
pub(crate) fn render(node: &Arc<Node>) -> String {
    let mut registry = Registry::with_prefix("terrace");
    registry.register_collector(Box::new(NodeCollector(Arc::clone(node))));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            String::new()
        }
    }
}

/// Serves `/metrics` at `address` until `shutdown`. An address that cannot be had is logged: a node
/// without a metrics page still serves its mounts.
pub(crate) async fn serve(node: Arc<Node>, address: SocketAddr, shutdown: CancellationToken) {
    let page = axum::routing::get(move || std::future::ready(page(&node)));
    let router = axum::Router::new().route("/metrics", page);
    let served = async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, router)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    };
    if let Err(error) = served.await {
        tracing::error!(%address, %error, "no metrics page; check node.metrics");
    }
}

/// One answer, with the content type that scrapers expect.
fn page(node: &Arc<Node>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, kind)], render(node))
}

#[derive(Debug)]
struct NodeCollector(Arc<Node>);

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut out = Out(encoder);
        self.tiers(&mut out)?;
        self.fill(&mut out)?;
        self.hot(&mut out)?;
        self.warm(&mut out)?;
        self.stores(&mut out)?;
        self.reports(&mut out)?;
        self.spools(&mut out)?;
        self.mounts(&mut out)?;
        self.tenants(&mut out)?;
        self.volumes(&mut out)?;
        cold::encode(&self.0, &mut out)
    }
}

/// Writes one metric with all its rows.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counters(&mut self, name: &str, help: &str, rows: Vec<(Labels, f64)>) -> Result<(), Error> {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        Self::rows(metric, rows, |value, metric| {
            ConstCounter::new(value).encode(metric)
        })
    }

    fn gauges(&mut self, name: &str, help: &str, rows: Vec<(Labels, f64)>) -> Result<(), Error> {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        Self::rows(metric, rows, |value, metric| {
            ConstGauge::new(value).encode(metric)
        })
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help, vec![(Vec::new(), value as f64)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauges(name, help, vec![(Vec::new(), value as f64)])
    }

    fn rows(
        mut metric: MetricEncoder<'_>,
        rows: Vec<(Labels, f64)>,
        encode: impl Fn(f64, MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (labels, value) in rows {
            if labels.is_empty() {
                return encode(value, metric);
            }
            encode(value, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn tier(name: &str, value: f64) -> (Labels, f64) {
    (vec![("tier", name.to_owned())], value)
}

impl NodeCollector {
    fn tiers(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let tiers = crate::control::tiers::tiers(&self.0);
        let rows = |value: fn(&crate::control::tiers::Tier) -> Option<f64>| {
            tiers
                .iter()
                .filter_map(|t| Some(tier(t.name, value(t)?)))
                .collect::<Vec<_>>()
        };
        out.counters(
            "tier_hit_bytes",
            "Bytes readers got from a tier",
            rows(|t| Some(t.hit_bytes as f64)),
        )?;
        out.counters(
            "tier_miss_bytes",
            "Bytes readers asked of a tier and got further down",
            rows(|t| Some(t.miss_bytes as f64)),
        )?;
        out.counters(
            "tier_waited_seconds",
            "Time readers waited for a tier, summed over readers",
            rows(|t| Some(t.waited_seconds)),
        )?;
        out.gauges(
            "tier_used_bytes",
            "Bytes a tier uses",
            rows(|t| t.used_bytes.map(|n| n as f64)),
        )?;
        out.gauges(
            "tier_limit_bytes",
            "Budget of a tier",
            rows(|t| t.limit_bytes.map(|n| n as f64)),
        )
    }

    fn fill(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let stats = self.0.cache().stats();
        out.gauge(
            "fill_in_flight_bytes",
            "Bytes that arrived and are not at rest",
            stats.in_flight_bytes,
        )?;
        out.counter(
            "fill_fetched_bytes",
            "Bytes fetched from the store or the warm tier",
            stats.fetched_bytes,
        )?;
        out.counter("fill_parts", "Ranged reads of the source", stats.parts)?;
        out.counter(
            "fill_parts_failed",
            "Ranged reads that ended with an error",
            stats.parts_failed,
        )?;
        out.counter(
            "fill_parts_cancelled",
            "Ranged reads nobody wanted any more",
            stats.parts_cancelled,
        )?;
        out.counter(
            "fill_joined",
            "Readers that waited for a block already on its way",
            stats.joined,
        )?;
        out.counter(
            "fill_hot_refused",
            "Blocks the hot tier did not take",
            stats.hot_refused,
        )?;
        out.gauge("fill_objects", "Objects somebody holds", stats.objects)
    }

    fn hot(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let usage = self.0.cache().hot().usage();
        out.gauge(
            "hot_objects",
            "Objects in the hot tier, partial ones included",
            usage.objects,
        )?;
        out.gauge(
            "hot_pinned_objects",
            "Objects exempt from eviction",
            usage.pinned,
        )?;
        out.gauge(
            "hot_zombie_bytes",
            "Bytes of evicted objects readers still hold",
            usage.zombie_bytes,
        )?;
        out.gauge(
            "hot_pending_objects",
            "Filled objects that wait for their sync",
            usage.pending,
        )?;
        let stats = self.0.cache().hot().stats();
        out.counter("hot_evicted_bytes", "Bytes evicted", stats.evicted_bytes)?;
        out.counter(
            "hot_verified_blocks",
            "Blocks whose checksum was checked",
            stats.verified_blocks,
        )?;
        out.counter(
            "hot_quarantined_blocks",
            "Blocks that failed their checksum",
            stats.quarantined_blocks,
        )?;
        out.counter(
            "hot_discarded_objects",
            "Objects forgotten because they were damaged",
            stats.discarded_objects,
        )?;
        out.counter(
            "hot_disk_errors",
            "Disk operations answered with an error",
            stats.disk_errors,
        )?;
        out.counter(
            "hot_timeouts",
            "Disk operations that overran their deadline",
            stats.timeouts,
        )?;
        out.counter(
            "hot_scrubbed_bytes",
            "Bytes the scrub has read",
            stats.scrubbed_bytes,
        )
    }

    fn warm(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let tiers = self.0.sources().warm_tiers();
        let all: Vec<_> = tiers.iter().map(WarmTier::stats).collect();
        let sum = |field: fn(&WarmStats) -> u64| all.iter().map(field).sum::<u64>();
        let cold = |reason: &str, field| (vec![("reason", reason.to_owned())], sum(field) as f64);
        out.counters(
            "warm_cold_bytes",
            "Bytes read from the store although the warm tier is to have them, by reason",
            vec![
                cold("down", |stats| stats.cold_down_bytes),
                cold("crowded", |stats| stats.cold_crowded_bytes),
                cold("late", |stats| stats.cold_late_bytes),
                cold("failed", |stats| stats.cold_failed_bytes),
            ],
        )?;
        out.counter(
            "warm_filled_bytes",
            "Bytes this node read from the store into the warm tier",
            sum(|stats| stats.fill_bytes),
        )?;
        out.counter(
            "warm_fills_failed",
            "Fills of the warm tier given up",
            sum(|stats| stats.fills_failed),
        )
    }

    fn stores(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let mounts = self.0.mounts();
        let mut requests = Vec::new();
        let mut bytes = Vec::new();
        let mut retries = Vec::new();
        for mount in &mounts {
            let stats = mount.stores.stats();
            let name = mount.spec.mountpoint.display().to_string();
            for row in &stats.requests {
                let mut labels = vec![("mount", name.clone())];
                labels.push(("operation", row.operation.to_owned()));
                labels.push(("outcome", row.outcome.to_owned()));
                requests.push((labels, row.count as f64));
            }
            bytes.push((vec![("mount", name.clone())], stats.bytes as f64));
            retries.push((vec![("mount", name)], stats.retries as f64));
        }
        out.counters(
            "store_requests",
            "Requests to the store, every attempt",
            requests,
        )?;
        out.counters("store_bytes", "Bytes the store delivered", bytes)?;
        out.counters("store_retries", "Attempts after the first one", retries)
    }

    fn reports(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let stats = self.0.reporting().stats();
        let of = |outcome: &str| vec![("outcome", outcome.to_owned())];
        let rows = vec![
            (of("taken"), stats.taken as f64),
            (of("failed"), stats.failed as f64),
        ];
        out.counters("node_reports", "Reports to catalogs, by outcome", rows)?;
        out.gauge("node_jobs", "Warm-up jobs of catalogs", stats.jobs)
    }

    fn mounts(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let mut opens = Vec::new();
        let mut passthrough = Vec::new();
        let mut handles = Vec::new();
        let mut again = Vec::new();
        let mut answers = Vec::new();
        let mut stale = Vec::new();
        for mount in self.0.mounts() {
            let status = mount.fs.status();
            let name = mount.spec.mountpoint.display().to_string();
            let of = |mode: &str| vec![("mount", name.clone()), ("mode", mode.to_owned())];
            opens.push((of("passthrough"), status.opens_passthrough as f64));
            opens.push((of("cached"), status.opens_cached as f64));
            let label = vec![("mount", name.clone())];
            passthrough.push((label.clone(), f64::from(u8::from(status.passthrough))));
            handles.push((label.clone(), status.open_handles as f64));
            if let Some(tree) = mount.tree.as_ref().map(TableTree::status) {
                let up = f64::from(u8::from(tree.catalog_down.is_none()));
                answers.push((label.clone(), up));
                stale.push((label.clone(), tree.stale_answers as f64));
            }
            again.push((label, status.reincarnations as f64));
        }
        out.counters("mount_opens", "Files opened, by mode", opens)?;
        out.gauges(
            "mount_passthrough",
            "1 where the kernel reads the disk itself",
            passthrough,
        )?;
        out.gauges("mount_handles", "Open files", handles)?;
        out.gauges(
            "mount_catalog_answers",
            "1 while the catalog answers",
            answers,
        )?;
        out.counters(
            "mount_catalog_stale",
            "Names answered from before because the catalog does not",
            stale,
        )?;
        out.counters(
            "mount_reincarnations",
            "Inodes renewed for passthrough",
            again,
        )
    }
}
