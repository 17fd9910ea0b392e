//! Whether a `Dataset` may be made or changed: the same reading as the controller's, before it is kept.
//!
//! What only shows later (a catalog that refuses, an older resource of the same dataset made at the same
//! moment) ends in the status. A resource that is on its way out may always change: a finalizer that
//! cannot be taken away would hold its namespace for ever.

use serde_json::Value;

use super::review::{Answer, Review};
use crate::kube::api::{CacheSet, DATASETS, DatasetObject};
use crate::kube::dataset::Intent;
use crate::kube::names::REGISTER_KEY;
use crate::kube::wanted::may_register;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Validator {
    caches: CacheSet,
}

impl Validator {
    pub(crate) fn new(caches: CacheSet) -> Self {
        Self { caches }
    }

    /// Answers from memory.
    pub(super) fn answer(&self, review: &Review) -> Answer {
        let ours = review.kind.group == DATASETS.group && review.kind.kind == DATASETS.kind;
        if !ours || !matches!(review.operation.as_str(), "CREATE" | "UPDATE") {
            return Answer::as_it_is();
        }
        let object: DatasetObject = match serde_json::from_value(review.object.clone()) {
            Ok(object) => object,
            Err(error) => {
                return Answer::Refused(format!("the resource is not understood: {error}"));
            }
        };
        if object.metadata.is_ending() {
            return Answer::as_it_is();
        }
        match self.check(review, &object) {
            Ok(()) => Answer::as_it_is(),
            Err(why) => Answer::Refused(why),
        }
    }

    fn check(&self, review: &Review, object: &DatasetObject) -> Result<(), String> {
        let named = review
            .object
            .pointer("/metadata/name")
            .and_then(Value::as_str);
        if named.is_none() {
            return Err("name the resource: metadata.generateName names no dataset".to_owned());
        }
        let Intent::Register(descriptor) = Intent::read(object)? else {
            return Ok(());
        };
        let space = &review.namespace;
        let into = descriptor.name.namespace();
        // Not seen yet: the status will say it.
        if let Some(namespace) = self.caches.namespaces.get("", space)
            && !may_register(&namespace).contains(into)
        {
            return Err(format!(
                "the namespace {space} may not register in {into}; an administrator can annotate it with \
                 {REGISTER_KEY}={into}"
            ));
        }
        let others = self.caches.datasets.all().unwrap_or_default();
        let same = others.iter().find(|other| {
            let meta = &other.metadata;
            let is_self = meta.namespace == *space && meta.name == object.metadata.name;
            let registers = || match Intent::read(other) {
                Ok(Intent::Register(other)) => other.name == descriptor.name,
                _ => false,
            };
            !is_self && !meta.is_ending() && registers()
        });
        match same {
            Some(other) => {
                let (space, name) = (&other.metadata.namespace, &other.metadata.name);
                Err(format!(
                    "{} is registered by {space}/{name}; refer to it with spec.dataset alone",
                    descriptor.name
                ))
            }
            None => Ok(()),
        }
    }
}
