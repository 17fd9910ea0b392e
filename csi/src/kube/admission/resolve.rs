//! Which version a selector means for a pod: resolved once for all pods of its job.
//!
//! ```text
//! @v12                          itself; nobody is asked
//! pod without an owner          the catalog, now
//! pod with an owner (a Job, a ReplicaSet, ..)
//!     ConfigMap terrace-versions-DIGEST in the pod's namespace, owned by that owner:
//!       data.versions = {"ads.clicks": 12, "ads.clicks@prod": 11}
//!     there     -> what it says
//!     not there -> the catalog, then written with the version that was read as the condition, so one of
//!                  several replicas wins and the others read what it wrote
//! ```
//!
//! So the thousandth worker of a job, and one that is restarted a week later, reads what the first one
//! did, whichever replica answers and whatever was killed in between; the record goes with the owner. A
//! dry run writes nothing. While the catalog is away, the latest version is taken from the last list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use terrace_catalog::{Selector, VersionRef};
use tokio::time::timeout;

use crate::kube::api::{CONFIG_MAPS, KubeClient};
use crate::kube::catalog::{Catalog, CatalogFault};
use crate::kube::keep::CatalogView;
use crate::kube::names;

/// The catalog has so long; an API server waits for a webhook 10 s.
const CATALOG: Duration = Duration::from_secs(3);

/// A list this old is not used any more for what was committed last.
const OLDEST: Duration = Duration::from_secs(600);

/// Tries to write, when several pods of a job are admitted at once.
const TRIES: usize = 8;

/// Most selectors of one job.
const SELECTORS_MAX: usize = 256;

/// Who made a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
}

impl Owner {
    /// The one owner that made the pod, if there is one.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let owners = pod.pointer("/metadata/ownerReferences")?.clone();
        let owners: Vec<Self> = serde_json::from_value(owners).ok()?;
        let mut makers = owners.into_iter().filter(|owner| {
            let texts = [&owner.api_version, &owner.kind, &owner.name, &owner.uid];
            owner.controller == Some(true) && texts.iter().all(|text| !text.is_empty())
        });
        makers.next()
    }
}

type Versions = BTreeMap<Selector, u64>;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Resolver {
    client: KubeClient,
    catalog: Arc<dyn Catalog>,
    view: CatalogView,
}

impl Resolver {
    pub(crate) fn new(client: KubeClient, catalog: Arc<dyn Catalog>, view: CatalogView) -> Self {
        Self {
            client,
            catalog,
            view,
        }
    }

    /// The number of each selector. An error is one line. Dropped in between, a record may have been
    /// written; the next pod of the job reads it.
    pub(super) async fn versions(
        &self,
        namespace: &str,
        selectors: &[Selector],
        owner: Option<&Owner>,
        is_dry_run: bool,
    ) -> Result<Versions, String> {
        let mut versions = Versions::new();
        let mut open = Vec::new();
        for selector in selectors {
            match selector.version() {
                VersionRef::Number(number) => {
                    versions.insert(selector.clone(), *number);
                }
                _ => open.push(selector.clone()),
            }
        }
        if open.is_empty() {
            return Ok(versions);
        }
        versions.extend(match owner {
            Some(owner) => self.of_job(namespace, &open, owner, is_dry_run).await?,
            None => self.ask(&open).await?,
        });
        Ok(versions)
    }

    async fn of_job(
        &self,
        namespace: &str,
        selectors: &[Selector],
        owner: &Owner,
        is_dry_run: bool,
    ) -> Result<Versions, String> {
        // The uid is whatever the pod says: a digest of it is a name in any case.
        let name = format!("terrace-versions-{}", names::digest(&owner.uid, 32));
        for _ in 0..TRIES {
            let read = self.client.get(&CONFIG_MAPS, namespace, &name).await;
            let read = read.map_err(|error| error.to_string())?;
            let mut known = read.as_ref().map(recorded).unwrap_or_default();
            let is_open = |selector: &&Selector| !known.contains_key(*selector);
            let open: Vec<Selector> = selectors.iter().filter(is_open).cloned().collect();
            if open.is_empty() {
                known.retain(|selector, _| selectors.contains(selector));
                return Ok(known);
            }
            known.extend(self.ask(&open).await?);
            if known.len() > SELECTORS_MAX {
                return Err(format!(
                    "the pods of {} name more than {SELECTORS_MAX} selectors",
                    owner.name
                ));
            }
            if is_dry_run || self.record(namespace, &name, owner, read, &known).await? {
                known.retain(|selector, _| selectors.contains(selector));
                return Ok(known);
            }
        }
        Err(format!(
            "the versions of {} {} change all the time; try again",
            owner.kind, owner.name
        ))
    }

    /// Writes the record; false when somebody else was quicker.
    async fn record(
        &self,
        namespace: &str,
        name: &str,
        owner: &Owner,
        read: Option<Value>,
        versions: &Versions,
    ) -> Result<bool, String> {
        let texts: BTreeMap<String, u64> = versions
            .iter()
            .map(|(selector, number)| (selector.to_string(), *number))
            .collect();
        let mut object = json!({
            "apiVersion": "v1", "kind": CONFIG_MAPS.kind,
            "metadata": {
                "name": name, "namespace": namespace, "labels": names::managed_label(),
                "ownerReferences": [{
                    "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name,
                    "uid": owner.uid, "controller": false, "blockOwnerDeletion": false,
                }],
            },
            "data": {"versions": json!(texts).to_string()},
        });
        let written = match read {
            None => self.client.create(&CONFIG_MAPS, namespace, &object).await,
            Some(read) => {
                let version = read.pointer("/metadata/resourceVersion").cloned();
                object["metadata"]["resourceVersion"] = version.unwrap_or_default();
                self.client
                    .replace(&CONFIG_MAPS, namespace, name, &object)
                    .await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.is_taken() || error.is_conflict() || error.is_missing() => {
                Ok(false)
            }
            Err(error) => Err(format!(
                "keep the versions of {} {}: {error}",
                owner.kind, owner.name
            )),
        }
    }

    async fn ask(&self, selectors: &[Selector]) -> Result<Versions, String> {
        let mut versions = Versions::new();
        for selector in selectors {
            let asked = timeout(CATALOG, self.catalog.resolve(selector)).await;
            let late = || CatalogFault::Away("the catalog takes too long".to_owned());
            let number = match asked.unwrap_or_else(|_| Err(late())) {
                Ok(found) => found.version,
                Err(CatalogFault::Away(why)) => self.last_known(selector).ok_or_else(|| {
                    format!("which version {selector} is: {why}; name one, as in {selector}@v1")
                })?,
                Err(error) => return Err(error.to_string()),
            };
            versions.insert(selector.clone(), number);
        }
        Ok(versions)
    }

    fn last_known(&self, selector: &Selector) -> Option<u64> {
        let view = self
            .view
            .current()
            .filter(|view| view.taken.elapsed() < OLDEST)?;
        match selector.version() {
            VersionRef::Latest => view.datasets.get(selector.dataset())?.latest,
            _ => None,
        }
    }
}

/// What a record says; what is not understood in it is resolved anew.
fn recorded(object: &Value) -> Versions {
    let text = object.pointer("/data/versions").and_then(Value::as_str);
    let texts: BTreeMap<String, u64> =
        serde_json::from_str(text.unwrap_or("{}")).unwrap_or_default();
    let read = texts.into_iter().filter(|(_, number)| *number > 0);
    read.filter_map(|(text, number)| Some((text.parse().ok()?, number)))
        .collect()
}
