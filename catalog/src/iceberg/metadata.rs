//! The table's metadata: JSON of the table specification, version 2 ("Table Metadata Fields").
//!
//! ```text
//! snapshot id = sequence number = number of the version        refs: main = the newest, tags = tags
//! properties    schema.name-mapping.default   names to numbers, since files have none
//!               gc.enabled = false            nobody but the catalog removes files
//!               terrace.*                     what was left out, and why
//! ```

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::columns::{name_mapping, partition_id};
use super::table::{Snapshot, Table};
use crate::ledger::DatasetId;

/// Name of the list of manifests.
pub(super) const LIST: &str = "snap.avro";
/// Name of the metadata of one version.
pub(super) const METADATA: &str = "metadata.json";
/// The reference that engines read when they are told nothing else.
const MAIN: &str = "main";
/// The specification's number of "no field of a partition yet".
const NO_PARTITION_FIELD: u32 = 999;

impl Table {
    /// The metadata.
    pub fn metadata(&self) -> Value {
        let current = &self.current;
        let number = current.version.number;
        let (mut schemas, mut specs) = (BTreeMap::new(), BTreeMap::new());
        for columns in self.snapshots.iter().map(|one| &one.columns) {
            schemas
                .entry(columns.schema_id())
                .or_insert_with(|| columns.schema());
            specs
                .entry(columns.spec_id())
                .or_insert_with(|| columns.spec());
        }
        let columns = || self.snapshots.iter().map(|one| &one.columns);
        let last_column = columns().map(|columns| columns.last_id()).max();
        let last_partition =
            columns().flat_map(|columns| columns.partition.iter().map(partition_id));
        let log = self.snapshots.iter().map(|one| {
            json!({"snapshot-id": one.version.number, "timestamp-ms": one.version.created_ms})
        });
        json!({
            "format-version": 2,
            "table-uuid": uuid(self.id),
            "location": self.place.table(&self.name, &current.location),
            "last-sequence-number": number,
            "last-updated-ms": current.version.created_ms,
            "last-column-id": last_column.unwrap_or(0),
            "current-schema-id": current.columns.schema_id(),
            "schemas": schemas.into_values().collect::<Vec<_>>(),
            "default-spec-id": current.columns.spec_id(),
            "partition-specs": specs.into_values().collect::<Vec<_>>(),
            "last-partition-id": last_partition.max().unwrap_or(NO_PARTITION_FIELD),
            "default-sort-order-id": 0,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "properties": self.properties(),
            "current-snapshot-id": number,
            "snapshots": self.snapshots.iter().map(|one| self.snapshot(one)).collect::<Vec<_>>(),
            "snapshot-log": log.collect::<Vec<_>>(),
            "metadata-log": [],
            "refs": self.references(),
        })
    }

    /// Where the metadata of the newest version alone is.
    pub fn metadata_location(&self) -> String {
        let number = self.current.version.number;
        self.place.made(&self.name, number, METADATA)
    }

    fn properties(&self) -> Value {
        let mapping = name_mapping(self.snapshots.iter().map(|one| &*one.columns));
        let left_out = &self.left_out;
        let mut properties = Map::new();
        let mut put = |name: &str, value: String| properties.insert(name.to_owned(), value.into());
        put("schema.name-mapping.default", mapping.to_string());
        put("gc.enabled", "false".to_owned());
        put("write.format.default", "parquet".to_owned());
        put("terrace.dataset", self.name.to_string());
        put("terrace.version", self.current.version.number.to_string());
        put(
            "terrace.partitions-left-out",
            left_out.partitions.to_string(),
        );
        put("terrace.files-left-out", left_out.files.to_string());
        put(
            "terrace.columns-left-out",
            self.current.columns.left_out.to_string(),
        );
        put(
            "terrace.versions-left-out",
            self.versions_left_out.to_string(),
        );
        if let Some(example) = &left_out.example {
            put("terrace.left-out-example", example.clone());
        }
        Value::Object(properties)
    }

    fn snapshot(&self, one: &Snapshot) -> Value {
        let version = &one.version;
        let mut summary = json!({
            // Every file is named anew: between two versions no file is known to be the same.
            "operation": "overwrite",
            "terrace.cause": version.cause,
        });
        // Sums of a version whose table may lack partitions are not those of the table.
        if !one.may_lack {
            let totals = version.totals;
            summary["total-records"] = totals.rows.unwrap_or(0).to_string().into();
            summary["total-data-files"] = totals.files.to_string().into();
            summary["total-files-size"] = totals.bytes.to_string().into();
            summary["total-delete-files"] = "0".into();
        }
        let mut snapshot = json!({
            "snapshot-id": version.number,
            "sequence-number": version.number,
            "timestamp-ms": version.created_ms,
            "manifest-list": self.place.made(&self.name, version.number, LIST),
            "schema-id": one.columns.schema_id(),
            "summary": summary,
        });
        let before = self.snapshots.iter().rev().map(|one| one.version.number);
        if let Some(parent) = before.into_iter().find(|number| *number < version.number) {
            snapshot["parent-snapshot-id"] = parent.into();
        }
        snapshot
    }

    fn references(&self) -> Value {
        let mut references = Map::new();
        for (tag, number) in &self.tags {
            let reference = json!({"snapshot-id": number, "type": "tag"});
            references.insert(tag.clone(), reference);
        }
        // Last, because a tag may have that name too.
        let newest = json!({"snapshot-id": self.current.version.number, "type": "branch"});
        references.insert(MAIN.to_owned(), newest);
        Value::Object(references)
    }
}

/// A table's own number: a version 8 UUID (RFC 9562) of the dataset's.
fn uuid(id: DatasetId) -> String {
    let digest: [u8; 32] = Sha256::digest(format!("iceberg table of dataset {id}")).into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}
