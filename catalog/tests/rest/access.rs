//! Who may use which route.

use serde_json::Value;
use terrace_catalog::access::{Grants, TokenRequest};

use crate::support::{Answer, Catalog};

/// Routes that ask for nobody.
const OPEN: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

/// Method, path and smallest scope of every operation of the document.
fn operations(document: &Value) -> Vec<(String, String, Option<String>)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let required = operation["security"].as_array().unwrap();
            assert_eq!(required.len(), 1, "{method} {path} has one policy");
            let scopes = required[0].get("token").and_then(Value::as_array);
            let scope = scopes.map(|scopes| scopes[0].as_str().unwrap().to_owned());
            found.push((method.to_uppercase(), path.clone(), scope));
        }
    }
    found
}

/// The path with something that could be there in each parameter.
fn filled(path: &str) -> String {
    path.replace("{dataset}", "ads.clicks")
        .replace("{version}", "v1")
        .replace("{tag}", "prod")
        .replace("{batch}", "b1")
        .replace("{save}", "s1")
        .replace("{root}", "r1")
        .replace("{id}", "0123456789ab")
        .replace("{prefix}", "store")
        .replace("{namespace}", "ads")
        .replace("{table}", "clicks")
        .replace("{file}", "store.snap.avro")
}

/// Checks that a request is refused with this status, in the shape of its face.
fn assert_refused(answer: &Answer, method: &str, path: &str, status: u16) {
    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    let (code, kind) = match status {
        401 => ("unauthenticated", "NotAuthorizedException"),
        _ => ("forbidden", "ForbiddenException"),
    };
    // An answer to HEAD has no body.
    if method == "HEAD" {
        assert_eq!(answer.body, "", "{path}");
    } else if path.starts_with("/iceberg/") {
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&kind.into(), &status.into())
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    } else {
        assert_eq!(answer.error(), code, "{path}");
    }
}

// A route that somebody adds without a policy, or with too wide a one, hands data to strangers.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_who_may_not_use_it() {
    let catalog = Catalog::start().await;
    let operations = operations(&catalog.document().await);
    assert!(operations.len() > 15, "the walk found {operations:?}");
    let elsewhere = catalog.token(&["admin:other"]).await;
    let tokens = [
        ("list", None),
        ("read", Some(catalog.token(&["list:*"]).await)),
        ("publish", Some(catalog.token(&["read:*"]).await)),
        ("admin", Some(catalog.token(&["publish:*"]).await)),
    ];
    let mut refused = 0;
    for (method, path, scope) in operations {
        let target = filled(&path);
        assert!(
            !target.contains('{'),
            "no value for the parameters of {path}"
        );
        let Some(scope) = scope else {
            assert!(OPEN.contains(&path.as_str()), "{path} is open");
            assert_eq!(catalog.ask(&method, &target, None, b"").await.status, 200);
            continue;
        };
        let nobody = catalog.ask(&method, &target, None, b"").await;
        assert_refused(&nobody, &method, &path, 401);
        assert!(
            nobody
                .head
                .to_lowercase()
                .contains("www-authenticate: bearer")
        );
        let forged = format!("trc_{}", "0".repeat(64));
        let unknown = catalog.ask(&method, &target, Some(&forged), b"").await;
        assert_eq!(unknown.status, 401, "{method} {path}");
        let smaller = tokens.iter().find(|(name, _)| *name == scope).unwrap();
        if let Some(token) = &smaller.1 {
            let answer = catalog.ask(&method, &target, Some(token), b"").await;
            assert_refused(&answer, &method, &path, 403);
            refused += 1;
        }
        if path.contains("{dataset}") || path.contains("{namespace}") {
            let answer = catalog.ask(&method, &target, Some(&elsewhere), b"").await;
            assert_eq!(
                answer.status, 403,
                "{method} {path} with another namespace's token"
            );
            refused += 1;
        }
    }
    assert!(refused > 10, "only {refused} refusals");
}

// Lists are where one tenant would see what another one has.
#[tokio::test(flavor = "multi_thread")]
async fn lists_show_only_what_may_be_listed() {
    let catalog = Catalog::start().await;
    for name in ["ads.clicks", "ads.views", "hr.pay", "zoo.apes"] {
        catalog.publish(name, &[&[("", "f", 1)]]).await;
    }
    let token = catalog.token(&["list:ads", "read:zoo"]).await;
    let names = |answer: Value| -> Vec<String> {
        let items = answer["items"].as_array().unwrap().clone();
        let text = |item: &Value| item["name"].as_str().or(item.as_str()).unwrap().to_owned();
        items.iter().map(text).collect()
    };
    let token = Some(token.as_str());
    let all = catalog.ask("GET", "/api/v1/datasets", token, b"").await;
    assert_eq!(names(all.json()), ["ads.clicks", "ads.views", "zoo.apes"]);
    let spaces = catalog.ask("GET", "/api/v1/namespaces", token, b"").await;
    assert_eq!(names(spaces.json()), ["ads", "zoo"]);
    for (path, status) in [
        ("/api/v1/datasets?ns=hr", 403),
        ("/api/v1/resolve?selector=hr.pay", 403),
        ("/api/v1/resolve?selector=hr.nothing", 403),
        ("/api/v1/resolve?selector=ads.clicks@v1", 200),
        ("/api/v1/datasets/ads.clicks/versions/v1/files", 403),
        ("/api/v1/datasets/zoo.apes/versions/v1/files", 200),
    ] {
        let answer = catalog.ask("GET", path, token, b"").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

// A token that lives on after its end, or after it was revoked, cannot be taken back from a thief.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_when_they_are_revoked_or_expire() {
    let catalog = Catalog::start().await;
    let admin = catalog.token(&["admin:*"]).await;
    let new = br#"{"name":"etl","grants":["publish:ads"],"expires_seconds":3600}"#;
    let made = catalog
        .ask("POST", "/api/v1/tokens", Some(&admin), new)
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = made.json();
    let (token, id) = (
        made["token"].as_str().unwrap(),
        made["id"].as_str().unwrap(),
    );
    let datasets = || catalog.ask("GET", "/api/v1/datasets", Some(token), b"");
    assert_eq!(datasets().await.status, 200);
    let list = catalog
        .ask("GET", "/api/v1/tokens", Some(&admin), b"")
        .await;
    assert!(
        list.body.contains(id) && !list.body.contains("trc_"),
        "{}",
        list.body
    );
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(
        catalog.ask("DELETE", &path, Some(&admin), b"").await.status,
        200
    );
    assert_eq!(datasets().await.status, 401);
    assert_eq!(
        catalog.ask("DELETE", &path, Some(&admin), b"").await.status,
        404
    );

    let request = TokenRequest {
        name: "short".to_owned(),
        grants: Grants::parse(&["list:*"]).unwrap(),
        expires_ms: Some(1000),
    };
    let (token, _) = catalog.access.issue(request, 1).await.unwrap();
    assert!(catalog.access.check(&token, 999).await.is_ok());
    assert!(catalog.access.check(&token, 1000).await.is_err());
    let answer = catalog
        .ask("GET", "/api/v1/datasets", Some(&token.reveal()), b"")
        .await;
    assert_eq!(answer.status, 401);
}
