//! A hot tier without bytes: replays opens against a policy and counts what hits.

use std::collections::HashMap;

use terrace_cache::policy::{Access, Admission, Policy};
use terrace_cache::{DatasetKey, Digest};

/// One open in a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) dataset: usize,
    pub(crate) object: u64,
    pub(crate) size: u64,
}

/// Opened and hit bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) hit: u64,
    /// Bytes written to the tier.
    pub(crate) written: u64,
}

impl Tally {
    pub(crate) fn rate(&self) -> f64 {
        self.hit as f64 / self.opened.max(1) as f64
    }
}

/// A tier of `capacity` bytes under a policy.
pub(crate) struct Tier {
    pub(crate) policy: Box<dyn Policy>,
    capacity: u64,
    used: u64,
    resident: HashMap<Digest, (usize, u64)>,
    keys: Vec<DatasetKey>,
}

/// Digest of an object: uniform, as SHA-256 is.
pub(crate) fn digest(dataset: usize, object: u64) -> Digest {
    let mut bytes = [0; 32];
    let mut state = (dataset as u64) << 48 ^ object;
    for part in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    Digest(bytes)
}

impl Tier {
    pub(crate) fn new(mut policy: Box<dyn Policy>, capacity: u64) -> Self {
        policy.set_capacity(capacity);
        let keys = (0..64)
            .map(|n| DatasetKey(format!("dataset-{n}").into()))
            .collect();
        Self {
            policy,
            capacity,
            used: 0,
            resident: HashMap::new(),
            keys,
        }
    }

    /// The same tier, with dataset N read by the tenant "tN".
    pub(crate) fn of_tenants(mut self) -> Self {
        for (number, key) in self.keys.iter_mut().enumerate() {
            *key = key.of_tenant(Some(&format!("t{number}")));
        }
        self
    }

    /// The disk has less room from now on: what does not fit goes.
    pub(crate) fn shrink(&mut self, capacity: u64) {
        self.capacity = capacity;
        self.policy.set_capacity(capacity);
        let over = self.used.saturating_sub(capacity);
        let victims = self.policy.victims(over, &|_| true);
        self.evict(victims);
    }

    fn evict(&mut self, victims: Vec<Digest>) {
        for victim in victims {
            let (_, size) = self.resident.remove(&victim).expect("a victim is resident");
            self.used -= size;
            self.policy.removed(&victim);
        }
    }

    /// Replays opens and tallies them.
    pub(crate) fn replay(&mut self, opens: &[Open]) -> Tally {
        let mut tally = Tally::default();
        for open in opens {
            self.open(open, &mut tally);
        }
        tally
    }

    /// The same tier after the daemon was started again with a fresh policy.
    pub(crate) fn restart(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
        self.policy.set_capacity(self.capacity);
        let mut residents: Vec<_> = self.resident.iter().collect();
        residents.sort_unstable_by_key(|(digest, _)| **digest);
        for (digest, (dataset, size)) in residents {
            self.policy.inserted(&self.keys[*dataset], *digest, *size);
        }
    }

    /// Bytes of a dataset that are resident.
    pub(crate) fn resident_bytes(&self, dataset: usize) -> u64 {
        self.resident
            .values()
            .filter(|(owner, _)| *owner == dataset)
            .map(|(_, size)| size)
            .sum()
    }

    fn open(&mut self, open: &Open, tally: &mut Tally) {
        let digest = digest(open.dataset, open.object);
        let resident = self.resident.contains_key(&digest);
        let dataset = &self.keys[open.dataset];
        let access = Access {
            dataset,
            digest: &digest,
            size: open.size,
            resident,
        };
        let admission = self.policy.open(&access);
        tally.opened += open.size;
        if resident {
            tally.hit += open.size;
            return;
        }
        if admission == Admission::Bypass || open.size > self.capacity {
            return;
        }
        let above = self.policy.over_cap(&|_| true);
        self.evict(above);
        let need = (self.used + open.size).saturating_sub(self.capacity);
        if need > 0 {
            let victims = self.policy.victims(need, &|_| true);
            self.evict(victims);
        }
        assert!(
            self.used + open.size <= self.capacity,
            "victims free what was asked for"
        );
        self.used += open.size;
        tally.written += open.size;
        self.resident.insert(digest, (open.dataset, open.size));
        self.policy
            .inserted(&self.keys[open.dataset], digest, open.size);
    }
}
