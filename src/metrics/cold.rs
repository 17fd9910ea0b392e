//! Metrics of cold stores of directory volumes. Labels: mount points of this node, and direction.

use std::fmt::Error;

use super::Out;
use crate::node::assembly::Node;

/// Writes what the volumes of a node have moved.
pub(super) fn encode(node: &Node, out: &mut Out<'_>) -> Result<(), Error> {
    let (mut files, mut bytes) = (Vec::new(), Vec::new());
    let (mut failed, mut waited) = (Vec::new(), Vec::new());
    let (mut refused, mut owed) = (Vec::new(), Vec::new());
    for volume in node.volumes() {
        let Some(status) = volume.fs.tier_status() else {
            continue;
        };
        let mount = ("mount", volume.spec.mountpoint.display().to_string());
        let to = |direction: &str| vec![mount.clone(), ("direction", direction.to_owned())];
        files.push((to("away"), status.demoted_files as f64));
        files.push((to("back"), status.recalled_files as f64));
        bytes.push((to("away"), status.demoted_bytes as f64));
        bytes.push((to("back"), status.recalled_bytes as f64));
        failed.push((vec![mount.clone()], status.recalls_failed as f64));
        refused.push((vec![mount.clone()], status.copies_failed as f64));
        owed.push((vec![mount.clone()], status.owed as f64));
        files.push((to("copied"), status.copied_files as f64));
        bytes.push((to("copied"), status.copied_bytes as f64));
        waited.push((vec![mount.clone()], status.waited as f64));
    }
    out.counters(
        "cold_moved_files",
        "Files whose contents went to a cold store, came back, or were copied there and stayed",
        files,
    )?;
    out.counters("cold_moved_bytes", "Bytes of these", bytes)?;
    out.counters(
        "cold_recalls_failed",
        "Recalls that ended with an error",
        failed,
    )?;
    out.counters(
        "cold_copies_failed",
        "Calls of level cold that ended with an error",
        refused,
    )?;
    out.gauges(
        "cold_owed",
        "Files that a call has promised to the cold store and that are not there",
        owed,
    )?;
    out.counters("cold_waited", "Requests that waited for contents", waited)
}
