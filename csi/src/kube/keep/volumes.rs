//! A PersistentVolume and a PersistentVolumeClaim for each dataset in each namespace that asks for it.
//!
//! ```text
//! wanted, no volume          -> volume (Retain, reserved for the claim), then claim (bound by name)
//! wanted, volume Released    -> its claim was removed by hand: volume removed, made anew next time
//! not wanted, claim there    -> claim removed; pods that use it keep it until they end
//! not wanted, no claim       -> volume removed
//! ```
//!
//! Removal never deletes data: the reclaim policy is Retain, so no driver is ever asked to delete, and
//! only what carries our label is removed. There is no finalizer of ours: every step is found again by
//! looking, and a controller that is gone for good never keeps a namespace from ending. Claims of users
//! that have the name already are left alone.
//!
//! A claim without a version shows the latest one at the moment a node mounts it. A tag or a day is
//! resolved once, when the volume is made: a volume cannot be changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use terrace_catalog::{Selector, VersionRef};

use super::{CatalogView, Keeper, Trouble, View, only};
use crate::kube::api::{CacheSet, Claim, KubeClient, Namespace, VOLUME_CLAIMS, VOLUMES, Volume};
use crate::kube::catalog::{Catalog, CatalogFault};
use crate::kube::names::{self, DATA_DRIVER, SELECTOR_KEY};
use crate::kube::wanted::Wanted;

/// What claims ask for: Kubernetes wants a number, and read-only data has no use for one.
const REQUEST: &str = "1Gi";

/// Pairs that are made in one pass: an API server serves others too.
const AT_ONCE: usize = 200;

/// See the module text.
#[derive(Debug)]
pub(crate) struct VolumeKeeper {
    client: KubeClient,
    caches: CacheSet,
    catalog: Arc<dyn Catalog>,
    view: CatalogView,
}

/// A pair that a namespace asks for.
#[derive(Debug)]
struct Pair {
    namespace: String,
    claim: String,
    selector: Selector,
    bytes: u64,
}

impl Keeper for VolumeKeeper {
    const NAME: &'static str = "volumes";
    const EVERY: Duration = Duration::from_secs(30);

    async fn pass(&mut self) -> Result<(), Trouble> {
        let (Some(namespaces), Some(volumes), Some(claims), Some(view)) = (
            self.caches.namespaces.all(),
            self.caches.volumes.all(),
            self.caches.claims.all(),
            self.view.current(),
        ) else {
            return Ok(());
        };
        let wanted = wanted(&namespaces, &view);
        let ours: BTreeMap<String, Arc<Volume>> = volumes
            .into_iter()
            .filter(|volume| names::is_managed(&volume.metadata.labels))
            .filter(|volume| {
                let csi = volume.spec.csi.as_ref();
                csi.is_some_and(|csi| csi.driver == DATA_DRIVER)
            })
            .map(|volume| (volume.metadata.name.clone(), volume))
            .collect();
        let mut made = 0;
        for (name, pair) in &wanted {
            if made < AT_ONCE && self.ensure(name, pair, ours.get(name)).await? {
                made += 1;
            }
        }
        if view.datasets.is_empty() {
            // More often a new and empty database than the end of every dataset.
            return Ok(());
        }
        self.remove(&wanted, &ours, &claims).await
    }
}

/// Name of the volume -> pair.
fn wanted(namespaces: &[Arc<Namespace>], view: &View) -> BTreeMap<String, Pair> {
    let mut wanted = BTreeMap::new();
    for namespace in namespaces {
        let asked = Wanted::of(namespace);
        if asked.is_empty() {
            continue;
        }
        let space = &namespace.metadata.name;
        // A dataset without a version has nothing to mount.
        let listed = view.datasets.values().filter(|one| one.latest.is_some());
        for one in listed {
            for selector in asked.selectors(&one.name) {
                let pair = Pair {
                    namespace: space.clone(),
                    claim: names::object_name(&selector),
                    bytes: one.bytes,
                    selector: selector.clone(),
                };
                wanted.insert(names::volume_name(space, &selector), pair);
            }
        }
    }
    wanted
}

impl VolumeKeeper {
    pub(crate) fn new(
        client: KubeClient,
        caches: CacheSet,
        catalog: Arc<dyn Catalog>,
        view: CatalogView,
    ) -> Self {
        Self {
            client,
            caches,
            catalog,
            view,
        }
    }

