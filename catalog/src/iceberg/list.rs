//! The list of a version's manifests, with the least and greatest partition of each.
//!
//! Lengths and counts in it are true, so every manifest is made once to be measured; one at a time is
//! held in memory. Everything is named by its number, as the table specification lists them ("Manifest
//! Lists").

use serde_json::json;

use super::avro::{Container, Encoder};
use super::cut::Cuts;
use super::data::{self, Range, Source, Written};
use super::warehouse::Place;
use crate::DatasetName;
use crate::manifest::ManifestError;

/// What the name of a manifest begins with.
const MANIFEST: &str = "m-";
/// What it ends with.
const END: &str = ".avro";

/// Name of a manifest by its place in the list.
pub(super) fn manifest_name(at: usize) -> String {
    format!("{MANIFEST}{at}{END}")
}

/// The place of a manifest by its name.
pub(super) fn manifest_place(name: &str) -> Option<usize> {
    let digits = name.strip_prefix(MANIFEST)?.strip_suffix(END)?;
    let at = digits.parse().ok()?;
    (manifest_name(at) == name).then_some(at)
}

/// Writes the list of all manifests of a version.
pub(super) async fn write(
    source: &Source<'_>,
    cuts: &Cuts,
    parent: Option<u64>,
) -> Result<Vec<u8>, ManifestError> {
    let number = source.number.to_string();
    let parent = parent.map_or_else(|| "null".to_owned(), |parent| parent.to_string());
    let mut file = Container::new(
        &schema(),
        &[
            ("snapshot-id", &number),
            ("parent-snapshot-id", &parent),
            ("sequence-number", &number),
            ("format-version", "2"),
        ],
    );
    for (at, cut) in cuts.cuts.iter().enumerate() {
        let written = data::write(source, cut).await?;
        let path = path(source.place, source.name, source.number, at);
        let spec = source.columns.spec_id();
        file.record(|out| record(out, source.number, spec, &path, &written));
    }
    Ok(file.finish())
}

fn path(place: &Place, name: &DatasetName, number: u64, at: usize) -> String {
    place.made(name, number, &manifest_name(at))
}

fn record(out: &mut Encoder, number: u64, spec: u32, path: &str, written: &Written) {
    out.bytes(path.as_bytes());
    out.count(written.bytes.len() as u64);
    out.count(u64::from(spec));
    // Content: data.
    out.long(0);
    for _ in ["sequence number", "its least", "added by the snapshot"] {
        out.count(number);
    }
    // Files and rows: all are added by this snapshot, none exist before it, none is deleted.
    for added in [written.files, written.rows] {
        out.count(added);
        out.long(0);
        out.long(0);
    }
    out.some();
    out.array(&written.ranges, summary);
    // No key.
    out.none();
}

fn summary(out: &mut Encoder, range: &Range) {
    out.boolean(range.absent);
    out.some();
    out.boolean(false);
    let bounds = range.bounds.as_ref();
    for bound in [bounds.map(|(min, _)| min), bounds.map(|(_, max)| max)] {
        match bound {
            None => out.none(),
            Some(bound) => {
                out.some();
                out.bytes(&bound.bytes());
            }
        }
    }
}

fn schema() -> String {
    let required =
        |name: &str, kind: &str, id: u32| json!({"name": name, "type": kind, "field-id": id});
    let optional = |name: &str, kind: serde_json::Value, id: u32| json!({"name": name, "type": ["null", kind], "default": null, "field-id": id});
    let summary = json!({"type": "record", "name": "r508", "fields": [
        required("contains_null", "boolean", 509),
        optional("contains_nan", json!("boolean"), 518),
        optional("lower_bound", json!("bytes"), 510),
        optional("upper_bound", json!("bytes"), 511),
    ]});
    json!({"type": "record", "name": "manifest_file", "fields": [
        required("manifest_path", "string", 500),
        required("manifest_length", "long", 501),
        required("partition_spec_id", "int", 502),
        required("content", "int", 517),
        required("sequence_number", "long", 515),
        required("min_sequence_number", "long", 516),
        required("added_snapshot_id", "long", 503),
        required("added_files_count", "int", 504),
        required("existing_files_count", "int", 505),
        required("deleted_files_count", "int", 506),
        required("added_rows_count", "long", 512),
        required("existing_rows_count", "long", 513),
        required("deleted_rows_count", "long", 514),
        optional("partitions", json!({"type": "array", "items": summary, "element-id": 508}), 507),
        optional("key_metadata", json!("bytes"), 519),
    ]})
    .to_string()
}
