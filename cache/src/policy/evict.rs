//! Which residents [`EpochPolicy`] gives up when room is needed.
//!
//! Lists are asked in this order, each up to its quota: abandoned datasets, longest silent first;
//! datasets above their share, the most exceeded first, down to that share; at last every list from
//! its old end, so that room is found whenever anything may be evicted. Within a dataset the
//! recency window gives what it has too much, then the main list: dead residents and, where recency
//! rules, the oldest; a loop gives its newest, which it will need last.
//!
//! No tenant is asked for what is guaranteed to it ([`super::tenants`]), unless it is pushing itself:
//! then the object that reaches below the guarantee is one that makes room for its own newcomer.

use std::collections::HashSet;

use super::epoch::{EpochPolicy, main_list};
use super::residents::{Id, ListId};
use super::share::Mode;
use super::tenants::TenantId;
use crate::identity::Digest;

/// Residents of a tenant that are looked at although they are larger than what it has to spare.
const TOO_LARGE_MAX: usize = 64;

/// Which end of a list is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Oldest,
    Newest,
}

/// Permission to take up to `bytes` from one list.
#[derive(Clone, Copy, Debug)]
struct Quota {
    list: ListId,
    end: End,
    bytes: u64,
    dead_only: bool,
}

/// The search for victims: what was found so far.
struct Search<'a> {
    policy: &'a EpochPolicy,
    need: u64,
    evictable: &'a dyn Fn(&Digest) -> bool,
    freed: u64,
    /// Of each tenant, what it has beyond its guarantee, and whether it asks for room itself.
    spare: Vec<(u64, bool)>,
    chosen: HashSet<Id>,
    victims: Vec<Digest>,
}

impl EpochPolicy {
    pub(super) fn choose(&self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        // Whatever guarantees say, what is needed can be found.
        let limit = self.limit().saturating_sub(need);
        let promised = self.by_tenants(|slot| self.promised_to(slot));
        let held = self.held_by_tenants().into_iter().zip(promised);
        let spare = held.enumerate().map(|(tenant, (held, promised))| {
            let floor = self.tenants.floor(tenant, limit);
            (held.saturating_sub(floor), promised > 0)
        });
        self.search(need, spare.collect(), evictable)
    }

    /// Victims of one tenant, whatever is guaranteed to it.
    pub(super) fn choose_of(
        &self,
        tenant: TenantId,
        need: u64,
        evictable: &dyn Fn(&Digest) -> bool,
    ) -> Vec<Digest> {
        let all = (0..self.tenants.count()).map(|one| match one == tenant {
            true => (u64::MAX, false),
            false => (0, false),
        });
        self.search(need, all.collect(), evictable)
    }

    fn search(
        &self,
        need: u64,
        spare: Vec<(u64, bool)>,
        evictable: &dyn Fn(&Digest) -> bool,
    ) -> Vec<Digest> {
        let mut search = Search {
            policy: self,
            need,
            evictable,
            freed: 0,
            spare,
            chosen: HashSet::new(),
            victims: Vec::new(),
        };
        for quota in self.quotas() {
            search.take(quota);
            if search.freed >= need {
                return search.victims;
            }
        }
        search.take_oldest(self);
        search.victims
    }

    fn tenant_of(&self, list: ListId) -> TenantId {
        let dataset = self.datasets.get(list as usize / 2);
        dataset
            .and_then(Option::as_ref)
            .map_or(0, |dataset| dataset.tenant)
    }

