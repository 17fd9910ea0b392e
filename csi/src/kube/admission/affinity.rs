//! Where a pod should rather run: on nodes that have its data on their own disks.
//!
//! ```text
//! preferred (default)   weight 100 for nodes that have all of every dataset, 50 for those with a half
//! required              only nodes that have all of it, if there is any such node
//! ignore                nothing is added
//! ```
//!
//! Nodes are named by the label `kubernetes.io/hostname`, which every scheduler and autoscaler knows, and
//! at most [`NODES_MAX`] of them: a term is a part of every pod. What is hot moves; a pod that waits for
//! long is placed by what was true when it was made, which costs a cold read and nothing else. A catalog
//! that does not answer at once leaves the pod without the hint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use terrace_catalog::{DatasetName, Selector};
use tokio::time::timeout;

use crate::kube::api::CacheSet;
use crate::kube::catalog::{Catalog, Heat};

/// Most nodes that are named.
const NODES_MAX: usize = 50;

/// The catalog has so long: a hint is not worth a wait.
const CATALOG: Duration = Duration::from_secs(1);

/// The label that a scheduler knows a node by.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Weights of the two terms.
const WEIGHTS: (u32, u32) = (100, 50);

/// What a pod's annotation `terrace.io/schedule` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Preferred,
    Required,
    Ignore,
}

impl Wish {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("preferred") => Ok(Self::Preferred),
            Some("required") => Ok(Self::Required),
            Some("ignore") => Ok(Self::Ignore),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                Err(format!(
                    "{other:?} is none of preferred, required and ignore"
                ))
            }
        }
    }
}

/// Hostnames of nodes: those that have all of it, and those that have at least half.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Near {
    pub(super) complete: Vec<String>,
    pub(super) partly: Vec<String>,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct Placement {
    catalog: Arc<dyn Catalog>,
    caches: CacheSet,
}

impl Placement {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, caches: CacheSet) -> Self {
        Self { catalog, caches }
    }

    /// Which nodes have the versions near.
    pub(super) async fn near(&self, versions: &BTreeMap<Selector, u64>) -> Near {
        let wanted: Vec<(&DatasetName, u64)> = versions
            .iter()
            .map(|(selector, number)| (selector.dataset(), *number))
            .collect();
        let asked = wanted.iter().map(|(dataset, _)| self.catalog.heat(dataset));
        let answers = match timeout(CATALOG, join_all(asked)).await {
            Ok(answers) => answers,
            Err(_) => return Near::default(),
        };
        let mut heats = Vec::new();
        for ((_, version), answer) in wanted.iter().zip(answers) {
            let heat = answer.unwrap_or_default().into_iter();
            heats.extend(heat.filter(|heat| heat.version == *version && heat.is_fresh));
        }
        let mut near = rank(&heats, wanted.len());
        for list in [&mut near.complete, &mut near.partly] {
            list.iter_mut().for_each(|node| *node = self.hostname(node));
            list.sort();
            list.dedup();
        }
        near
    }

    /// What schedulers call a node of the catalog.
    fn hostname(&self, node: &str) -> String {
        let known = self.caches.nodes.get("", node);
        let label = known.and_then(|node| node.metadata.labels.get(HOSTNAME).cloned());
        label.unwrap_or_else(|| node.to_owned())
    }
}

fn rank(heats: &[Heat], datasets: usize) -> Near {
    let mut nodes: BTreeMap<&str, (u128, u128, usize)> = BTreeMap::new();
    for heat in heats {
        let (hot, total, complete) = nodes.entry(&heat.node).or_default();
        *hot += u128::from(heat.hot_bytes);
        *total += u128::from(heat.total_bytes);
        *complete += usize::from(heat.hot_bytes >= heat.total_bytes);
    }
    let mut near = Near::default();
    for (node, (hot, total, complete)) in nodes {
        if complete == datasets && near.complete.len() < NODES_MAX {
            near.complete.push(node.to_owned());
        } else if hot * 2 >= total && hot > 0 && near.partly.len() < NODES_MAX {
            near.partly.push(node.to_owned());
        }
    }
    near
}

