//! What the routes answer, and to whom.

use serde_json::Value;

use super::{file, get, with_table};

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
