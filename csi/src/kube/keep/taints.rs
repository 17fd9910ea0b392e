//! Nodes that wait for their drivers: the taint that keeps pods away goes when the drivers are there.
//!
//! ```text
//! node with the taint terrace.io/agent-not-ready
//!   its CSINode lists every driver that is waited for   -> the taint goes, those of others stay
//!   it does not, or there is none                       -> the node waits
//! ```
//!
//! Who makes nodes puts the taint on them (a node group's settings, `--register-with-taints` of a kubelet);
//! it is never put on here, so a driver that is restarted, or is gone, takes no node out of service. That a
//! kubelet has registered a driver is said by the CSINode alone: a driver's pod may run long before.
//!
//! A node is written with the version it was read with: taints that somebody else changes at that moment are
//! not written back as they were.

use serde_json::{Value, json};

use super::{Keeper, Trouble, only};
use crate::kube::api::{CacheSet, KubeClient, NODES, Node};
use crate::kube::names::NOT_READY_TAINT;

/// See the module text.
#[derive(Debug)]
pub(crate) struct TaintKeeper {
    client: KubeClient,
    caches: CacheSet,
    /// Drivers that a node waits for.
    drivers: Vec<String>,
}

impl TaintKeeper {
    pub(crate) fn new(client: KubeClient, caches: CacheSet, drivers: Vec<String>) -> Self {
        Self {
            client,
            caches,
            drivers,
        }
    }

    /// Whether the kubelet of a node has registered every driver.
    fn is_ready(&self, node: &str) -> bool {
        let found = self.caches.csi_nodes.get("", node);
        found.is_some_and(|found| {
            let has = |driver: &String| found.spec.drivers.iter().any(|has| has.name == *driver);
            self.drivers.iter().all(has)
        })
    }

    /// Takes the taint from a node as it is now: what a cache shows of a node is seconds old.
    async fn untaint(&self, name: &str) -> Result<(), Trouble> {
        let found = only(name, self.client.get(&NODES, "", name).await)?.flatten();
        let Some(node) = found.and_then(|found| serde_json::from_value::<Node>(found).ok()) else {
            return Ok(());
        };
        if !is_waiting(&node) {
            return Ok(());
        }
        let taints = node.spec.taints.iter().filter(|taint| !is_ours(taint));
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints.collect::<Vec<_>>()},
        });
        match self.client.patch(&NODES, "", name, &patch).await {
            // Somebody else was quicker; the change wakes the next pass.
            Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
            outcome => {
                if only(name, outcome)?.is_some() {
                    tracing::info!(node = name, "its drivers are registered; pods may come");
                }
                Ok(())
            }
        }
    }
}

impl Keeper for TaintKeeper {
    const NAME: &'static str = "taints of nodes";
    const EVERY: std::time::Duration = std::time::Duration::from_secs(30);

    async fn pass(&mut self) -> Result<(), Trouble> {
        let Some(nodes) = self.caches.nodes.all() else {
            return Ok(());
        };
        for node in nodes.iter().filter(|node| is_waiting(node)) {
            let name = &node.metadata.name;
            if self.is_ready(name) {
                self.untaint(name).await?;
            }
        }
        Ok(())
    }
}

fn is_waiting(node: &Node) -> bool {
    node.spec.taints.iter().any(is_ours)
}

/// Whatever its effect is.
fn is_ours(taint: &Value) -> bool {
    taint.get("key").and_then(Value::as_str) == Some(NOT_READY_TAINT)
}
