//! The policy of the hot tier: keeps what will be opened again, dataset by dataset.
//!
//! Per dataset it measures when objects come again ([`super::reuse`]), derives what space is worth
//! to it ([`super::curve`]), and divides the budget by worth ([`super::share`]). A plan is made anew
//! after every 64th of the budget in traffic. Between plans each operation is O(1) in the number
//! of objects and O(datasets) at an eviction.
//!
//! - Free space takes every newcomer. In a full tier a newcomer comes in if its dataset is below
//!   its share, or if its dataset goes by recency, or in place of a resident that died (was not
//!   opened for [`LIFETIMES`](super::plan) times the longest usual reuse time of its dataset).
//! - Where recency rules, newcomers go to a window of a tenth of the share and become long-time
//!   residents when they are opened again, there or soon after they left it ([`super::ghosts`]):
//!   S3-FIFO's admission, which keeps what is opened once from pushing out what is opened often.
//! - A dataset read once per epoch therefore stops changing once its share is full: it hits
//!   share / size of its bytes, in any order, and writes nothing.
//! - A dataset opened for the first time has no worth: it takes free space, and the space of
//!   datasets that are *abandoned*: not opened for [`ABANDONED`](super::plan) budgets (or longest reuse times
//!   of their own, if longer), one budget if they were never re-read either. So one pass over
//!   anything does not flush what is in use.
//! - Take-over: a dataset that is re-read displaces a silent one as soon as its worth is larger. In
//!   traffic bytes, it owns the budget after at most its first epoch plus twice the longer of the
//!   two epochs plus the budget itself.
//!
//! - Datasets may belong to tenants with guarantees and caps ([`super::tenants`]), which come before all
//!   of the above.
//!
//! There is no clock: time is the traffic on the node, and a resident's age is its own dataset's.

use std::collections::HashMap;

use super::ghosts::Ghosts;
use super::pending::Pending;
use super::plan::PROFILES_MAX;
use super::residents::{Id, ListId, Residents, key};
use super::reuse::Reuse;
use super::share::{Mode, Plan};
use super::tenants::{TenantId, TenantUse, Tenants};
use super::{Access, Admission, Policy, Resident};
use crate::identity::{DatasetKey, Digest};

/// A dataset with residents or with a recent open.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) key: DatasetKey,
    pub(super) tenant: TenantId,
    pub(super) reuse: Option<Box<Reuse>>,
    /// Node traffic at its last open.
    pub(super) last_open: u64,
    /// Its own traffic; the age of residents is measured in it.
    pub(super) traffic: u64,
    pub(super) plan: Plan,
    pub(super) abandoned: bool,
    /// What left the recency window lately.
    pub(super) ghosts: Ghosts,
}

/// See the module text.
#[derive(Debug)]
pub struct EpochPolicy {
    /// Budget as told, and as learned from evictions asked for below it.
    pub(super) capacity: u64,
    pub(super) observed: u64,
    pub(super) traffic: u64,
    pub(super) residents: Residents,
    pub(super) pending: Pending,
    pub(super) datasets: Vec<Option<Dataset>>,
    pub(super) slots: HashMap<DatasetKey, u32>,
    pub(super) planned_at: u64,
    pub(super) opens_since_plan: usize,
    pub(super) plan_due: bool,
    pub(super) tenants: Tenants,
}

/// What the policy thinks of one dataset, for reports.
#[derive(Clone, Debug)]
pub struct DatasetShare {
    /// The dataset.
    pub dataset: DatasetKey,
    /// Bytes it fills.
    pub resident_bytes: u64,
    /// Bytes it may fill.
    pub share_bytes: u64,
    /// Whether old residents are kept against newcomers (read in epochs) or go by recency.
    pub stable: bool,
}

/// The list of long-time residents of a dataset; the recency window is the one after it.
pub(super) fn main_list(slot: u32) -> ListId {
    slot * 2
}

