//! What a namespace asks for: its label and annotation, understood.
//!
//! ```text
//! label terrace.io/datasets = all            every dataset
//!                           = NAMESPACE      those of one catalog namespace
//!                           = NS.TABLE       one dataset
//!                           = list           what the annotation of the same name lists:
//!                                            "ads, ml.images, ml.images@v3"
//! ```
//!
//! A namespace is an object of the cluster, so whoever may change it is trusted to say what it sees. What
//! is not understood is left out and named once in the log, and the rest counts.

use std::collections::BTreeSet;

use terrace_catalog::{DatasetName, Selector, VersionRef};

use super::api::Namespace;
use super::names::{DATASETS_KEY, REGISTER_KEY};

/// Most entries of an annotation.
const ENTRIES_MAX: usize = 1000;

/// One thing that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    All,
    /// A catalog namespace.
    Namespace(String),
    Selector(Selector),
}

/// Everything that a namespace asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted(Vec<Entry>);

impl Wanted {
    /// Nothing: the namespace has no label, or ends.
    pub(crate) fn of(namespace: &Namespace) -> Self {
        let meta = &namespace.metadata;
        let label = meta.labels.get(DATASETS_KEY).map(String::as_str);
        match label.filter(|_| !meta.is_ending()) {
            None | Some("" | "none") => Self::default(),
            Some("all") => Self(vec![Entry::All]),
            Some("list") => {
                let listed = meta.annotations.get(DATASETS_KEY);
                Self(entries(listed.map_or("", String::as_str), &meta.name))
            }
            Some(one) => Self(entries(one, &meta.name)),
        }
    }

    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it covers a dataset.
    pub(crate) fn names(&self, dataset: &DatasetName) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::All => true,
            Entry::Namespace(namespace) => dataset.namespace() == namespace,
            Entry::Selector(selector) => selector.dataset() == dataset,
        })
    }

    /// The selectors of a dataset that are asked for: the dataset itself and versions that are listed.
    pub(crate) fn selectors(&self, dataset: &DatasetName) -> Vec<Selector> {
        let mut found: Vec<Selector> = Vec::new();
        for entry in &self.0 {
            let selector = match entry {
                Entry::All => Selector::new(dataset.clone(), VersionRef::Latest),
                Entry::Namespace(namespace) if dataset.namespace() == namespace => {
                    Selector::new(dataset.clone(), VersionRef::Latest)
                }
                Entry::Selector(selector) if selector.dataset() == dataset => selector.clone(),
                Entry::Namespace(_) | Entry::Selector(_) => continue,
            };
            if !found.contains(&selector) {
                found.push(selector);
            }
        }
        found
    }
}

fn entries(text: &str, namespace: &str) -> Vec<Entry> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let read = parts.take(ENTRIES_MAX).filter_map(|part| {
        let entry = entry(part);
        if entry.is_none() {
            let what: String = part.chars().take(80).collect();
            tracing::debug!(
                namespace,
                what,
                "neither a catalog namespace nor a selector"
            );
        }
        entry
    });
    read.collect()
}

fn entry(part: &str) -> Option<Entry> {
    if part.contains('.') {
        return part.parse().ok().map(Entry::Selector);
    }
    // A segment has the rules of the first part of a name.
    let name: DatasetName = format!("{part}.x").parse().ok()?;
    Some(Entry::Namespace(name.namespace().to_owned()))
}

/// Catalog namespaces in which the resources of a namespace may register datasets.
pub(crate) fn may_register(namespace: &Namespace) -> BTreeSet<String> {
    let text = namespace.metadata.annotations.get(REGISTER_KEY);
    let parts = text.map_or("", String::as_str).split(',').map(str::trim);
    let parts = parts.filter(|part| !part.is_empty()).take(ENTRIES_MAX);
    parts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    fn wanted(label: &str, annotation: &str) -> Wanted {
        let namespace = json!({"metadata": {
            "name": "ml", "labels": {DATASETS_KEY: label}, "annotations": {DATASETS_KEY: annotation},
        }});
        Wanted::of(&serde_json::from_value(namespace).unwrap())
    }

    // A namespace that gets more than it asks for sees other teams' data.
    #[test]
    fn labels_mean_what_they_say() {
        let (clicks, images): (DatasetName, DatasetName) =
            ("ads.clicks".parse().unwrap(), "ml.images".parse().unwrap());
        assert!(wanted("all", "").names(&clicks));
        assert!(wanted("ads", "").names(&clicks) && !wanted("ads", "").names(&images));
        assert!(wanted("ml.images", "").names(&images) && !wanted("ml.images", "").names(&clicks));
        let listed = wanted("list", "ads, ml.images@v3, ../x, ml.images@v3,");
        assert!(listed.names(&clicks));
        let selectors = listed.selectors(&images);
        assert_eq!(selectors, vec!["ml.images@v3".parse().unwrap()]);
        for nothing in ["", "none", "A B", "list"] {
            assert!(wanted(nothing, "").is_empty(), "{nothing}");
        }
        assert!(Wanted::of(&Namespace::default()).is_empty());
    }
}
