//! Metrics of tenants and of limited volumes. Labels: names in the configuration, and mount points.

use std::fmt::Error;

use super::{Labels, NodeCollector, Out};

impl NodeCollector {
    /// What tenants have of the hot tier.
    pub(super) fn tenants(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let tenants = self.0.cache().hot().tenants();
        let of = |name: &str| -> Labels { vec![("tenant", name.to_owned())] };
        let (mut used, mut shares, mut caps) = (Vec::new(), Vec::new(), Vec::new());
        for tenant in &tenants {
            let name = &*tenant.share.name;
            used.push((of(name), tenant.resident_bytes as f64));
            shares.push((of(name), tenant.share.guaranteed as f64));
            caps.extend(tenant.share.cap.map(|cap| (of(name), cap as f64)));
        }
        out.gauges(
            "tenant_hot_bytes",
            "Bytes of a tenant in the hot tier",
            used,
        )?;
        out.gauges(
            "tenant_hot_share_bytes",
            "Bytes of the hot tier that a tenant is guaranteed",
            shares,
        )?;
        out.gauges(
            "tenant_hot_cap_bytes",
            "Most bytes of the hot tier that a tenant takes",
            caps,
        )
    }

    /// What volumes take whose limits the daemon keeps.
    pub(super) fn volumes(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let (mut bytes, mut files, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let (mut most_bytes, mut most_files) = (Vec::new(), Vec::new());
        for volume in self.0.volumes() {
            let Some(quota) = volume.fs.status().quota else {
                continue;
            };
            let mount = volume.spec.mountpoint.display().to_string();
            let label: Labels = vec![("mount", mount)];
            bytes.push((label.clone(), quota.used.bytes as f64));
            files.push((label.clone(), quota.used.files as f64));
            refusals.push((label.clone(), quota.refused as f64));
            most_bytes.extend(quota.limits.bytes.map(|most| (label.clone(), most as f64)));
            most_files.extend(quota.limits.files.map(|most| (label, most as f64)));
        }
        out.gauges("volume_used_bytes", "Bytes that a volume takes", bytes)?;
        out.gauges("volume_used_files", "Files that a volume has", files)?;
        out.gauges(
            "volume_quota_bytes",
            "Most bytes that a volume may take",
            most_bytes,
        )?;
        out.gauges(
            "volume_quota_files",
            "Most files that a volume may have",
            most_files,
        )?;
        out.counters(
            "volume_quota_refusals",
            "Requests refused because a volume is full",
            refusals,
        )
    }
}
