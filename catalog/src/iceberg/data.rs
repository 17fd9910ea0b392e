//! A manifest: the data files of one cut, with their partitions and what is known of their columns.
//!
//! ```text
//! record = status 1 (added)  snapshot  sequence numbers: the version's  data_file
//! data_file = content 0  path  "PARQUET"  partition  rows  bytes  counts and bounds by column
//! ```
//!
//! Bounds and counts are what the file itself told, or else what holds for each file of its partition
//! (`known.rs`). Everything is named by its number, as the table specification lists them ("Manifests").

use std::sync::Arc;

use serde_json::{Value, json};

use super::avro::{Container, Encoder};
use super::columns::{Columns, PartitionColumn, partition_id};
use super::cut::Cut;
use super::judge::{Judge, PAGE};
use super::known::{Known, Tellers};
use super::value::{Datum, avro_type};
use super::warehouse::Place;
use crate::DatasetName;
use crate::manifest::{FileEntry, Manifest, ManifestError};

/// What manifests are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) judge: &'a Judge,
    pub(super) columns: &'a Columns,
    pub(super) name: &'a DatasetName,
    pub(super) number: u64,
    pub(super) place: &'a Place,
}

/// A manifest, and what the list says about it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) files: u64,
    pub(super) rows: u64,
    /// For each partition column: whether a value is absent, the least and the greatest.
    pub(super) ranges: Vec<Range>,
}

/// The values of one partition column in a manifest.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    pub(super) absent: bool,
    pub(super) bounds: Option<(Datum, Datum)>,
}

/// Writes the manifest of a cut.
pub(super) async fn write(source: &Source<'_>, cut: &Cut) -> Result<Written, ManifestError> {
    let columns = source.columns;
    let header = source.manifest.header();
    let mut file = Container::new(
        &schema(&columns.partition),
        &[
            ("schema", &columns.schema().to_string()),
            ("partition-spec", &columns.spec_fields().to_string()),
            ("partition-spec-id", &columns.spec_id().to_string()),
            ("format-version", "2"),
            ("content", "data"),
        ],
    );
    let data = source
        .place
        .data(source.name, source.number, &header.location);
    let mut left = cut.files;
    let (mut rows, mut ranges) = (0, vec![Range::default(); columns.partition.len()]);
    let mut after = cut.after.clone();
    let mut file_after = cut.file_after.clone();
    while left > 0 {
        let page = source.manifest.partitions(after.as_deref(), PAGE).await?;
        for partition in &page {
            if left == 0 {
                break;
            }
            after = Some(Arc::clone(&partition.path));
            let Ok(values) = source.judge.values(partition) else {
                continue;
            };
            let mut tellers = Tellers::of(source.manifest, columns, partition);
            ranges
                .iter_mut()
                .zip(&values)
                .for_each(|(range, value)| range.add(value));
            while left > 0 {
                let limit = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
                let files = source
                    .manifest
                    .files_of(partition, file_after.as_deref(), limit);
                let files = files.await?;
                tellers.turn(file_after.as_deref(), &files).await?;
                for entry in &files {
                    rows += entry.rows.unwrap_or(0);
                    let known = tellers.known(entry);
                    file.record(|out| record(out, source.number, &data, entry, &values, &known));
                }
                left -= files.len() as u64;
                file_after = files.last().map(|last| Arc::clone(&last.path));
                if files.len() < limit {
                    break;
                }
            }
            file_after = None;
        }
        if page.len() < PAGE {
            break;
        }
    }
    Ok(Written {
        bytes: file.finish(),
        files: cut.files - left,
        rows,
        ranges,
    })
}

impl Range {
    fn add(&mut self, value: &Option<Datum>) {
        let Some(value) = value else {
            self.absent = true;
            return;
        };
        let Some((min, max)) = &mut self.bounds else {
            self.bounds = Some((value.clone(), value.clone()));
            return;
        };
        if value < min {
            min.clone_from(value);
        }
        if value > max {
            max.clone_from(value);
        }
    }
}

