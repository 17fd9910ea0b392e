//! Our own resource: what a `Dataset` in a namespace says, understood.
//!
//! ```yaml
//! apiVersion: terrace.io/v1alpha1
//! kind: Dataset
//! metadata:
//!   name: ads.clicks                # the dataset, unless spec.dataset names it
//!   annotations: {terrace.io/description: Clicks as the web servers log them.}
//! spec:
//!   dataset: ads.clicks             # for names that Kubernetes does not take, with '_'
//!   source: s3://lake/ads/clicks    # with it: registers; without it: refers to what is registered
//!   ...                             # everything that `spec` of a descriptor has
//! status:                           # written by the controller alone
//!   state: Ready                    # Ready Pending Degraded Removing Missing Refused
//!   version: 12
//!   freshness: "2026-11-20T03:10:00Z"    # when that version was committed
//!   heat: {nodes: 3, complete: 2}   # nodes that have a part, and all, of it on their disks
//! ```
//!
//! The rest of `spec` is the descriptor's own, read by its parser, so the two cannot drift apart.

use serde_json::{Value, json};
use terrace_catalog::DatasetName;
use terrace_catalog::descriptor::Descriptor;

use super::api::{DatasetObject, Meta};
use super::names::{DESCRIPTION_KEY, is_managed};

/// Longest specification that is read, in bytes of JSON.
const SPEC_MAX: usize = 64 << 10;

/// What a resource wants.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    /// A dataset of the catalog is shown here.
    Refer(DatasetName),
    /// The catalog has this dataset as it is described here.
    Register(Box<Descriptor>),
}

impl Intent {
    /// Reads a resource. An error is one line: which field is wrong, and why.
    pub(crate) fn read(object: &DatasetObject) -> Result<Self, String> {
        Self::parse(&object.metadata, &object.spec)
    }

    /// The same from its parts.
    pub(crate) fn parse(meta: &Meta, spec: &Value) -> Result<Self, String> {
        let mut spec = match spec {
            Value::Object(spec) => spec.clone(),
            Value::Null => serde_json::Map::new(),
            _ => return Err("spec is not an object".to_owned()),
        };
        if Value::Object(spec.clone()).to_string().len() > SPEC_MAX {
            return Err(format!("spec is longer than {SPEC_MAX} bytes"));
        }
        let named = match spec.remove("dataset") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return Err("spec.dataset is not a text".to_owned()),
        };
        let name = named.as_deref().unwrap_or(&meta.name);
        let hint = "name the dataset in spec.dataset";
        let name: DatasetName = name.parse().map_err(|error| format!("{error}; {hint}"))?;
        if spec.is_empty() {
            return Ok(Self::Refer(name));
        }
        if !spec.contains_key("source") {
            let why = "spec.source is missing: name where the files are, or leave all but spec.dataset out";
            return Err(why.to_owned());
        }
        let mut metadata = json!({"name": name.as_str()});
        if let Some(text) = meta.annotations.get(DESCRIPTION_KEY) {
            metadata["description"] = json!(text);
        }
        let value = json!({
            "apiVersion": "terrace.io/v1", "kind": "Dataset", "metadata": metadata, "spec": spec,
        });
        let descriptor = Descriptor::from_value(value).map_err(|error| error.to_string())?;
        Ok(Self::Register(Box::new(descriptor)))
    }

    /// The dataset it is about.
    pub(crate) fn dataset(&self) -> &DatasetName {
        match self {
            Self::Refer(name) => name,
            Self::Register(descriptor) => &descriptor.name,
        }
    }
}

/// The resource by which a dataset of the catalog appears in a namespace.
pub(crate) fn mirrored(namespace: &str, name: &str, dataset: &DatasetName) -> Value {
    json!({
        "apiVersion": super::api::DATASETS.api_version(), "kind": super::api::DATASETS.kind,
        "metadata": {
            "name": name, "namespace": namespace, "labels": super::names::managed_label(),
        },
        "spec": {"dataset": dataset.as_str()},
    })
}

/// Whether the controller made a resource, and may remove it.
pub(crate) fn is_mirrored(object: &DatasetObject) -> bool {
    is_managed(&object.metadata.labels)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn read(name: &str, spec: Value) -> Result<Intent, String> {
        let meta = Meta {
            name: name.to_owned(),
            ..Meta::default()
        };
        Intent::parse(&meta, &spec)
    }

    // A resource that is read as something else registers, or overwrites, the wrong dataset.
    #[test]
    fn resources_refer_or_register() {
        let refer = read("ads.clicks", Value::Null).unwrap();
        assert!(matches!(&refer, Intent::Refer(name) if name.as_str() == "ads.clicks"));
        let refer = read("x", json!({"dataset": "ads.big_clicks"})).unwrap();
        assert_eq!(refer.dataset().as_str(), "ads.big_clicks");
        let spec =
            json!({"source": "s3://lake/ads", "format": "parquet", "sync": {"interval": "5m"}});
        let register = read("ads.clicks", spec).unwrap();
        let Intent::Register(descriptor) = register else {
            panic!("it has a source");
        };
        assert_eq!(descriptor.source, "s3://lake/ads");
    }

    // A field that is dropped in silence is a promise that nobody keeps.
    #[test]
    fn what_is_not_understood_is_refused() {
        for (name, spec) in [
            ("clicks", Value::Null),
            ("a.b.c", Value::Null),
            ("a.b", json!("x")),
            ("a.b", json!({"dataset": 1})),
            ("a.b", json!({"dataset": "../x"})),
            ("a.b", json!({"format": "parquet"})),
            ("a.b", json!({"source": "s3://b/p", "colour": "red"})),
            ("a.b", json!({"source": "s3://b/p", "format": "parquett"})),
            ("a.b", json!({"source": "x".repeat(SPEC_MAX)})),
        ] {
            let error = read(name, spec).unwrap_err();
            assert!(!error.contains('\n') && error.len() < 1000, "{error}");
        }
    }
}
