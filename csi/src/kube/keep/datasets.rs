//! `Dataset` resources and the catalog, in step both ways.
//!
//! ```text
//! resource with spec.source   -> registered in the catalog, if its namespace may (terrace.io/register)
//! dataset of the catalog      -> a resource in each namespace that asks for it (terrace.io/datasets)
//! catalog                     -> status of both
//! resource removed            -> nothing in the catalog: removal never deletes data
//! dataset or wish gone        -> the resource that we made is removed; those of users stay, as Missing
//! ```
//!
//! Two resources that register one dataset: the older one counts, the other is refused, so that they do
//! not overwrite each other for ever. A catalog that lists nothing at all removes nothing: that is more
//! often a new and empty database than the end of every dataset.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use terrace_catalog::descriptor::Descriptor;
use terrace_catalog::{DatasetName, Selector, VersionRef};
use tokio::time::Instant;

use super::status::Found;
use super::{CatalogView, Keeper, Trouble, View, only};
use crate::kube::api::{CacheSet, DATASETS, DatasetObject, Key, KubeClient, Namespace};
use crate::kube::catalog::{Catalog, CatalogFault};
use crate::kube::dataset::{self, Intent};
use crate::kube::names;
use crate::kube::wanted::{Wanted, may_register};

/// Datasets that are looked at in the catalog at once.
const AT_ONCE: usize = 8;

/// Heat and state are asked for again after so long; a new version at once.
const REFRESH: Duration = Duration::from_secs(30);

/// A registration is compared with the catalog's descriptor again after so long.
const RECHECK: Duration = Duration::from_secs(300);

/// What is known of a dataset, and since when: a memory of answers, not of duties.
#[derive(Clone, Debug)]
struct Looked {
    found: Found,
    latest: Option<u64>,
    at: Instant,
}

/// See the module text.
#[derive(Debug)]
pub(crate) struct DatasetKeeper {
    client: KubeClient,
    caches: CacheSet,
    catalog: Arc<dyn Catalog>,
    view: CatalogView,
    looked: BTreeMap<DatasetName, Looked>,
    /// Resource (uid, generation) -> when its descriptor was last seen in the catalog.
    registered: BTreeMap<(String, i64), Instant>,
}

type Resources = Vec<(Arc<DatasetObject>, Result<Intent, String>)>;

impl Keeper for DatasetKeeper {
    const NAME: &'static str = "datasets";
    const EVERY: Duration = Duration::from_secs(10);

    async fn pass(&mut self) -> Result<(), Trouble> {
        let (Some(objects), Some(namespaces), Some(mut view)) = (
            self.caches.datasets.all(),
            self.caches.namespaces.all(),
            self.view.current(),
        ) else {
            return Ok(());
        };
        let resources: Resources = objects
            .into_iter()
            .filter(|object| !object.metadata.is_ending())
            .map(|object| {
                let intent = Intent::read(&object);
                (object, intent)
            })
            .collect();
        let (refused, is_new) = self.register(&resources, &namespaces).await?;
        if is_new {
            // What was registered a moment ago is not in the list yet.
            let all = self.catalog.datasets().await?;
            let datasets = all.into_iter().map(|one| (one.name.clone(), one)).collect();
            view = Arc::new(View {
                datasets,
                taken: Instant::now(),
            });
        }
        self.mirror(&resources, &namespaces, &view).await?;
        self.look(&resources, &view).await?;
        self.report(&resources, &refused).await
    }
}

