//! The controller: who leads, how its passes end, what its webhooks answer, how often it lists.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Page;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    pass: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    webhook: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct List {
    kind: &'static str,
    outcome: &'static str,
}

/// Counts what one replica does. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ControllerNumbers {
    leads: Gauge<i64, AtomicI64>,
    passes: Family<Pass, Counter>,
    reviews: Family<Review, Counter>,
    lists: Family<List, Counter>,
}

/// While it lives, the replica is shown as the leader.
#[derive(Debug)]
pub(crate) struct Leading(Gauge<i64, AtomicI64>);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

impl ControllerNumbers {
    /// Shows them on a page.
    pub fn show(&self, page: &mut Page) {
        let registry = page.registry();
        registry.register(
            "controller_leads",
            "1 while this replica leads",
            self.leads.clone(),
        );
        registry.register(
            "controller_passes",
            "Passes of the leader, by what they keep and how they ended",
            self.passes.clone(),
        );
        registry.register(
            "controller_reviews",
            "Objects that the webhooks were asked about, by their answers",
            self.reviews.clone(),
        );
        registry.register(
            "controller_lists",
            "Times that all objects of a kind were read again",
            self.lists.clone(),
        );
    }

    /// From now on this replica leads.
    pub(crate) fn leads(&self) -> Leading {
        self.leads.set(1);
        Leading(self.leads.clone())
    }

    pub(crate) fn passed(&self, pass: &'static str, good: bool) {
        let outcome = if good { "made" } else { "failed" };
        self.passes.get_or_create(&Pass { pass, outcome }).inc();
    }

    pub(crate) fn reviewed(&self, webhook: &'static str, allowed: bool) {
        let outcome = if allowed { "allowed" } else { "refused" };
        let review = Review { webhook, outcome };
        self.reviews.get_or_create(&review).inc();
    }

    pub(crate) fn listed(&self, kind: &'static str, good: bool) {
        let outcome = if good { "read" } else { "failed" };
        self.lists.get_or_create(&List { kind, outcome }).inc();
    }
}