    /// Makes what is missing of a pair; whether something was asked of the API server.
    async fn ensure(
        &self,
        name: &str,
        pair: &Pair,
        volume: Option<&Arc<Volume>>,
    ) -> Result<bool, Trouble> {
        let claim = self.caches.claims.get(&pair.namespace, &pair.claim);
        if let Some(claim) = &claim
            && !names::is_managed(&claim.metadata.labels)
        {
            return Ok(false);
        }
        match volume {
            Some(volume) if volume.metadata.is_ending() => return Ok(false),
            Some(volume) if claim.is_none() && is_spent(volume) => {
                let uid = &volume.metadata.uid;
                only(name, self.client.delete(&VOLUMES, "", name, uid).await)?;
                return Ok(true);
            }
            Some(_) => {}
            None => {
                let selector = match self.pinned(&pair.selector).await {
                    Ok(selector) => selector,
                    Err(CatalogFault::Away(why)) => return Err(CatalogFault::Away(why).into()),
                    Err(error) => {
                        let (namespace, selector) = (&pair.namespace, &pair.selector);
                        tracing::debug!(%namespace, %selector, %error, "no volume");
                        return Ok(false);
                    }
                };
                let object = volume_object(name, pair, &selector);
                match self.client.create(&VOLUMES, "", &object).await {
                    Err(error) if error.is_taken() => {}
                    outcome => drop(only(name, outcome)?),
                }
            }
        }
        if claim.is_some() {
            return Ok(volume.is_none());
        }
        let object = claim_object(name, pair);
        let made = self.client.create(&VOLUME_CLAIMS, &pair.namespace, &object);
        match made.await {
            Err(error) if error.is_taken() => {}
            outcome => drop(only(&pair.claim, outcome)?),
        }
        Ok(true)
    }

    /// A tag or a day as the version it names now; the others as they are.
    async fn pinned(&self, selector: &Selector) -> Result<Selector, CatalogFault> {
        match selector.version() {
            VersionRef::Latest | VersionRef::Number(_) => Ok(selector.clone()),
            VersionRef::Tag(_) | VersionRef::Day { .. } => {
                let version = self.catalog.resolve(selector).await?.version;
                let dataset = selector.dataset().clone();
                Ok(Selector::new(dataset, VersionRef::Number(version)))
            }
        }
    }

    /// Takes away what is ours and no longer asked for: first the claim, then the volume.
    async fn remove(
        &self,
        wanted: &BTreeMap<String, Pair>,
        ours: &BTreeMap<String, Arc<Volume>>,
        claims: &[Arc<Claim>],
    ) -> Result<(), Trouble> {
        let mut claimed = BTreeSet::new();
        for claim in claims {
            let meta = &claim.metadata;
            let volume = &claim.spec.volume_name;
            claimed.insert(volume.as_str());
            if !names::is_managed(&meta.labels) || meta.is_ending() || wanted.contains_key(volume) {
                continue;
            }
            let (space, name, uid) = (&meta.namespace, &meta.name, &meta.uid);
            let deleted = self.client.delete(&VOLUME_CLAIMS, space, name, uid).await;
            only(name, deleted)?;
            tracing::info!(namespace = %space, claim = %name, "a claim is removed; its data stays");
        }
        for (name, volume) in ours {
            let meta = &volume.metadata;
            let busy = wanted.contains_key(name) || claimed.contains(name.as_str());
            if busy || meta.is_ending() || !self.is_unclaimed(volume).await? {
                continue;
            }
            only(
                name,
                self.client.delete(&VOLUMES, "", name, &meta.uid).await,
            )?;
        }
        Ok(())
    }

    /// Asks the API server itself: the cache of claims may be older than that of volumes.
    async fn is_unclaimed(&self, volume: &Volume) -> Result<bool, Trouble> {
        let Some(claim) = &volume.spec.claim_ref else {
            return Ok(true);
        };
        let found = self
            .client
            .get(&VOLUME_CLAIMS, &claim.namespace, &claim.name);
        let found = only(&claim.name, found.await)?.flatten();
        let bound = found
            .as_ref()
            .and_then(|claim| claim.pointer("/spec/volumeName"));
        Ok(bound.and_then(Value::as_str) != Some(&volume.metadata.name))
    }
}

/// Whether the claim it was bound to is gone.
fn is_spent(volume: &Volume) -> bool {
    let bound = volume.spec.claim_ref.as_ref();
    volume.status.phase == "Released" && bound.is_some_and(|claim| !claim.uid.is_empty())
}

fn volume_object(name: &str, pair: &Pair, selector: &Selector) -> Value {
    let gibibytes = pair.bytes.div_ceil(1 << 30).max(1);
    json!({
        "apiVersion": "v1", "kind": VOLUMES.kind,
        "metadata": {
            "name": name, "labels": names::managed_label(),
            "annotations": {SELECTOR_KEY: pair.selector.to_string()},
        },
        "spec": {
            "capacity": {"storage": format!("{gibibytes}Gi")},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1", "kind": VOLUME_CLAIMS.kind,
                "namespace": pair.namespace, "name": pair.claim,
            },
            "csi": {
                "driver": DATA_DRIVER, "volumeHandle": name, "readOnly": true,
                "volumeAttributes": {"dataset": selector.to_string()},
            },
        },
    })
}

fn claim_object(volume: &str, pair: &Pair) -> Value {
    json!({
        "apiVersion": "v1", "kind": VOLUME_CLAIMS.kind,
        "metadata": {
            "name": pair.claim, "namespace": pair.namespace, "labels": names::managed_label(),
            "annotations": {SELECTOR_KEY: pair.selector.to_string()},
        },
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "volumeName": volume,
            "resources": {"requests": {"storage": REQUEST}},
        },
    })
}