    fn quotas(&self) -> Vec<Quota> {
        let mut quotas = Vec::new();
        let mut abandoned: Vec<_> = self
            .live()
            .filter(|(_, dataset)| dataset.abandoned)
            .collect();
        abandoned.sort_unstable_by_key(|(_, dataset)| dataset.last_open);
        for (slot, _) in abandoned {
            for list in [main_list(slot) + 1, main_list(slot)] {
                quotas.push(Quota {
                    list,
                    end: End::Oldest,
                    bytes: u64::MAX,
                    dead_only: false,
                });
            }
        }
        let mut over: Vec<_> = (self.live())
            .filter(|(_, dataset)| !dataset.abandoned)
            .map(|(slot, dataset)| (self.held(slot), slot, dataset))
            .filter(|(held, _, dataset)| *held > dataset.plan.share())
            .collect();
        over.sort_unstable_by(|a, b| {
            let ratio = |held: u64, share: u64| held as f64 / share.max(1) as f64;
            ratio(b.0, b.2.plan.share()).total_cmp(&ratio(a.0, a.2.plan.share()))
        });
        for (held, slot, dataset) in over {
            let (main, window) = (main_list(slot), main_list(slot) + 1);
            let plan = &dataset.plan;
            let excess = held - plan.share();
            let in_window = self.held_in(window);
            let from_window = excess.min(in_window.saturating_sub(plan.window));
            let oldest = Quota {
                list: window,
                end: End::Oldest,
                bytes: from_window,
                dead_only: false,
            };
            quotas.push(oldest);
            let bytes = excess - from_window;
            let loops = plan.mode == Mode::Stable && plan.window == 0;
            if loops {
                quotas.push(Quota {
                    list: main,
                    end: End::Oldest,
                    bytes,
                    dead_only: true,
                });
            }
            let end = if loops { End::Newest } else { End::Oldest };
            quotas.push(Quota {
                list: main,
                end,
                bytes,
                dead_only: false,
            });
        }
        quotas
    }
}

impl Search<'_> {
    /// Takes residents from one list while both the need and the quota last.
    fn take(&mut self, quota: Quota) {
        let residents = &self.policy.residents;
        let tenant = self.policy.tenant_of(quota.list);
        let (mut taken, mut too_large) = (0, 0);
        let mut next = match quota.end {
            End::Oldest => residents.oldest(quota.list),
            End::Newest => residents.newest(quota.list),
        };
        while let Some(id) = next {
            if self.freed >= self.need || taken >= quota.bytes || self.spare[tenant].0 == 0 {
                return;
            }
            too_large += usize::from(!self.spares(tenant, residents.node(id).size));
            if too_large > TOO_LARGE_MAX {
                return;
            }
            if quota.dead_only && !self.policy.is_dead(id) {
                return;
            }
            taken += self.try_choose(id);
            next = match quota.end {
                End::Oldest => residents.newer(id),
                End::Newest => residents.older(id),
            };
        }
    }

    /// The last resort: all lists by turns, always the one that is most above its share.
    fn take_oldest(&mut self, policy: &EpochPolicy) {
        let mut heads: Vec<(Id, u32, u64)> = Vec::new();
        for (slot, _) in policy.live() {
            for list in [main_list(slot), main_list(slot) + 1] {
                if let Some(id) = policy.residents.oldest(list) {
                    heads.push((id, slot, policy.held(slot)));
                }
            }
        }
        while self.freed < self.need && !heads.is_empty() {
            let fullness =
                |head: &(Id, u32, u64)| head.2 as f64 / policy.share(head.1).max(1) as f64;
            let fullest = (0..heads.len())
                .max_by(|a, b| fullness(&heads[*a]).total_cmp(&fullness(&heads[*b])))
                .expect("heads is not empty");
            let id = heads[fullest].0;
            let tenant = self.policy.tenant_of(policy.residents.node(id).list);
            let size = self.try_choose(id);
            heads[fullest].2 = heads[fullest].2.saturating_sub(size);
            match policy.residents.newer(id) {
                Some(newer) if self.spare[tenant].0 > 0 => heads[fullest].0 = newer,
                _ => {
                    heads.swap_remove(fullest);
                }
            }
        }
    }

    /// Whether a tenant can be asked for an object of that size.
    fn spares(&self, tenant: TenantId, size: u64) -> bool {
        let (spare, pushing) = self.spare[tenant];
        size <= spare || (pushing && spare > 0)
    }

    /// Bytes freed by choosing `id`; 0 if it may not be evicted or was chosen before.
    fn try_choose(&mut self, id: Id) -> u64 {
        let node = self.policy.residents.node(id);
        let tenant = self.policy.tenant_of(node.list);
        if self.chosen.contains(&id)
            || !self.spares(tenant, node.size)
            || !(self.evictable)(&node.digest)
        {
            return 0;
        }
        let spare = &mut self.spare[tenant].0;
        *spare = spare.saturating_sub(node.size);
        self.chosen.insert(id);
        self.victims.push(node.digest);
        self.freed += node.size;
        node.size
    }
}