impl EpochPolicy {
    /// A policy for a tier of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            observed: capacity,
            traffic: 0,
            residents: Residents::new(),
            pending: Pending::new(),
            datasets: Vec::new(),
            slots: HashMap::new(),
            planned_at: 0,
            opens_since_plan: 0,
            plan_due: false,
            tenants: Tenants::default(),
        }
    }

    /// Shares as planned last, in no particular order.
    pub fn shares(&self) -> Vec<DatasetShare> {
        let shares = self.live().map(|(slot, dataset)| DatasetShare {
            dataset: dataset.key.clone(),
            resident_bytes: self.resident_bytes(slot),
            share_bytes: dataset.plan.share(),
            stable: dataset.plan.mode == Mode::Stable,
        });
        shares.collect()
    }

    pub(super) fn limit(&self) -> u64 {
        self.capacity.min(self.observed)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (u32, &Dataset)> {
        let slots = self.datasets.iter().enumerate();
        slots.filter_map(|(slot, dataset)| dataset.as_ref().map(|dataset| (slot as u32, dataset)))
    }

    pub(super) fn dataset(&mut self, slot: u32) -> &mut Dataset {
        self.datasets[slot as usize]
            .as_mut()
            .expect("slots in use are named by `slots` and lists")
    }

    pub(super) fn resident_bytes(&self, slot: u32) -> u64 {
        let main = main_list(slot);
        self.residents.list_bytes(main) + self.residents.list_bytes(main + 1)
    }

    /// Resident and promised bytes.
    pub(super) fn held(&self, slot: u32) -> u64 {
        self.held_in(main_list(slot)) + self.held_in(main_list(slot) + 1)
    }

    /// Promised bytes only.
    pub(super) fn promised_to(&self, slot: u32) -> u64 {
        let main = main_list(slot);
        self.pending.bytes_of(main) + self.pending.bytes_of(main + 1)
    }

    fn promised(&self) -> u64 {
        self.residents.bytes() + self.pending.bytes()
    }

    pub(super) fn held_in(&self, list: ListId) -> u64 {
        self.residents.list_bytes(list) + self.pending.bytes_of(list)
    }

    pub(super) fn share(&self, slot: u32) -> u64 {
        self.datasets[slot as usize]
            .as_ref()
            .map_or(0, |dataset| dataset.plan.share())
    }

    fn slot(&mut self, name: &DatasetKey) -> u32 {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let dataset = Dataset {
            key: name.clone(),
            tenant: self.tenants.of(name),
            reuse: None,
            last_open: self.traffic,
            traffic: 0,
            plan: Plan::NEW,
            abandoned: false,
            ghosts: Ghosts::default(),
        };
        let slot = match self.datasets.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.datasets.push(None);
                self.datasets.len() - 1
            }
        };
        self.datasets[slot] = Some(dataset);
        let slot = slot as u32;
        self.residents.ensure_list(main_list(slot) + 1);
        self.slots.insert(name.clone(), slot);
        self.plan_due = true;
        slot
    }

    /// Counts one open with the clock, the dataset and its profile.
    fn count(&mut self, access: &Access<'_>) -> u32 {
        let size = access.size.max(1);
        self.traffic = self.traffic.saturating_add(size);
        self.opens_since_plan += 1;
        let slot = self.slot(access.dataset);
        let same_visit = self.limit().min(self.traffic) / 1024;
        let profiles = self
            .live()
            .filter(|(_, dataset)| dataset.reuse.is_some())
            .count();
        let traffic = self.traffic;
        let dataset = self.dataset(slot);
        dataset.last_open = traffic;
        dataset.traffic = dataset.traffic.saturating_add(size);
        dataset.abandoned = false;
        if dataset.reuse.is_none() && profiles < 2 * PROFILES_MAX {
            dataset.reuse = Some(Box::new(Reuse::new()));
        }
        let first = (dataset.reuse.as_mut())
            .is_some_and(|reuse| reuse.record(key(access.digest), size, traffic, same_visit));
        self.plan_due |= first;
        slot
    }

    /// Where a newcomer would go, if it may come in.
    fn place(&mut self, slot: u32, digest: &Digest, size: u64) -> Option<ListId> {
        let main = main_list(slot);
        let limit = self.limit();
        let (guaranteed, capped) = self.tenant_room(slot, size + self.pending.surplus());
        let of = self.datasets[slot as usize].as_ref()?.tenant;
        if size > limit.min(self.tenants.cap(of)) {
            return None;
        }
        let size = size + self.pending.surplus();
        let plan = self.datasets[slot as usize].as_ref()?.plan;
        if plan.mode == Mode::Recency {
            let known = self.dataset(slot).ghosts.recall(key(digest));
            return Some(if known { main } else { main + 1 });
        }
        let is_free = self.promised() + size <= limit && !capped;
        if is_free || guaranteed || self.held_in(main) + size <= plan.main {
            return Some(main);
        }
        if size <= plan.window {
            return Some(main + 1);
        }
        let dead = self
            .residents
            .oldest(main)
            .is_some_and(|oldest| self.is_dead(oldest));
        dead.then_some(main)
    }

    /// Counts an open of a resident. Where recency rules, a newcomer that is opened again (and not
    /// only still) has proved itself.
    fn touch(&mut self, id: Id) {
        let node = self.residents.node(id);
        let (list, last) = (node.list, node.last);
        let same_visit = self.limit() / 1024;
        let owner = self.dataset(list / 2);
        let now = owner.traffic;
        let proved = owner.plan.mode == Mode::Recency && now - last > same_visit;
        match list % 2 == 1 && proved {
            true => self.residents.promote(id, main_list(list / 2), now),
            false => self.residents.touch(id, now),
        }
    }

    pub(super) fn is_dead(&self, id: Id) -> bool {
        let node = self.residents.node(id);
        let owner = self
            .datasets
            .get(node.list as usize / 2)
            .and_then(Option::as_ref);
        owner.is_some_and(|dataset| {
            let age = dataset.traffic.saturating_sub(node.last);
            dataset.plan.lifetime > 0 && age > dataset.plan.lifetime
        })
    }
}

