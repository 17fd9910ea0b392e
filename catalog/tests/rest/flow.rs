//! What a client does: register, look, resolve, page through files, tag, compare, remove.

use serde_json::{Value, json};

use crate::support::Catalog;

const DESCRIPTOR: &str = "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata:\n  name: ads.clicks\n  \
    description: Clicks\nspec:\n  source: file:///data/clicks\n";

async fn get(catalog: &Catalog, token: &str, path: &str) -> Value {
    let answer = catalog
        .ask("GET", &format!("/api/v1{path}"), Some(token), b"")
        .await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

// Without it a descriptor could be lost, doubled, or registered under another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_is_registered_and_changed() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["admin:ads"]).await;
    let path = "/api/v1/datasets/ads.clicks";
    let put = |text: String| {
        let (catalog, token) = (&catalog, &token);
        async move { catalog.ask("PUT", path, Some(token), text.as_bytes()).await }
    };
    assert_eq!(put(DESCRIPTOR.to_owned()).await.status, 201);
    assert_eq!(put(DESCRIPTOR.to_owned()).await.status, 200);
    let changed = put(DESCRIPTOR.replace("Clicks", "Every click")).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["description"], "Every click");
    let shown = get(&catalog, &token, "/datasets/ads.clicks").await;
    assert_eq!(shown["descriptor"]["spec"]["source"], "file:///data/clicks");
    assert_eq!(
        (&shown["latest"], &shown["tags"]),
        (&Value::Null, &json!({}))
    );
    let other = put(DESCRIPTOR.replace("ads.clicks", "ads.views")).await;
    assert_eq!((other.status, other.error()), (409, "conflict".into()));
    for (text, why) in [
        (DESCRIPTOR.replace("source", "sorce"), "an unknown key"),
        ("{".to_owned(), "no YAML"),
        (String::new(), "nothing"),
    ] {
        let answer = put(text).await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, "invalid".into()),
            "{why}"
        );
    }
}

/// A catalog whose `ads.clicks` has two versions, and a token for it.
async fn two_versions() -> (Catalog, String) {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["publish:ads"]).await;
    let first: &[(&str, &str, u64)] = &[
        ("dt=1", "a", 1),
        ("dt=1", "b", 2),
        ("dt=2", "a", 3),
        ("dt=3", "a", 4),
    ];
    let second: &[(&str, &str, u64)] = &[
        ("dt=1", "a", 1),
        ("dt=1", "b", 9),
        ("dt=3", "a", 4),
        ("dt=4", "x", 5),
        ("dt=4", "y", 6),
    ];
    catalog.publish("ads.clicks", &[first, second]).await;
    (catalog, token)
}

// Without it a page could end early, repeat a file, or mix two versions.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_complete_page_by_page() {
    let (catalog, token) = two_versions().await;
    let mut paths = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/datasets/ads.clicks/versions/v2/files?limit=2{after}");
        let page = get(&catalog, &token, &path).await;
        assert_eq!(page["version"], 2);
        for item in page["items"].as_array().unwrap() {
            paths.push(item["path"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paths, ["dt=1/a", "dt=1/b", "dt=3/a", "dt=4/x", "dt=4/y"]);
    let part = get(
        &catalog,
        &token,
        "/datasets/ads.clicks/versions/2/files?prefix=dt=4/",
    )
    .await;
    assert_eq!(part["items"].as_array().unwrap().len(), 2);
    let top = get(
        &catalog,
        &token,
        "/datasets/ads.clicks/versions/latest/directory",
    )
    .await;
    assert_eq!(top["directories"], json!(["dt=1", "dt=3", "dt=4"]));
    let inner = "/datasets/ads.clicks/versions/v2/directory?path=dt=4&limit=1";
    let inner = get(&catalog, &token, inner).await;
    assert_eq!(
        (&inner["files"][0]["path"], &inner["next"]),
        (&json!("dt=4/x"), &json!("x"))
    );
    let rest = "/datasets/ads.clicks/versions/v2/directory?path=dt=4&limit=1&after=x";
    assert_eq!(
        get(&catalog, &token, rest).await["files"][0]["path"],
        "dt=4/y"
    );
}

// Without it a reader of changes could miss one, and keep a file that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn changes_and_versions_are_complete_page_by_page() {
    let (catalog, token) = two_versions().await;
    let mut changes = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/datasets/ads.clicks/diff?from=v1&to=latest&limit=1{after}");
        let page = get(&catalog, &token, &path).await;
        for item in page["items"].as_array().unwrap() {
            let (path, change) = (item["path"].as_str(), item["change"].as_str());
            changes.push(format!("{} {}", change.unwrap(), path.unwrap()));
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('\n', "%0A")),
            None => break,
        }
    }
    let expected = [
        "changed dt=1/b",
        "removed dt=2/a",
        "added dt=4/x",
        "added dt=4/y",
    ];
    assert_eq!(changes, expected);

    let page = get(&catalog, &token, "/datasets/ads.clicks/versions?limit=1").await;
    assert_eq!(
        (&page["items"][0]["version"], &page["next"]),
        (&json!(2), &json!(2))
    );
    let page = get(
        &catalog,
        &token,
        "/datasets/ads.clicks/versions?limit=1&before=2",
    )
    .await;
    assert_eq!(
        (&page["items"][0]["version"], &page["next"]),
        (&json!(1), &Value::Null)
    );
}

