//! The Iceberg face, byte for byte where engines are strict; engines themselves are in the whole-system
//! tests.
//!
//! ```text
//! face.rs   what routes answer        made.rs   metadata and manifests, as they are made
//! ```

mod face;
mod made;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use terrace_catalog::descriptor::{Descriptor, Kind};
use terrace_catalog::ledger::Commit;
use terrace_catalog::manifest::{FileEntry, Header, ManifestEdit};
use terrace_catalog::schema::{Field, Schema, Type};

use crate::support::{Answer, Catalog};

/// Columns by name and type.
fn schema(fields: &[(&str, Type)]) -> Schema {
    let field = |(name, data_type): &(&str, Type)| Field {
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    };
    Schema {
        fields: fields.iter().map(field).collect(),
    }
}

/// A partition of a test: its day, number of files, and notes.
type Day<'a> = (&'a str, usize, &'a [(&'a str, &'a str)]);

/// Commits the next version of a table of days, 10 rows a file.
async fn commit(catalog: &Catalog, name: &str, number: u64, schema: &Schema, days: &[Day<'_>]) {
    let location = "s3://lake/ads.db/clicks";
    if number == 1 {
        let descriptor = Descriptor::new(Kind::Dataset, name.parse().unwrap(), location);
        catalog.ledger.create(descriptor).await.unwrap();
    }
    let retyped = |(name, text): &(&str, &str)| (Arc::from(*name), Arc::from(*text));
    let header = Header {
        location: location.into(),
        format: "parquet".into(),
        schema: Some(schema.to_text().into()),
        columns: vec![("dt".into(), "string".into())],
        // The days' notes with a dot are those of the header: one place for the whole version.
        notes: days
            .iter()
            .flat_map(|(_, _, notes)| *notes)
            .filter(|(name, _)| name.contains('.'))
            .map(retyped)
            .collect(),
    };
    let mut edit = ManifestEdit::new(&catalog.blobs, header);
    for (day, files, notes) in days {
        let partition = format!("dt={day}");
        let entry = |at| FileEntry {
            path: format!("{partition}/part-{at:05}.parquet").into(),
            size: 1000,
            mtime_ms: 1,
            token: "t".into(),
            rows: Some(10),
            checksum: None,
        };
        let stored = edit.store_files(&partition, (0..*files).map(entry)).await;
        let values = vec![("dt".into(), Some(Arc::from(*day)))];
        let own = notes.iter().filter(|(name, _)| !name.contains('.'));
        let notes: BTreeMap<_, _> = own.map(retyped).collect();
        edit.set_partition(&partition, values, notes, stored.unwrap())
            .unwrap();
    }
    let commit = Commit {
        dataset: name.parse().unwrap(),
        expected_head: (number > 1).then_some(number - 1),
        manifest: edit.finish().await.unwrap(),
        batch: None,
        source_seq: Vec::new(),
        cause: "test".to_owned(),
        summary: BTreeMap::new(),
    };
    let committed = catalog.ledger.commit(commit).await.unwrap();
    assert_eq!(committed.version().number, number);
}

/// A catalog with a token of an admin.
async fn start() -> (Catalog, String) {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["admin:*"]).await;
    (catalog, token)
}

/// The same with a table of one file, and a dataset that is none.
async fn with_table() -> (Catalog, String) {
    let (catalog, token) = start().await;
    commit(
        &catalog,
        "ads.clicks",
        1,
        &schema(&[("id", Type::Int64)]),
        &[("2026-11-20", 1, &[])],
    )
    .await;
    catalog.publish("ads.images", &[&[("", "a.png", 1)]]).await;
    (catalog, token)
}

async fn get(catalog: &Catalog, token: &str, path: &str) -> Answer {
    let path = format!("/iceberg/v1/{path}");
    catalog.ask("GET", &path, Some(token), b"").await
}

async fn load(catalog: &Catalog, token: &str, table: &str) -> Value {
    let path = format!("at_mnt_x/namespaces/ads/tables/{table}");
    let answer = get(catalog, token, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["metadata"].clone()
}

async fn file(catalog: &Catalog, token: &str, version: u64, name: &str) -> Answer {
    let path = format!("/api/v1/datasets/ads.clicks/versions/v{version}/iceberg/{name}");
    catalog.ask("GET", &path, Some(token), b"").await
}
