//! The definition of the `Dataset` resource, as an API server takes it.
//!
//! The schema names every field of a descriptor's `spec`, so that `kubectl explain` shows them and
//! `kubectl apply` refuses others; the meaning of each is checked by the descriptor's own parser, in the
//! webhook and in the controller. Status is a subresource: who may describe a dataset may not say that it
//! is ready.

use serde_json::{Value, json};

use super::api::DATASETS;

/// Formats of files; see the descriptor.
const FORMATS: [&str; 13] = [
    "auto",
    "parquet",
    "orc",
    "arrow",
    "csv",
    "jsonl",
    "tfrecord",
    "webdataset",
    "images",
    "audio",
    "iceberg",
    "delta",
    "files",
];
const LAYOUTS: [&str; 2] = ["hive", "flat"];
const COMPLETIONS: [&str; 5] = [
    "success-file",
    "partition-marker",
    "call",
    "quiescence",
    "manifest",
];
const STORAGES: [&str; 2] = ["reference", "managed"];
const TIERS: [&str; 3] = ["none", "metadata", "full"];

/// The definition as YAML.
pub fn yaml() -> String {
    let head = "# Made by `terrace controller --print-crd`; a test keeps the two equal.\n";
    // A tree of texts and numbers: serializing it cannot fail.
    let body = serde_saphyr::to_string(&definition()).unwrap_or_default();
    format!("{head}{}\n", body.trim_end())
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", DATASETS.plural, DATASETS.group)},
        "spec": {
            "group": DATASETS.group,
            "scope": "Namespaced",
            "names": {
                "kind": DATASETS.kind, "listKind": "DatasetList", "plural": DATASETS.plural,
                "singular": "dataset", "shortNames": ["tds"], "categories": ["terrace"],
            },
            "versions": [{
                "name": DATASETS.version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A dataset of the Terrace catalog.",
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(),
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

fn columns() -> Value {
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!([
        column("State", "string", ".status.state"),
        column("Version", "integer", ".status.version"),
        column("Fresh", "date", ".status.freshness"),
        column("Near", "integer", ".status.heat.complete"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ])
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn one_of(values: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": values, "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

fn object(description: &str, properties: Value) -> Value {
    json!({"type": "object", "description": description, "properties": properties})
}

fn spec() -> Value {
    object(
        "Without source: shows a dataset of the catalog. With it: registers one.",
        json!({
            "dataset": {
                "type": "string",
                "pattern": "^[a-z0-9][a-z0-9_-]{0,63}\\.[a-z0-9][a-z0-9_-]{0,63}$",
                "description": "namespace.table in the catalog; the resource's own name when absent.",
            },
            "source": text("URL of the files: s3://bucket/prefix, hdfs://host:port/path."),
            "format": one_of(&FORMATS, "Format of the files."),
            "layout": one_of(&LAYOUTS, "How directories become partitions."),
            "storage": one_of(&STORAGES, "Whether files stay where they are or are copied."),
            "sync": object("When a partition is published.", json!({
                "completion": one_of(&COMPLETIONS, "What says that it is complete."),
                "marker": text("Name of the marker file."),
                "quietFor": text("No change for so long, as in 10m."),
                "interval": text("A full look at least this often, as in 5m."),
            })),
            "versions": object("Which versions stay.", json!({
                "keep": {"type": "integer", "minimum": 1, "description": "How many."},
                "keepFor": text("How long, as in 90d."),
            })),
            "access": object("Who may do what.", json!({
                "read": texts("Who may read; * for everybody."),
                "publish": texts("Who may publish."),
            })),
            "serve": object("Which faces show it.", json!({
                "sql": flag("SQL engines, through the Iceberg interface."),
                "huggingface": flag("The tree of Hugging Face's cache."),
            })),
            "warm": object("What happens when a version is committed.", json!({
                "tier": one_of(&TIERS, "What is brought near."),
                "pin": flag("Whether it stays there."),
            })),
        }),
    )
}

fn status() -> Value {
    let number = |description: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": description});
    object(
        "Written by the controller.",
        json!({
            "observedGeneration": number("The generation of the spec that this is about."),
            "state": text("Ready, Pending, Degraded, Removing, Missing or Refused."),
            "message": text("Why, and what to try."),
            "version": number("Number of the latest version."),
            "selector": text("The text that always means that version."),
            "freshness": {
                "type": "string", "format": "date-time",
                "description": "When that version was committed.",
            },
            "bytes": number("Bytes of that version."),
            "files": number("Files of that version."),
            "heat": object("Who has that version on a disk of its own.", json!({
                "nodes": number("Nodes with a part of it."),
                "complete": number("Nodes with all of it."),
            })),
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "reason", "lastTransitionTime"],
                    "properties": {
                        "type": text("Ready."),
                        "status": one_of(&["True", "False", "Unknown"], "Whether it is."),
                        "reason": text("The state."),
                        "message": text("Why, and what to try."),
                        "observedGeneration": number("The generation it is about."),
                        "lastTransitionTime": {
                            "type": "string", "format": "date-time",
                            "description": "When the status of the condition changed.",
                        },
                    },
                },
            },
        }),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::kube::api::Meta;
    use crate::kube::dataset::Intent;

    fn meta() -> Meta {
        Meta {
            name: "a.b".to_owned(),
            ..Meta::default()
        }
    }

    // A value that the schema allows and the parser refuses, or the other way round, is a resource that
    // can be written and never works.
    #[test]
    fn the_schema_and_the_parser_know_the_same_words() {
        let spec = spec();
        for (field, _) in spec["properties"].as_object().unwrap() {
            let schema = &spec["properties"][field];
            let words = schema["enum"].as_array().cloned().unwrap_or_default();
            for word in words {
                let value = json!({"source": "s3://bucket/prefix", field: word});
                Intent::parse(&meta(), &value).unwrap();
            }
            let below = schema["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            for (key, schema) in below {
                let known = json!({"source": "s3://bucket/prefix", field: {&key: null}});
                let said = Intent::parse(&meta(), &known).err().unwrap_or_default();
                assert!(!said.contains("unknown"), "{field}.{key}: {said}");
                for word in schema["enum"].as_array().cloned().unwrap_or_default() {
                    let mut inner = json!({&key: word});
                    if word == "quiescence" {
                        inner["quietFor"] = json!("10m");
                    }
                    let value = json!({"source": "s3://bucket/prefix", field: inner});
                    Intent::parse(&meta(), &value).unwrap();
                }
            }
        }
        let unknown = json!({"source": "s3://bucket/prefix", "format": "parquett"});
        assert!(Intent::parse(&meta(), &unknown).is_err());
    }
}