// Without it a tag could name a version that is not there, or move by itself.
#[tokio::test(flavor = "multi_thread")]
async fn tags_and_selectors_name_one_version() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["publish:ads"]).await;
    let versions: [&[(&str, &str, u64)]; 2] = [&[("", "a", 1)], &[("", "a", 2)]];
    catalog.publish("ads.clicks", &versions).await;
    let tag = "/api/v1/datasets/ads.clicks/tags/prod";
    let put = |body: &'static [u8]| catalog.ask("PUT", tag, Some(&token), body);
    assert_eq!(put(br#"{"version":1}"#).await.status, 200);
    let answer = put(br#"{"version":7}"#).await;
    assert_eq!((answer.status, answer.error()), (404, "not_found".into()));
    assert_eq!(put(br#"{"version":1,"force":true}"#).await.status, 400);
    for (selector, version) in [
        ("ads.clicks", 2),
        ("ads.clicks@v1", 1),
        ("ads.clicks@prod", 1),
        ("ads.clicks@latest", 2),
    ] {
        let found = get(&catalog, &token, &format!("/resolve?selector={selector}")).await;
        assert_eq!(found["version"], version, "{selector}");
        assert_eq!(found["location"], "file:///data/x");
    }
    assert_eq!(
        catalog.ask("DELETE", tag, Some(&token), b"").await.status,
        200
    );
    let gone = "/api/v1/resolve?selector=ads.clicks@prod";
    assert_eq!(
        catalog.ask("GET", gone, Some(&token), b"").await.status,
        404
    );
}

// Somebody who confirms what they have not been shown, or who guesses, must not delete a year of data.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_shown_and_confirmed() {
    let (catalog, _) = two_versions().await;
    let admin = catalog.token(&["admin:ads"]).await;
    let delete = |path: &'static str| {
        let (catalog, admin) = (&catalog, &admin);
        async move { catalog.ask("DELETE", path, Some(admin), b"").await }
    };
    let version = "/api/v1/datasets/ads.clicks/versions/v1";
    let marked = delete(version).await;
    assert_eq!(marked.status, 202, "{}", marked.body);
    let plan = marked.json();
    assert_eq!(
        (&plan["state"], &plan["versions"]),
        (&json!("marked"), &json!(1))
    );
    assert_eq!(plan["confirm"].as_str().unwrap().len(), 16);
    // Asked again: the same mark. Another token: no. Too early: no. A model: it is none.
    assert_eq!(delete(version).await.json()["confirm"], plan["confirm"]);
    for (query, said) in [
        ("?confirm=0123456789abcdef", "not that of this mark"),
        ("?model=true", "is not a model"),
    ] {
        let path = format!("{version}{query}");
        let answer = catalog.ask("DELETE", &path, Some(&admin), b"").await;
        let expected = if query == "?model=true" { 202 } else { 409 };
        assert_eq!(answer.status, expected, "{}", answer.body);
        assert!(
            expected == 202 || answer.body.contains(said),
            "{}",
            answer.body
        );
    }
    let token = plan["confirm"].as_str().unwrap();
    let path = format!("{version}?confirm={token}");
    let early = catalog.ask("DELETE", &path, Some(&admin), b"").await;
    assert_eq!(early.status, 409);
    assert!(early.body.contains("not before"), "{}", early.body);
    let kept = "/api/v1/datasets/ads.clicks/versions/v1?keep=true";
    assert_eq!(delete(kept).await.json()["state"], "kept");
    let gone = catalog.ask("DELETE", &path, Some(&admin), b"").await;
    assert!(gone.body.contains("not marked"), "{}", gone.body);
    let whole = delete("/api/v1/datasets/ads.clicks").await.json();
    assert_eq!(
        (&whole["state"], &whole["versions"]),
        (&json!("marked"), &json!(2))
    );
    let latest = delete("/api/v1/datasets/ads.clicks/versions/v2").await;
    assert!(latest.body.contains("is latest"), "{}", latest.body);
}