/// The affinity of a pod with the wish in it; none when nothing changes.
pub(super) fn with(affinity: Option<&Value>, near: &Near, wish: Wish) -> Option<Value> {
    let term = |nodes: &[String]| json!({"key": HOSTNAME, "operator": "In", "values": nodes});
    let mut affinity = affinity
        .filter(|value| value.is_object())
        .cloned()
        .unwrap_or(json!({}));
    match wish {
        Wish::Ignore => return None,
        Wish::Required if near.complete.is_empty() => return None,
        Wish::Required => {
            let place = "requiredDuringSchedulingIgnoredDuringExecution";
            let required = child(child(&mut affinity, "nodeAffinity"), place);
            // Terms are alternatives: the condition belongs into each of them.
            let terms = required
                .get_mut("nodeSelectorTerms")
                .and_then(Value::as_array_mut);
            match terms.filter(|terms| !terms.is_empty()) {
                Some(terms) => {
                    for one in terms {
                        push(one, "matchExpressions", term(&near.complete));
                    }
                }
                None => {
                    let terms = json!([{"matchExpressions": [term(&near.complete)]}]);
                    *required = json!({"nodeSelectorTerms": terms});
                }
            }
        }
        Wish::Preferred => {
            let lists = [(WEIGHTS.0, &near.complete), (WEIGHTS.1, &near.partly)];
            let lists: Vec<_> = lists
                .into_iter()
                .filter(|(_, nodes)| !nodes.is_empty())
                .collect();
            if lists.is_empty() {
                return None;
            }
            let place = "preferredDuringSchedulingIgnoredDuringExecution";
            for (weight, nodes) in lists {
                let preference = json!({"matchExpressions": [term(nodes)]});
                let one = json!({"weight": weight, "preference": preference});
                push(child(&mut affinity, "nodeAffinity"), place, one);
            }
        }
    }
    Some(affinity)
}

/// A member of an object that is an object; what is neither becomes one.
fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = json!({});
    }
    let child = &mut object[key];
    if !child.is_object() {
        *child = json!({});
    }
    child
}

/// Appends to a member that is a list.
fn push(object: &mut Value, key: &str, one: Value) {
    if !object.is_object() {
        *object = json!({});
    }
    match object[key].as_array_mut() {
        Some(list) => list.push(one),
        None => object[key] = json!([one]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near() -> Near {
        Near {
            complete: vec!["n1".to_owned()],
            partly: vec!["n2".to_owned()],
        }
    }

    // A term in the wrong place makes pods unschedulable, or frees them from what the user asked for.
    #[test]
    fn wishes_are_added_to_what_users_wrote() {
        let key = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let two = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["x"]}]}]}}});
        let changed = with(Some(&two), &near(), Wish::Required).unwrap_or_default();
        let terms = changed
            .pointer(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        assert_eq!(terms.len(), 2);
        assert_eq!(
            terms[0]["matchExpressions"].as_array().map(Vec::len),
            Some(2)
        );
        assert_eq!(terms[1]["matchExpressions"][0]["values"], json!(["n1"]));
        let changed = with(None, &near(), Wish::Preferred).unwrap_or_default();
        let preferred = &changed["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(preferred[0]["weight"], 100);
        assert_eq!(preferred[1]["weight"], 50);
        assert_eq!(with(None, &near(), Wish::Ignore), None);
        assert_eq!(with(None, &Near::default(), Wish::Preferred), None);
        assert_eq!(with(None, &Near::default(), Wish::Required), None);
        assert!(Wish::parse(Some("often")).is_err());
        for hostile in [
            json!({"nodeAffinity": "x"}),
            json!([1]),
            json!({"nodeAffinity": [[]]}),
        ] {
            assert!(with(Some(&hostile), &near(), Wish::Required).is_some());
            assert!(with(Some(&hostile), &near(), Wish::Preferred).is_some());
        }
    }

    // A node that has one of two datasets is not a node that has the data.
    #[test]
    fn only_nodes_with_everything_are_complete() {
        let heat = |node: &str, hot_bytes| Heat {
            node: node.to_owned(),
            version: 1,
            total_bytes: 10,
            hot_bytes,
            is_fresh: true,
        };
        let heats = [
            heat("a", 10),
            heat("a", 10),
            heat("b", 10),
            heat("c", 4),
            heat("d", 5),
        ];
        let near = rank(&heats, 2);
        assert_eq!(near.complete, ["a"]);
        assert_eq!(near.partly, ["b", "d"]);
    }
}
