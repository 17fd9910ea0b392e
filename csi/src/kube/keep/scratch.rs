//! Scratch volumes of nodes that are gone: cleaned when the policy says so.
//!
//! ```text
//! volume of local.terrace.io, its node not in the cluster
//!   -> annotation terrace.io/node-gone-since (so that a restart does not start the time anew)
//!   -> after `gone_after`:
//!        annotation terrace.io/when-node-gone: keep     stays
//!        annotation terrace.io/when-node-gone: delete   claim and volume go
//!        no annotation, reclaim policy Delete           the volume goes, once nobody claims it
//!        no annotation, reclaim policy Retain           stays
//! node comes back -> the annotation goes
//! ```
//!
//! A node that is gone took the bytes with it; what is removed here are the objects that would wait for it
//! for ever: its driver is not there to be asked, so the provisioner's finalizer is taken away with the
//! volume. Nothing is removed, only said, unless `delete` is set. A list of no nodes at all, or a
//! disappearance of most of them at once, is taken for a fault of the list and removes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Keeper, Trouble, only};
use crate::kube::api::{CacheSet, KubeClient, Node, VOLUME_CLAIMS, VOLUMES, Volume};
use crate::kube::clock;
use crate::kube::names::{GONE_SINCE_KEY, LOCAL_DRIVER, WHEN_GONE_KEY};

/// Labels of a node that volumes name it by.
const TOPOLOGY_KEYS: [&str; 2] = ["topology.local.terrace.io/node", "kubernetes.io/hostname"];

/// Finalizer of the provisioner that ran on the node.
const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// Most volumes that are removed in one pass.
const AT_ONCE: usize = 16;

/// What happens to scratch volumes of nodes that are gone.
#[derive(Clone, Copy, Debug)]
pub struct ScratchPolicy {
    /// How long a node must be gone.
    pub gone_after: Duration,
    /// Remove them; otherwise only say what would be removed.
    pub delete: bool,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct ScratchKeeper {
    client: KubeClient,
    caches: CacheSet,
    policy: ScratchPolicy,
    /// What was said already: once for each volume.
    said: BTreeSet<String>,
}

impl Keeper for ScratchKeeper {
    const NAME: &'static str = "scratch volumes";
    const EVERY: Duration = Duration::from_secs(30);

    async fn pass(&mut self) -> Result<(), Trouble> {
        let (Some(nodes), Some(volumes)) = (self.caches.nodes.all(), self.caches.volumes.all())
        else {
            return Ok(());
        };
        let there = names_of(&nodes);
        let scratch: Vec<(Arc<Volume>, String)> = volumes
            .into_iter()
            .filter_map(|volume| node_of(&volume).map(|node| (volume, node)))
            .collect();
        let is_gone = |node: &str| !there.contains(node);
        let named: BTreeSet<&str> = scratch.iter().map(|(_, node)| node.as_str()).collect();
        let gone = named.iter().filter(|node| is_gone(node)).count();
        if there.is_empty() || gone > there.len() {
            if gone > 0 {
                tracing::warn!(
                    gone,
                    there = there.len(),
                    "too many nodes are gone to believe it"
                );
            }
            return Ok(());
        }
        let mut removed = 0;
        for (volume, node) in &scratch {
            if !is_gone(node) {
                self.came_back(volume).await?;
            } else if self.is_due(volume, node).await? && removed < AT_ONCE {
                self.remove(volume, node).await?;
                removed += 1;
            }
        }
        self.said.retain(|name| {
            let mut all = scratch.iter();
            all.any(|(volume, _)| volume.metadata.name == *name)
        });
        Ok(())
    }
}

/// Every name by which a volume may name a node that is there.
fn names_of(nodes: &[Arc<Node>]) -> BTreeSet<String> {
    let named = nodes.iter().flat_map(|node| {
        let meta = &node.metadata;
        let labels = TOPOLOGY_KEYS.iter().filter_map(|key| meta.labels.get(*key));
        labels.cloned().chain([meta.name.clone()])
    });
    named.collect()
}

/// The one node that a scratch volume lives on; none for other volumes and for any other shape.
fn node_of(volume: &Volume) -> Option<String> {
    volume
        .spec
        .csi
        .as_ref()
        .filter(|csi| csi.driver == LOCAL_DRIVER)?;
    let terms = volume
        .spec
        .node_affinity
        .pointer("/required/nodeSelectorTerms")?;
    let [term] = terms.as_array()?.as_slice() else {
        return None;
    };
    let expressions = term.get("matchExpressions")?.as_array()?;
    let mut nodes = expressions.iter().filter_map(|expression| {
        let key = expression.get("key")?.as_str()?;
        let is_in = expression.get("operator")?.as_str()? == "In";
        let values = expression.get("values")?.as_array()?;
        match values.as_slice() {
            [value] if is_in && TOPOLOGY_KEYS.contains(&key) => value.as_str(),
            _ => None,
        }
    });
    nodes.next().map(str::to_owned)
}

impl ScratchKeeper {
    pub(crate) fn new(client: KubeClient, caches: CacheSet, policy: ScratchPolicy) -> Self {
        Self {
            client,
            caches,
            policy,
            said: BTreeSet::new(),
        }
    }