impl DatasetKeeper {
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
            looked: BTreeMap::new(),
            registered: BTreeMap::new(),
        }
    }

    /// Registers what resources describe; which resources are refused and why, and whether something is
    /// new in the catalog.
    async fn register(
        &mut self,
        resources: &Resources,
        namespaces: &[Arc<Namespace>],
    ) -> Result<(BTreeMap<Key, String>, bool), Trouble> {
        let allowed: BTreeMap<&str, BTreeSet<String>> = namespaces
            .iter()
            .map(|namespace| (namespace.metadata.name.as_str(), may_register(namespace)))
            .collect();
        let mut refused = BTreeMap::new();
        let mut owners: BTreeMap<&DatasetName, &DatasetObject> = BTreeMap::new();
        let mut ordered: Vec<_> = resources.iter().collect();
        ordered.sort_by_key(|(object, _)| {
            let meta = &object.metadata;
            (meta.creation_timestamp.clone(), meta.key())
        });
        let mut is_new = false;
        let mut seen = BTreeSet::new();
        for (object, intent) in ordered {
            let meta = &object.metadata;
            let descriptor = match intent {
                Err(why) => {
                    refused.insert(meta.key(), why.clone());
                    continue;
                }
                Ok(Intent::Refer(_)) => continue,
                Ok(Intent::Register(descriptor)) => descriptor,
            };
            let namespace = descriptor.name.namespace();
            let allowed = allowed.get(meta.namespace.as_str());
            if !allowed.is_some_and(|allowed| allowed.contains(namespace)) {
                let why = format!(
                    "the namespace {} may not register in {namespace}; annotate it with {}={namespace}",
                    meta.namespace,
                    names::REGISTER_KEY
                );
                refused.insert(meta.key(), why);
                continue;
            }
            if let Some(owner) = owners.get(&descriptor.name) {
                let (space, name) = (&owner.metadata.namespace, &owner.metadata.name);
                let why = format!("{} is registered by {space}/{name}", descriptor.name);
                refused.insert(meta.key(), why);
                continue;
            }
            owners.insert(&descriptor.name, object);
            let id = (meta.uid.clone(), meta.generation);
            seen.insert(id.clone());
            let known = self.registered.get(&id);
            if known.is_some_and(|at| at.elapsed() < RECHECK) {
                continue;
            }
            match self.ensure(descriptor).await {
                Ok(changed) => {
                    is_new |= changed;
                    self.registered.insert(id, Instant::now());
                }
                Err(CatalogFault::Away(why)) => return Err(CatalogFault::Away(why).into()),
                Err(error) => {
                    refused.insert(meta.key(), error.to_string());
                }
            }
        }
        self.registered.retain(|id, _| seen.contains(id));
        Ok((refused, is_new))
    }

    /// Makes the catalog's descriptor this one; whether that was a change.
    async fn ensure(&self, descriptor: &Descriptor) -> Result<bool, CatalogFault> {
        match self.catalog.descriptor(&descriptor.name).await {
            Ok(found) if found == *descriptor => return Ok(false),
            Ok(_) | Err(CatalogFault::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        self.catalog.register(descriptor).await?;
        tracing::info!(dataset = %descriptor.name, "registered");
        Ok(true)
    }

    /// Lets datasets appear in namespaces that ask for them, and goes after those that no longer do.
    async fn mirror(
        &self,
        resources: &Resources,
        namespaces: &[Arc<Namespace>],
        view: &View,
    ) -> Result<(), Trouble> {
        let mut wanted: BTreeMap<Key, DatasetName> = BTreeMap::new();
        for namespace in namespaces {
            let asked = Wanted::of(namespace);
            if asked.is_empty() {
                continue;
            }
            for name in view.datasets.keys().filter(|name| asked.names(name)) {
                let selector = Selector::new(name.clone(), VersionRef::Latest);
                let key = (
                    namespace.metadata.name.clone(),
                    names::object_name(&selector),
                );
                wanted.insert(key, name.clone());
            }
        }
        let mut there = BTreeSet::new();
        for (object, intent) in resources {
            let meta = &object.metadata;
            let is_wanted = wanted.contains_key(&meta.key());
            if dataset::is_mirrored(object) && !is_wanted && !view.datasets.is_empty() {
                let (space, name, uid) = (&meta.namespace, &meta.name, &meta.uid);
                only(name, self.client.delete(&DATASETS, space, name, uid).await)?;
                continue;
            }
            there.insert(meta.key());
            if let Ok(intent) = intent {
                // A resource of a user, under another name, shows the dataset already.
                let selector = Selector::new(intent.dataset().clone(), VersionRef::Latest);
                there.insert((meta.namespace.clone(), names::object_name(&selector)));
            }
        }
        for ((namespace, name), dataset) in &wanted {
            if there.contains(&(namespace.clone(), name.clone())) {
                continue;
            }
            let object = dataset::mirrored(namespace, name, dataset);
            match self.client.create(&DATASETS, namespace, &object).await {
                Err(error) if error.is_taken() => {}
                outcome => drop(only(name, outcome)?),
            }
        }
        Ok(())
    }

    /// Asks the catalog about datasets that have resources, and are new or were asked about long ago.
    async fn look(&mut self, resources: &Resources, view: &View) -> Result<(), Trouble> {
        let intents = resources
            .iter()
            .filter_map(|(_, intent)| intent.as_ref().ok());
        let named: BTreeSet<&DatasetName> = intents.map(Intent::dataset).collect();
        self.looked.retain(|name, _| named.contains(name));
        let due: Vec<DatasetName> = named
            .into_iter()
            .filter(|name| {
                let latest = view.datasets.get(*name).map(|listed| listed.latest);
                self.looked.get(*name).is_none_or(|looked| {
                    looked.at.elapsed() >= REFRESH
                        || latest != Some(looked.latest)
                        || matches!(looked.found, Found::Missing) && latest.is_some()
                })
            })
            .cloned()
            .collect();
        let catalog = &self.catalog;
        let mut answers = stream::iter(due)
            .map(|name| async move {
                let found = find(catalog.as_ref(), &name, view).await;
                (name, found)
            })
            .buffer_unordered(AT_ONCE);
        let mut looked = Vec::new();
        while let Some((name, found)) = answers.next().await {
            looked.push((name, found?));
        }
        drop(answers);
        for (name, found) in looked {
            let latest = view.datasets.get(&name).and_then(|listed| listed.latest);
            let at = Instant::now();
            self.looked.insert(name, Looked { found, latest, at });
        }
        Ok(())
    }

    /// Writes every status that says something else.
    async fn report(
        &self,
        resources: &Resources,
        refused: &BTreeMap<Key, String>,
    ) -> Result<(), Trouble> {
        for (object, intent) in resources {
            let meta = &object.metadata;
            let found = match (refused.get(&meta.key()), intent) {
                (Some(why), _) | (None, Err(why)) => Some(Found::Refused(why.clone())),
                (None, Ok(intent)) => {
                    let looked = self.looked.get(intent.dataset());
                    looked.map(|looked| looked.found.clone())
                }
            };
            let Some(change) = found.and_then(|found| found.change(object)) else {
                continue;
            };
            let (space, name) = (&meta.namespace, &meta.name);
            let applied = self.client.apply_status(&DATASETS, space, name, &change);
            match applied.await {
                Err(error) if error.is_missing() => {}
                outcome => drop(only(name, outcome)?),
            }
        }
        Ok(())
    }
}

async fn find(
    catalog: &dyn Catalog,
    name: &DatasetName,
    view: &View,
) -> Result<Found, CatalogFault> {
    let Some(listed) = view.datasets.get(name) else {
        return Ok(Found::Missing);
    };
    let selector = Selector::new(name.clone(), VersionRef::Latest);
    let latest = match catalog.resolve(&selector).await {
        Ok(latest) => Some(latest),
        Err(CatalogFault::Missing(_)) => None,
        Err(error) => return Err(error),
    };
    // Who has it near is worth less than what it is: a status without it is better than none.
    let heat = match catalog.heat(name).await {
        Ok(heat) => heat,
        Err(CatalogFault::Away(why)) => return Err(CatalogFault::Away(why)),
        Err(_) => Vec::new(),
    };
    Ok(Found::Known {
        listed: listed.clone(),
        latest,
        heat,
    })
}
