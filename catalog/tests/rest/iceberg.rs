//! The Iceberg face, byte for byte where engines are strict; engines themselves are in the whole-system
//! tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

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

// An engine that is told a wrong prefix, a wrong list or a wrong kind of error gives up, or asks for ever.
#[tokio::test(flavor = "multi_thread")]
async fn clients_find_their_way() {
    let (catalog, token) = with_table().await;
    for (asked, prefix) in [
        ("", "at_mnt_terrace"),
        ("?warehouse=mount", "at_mnt_terrace"),
        ("?warehouse=file%3A%2F%2F%2Fdata%2Fx", "at_data_x"),
        ("?warehouse=store&unknown=1", "store"),
    ] {
        let config = get(&catalog, &token, &format!("config{asked}"))
            .await
            .json();
        assert_eq!(config["overrides"]["prefix"], prefix, "{asked}");
        assert_eq!(config["defaults"], serde_json::json!({}));
    }
    for (path, expected) in [
        ("store/namespaces", r#"{"namespaces":[["ads"]]}"#),
        ("store/namespaces?parent=ads", r#"{"namespaces":[]}"#),
        (
            "store/namespaces/ads",
            r#"{"namespace":["ads"],"properties":{}}"#,
        ),
        (
            "store/namespaces/ads/tables",
            r#"{"identifiers":[{"name":"clicks","namespace":["ads"]}]}"#,
        ),
    ] {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(get(&catalog, &token, path).await.json(), expected, "{path}");
    }
}

// A client that sees another kind of error takes a typing error for a broken server.
#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_kinds() {
    let (catalog, token) = with_table().await;
    for (path, status, kind) in [
        ("config?warehouse=s3%3A%2F%2Fx", 400, "BadRequestException"),
        ("nowhere/namespaces", 400, "BadRequestException"),
        ("store/namespaces/none", 404, "NoSuchNamespaceException"),
        ("store/namespaces/a%1Fb", 404, "NoSuchNamespaceException"),
        (
            "store/namespaces/none/tables",
            404,
            "NoSuchNamespaceException",
        ),
        (
            "store/namespaces/ads/tables/none",
            404,
            "NoSuchTableException",
        ),
        (
            "store/namespaces/ads/tables/clicks%40v2",
            404,
            "NoSuchTableException",
        ),
        (
            "store/namespaces/ads/tables/images",
            404,
            "NoSuchTableException",
        ),
        (
            "store/namespaces/ads/tables/..%2Fx",
            404,
            "NoSuchTableException",
        ),
    ] {
        let answer = get(&catalog, &token, path).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["type"]),
            (status, &kind.into()),
            "{path}"
        );
        assert_eq!(error["code"], status);
    }
}

// A dataset whose owner keeps it from engines must not be one statement away all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_no_table() {
    let (catalog, token) = with_table().await;
    let dataset = catalog.ledger.dataset(&"ads.clicks".parse().unwrap()).await;
    let mut descriptor = dataset.unwrap().descriptor.as_ref().clone();
    descriptor.serve.sql = false;
    catalog.ledger.update(descriptor, None).await.unwrap();
    let tables = "store/namespaces/ads/tables";
    let list = get(&catalog, &token, tables).await.body;
    assert_eq!(list, r#"{"identifiers":[]}"#);
    for table in ["clicks", "clicks%40v1"] {
        let refused = get(&catalog, &token, &format!("{tables}/{table}")).await;
        assert_eq!(refused.status, 404);
        assert!(refused.body.contains("serve.sql"), "{}", refused.body);
    }
    for name in ["store.snap.avro", "store.m-0.avro", "store.metadata.json"] {
        assert_eq!(file(&catalog, &token, 1, name).await.status, 404, "{name}");
    }
}

// Clients ask whether something is there before they make it, and report what they have read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_told_without_it() {
    let (catalog, token) = with_table().await;
    let base = "/iceberg/v1/store/namespaces/ads";
    for (method, path, status) in [
        ("HEAD", "", 204),
        ("HEAD", "/tables/clicks", 204),
        ("HEAD", "/tables/clicks%40v1", 204),
        ("HEAD", "/tables/images", 404),
        ("POST", "/tables/clicks/metrics", 204),
        ("POST", "/tables", 405),
    ] {
        let path = format!("{base}{path}");
        let answer = catalog.ask(method, &path, Some(&token), b"{}").await;
        assert_eq!(
            (answer.status, answer.body.len() < 400),
            (status, true),
            "{method} {path}"
        );
    }
    let metrics = catalog.ask("GET", "/metrics", None, b"").await.body;
    assert!(
        metrics.contains("terrace_catalog_iceberg_reports_total 1"),
        "{metrics}"
    );
}