    async fn came_back(&mut self, volume: &Volume) -> Result<(), Trouble> {
        let meta = &volume.metadata;
        if meta.annotations.contains_key(GONE_SINCE_KEY) {
            self.said.remove(&meta.name);
            self.mark(volume, &Value::Null).await?;
        }
        Ok(())
    }

    /// Whether the node is gone for so long that the policy counts. The first look writes down when.
    async fn is_due(&self, volume: &Volume, node: &str) -> Result<bool, Trouble> {
        let annotations = &volume.metadata.annotations;
        let since = annotations.get(GONE_SINCE_KEY);
        let Some(since) = since.and_then(|text| clock::parse(text)) else {
            let now = clock::seconds(clock::now());
            tracing::warn!(volume = %volume.metadata.name, node, "the node of a scratch volume is gone");
            self.mark(volume, &json!(now)).await?;
            return Ok(false);
        };
        let gone = clock::now().signed_duration_since(since);
        let is_long = gone
            .to_std()
            .is_ok_and(|gone| gone >= self.policy.gone_after);
        let phase = volume.status.phase.as_str();
        let is_claimed = matches!(phase, "Bound" | "Pending" | "");
        let policy = volume.spec.persistent_volume_reclaim_policy.as_str();
        Ok(is_long
            && match annotations.get(WHEN_GONE_KEY).map(String::as_str) {
                Some("delete") => true,
                Some(_) => false,
                None => policy == "Delete" && !is_claimed,
            })
    }

    async fn mark(&self, volume: &Volume, since: &Value) -> Result<(), Trouble> {
        let meta = &volume.metadata;
        let patch = json!({"metadata": {
            "resourceVersion": meta.resource_version, "annotations": {GONE_SINCE_KEY: since},
        }});
        let marked = self.client.patch(&VOLUMES, "", &meta.name, &patch).await;
        Ok(only(&meta.name, marked).map(drop)?)
    }

    async fn remove(&mut self, volume: &Volume, node: &str) -> Result<(), Trouble> {
        let meta = &volume.metadata;
        let name = &meta.name;
        if !self.policy.delete {
            if self.said.insert(name.clone()) {
                tracing::warn!(volume = %name, node, "would be removed: its node is gone (dry run)");
            }
            return Ok(());
        }
        let claim = volume.spec.claim_ref.as_ref();
        if let Some(claim) = claim.filter(|claim| !claim.uid.is_empty()) {
            let (space, claimed) = (&claim.namespace, &claim.name);
            let deleted = self
                .client
                .delete(&VOLUME_CLAIMS, space, claimed, &claim.uid);
            only(claimed, deleted.await)?;
        }
        if !meta.is_ending() {
            only(
                name,
                self.client.delete(&VOLUMES, "", name, &meta.uid).await,
            )?;
        }
        self.unhold(volume).await?;
        tracing::warn!(volume = %name, node, "removed: its node is gone");
        Ok(())
    }

    /// Takes the provisioner's finalizer away, and no other, from exactly the volume that was looked at.
    async fn unhold(&self, volume: &Volume) -> Result<(), Trouble> {
        let name = &volume.metadata.name;
        let found = only(name, self.client.get(&VOLUMES, "", name).await)?.flatten();
        let Some(found) = found.and_then(|found| serde_json::from_value::<Volume>(found).ok())
        else {
            return Ok(());
        };
        let meta = found.metadata;
        let is_held = |own: &String| own == PROVISIONER_FINALIZER;
        if meta.uid != volume.metadata.uid || !meta.finalizers.iter().any(is_held) {
            return Ok(());
        }
        let others: Vec<String> = meta
            .finalizers
            .into_iter()
            .filter(|own| !is_held(own))
            .collect();
        let patch = json!({"metadata": {
            "resourceVersion": meta.resource_version, "finalizers": others,
        }});
        match self.client.patch(&VOLUMES, "", name, &patch).await {
            // Somebody else was quicker; the next pass looks again.
            Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
            outcome => Ok(only(name, outcome).map(drop)?),
        }
    }
}