impl Policy for EpochPolicy {
    fn open(&mut self, access: &Access<'_>) -> Admission {
        let slot = self.count(access);
        if let Some(id) = self.residents.find(access.digest) {
            self.touch(id);
        }
        self.maybe_plan();
        if access.resident || self.pending.contains(access.digest) {
            return Admission::Keep;
        }
        self.pending.expire(self.traffic, self.limit() / 4);
        match self.place(slot, access.digest, access.size) {
            Some(list) => {
                self.pending
                    .promise(*access.digest, list, access.size, self.traffic);
                Admission::Keep
            }
            None => Admission::Bypass,
        }
    }

    fn inserted(&mut self, dataset: &DatasetKey, digest: Digest, size: u64) {
        // A dataset with residents is not forgotten, and an empty file is one of them.
        let size = size.max(1);
        let promised = self.pending.fulfil(&digest, size);
        if let Some(id) = self.residents.find(&digest) {
            self.residents.resize(id, size);
            return;
        }
        let slot = self.slot(dataset);
        let list = promised.unwrap_or(main_list(slot));
        let owner = list / 2;
        let now = self.datasets[owner as usize]
            .as_ref()
            .map_or(0, |dataset| dataset.traffic);
        self.residents.insert(digest, size, list, now);
    }

    fn restored(
        &mut self,
        datasets: &[DatasetKey],
        residents: &mut dyn ExactSizeIterator<Item = Resident>,
    ) {
        let lists: Vec<ListId> = datasets
            .iter()
            .map(|dataset| main_list(self.slot(dataset)))
            .collect();
        self.residents.reserve(residents.len());
        for resident in residents {
            let list = lists[resident.dataset];
            // Nobody has opened anything yet: every dataset's clock stands at 0.
            self.residents
                .insert(resident.digest, resident.size.max(1), list, 0);
        }
    }

    fn removed(&mut self, digest: &Digest) {
        self.pending.cancel(digest);
        if let Some(id) = self.residents.find(digest) {
            let list = self.residents.node(id).list;
            let most = self.residents.list_count(main_list(list / 2));
            let owner = self.dataset(list / 2);
            if list % 2 == 1 && owner.plan.mode == Mode::Recency {
                owner.ghosts.remember(key(digest), most);
            }
        }
        self.residents.remove(digest);
    }

    fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
        self.observed = bytes;
        self.plan_due = true;
    }

    fn victims(&mut self, need: u64, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        if self.promised().saturating_add(need) <= self.capacity {
            self.observed = self.observed.min(self.promised());
        }
        self.choose(need, evictable)
    }

    fn over_cap(&mut self, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        self.above_caps(evictable)
    }

    fn tenants(&self) -> Vec<TenantUse> {
        self.tenants_in_use()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, a tier that was opened would evict in another order than the one that was filled.
    #[test]
    fn restoring_everything_is_like_inserting_one_by_one() {
        let datasets = ["a", "b", "c"].map(|name| DatasetKey(name.into()));
        let residents: Vec<Resident> = (0..40)
            .map(|number| Resident {
                dataset: usize::from(number % 3),
                digest: Digest([number; 32]),
                size: 1 + u64::from(number % 7),
            })
            .collect();
        let mut one_by_one = EpochPolicy::new(150);
        for resident in &residents {
            let dataset = &datasets[resident.dataset];
            one_by_one.inserted(dataset, resident.digest, resident.size);
        }
        let mut at_once = EpochPolicy::new(150);
        at_once.restored(&datasets, &mut residents.into_iter());
        for need in [1, 30, 1000] {
            let victims = at_once.victims(need, &|_| true);
            assert!(!victims.is_empty());
            assert_eq!(victims, one_by_one.victims(need, &|_| true));
        }
        let shares = |policy: &EpochPolicy| format!("{:?}", policy.shares());
        assert_eq!(shares(&at_once), shares(&one_by_one));
    }
}
