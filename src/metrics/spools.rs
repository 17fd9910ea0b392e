//! Metrics of the spools of directory volumes, one row for each mount.

use std::fmt::Error;

use terrace_fuse::directory::SpoolStatus;

use super::{Labels, NodeCollector, Out};

impl NodeCollector {
    pub(super) fn spools(&self, out: &mut Out<'_>) -> Result<(), Error> {
        let volumes = self.0.volumes();
        let all: Vec<(Labels, SpoolStatus)> = volumes
            .iter()
            .filter_map(|volume| {
                let status = volume.fs.spool_status(b"").ok()??;
                let name = volume.spec.mountpoint.display().to_string();
                Some((vec![("mount", name)], status))
            })
            .collect();
        let rows = |value: fn(&SpoolStatus) -> u64| -> Vec<(Labels, f64)> {
            let row =
                |(label, status): &(Labels, SpoolStatus)| (label.clone(), value(status) as f64);
            all.iter().map(row).collect()
        };
        out.gauges("spool_files", "Files on the SSD only", rows(|s| s.files))?;
        out.gauges("spool_bytes", "Bytes of them", rows(|s| s.bytes))?;
        out.gauges(
            "spool_used_bytes",
            "Bytes a spool has on the SSD",
            rows(|s| s.used_bytes),
        )?;
        out.gauges("spool_limit_bytes", "Most of them", rows(|s| s.limit_bytes))?;
        out.gauges(
            "spool_oldest_seconds",
            "Age of the oldest file that is on the SSD only",
            rows(|s| s.oldest_seconds),
        )?;
        out.gauges(
            "spool_dead_letters",
            "Files that were tried again and again",
            rows(|s| s.dead_letters),
        )?;
        out.gauges(
            "spool_set_aside",
            "Files in lost+found",
            rows(|s| s.set_aside),
        )?;
        out.counters("spool_staged", "Files staged", rows(|s| s.staged_total))?;
        out.counters(
            "spool_refused",
            "Files written through for want of room",
            rows(|s| s.refused_total),
        )?;
        out.counters(
            "spool_copied_bytes",
            "Bytes brought into the directory, verified",
            rows(|s| s.copied_bytes_total),
        )?;
        out.counters(
            "spool_failed",
            "Attempts to do so that failed",
            rows(|s| s.failed_total),
        )?;
        out.counters(
            "spool_conflicts",
            "Files that another node changed meanwhile",
            rows(|s| s.conflicts_total),
        )
    }
}
