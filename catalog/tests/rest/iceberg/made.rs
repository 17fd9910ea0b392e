//! Metadata, lists of manifests and manifests, as they are made of versions.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use terrace_catalog::schema::Type;

use super::{Day, commit, file, load, schema, start};

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
