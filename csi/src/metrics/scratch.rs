//! Scratch volumes of a node: what is promised, what can be, and what is still being removed.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;

use super::Page;
use crate::local::Local;
use crate::scratch::Summary;

type Number = Gauge<i64, AtomicI64>;

/// Numbers of the volumes of a base directory.
#[derive(Clone, Debug, Default)]
pub struct ScratchNumbers {
    volumes: Number,
    promised: Number,
    capacity: Number,
    deleted: Number,
}

impl ScratchNumbers {
    /// Shows those of a driver on a page.
    pub fn show(local: &Arc<Local>, page: &mut Page) {
        let numbers = Self::default();
        let registry = page.registry();
        registry.register(
            "scratch_volumes",
            "Scratch volumes of the node",
            numbers.volumes.clone(),
        );
        registry.register(
            "scratch_promised_bytes",
            "Sizes of these volumes, together",
            numbers.promised.clone(),
        );
        registry.register(
            "scratch_capacity_bytes",
            "Bytes that can still be promised",
            numbers.capacity.clone(),
        );
        registry.register(
            "scratch_deleted_volumes",
            "Deleted volumes whose files are still there",
            numbers.deleted.clone(),
        );
        let local = Arc::clone(local);
        page.before(move || match local.summary() {
            Ok(summary) => numbers.set(&summary),
            Err(error) => tracing::warn!(%error, "scratch volumes cannot be counted"),
        });
    }

    fn set(&self, summary: &Summary) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.volumes.set(signed(summary.volumes));
        self.promised.set(signed(summary.promised_bytes));
        self.capacity.set(signed(summary.capacity_bytes));
        self.deleted.set(signed(summary.deleted));
    }
}
