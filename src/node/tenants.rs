//! Tenants of a node: what the configuration says of each, and the limits that their mounts share.
//!
//! ```text
//! [tenants.research]
//! ssd_share = "200GiB"        guaranteed in the hot tier     -> cache::policy
//! ssd_cap = "500GiB"          most of the hot tier           -> cache::policy
//! store_bandwidth = "1GiB"    a second, from all stores      -> one Bandwidth over all mounts
//! spool = "100GiB"            most bytes that wait to be written further down
//! ```
//! A mount names its tenant (`terrace mount --tenant`), or belongs to nobody. A tenant is whom a node
//! charges; it gives no access to anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use terrace_cache::policy::TenantShare;
use terrace_cache::store::Bandwidth;
use terrace_cache::units::ByteSize;
pub(crate) use terrace_csi::TenantName;

use super::config::Config;

/// Tenants of one node at most: each is a row of every report, and a label of metrics.
const TENANTS_MAX: usize = 256;

/// `[tenants.NAME]`: what one tenant may use of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TenantSection {
    /// Bytes of the hot tier that nobody else evicts. Default: 0B.
    pub(crate) ssd_share: ByteSize,
    /// Most bytes of the hot tier. Default: none.
    pub(crate) ssd_cap: Option<ByteSize>,
    /// Bytes a second from all stores together; 0B is no limit. Default: 0B.
    pub(crate) store_bandwidth: ByteSize,
    /// Most bytes in the spool. Default: none but the spool's own.
    pub(crate) spool: Option<ByteSize>,
}

/// `[tenants]`.
pub(crate) type TenantsSection = BTreeMap<TenantName, TenantSection>;

/// Refuses numbers that contradict each other, or the tier.
pub(crate) fn check(config: &Config) -> Result<()> {
    let tenants = &config.tenants;
    ensure!(
        tenants.len() <= TENANTS_MAX,
        "tenants: {} are named; at most {TENANTS_MAX}",
        tenants.len()
    );
    for (name, tenant) in tenants {
        ensure!(
            tenant.ssd_cap.is_none_or(|cap| cap >= tenant.ssd_share),
            "tenants.{name}.ssd_cap is less than its ssd_share, {}",
            tenant.ssd_share
        );
    }
    let shares = tenants.values().map(|tenant| tenant.ssd_share.0);
    let sum = shares.fold(0, u64::saturating_add);
    if let Some(size) = config.cache.hot.size {
        ensure!(
            sum <= size.0,
            "tenants: the ssd_share of all is {}, more than cache.hot.size, {size}",
            ByteSize(sum)
        );
    }
    Ok(())
}

/// What the policy of the hot tier is told.
pub(crate) fn shares(tenants: &TenantsSection) -> Vec<TenantShare> {
    let share = |(name, tenant): (&TenantName, &TenantSection)| TenantShare {
        name: name.as_str().into(),
        guaranteed: tenant.ssd_share.0,
        cap: tenant.ssd_cap.map(|cap| cap.0),
    };
    tenants.iter().map(share).collect()
}

/// The bandwidth limits of all tenants that have one.
#[derive(Debug)]
pub(crate) struct Bandwidths(BTreeMap<TenantName, Arc<Bandwidth>>);

impl Bandwidths {
    /// One for each tenant with a limit.
    pub(crate) fn new(tenants: &TenantsSection) -> Self {
        let limited = tenants
            .iter()
            .filter(|(_, tenant)| tenant.store_bandwidth.0 > 0);
        let limit = |(name, tenant): (&TenantName, &TenantSection)| {
            let bandwidth = Bandwidth::new(tenant.store_bandwidth);
            (name.clone(), Arc::new(bandwidth))
        };
        Self(limited.map(limit).collect())
    }

    /// That of a mount's tenant.
    pub(crate) fn of(&self, tenant: Option<&TenantName>) -> Option<Arc<Bandwidth>> {
        self.0.get(tenant?).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn config(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    // Without it a misspelt tenant would use nobody's budget, or guarantees be promised twice.
    #[test]
    fn numbers_that_cannot_hold_are_refused() {
        let good = "[cache.hot]\nsize = \"10GiB\"\n[tenants.a]\nssd_share = \"4GiB\"\n\
                    ssd_cap = \"8GiB\"\nspool = \"1GiB\"\n[tenants.b-2]\nssd_share = \"6GiB\"\n";
        let config_of = config(good).unwrap();
        assert_eq!(shares(&config_of.tenants).len(), 2);
        assert_eq!(shares(&config_of.tenants)[0].guaranteed, 4 << 30);
        let more = good.replace("\"6GiB\"", "\"7GiB\"");
        let error = format!("{:#}", config(&more).unwrap_err());
        assert!(error.contains("cache.hot.size"), "{error}");
        let less = good.replace("\"8GiB\"", "\"3GiB\"");
        let error = format!("{:#}", config(&less).unwrap_err());
        assert!(error.contains("tenants.a.ssd_cap"), "{error}");
        for name in ["A", "-a", "a/b", "a.b", "", "a b", &"x".repeat(64)] {
            assert!(name.parse::<TenantName>().is_err(), "{name:?}");
        }
    }
}