fn record(
    out: &mut Encoder,
    number: u64,
    data: &str,
    file: &FileEntry,
    values: &[Option<Datum>],
    known: &[Known],
) {
    out.long(1);
    for _ in ["snapshot", "sequence number", "file's sequence number"] {
        out.some();
        out.count(number);
    }
    out.long(0);
    out.bytes([data.as_bytes(), file.path.as_bytes()].concat().as_slice());
    out.bytes(b"PARQUET");
    for value in values {
        match value {
            None => out.none(),
            Some(value) => {
                out.some();
                value.put(out);
            }
        }
    }
    out.count(file.rows.unwrap_or(0));
    out.count(file.size);
    // Sizes of columns are not known.
    out.none();
    counts(
        out,
        known
            .iter()
            .filter_map(|one| Some((one.id, file.rows?)))
            .collect(),
    );
    counts(
        out,
        known
            .iter()
            .filter_map(|one| Some((one.id, one.absent?)))
            .collect(),
    );
    // Counts of values that are no numbers are not known.
    out.none();
    bounds(out, known, |one| one.min.as_ref());
    bounds(out, known, |one| one.max.as_ref());
    for _ in ["key", "split offsets", "equality ids", "sort order"] {
        out.none();
    }
}

fn counts(out: &mut Encoder, counts: Vec<(u32, u64)>) {
    if counts.is_empty() {
        return out.none();
    }
    out.some();
    out.array(&counts, |out, (id, count)| {
        out.long(i64::from(*id));
        out.count(*count);
    });
}

fn bounds<'a>(out: &mut Encoder, known: &'a [Known], of: impl Fn(&'a Known) -> Option<&'a Datum>) {
    let bounds = known.iter().filter_map(|one| Some((one.id, of(one)?)));
    let bounds: Vec<(u32, &Datum)> = bounds.collect();
    if bounds.is_empty() {
        return out.none();
    }
    out.some();
    out.array(&bounds, |out, (id, bound)| {
        out.long(i64::from(*id));
        out.bytes(&bound.bytes());
    });
}

/// The Avro schema of a manifest of these partition columns.
fn schema(partition: &[PartitionColumn]) -> String {
    let required =
        |name: &str, kind: Value, id: u32| json!({"name": name, "type": kind, "field-id": id});
    let optional = |name: &str, kind: Value, id: u32| json!({"name": name, "type": ["null", kind], "default": null, "field-id": id});
    let map = |name: &str, value: &str, id: u32, key_id: u32, value_id: u32| {
        let pair = json!({
            "type": "record",
            "name": format!("k{key_id}_v{value_id}"),
            "fields": [
                {"name": "key", "type": "int", "field-id": key_id},
                {"name": "value", "type": value, "field-id": value_id},
            ],
        });
        optional(
            name,
            json!({"type": "array", "items": pair, "logicalType": "map"}),
            id,
        )
    };
    let list = |name: &str, of: &str, id: u32, element_id: u32| {
        optional(
            name,
            json!({"type": "array", "items": of, "element-id": element_id}),
            id,
        )
    };
    let value = |column: &PartitionColumn| {
        let kind = avro_type(column.kind).and_then(|text| serde_json::from_str(text).ok());
        let kind = kind.unwrap_or_else(|| json!("string"));
        optional(&avro_name(&column.name), kind, partition_id(column))
    };
    let values: Vec<Value> = partition.iter().map(value).collect();
    let values = json!({"type": "record", "name": "r102", "fields": values});
    let data_file = json!({"type": "record", "name": "r2", "fields": [
        required("content", json!("int"), 134),
        required("file_path", json!("string"), 100),
        required("file_format", json!("string"), 101),
        required("partition", values, 102),
        required("record_count", json!("long"), 103),
        required("file_size_in_bytes", json!("long"), 104),
        map("column_sizes", "long", 108, 117, 118),
        map("value_counts", "long", 109, 119, 120),
        map("null_value_counts", "long", 110, 121, 122),
        map("nan_value_counts", "long", 137, 138, 139),
        map("lower_bounds", "bytes", 125, 126, 127),
        map("upper_bounds", "bytes", 128, 129, 130),
        optional("key_metadata", json!("bytes"), 131),
        list("split_offsets", "long", 132, 133),
        list("equality_ids", "int", 135, 136),
        optional("sort_order_id", json!("int"), 140),
    ]});
    json!({"type": "record", "name": "manifest_entry", "fields": [
        required("status", json!("int"), 0),
        optional("snapshot_id", json!("long"), 1),
        optional("sequence_number", json!("long"), 3),
        optional("file_sequence_number", json!("long"), 4),
        required("data_file", data_file, 2),
    ]})
    .to_string()
}

/// A name as Avro allows it: other characters are "_x" and their number, as Iceberg's writers do it.
fn avro_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, character) in name.chars().enumerate() {
        match character {
            '_' | 'a'..='z' | 'A'..='Z' => out.push(character),
            '0'..='9' if at > 0 => out.push(character),
            '0'..='9' => out.extend(['_', character]),
            other => out.push_str(&format!("_x{:X}", u32::from(other))),
        }
    }
    out
}
