//! When and how [`EpochPolicy`] divides the tier anew.
//!
//! A plan is due when a 64th of the budget was opened since the last one, when a dataset appeared,
//! and when one was re-opened for the first time; it waits for as many opens as a 16th of the
//! samples it has to look at, so its cost per open is bounded. Limits of what is remembered are
//! enforced here, too.

use super::curve::Curve;
use super::epoch::{Dataset, EpochPolicy};
use super::share::{Claim, Group, Plan, divide, plan};

/// Datasets with a reuse profile. One takes about 90 kB; further ones get by without.
pub(super) const PROFILES_MAX: usize = 64;

/// Multiple of the longest usual reuse time after which a resident is dead.
const LIFETIMES: f64 = 2.5;

/// Budgets, or longest reuse times, of silence after which a dataset is abandoned.
const ABANDONED: f64 = 8.0;

/// Longest reuse times of silence after which a dataset's worth falls with the square of it.
const SILENCE: f64 = 1.5;

impl EpochPolicy {
    pub(super) fn maybe_plan(&mut self) {
        let ghosts: usize = self
            .live()
            .filter_map(|(_, dataset)| dataset.reuse.as_ref())
            .map(|r| r.len())
            .sum();
        let passed = self.traffic - self.planned_at;
        let due = self.plan_due || passed > self.limit() / 64;
        if due && self.opens_since_plan > ghosts / 16 {
            self.make_plan();
        }
    }

    fn make_plan(&mut self) {
        self.plan_due = false;
        self.planned_at = self.traffic;
        self.opens_since_plan = 0;
        // A limit that was learned is forgotten slowly: the disk may have room again.
        self.observed = self
            .observed
            .saturating_add(self.observed / 64 + 1)
            .min(self.capacity);
        self.forget_datasets();
        let limit = self.limit();
        let traffic = self.traffic;
        let slots: Vec<u32> = self.live().map(|(slot, _)| slot).collect();
        let mut claims = Vec::with_capacity(slots.len());
        let mut lifetimes = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let held = self.held(slot) as f64;
            let (claim, lifetime) = claim(self.dataset(slot), traffic, limit as f64, held);
            claims.push(claim);
            lifetimes.push(lifetime);
        }
        let groups: Vec<Group> = (0..self.tenants.count())
            .map(|tenant| Group {
                floor: self.tenants.floor(tenant, limit) as f64,
                cap: self.tenants.cap(tenant).min(limit) as f64,
            })
            .collect();
        let shares = divide(limit as f64, &groups, &claims);
        for (index, &slot) in slots.iter().enumerate() {
            let claim = &claims[index];
            let dataset = self.dataset(slot);
            dataset.abandoned = claim.abandoned;
            let lifetime = lifetimes[index];
            dataset.plan = Plan {
                lifetime,
                ..plan(claim, shares[index], dataset.plan.mode)
            };
        }
    }

    /// Drops datasets without residents that nobody reads, and profiles beyond the limit.
    fn forget_datasets(&mut self) {
        let gone: Vec<u32> = (self.live())
            .filter(|(slot, dataset)| dataset.abandoned && self.held(*slot) == 0)
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            if let Some(dataset) = self.datasets[slot as usize].take() {
                self.slots.remove(&dataset.key);
            }
        }
        let mut by_age: Vec<(u64, u32)> = (self.live())
            .filter(|(_, dataset)| dataset.reuse.is_some())
            .map(|(slot, dataset)| (dataset.last_open, slot))
            .collect();
        by_age.sort_unstable();
        let excess = by_age.len().saturating_sub(PROFILES_MAX);
        for (_, slot) in by_age.into_iter().take(excess) {
            self.dataset(slot).reuse = None;
        }
    }
}

/// What a dataset asks for, and the lifetime of its residents in its own traffic.
fn claim(dataset: &mut Dataset, traffic: u64, limit: f64, held: f64) -> (Claim, u64) {
    let silence = traffic - dataset.last_open;
    let last_open = dataset.last_open;
    let survival = dataset
        .reuse
        .as_ref()
        .and_then(|reuse| reuse.survival(traffic, last_open));
    let curve = survival.as_ref().map(Curve::new);
    let horizon = survival
        .as_ref()
        .map_or(0.0, |survival| survival.horizon_traffic());
    let mut seen = 0.0;
    if let Some(reuse) = &mut dataset.reuse {
        let age_max = ABANDONED * horizon.max(limit) + silence as f64;
        reuse.prune(traffic, age_max as u64);
        seen = reuse.seen_bytes();
    }
    let silence = silence as f64;
    let damping = (SILENCE * horizon / silence.max(1.0)).min(1.0).powi(2);
    let patience = if curve.is_some() {
        ABANDONED * horizon.max(limit)
    } else {
        limit
    };
    let lifetime = (curve.as_ref()).map_or(0.0, |curve| {
        LIFETIMES * horizon * curve.space_per_traffic().min(1.0)
    });
    let abandoned = silence > patience;
    (
        Claim {
            group: dataset.tenant,
            curve,
            damping,
            seen,
            resident: held,
            abandoned,
        },
        lifetime as u64,
    )
}
