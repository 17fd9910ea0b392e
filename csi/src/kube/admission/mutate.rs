//! The annotation `terrace.io/mount` of a pod, made true: a volume, its mounts, a wish where to run.
//!
//! ```text
//! /spec/volumes                          + {name: terrace-DIGEST(path), csi: {driver: data.terrace.io,
//!                                           readOnly, volumeAttributes: {dataset: ads.clicks@v12}}}
//! /spec/containers/*, /initContainers/*  + {name, mountPath, readOnly, mountPropagation}
//! /spec/affinity                         + nodes that have the data near
//! /metadata/annotations                  + terrace.io/resolved: ads.clicks@v12:/data/clicks
//! ```
//!
//! Whatever of it is there already stays, so asked again, or after another webhook has added a container,
//! the answer completes what is missing. A volume's name follows from the path, so it cannot be added
//! twice; a path that another volume has in a container is refused. The affinity is added with the
//! annotation and never again.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use terrace_catalog::{Selector, VersionRef};

use super::affinity::{self, Placement, Wish};
use super::resolve::{Owner, Resolver};
use super::review::{Answer, Review};
use crate::kube::mounts::{self, MountRequest};
use crate::kube::names::{DATA_DRIVER, MOUNT_KEY, RESOLVED_KEY, SCHEDULE_KEY, pod_volume_name};

/// What who made a pod is told where its volume could not be mounted.
const NO_INLINE: &str = "inline volumes are off on this cluster; use a PersistentVolumeClaim, or have the chart \
    installed with csi.data.inline=any";

/// See the module text.
#[derive(Debug)]
pub(crate) struct Mutator {
    resolver: Resolver,
    placement: Placement,
    /// Pods of this namespace are never touched.
    own_namespace: String,
    /// The driver takes inline volumes.
    inline: bool,
}

impl Mutator {
    pub(crate) fn new(
        resolver: Resolver,
        placement: Placement,
        own_namespace: String,
        inline: bool,
    ) -> Self {
        Self {
            resolver,
            placement,
            own_namespace,
            inline,
        }
    }

    /// Answers. May be dropped; see [`Resolver::versions`].
    pub(super) async fn answer(&self, review: &Review) -> Answer {
        let is_pod = review.kind.group.is_empty() && review.kind.kind == "Pod";
        let is_own = review.namespace == self.own_namespace;
        if !is_pod || is_own || review.operation != "CREATE" {
            return Answer::as_it_is();
        }
        let annotations = review.object.pointer("/metadata/annotations");
        let said = |key: &str| {
            annotations
                .and_then(|all| all.get(key))
                .and_then(Value::as_str)
        };
        let Some(text) = said(MOUNT_KEY) else {
            return Answer::as_it_is();
        };
        let refused = |key: &str, why: String| Answer::Refused(format!("annotation {key}: {why}"));
        if !self.inline {
            return refused(MOUNT_KEY, NO_INLINE.to_owned());
        }
        let requests = match mounts::parse(text) {
            Ok(requests) => requests,
            Err(error) => return refused(MOUNT_KEY, error.to_string()),
        };
        let wish = match Wish::parse(said(SCHEDULE_KEY)) {
            Ok(wish) => wish,
            Err(why) => return refused(SCHEDULE_KEY, why),
        };
        let is_first = said(RESOLVED_KEY).is_none();
        match self.patch(review, &requests, wish, is_first).await {
            Ok(patch) => Answer::Allowed {
                patch,
                warnings: Vec::new(),
            },
            Err(why) => refused(MOUNT_KEY, why),
        }
    }

    async fn patch(
        &self,
        review: &Review,
        requests: &[MountRequest],
        wish: Wish,
        is_first: bool,
    ) -> Result<Vec<Value>, String> {
        let pod = &review.object;
        let present = present(pod, requests)?;
        let open: Vec<Selector> = requests
            .iter()
            .filter(|request| !present.contains_key(&request.path))
            .map(|request| request.selector.clone())
            .collect();
        let owner = Owner::of(pod);
        let dry_run = review.dry_run.unwrap_or(false);
        let versions = self
            .resolver
            .versions(&review.namespace, &open, owner.as_ref(), dry_run);
        let versions = versions.await?;
        let mut resolved = Vec::with_capacity(requests.len());
        for request in requests {
            let number = present
                .get(&request.path)
                .or_else(|| versions.get(&request.selector));
            let number = *number.ok_or_else(|| format!("{} is not resolved", request.selector))?;
            resolved.push((request, pinned(&request.selector, number)));
        }
        let mut patch = Patch::default();
        patch.volumes(pod, &resolved)?;
        for kind in ["containers", "initContainers"] {
            patch.mounts(pod, kind, &resolved)?;
        }
        if is_first {
            let numbers: BTreeMap<Selector, u64> = resolved
                .iter()
                .filter_map(|(_, selector)| Some((selector.clone(), number(selector)?)))
                .collect();
            let affinity = match wish {
                Wish::Ignore => None,
                _ => {
                    let near = self.placement.near(&numbers).await;
                    affinity::with(pod.pointer("/spec/affinity"), &near, wish)
                }
            };
            patch.affinity(affinity);
            patch.annotate(pod, &resolved);
        }
        Ok(patch.0)
    }
}

