//! Tenants: what each may count on in the tier, and what it may take at most.
//!
//! A dataset belongs to the tenant that its key names ([`DatasetKey::tenant`]), or to nobody. Of each
//! tenant two numbers are known:
//! - the *guarantee*: bytes that nobody else evicts, used or idle, and that its newcomers always come
//!   into. Guarantees that are together more than the tier has (the disk ran short) shrink alike.
//! - the *cap*: bytes that it takes at most, although there may be room.
//!
//! What no guarantee covers goes by worth, as between datasets without tenants ([`super::share`]); a
//! guarantee that its tenant does not use is lent out and taken back object by object.
//!
//! | step      | where               | rule                                                              |
//! | --------- | ------------------- | ----------------------------------------------------------------- |
//! | division  | `share::divide`     | first guarantees, then worth up to caps                            |
//! | admission | `EpochPolicy::place`| below the guarantee always; at the cap only by the dataset's share |
//! | eviction  | `evict::Search`     | never below the guarantee of a tenant that asks for nothing        |
//! | cap       | `over_cap`          | what came in above it pushes out what the same tenant has          |
//!
//! The room that is asked for is a tenant's own when the tenant holds more than its guarantee with what
//! it was promised, so a tenant within its guarantee never pays for another one.

use std::sync::Arc;

use super::epoch::EpochPolicy;
use crate::identity::{DatasetKey, Digest};

/// Position of a tenant; 0 is nobody.
pub(super) type TenantId = usize;

/// What one tenant may count on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantShare {
    /// Its name, as dataset keys have it.
    pub name: Arc<str>,
    /// Bytes that nobody else evicts.
    pub guaranteed: u64,
    /// Bytes that it takes at most; `None`: as many as there are.
    pub cap: Option<u64>,
}

/// What one tenant has, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantUse {
    /// What it may count on.
    pub share: TenantShare,
    /// Bytes of its residents.
    pub resident_bytes: u64,
}

/// All tenants of a tier.
#[derive(Debug)]
pub(super) struct Tenants {
    /// The first one is nobody: no guarantee, no cap.
    all: Vec<TenantShare>,
    guaranteed: u64,
}

impl Default for Tenants {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Tenants {
    pub(super) fn new(shares: Vec<TenantShare>) -> Self {
        let nobody = TenantShare {
            name: "".into(),
            guaranteed: 0,
            cap: None,
        };
        let guaranteed = shares.iter().map(|share| share.guaranteed);
        Self {
            guaranteed: guaranteed.fold(0, u64::saturating_add),
            all: std::iter::once(nobody).chain(shares).collect(),
        }
    }

    /// Whether there is nobody but nobody.
    pub(super) fn is_plain(&self) -> bool {
        self.all.len() == 1
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The tenant of a key; one that is not known is nobody.
    pub(super) fn of(&self, key: &DatasetKey) -> TenantId {
        let named = key.tenant();
        let found = named.and_then(|name| self.all.iter().position(|one| *one.name == *name));
        found.unwrap_or(0)
    }

    /// Bytes guaranteed to a tenant in a tier of `limit` bytes.
    pub(super) fn floor(&self, tenant: TenantId, limit: u64) -> u64 {
        let own = self.all[tenant].guaranteed;
        if self.guaranteed <= limit {
            return own;
        }
        let part = u128::from(own) * u128::from(limit) / u128::from(self.guaranteed);
        u64::try_from(part).unwrap_or(own)
    }

    /// Bytes that a tenant takes at most.
    pub(super) fn cap(&self, tenant: TenantId) -> u64 {
        self.all[tenant].cap.unwrap_or(u64::MAX)
    }
}

impl EpochPolicy {
    /// The same policy with tenants. Before anything is inserted.
    #[must_use]
    pub fn with_tenants(mut self, shares: Vec<TenantShare>) -> Self {
        self.tenants = Tenants::new(shares);
        self
    }

    /// Resident and promised bytes of each tenant.
    pub(super) fn held_by_tenants(&self) -> Vec<u64> {
        self.by_tenants(|slot| self.held(slot))
    }

    /// Sums of `bytes` of datasets.
    pub(super) fn by_tenants(&self, bytes: impl Fn(u32) -> u64) -> Vec<u64> {
        let mut sums = vec![0_u64; self.tenants.count()];
        for (slot, dataset) in self.live() {
            sums[dataset.tenant] = sums[dataset.tenant].saturating_add(bytes(slot));
        }
        sums
    }

    /// Whether `size` more bytes of a dataset's tenant are within its guarantee, and beyond its cap.
    pub(super) fn tenant_room(&self, slot: u32, size: u64) -> (bool, bool) {
        let dataset = self.datasets[slot as usize].as_ref();
        let Some(dataset) = dataset.filter(|_| !self.tenants.is_plain()) else {
            return (false, false);
        };
        let tenant = dataset.tenant;
        let held = self.held_by_tenants()[tenant].saturating_add(size);
        (
            held <= self.tenants.floor(tenant, self.limit()),
            held > self.tenants.cap(tenant),
        )
    }

    /// Residents that go because their tenants are above their caps.
    pub(super) fn above_caps(&self, evictable: &dyn Fn(&Digest) -> bool) -> Vec<Digest> {
        let mut victims = Vec::new();
        if self.tenants.is_plain() {
            return victims;
        }
        for (tenant, held) in self.held_by_tenants().into_iter().enumerate() {
            let over = held.saturating_sub(self.tenants.cap(tenant));
            if over > 0 {
                victims.extend(self.choose_of(tenant, over, evictable));
            }
        }
        victims
    }

    /// What tenants have, in the order in which they were given.
    pub(super) fn tenants_in_use(&self) -> Vec<TenantUse> {
        let resident = self.by_tenants(|slot| self.resident_bytes(slot));
        let all = self.tenants.all.iter().zip(resident).skip(1);
        all.map(|(share, resident_bytes)| TenantUse {
            share: share.clone(),
            resident_bytes,
        })
        .collect()
    }
}