// Numbers that change with the order in which versions are looked at read one column as another.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_snapshots_and_columns_keep_their_numbers() {
    let (catalog, token) = start().await;
    let day: Day<'_> = ("2026-11-20", 1, &[]);
    let first = schema(&[("id", Type::Int32), ("name", Type::String)]);
    let second = schema(&[
        ("name", Type::String),
        ("score", Type::Date),
        ("id", Type::Int64),
    ]);
    let third = schema(&[("id", Type::String)]);
    commit(&catalog, "ads.clicks", 1, &first, &[day]).await;
    commit(&catalog, "ads.clicks", 2, &second, &[day]).await;
    let tag = "/api/v1/datasets/ads.clicks/tags/good";
    let tagged = catalog
        .ask("PUT", tag, Some(&token), br#"{"version":1}"#)
        .await;
    assert_eq!(tagged.status, 200, "{}", tagged.body);

    // The newest is looked at first: its numbers are the first ones.
    let pinned = load(&catalog, &token, "clicks%40v2").await;
    let metadata = load(&catalog, &token, "clicks").await;
    assert_eq!(metadata["format-version"], 2);
    assert_eq!(metadata["location"], "file:///mnt/x/ads/clicks");
    let numbers = |metadata: &Value, schema: &Value| -> BTreeMap<String, u64> {
        let schemas = metadata["schemas"].as_array().unwrap();
        let found = schemas
            .iter()
            .find(|one| one["schema-id"] == *schema)
            .unwrap();
        let fields = found["fields"].as_array().unwrap().iter();
        fields
            .map(|field| {
                assert_eq!(field["required"], false);
                (
                    field["name"].as_str().unwrap().to_owned(),
                    field["id"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    let current = numbers(&metadata, &metadata["current-schema-id"]);
    assert_eq!(current, numbers(&pinned, &pinned["current-schema-id"]));
    let snapshots = metadata["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 2);
    let old = numbers(&metadata, &snapshots[0]["schema-id"]);
    assert_eq!((old["id"], old["dt"]), (current["id"], current["dt"]));
    assert_eq!(
        snapshots[0]["manifest-list"],
        "file:///mnt/x/ads/clicks@v1/.iceberg/at_mnt_x.snap.avro"
    );
    assert_eq!(metadata["refs"]["good"]["snapshot-id"], 1);
    assert_eq!(metadata["refs"]["main"]["snapshot-id"], 2);
    assert_eq!(metadata["properties"]["gc.enabled"], "false");

    // A column that became another one has another number, and the versions before are apart.
    commit(&catalog, "ads.clicks", 3, &third, &[day]).await;
    let metadata = load(&catalog, &token, "clicks").await;
    let now = numbers(&metadata, &metadata["current-schema-id"]);
    assert!(
        !current.values().any(|id| *id == now["id"]),
        "{now:?} {current:?}"
    );
    assert_eq!(metadata["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(metadata["properties"]["terrace.versions-left-out"], "2");
    assert_eq!(metadata["refs"].as_object().unwrap().len(), 1);
    let pinned = load(&catalog, &token, "clicks%40good").await;
    assert_eq!(numbers(&pinned, &pinned["current-schema-id"]), old);
    let mapping = pinned["properties"]["schema.name-mapping.default"]
        .as_str()
        .unwrap();
    let mapping: Value = serde_json::from_str(mapping).unwrap();
    assert_eq!(mapping[0]["field-id"], old["id"]);
}

// Files in no manifest, or in two, are rows that a query misses or counts twice.
#[tokio::test(flavor = "multi_thread")]
async fn many_files_stand_in_several_manifests() {
    let (catalog, token) = start().await;
    let days: [Day<'_>; 4] = [
        ("2026-11-20", 3000, &[]),
        ("2026-11-21", 3000, &[]),
        ("2026-11-22", 0, &[]),
        ("2026-11-23", 9000, &[]),
    ];
    commit(
        &catalog,
        "ads.clicks",
        1,
        &schema(&[("id", Type::Int64)]),
        &days,
    )
    .await;
    let mut seen: Vec<String> = Vec::new();
    for at in 0..4 {
        let made = file(&catalog, &token, 1, &format!("store.m-{at}.avro")).await;
        assert_eq!(made.status, 200, "{:.200}", made.body);
        let paths = made.body.split("s3://lake/ads.db/clicks/").skip(1);
        let paths: Vec<String> = paths
            .map(|rest| rest.split_inclusive(".parquet").next().unwrap().to_owned())
            .collect();
        assert_eq!(paths.len(), if at < 3 { 4096 } else { 15_000 - 3 * 4096 });
        seen.extend(paths);
    }
    assert!(seen.is_sorted());
    seen.dedup();
    assert_eq!(seen.len(), 15_000);
    let list = file(&catalog, &token, 1, "store.snap.avro").await;
    for at in 0..4 {
        let path = format!("/api/v1/datasets/ads.clicks/versions/v1/iceberg/store.m-{at}.avro");
        assert_eq!(list.body.matches(&path).count(), 1);
    }
    for none in [
        "store.m-4.avro",
        "store.m-00.avro",
        "store.x",
        "m-0.avro",
        "at.m-0.avro",
        "x",
    ] {
        assert_eq!(file(&catalog, &token, 1, none).await.status, 404, "{none}");
    }
}

// A partition whose files cannot be read as the table says gives wrong values or ends the query.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_left_out_and_counted() {
    let (catalog, token) = start().await;
    let days: [Day<'_>; 4] = [
        ("2026-11-20", 2, &[("retyped.000001", r#"{"id":"string"}"#)]),
        ("2026-11-21", 1, &[("epoch", "1")]),
        ("2026-11-22", 1, &[("epoch", "1"), ("types", "mixed")]),
        (
            "2026-11-23",
            1,
            &[("epoch", "1"), ("types", r#"{"id":"int32"}"#)],
        ),
    ];
    commit(
        &catalog,
        "ads.clicks",
        1,
        &schema(&[("id", Type::Int64)]),
        &days,
    )
    .await;
    let metadata = load(&catalog, &token, "clicks").await;
    let properties = &metadata["properties"];
    assert_eq!(properties["terrace.partitions-left-out"], "2");
    assert_eq!(properties["terrace.files-left-out"], "3");
    let example = properties["terrace.left-out-example"].as_str().unwrap();
    assert!(
        example.contains("dt=2026-11-20") && example.contains("string"),
        "{example}"
    );
    let made = file(&catalog, &token, 1, "store.m-0.avro").await.body;
    let has = |day: &str| made.contains(&format!("dt={day}/"));
    assert_eq!(days.map(|(day, ..)| has(day)), [false, true, false, true]);
    let detail = "/api/v1/datasets/ads.clicks/versions/v1";
    let detail = catalog.ask("GET", detail, Some(&token), b"").await.json();
    assert_eq!(detail["sql"]["partitions_left_out"], 2, "{detail}");
    assert!(detail["sql"]["reason"].is_null(), "{detail}");
}

// A list that takes longer than a request may take is never made: no engine could read the table.
// `TERRACE_TEST_FILES` makes the table larger.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_made_within_a_request() {
    let (catalog, token) = start().await;
    let files = std::env::var("TERRACE_TEST_FILES").ok();
    let files: usize = files.and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let names: Vec<String> = (0..files.div_ceil(1000))
        .map(|at| format!("d{at:06}"))
        .collect();
    let days: Vec<Day<'_>> = names
        .iter()
        .map(|name| (name.as_str(), 1000, &[][..]))
        .collect();
    commit(
        &catalog,
        "ads.clicks",
        1,
        &schema(&[("id", Type::Int64)]),
        &days,
    )
    .await;
    let began = Instant::now();
    let list = file(&catalog, &token, 1, "store.snap.avro").await;
    let took = began.elapsed();
    assert_eq!(list.status, 200, "{:.200}", list.body);
    println!("the list of manifests of {files} files: {took:?}");
    let began = Instant::now();
    let last = (names.len() * 1000 - 1) / 4096;
    let made = file(&catalog, &token, 1, &format!("store.m-{last}.avro")).await;
    assert_eq!(made.status, 200);
    println!("its last manifest: {:?}", began.elapsed());
}

// A list that opens the manifest of every dataset takes minutes where there are a hundred thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tables_opens_no_manifest() {
    let (catalog, token) = with_table().await;
    let selector = "ads.clicks".parse().unwrap();
    let table = catalog.ledger.resolve(&selector).await.unwrap();
    let manifest = table.manifest;
    catalog.blobs.delete(&manifest).await.unwrap();
    let list = get(&catalog, &token, "store/namespaces/ads/tables").await;
    let expected = serde_json::json!({"identifiers": [{"name": "clicks", "namespace": ["ads"]}]});
    assert_eq!(list.json(), expected);
    let load = get(&catalog, &token, "store/namespaces/ads/tables/clicks").await;
    assert_eq!(load.status, 500, "nothing was opened at all: {}", load.body);
}
