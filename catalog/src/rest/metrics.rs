//! Counters of the HTTP server, for Prometheus.
//!
//! Labels are bounded: method, route as the document writes it, status. No dataset is ever a label.
//! Every name is listed in docs/OPERATIONS.md; the tidy test compares both.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the histogram, in seconds: from one lookup to the deadline of a request.
const SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// What other parts have counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) gc_runs: u64,
    pub(super) gc_taken: u64,
    pub(super) gc_taken_bytes: u64,
    pub(super) scrubbed_bytes: u64,
    pub(super) scrub_damaged: u64,
}

/// The same as they are shown.
#[derive(Debug, Default)]
struct Upkeep {
    gc_runs: Counter,
    gc_taken: Counter,
    gc_taken_bytes: Counter,
    scrubbed_bytes: Counter,
    scrub_damaged: Counter,
}

impl Upkeep {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "catalog_gc_runs",
            "Collections of garbage that ended",
            self.gc_runs.clone(),
        );
        registry.register(
            "catalog_gc_taken",
            "Blobs and files that were taken away",
            self.gc_taken.clone(),
        );
        registry.register(
            "catalog_gc_taken_bytes",
            "Bytes of what was taken away",
            self.gc_taken_bytes.clone(),
        );
        registry.register(
            "catalog_scrubbed_bytes",
            "Bytes of files that were read back",
            self.scrubbed_bytes.clone(),
        );
        registry.register(
            "catalog_scrub_damaged",
            "Files and blocks that were found damaged",
            self.scrub_damaged.clone(),
        );
    }

    fn set(&self, totals: Totals) {
        let set = |counter: &Counter, value| counter.inner().store(value, Ordering::Relaxed);
        set(&self.gc_runs, totals.gc_runs);
        set(&self.gc_taken, totals.gc_taken);
        set(&self.gc_taken_bytes, totals.gc_taken_bytes);
        set(&self.scrubbed_bytes, totals.scrubbed_bytes);
        set(&self.scrub_damaged, totals.scrub_damaged);
    }
}

type Seconds = Family<Route, Histogram, fn() -> Histogram>;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Seconds,
    in_flight: Gauge<i64, AtomicI64>,
    streams: Gauge<i64, AtomicI64>,
    scans: Counter,
    upkeep: Upkeep,
    nodes: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("terrace");
        let requests = Family::<Request, Counter>::default();
        let seconds = Seconds::new_with_constructor(|| Histogram::new(SECONDS));
        let (in_flight, streams) = (Gauge::default(), Gauge::default());
        let nodes = Gauge::default();
        registry.register(
            "catalog_requests",
            "Requests answered, by method, route and status",
            requests.clone(),
        );
        registry.register(
            "catalog_request_seconds",
            "Time until the answer began",
            seconds.clone(),
        );
        registry.register(
            "catalog_requests_in_flight",
            "Requests under way",
            in_flight.clone(),
        );
        registry.register(
            "catalog_event_streams",
            "Clients that follow the events",
            streams.clone(),
        );
        let scans = Counter::default();
        registry.register(
            "catalog_iceberg_reports",
            "Reports of SQL engines about their scans and commits",
            scans.clone(),
        );
        let upkeep = Upkeep::default();
        upkeep.register(&mut registry);
        registry.register(
            "catalog_nodes",
            "Nodes that reported a moment ago",
            nodes.clone(),
        );
        Self {
            registry,
            requests,
            seconds,
            in_flight,
            streams,
            scans,
            upkeep,
            nodes,
        }
    }
}

impl Metrics {
    /// Counts a request as under way until the guard is dropped.
    pub(super) fn begin(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// Counts a stream of events as open until the guard is dropped.
    pub(super) fn stream(&self) -> Counted {
        Counted::new(&self.streams)
    }

    /// Counts a report of an SQL engine.
    pub(super) fn scan(&self) {
        self.scans.inc();
    }

    /// How many streams are open.
    pub(super) fn streams(&self) -> i64 {
        self.streams.get()
    }

    pub(super) fn record(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let request = Request {
            method: method.to_string(),
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&request).inc();
        let route = Route {
            route: route.to_owned(),
        };
        self.seconds
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    /// All of them in the text format, with what other parts have counted; `nodes` are there now.
    pub(super) fn render(&self, totals: Totals, nodes: usize) -> Result<String, std::fmt::Error> {
        self.upkeep.set(totals);
        self.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One more, until dropped.
#[derive(Debug)]
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    fn new(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