fn pinned(selector: &Selector, number: u64) -> Selector {
    Selector::new(selector.dataset().clone(), VersionRef::Number(number))
}

fn number(selector: &Selector) -> Option<u64> {
    match selector.version() {
        VersionRef::Number(number) => Some(*number),
        _ => None,
    }
}

/// Versions of the volumes that an earlier answer has added, by their paths.
fn present(pod: &Value, requests: &[MountRequest]) -> Result<BTreeMap<String, u64>, String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let volumes = volumes.map(Vec::as_slice).unwrap_or_default();
    let mut present = BTreeMap::new();
    for request in requests {
        let name = pod_volume_name(&request.path);
        let Some(volume) = volumes
            .iter()
            .find(|volume| volume["name"] == name.as_str())
        else {
            continue;
        };
        let text = volume
            .pointer("/csi/volumeAttributes/dataset")
            .and_then(Value::as_str);
        let selector = text.and_then(|text| text.parse::<Selector>().ok());
        let ours = volume.pointer("/csi/driver").and_then(Value::as_str) == Some(DATA_DRIVER);
        let same = selector.filter(|found| ours && found.dataset() == request.selector.dataset());
        match same.as_ref().and_then(number) {
            Some(number) => present.insert(request.path.clone(), number),
            None => return Err(format!("the pod has another volume called {name}")),
        };
    }
    Ok(present)
}

/// A JSON Patch: whole values are added, which replaces what is there.
#[derive(Debug, Default)]
struct Patch(Vec<Value>);

impl Patch {
    fn add(&mut self, path: String, value: Value) {
        self.0
            .push(json!({"op": "add", "path": path, "value": value}));
    }

    fn volumes(
        &mut self,
        pod: &Value,
        resolved: &[(&MountRequest, Selector)],
    ) -> Result<(), String> {
        let mut volumes = list(pod.pointer("/spec/volumes"), "spec.volumes")?;
        let before = volumes.len();
        for (request, selector) in resolved {
            let name = pod_volume_name(&request.path);
            if volumes.iter().any(|volume| volume["name"] == name.as_str()) {
                continue;
            }
            volumes.push(json!({"name": name, "csi": {
                "driver": DATA_DRIVER, "readOnly": true,
                "volumeAttributes": {"dataset": selector.to_string()},
            }}));
        }
        if volumes.len() > before {
            self.add("/spec/volumes".to_owned(), Value::Array(volumes));
        }
        Ok(())
    }

    fn mounts(
        &mut self,
        pod: &Value,
        kind: &str,
        resolved: &[(&MountRequest, Selector)],
    ) -> Result<(), String> {
        let containers = list(pod.pointer(&format!("/spec/{kind}")), kind)?;
        for (at, container) in containers.iter().enumerate() {
            let mut mounts = list(container.get("volumeMounts"), "volumeMounts")?;
            let before = mounts.len();
            for (request, _) in resolved {
                let name = pod_volume_name(&request.path);
                let path = |mount: &&Value| {
                    let path = mount["mountPath"].as_str().unwrap_or_default();
                    path.trim_end_matches('/') == request.path
                };
                match mounts.iter().find(path) {
                    Some(mount) if mount["name"] == name.as_str() => {}
                    Some(_) => {
                        let container = container["name"].as_str().unwrap_or_default();
                        let path = &request.path;
                        return Err(format!(
                            "the container {container} has another volume at {path}"
                        ));
                    }
                    None => mounts.push(json!({
                        "name": name, "mountPath": request.path, "readOnly": true,
                        "mountPropagation": "HostToContainer",
                    })),
                }
            }
            if mounts.len() > before {
                self.add(
                    format!("/spec/{kind}/{at}/volumeMounts"),
                    Value::Array(mounts),
                );
            }
        }
        Ok(())
    }

    fn affinity(&mut self, affinity: Option<Value>) {
        if let Some(affinity) = affinity {
            self.add("/spec/affinity".to_owned(), affinity);
        }
    }

    fn annotate(&mut self, pod: &Value, resolved: &[(&MountRequest, Selector)]) {
        let texts = resolved
            .iter()
            .map(|(request, selector)| format!("{selector}:{}", request.path));
        let annotations = pod.pointer("/metadata/annotations").cloned();
        let mut annotations = annotations.unwrap_or_else(|| json!({}));
        annotations[RESOLVED_KEY] = json!(texts.collect::<Vec<_>>().join(","));
        self.add("/metadata/annotations".to_owned(), annotations);
    }
}

fn list(value: Option<&Value>, what: &str) -> Result<Vec<Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => Ok(list.clone()),
        Some(_) => Err(format!("{what} is not a list of objects")),
    }
}
