//! Who may use which route.

use serde_json::Value;
use terrace_catalog::access::{Grants, TokenRequest};

use crate::document::{Operation, operations};
use crate::support::{Answer, Catalog};

/// Routes that ask for nobody.
const OPEN: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

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

// A route that somebody adds without a policy, or with too wide a one, hands data to strangers. The walk
// takes every route from the document, so that a new one is walked without being named here.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_who_may_not_use_it() {
    let catalog = Catalog::start().await;
    let operations = operations(&catalog.document().await);
    assert!(operations.len() > 15, "the walk found {operations:?}");
    let elsewhere = catalog.token(&["admin:other"]).await;
    let smaller = [
        ("read", catalog.token(&["list:*"]).await),
        ("publish", catalog.token(&["read:*"]).await),
        ("admin", catalog.token(&["publish:*"]).await),
    ];
    let mut refused = 0;
    for operation in operations {
        let Operation { method, target, .. } = &operation;
        let ask = async |token: Option<&str>| catalog.ask(method, target, token, b"").await;
        let Some((scope, over)) = &operation.policy else {
            assert!(OPEN.contains(&target.as_str()), "{target} is open");
            assert_eq!(ask(None).await.status, 200);
            continue;
        };
        let nobody = ask(None).await;
        assert_refused(&nobody, method, target, 401);
        let head = nobody.head.to_lowercase();
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        let forged = format!("trc_{}", "0".repeat(64));
        for unknown in [forged.as_str(), "e30.e30.AAAA", ""] {
            assert_eq!(ask(Some(unknown)).await.status, 401, "{method} {target}");
        }
        if let Some((_, token)) = smaller.iter().find(|(name, _)| name == scope) {
            let answer = ask(Some(token)).await;
            assert_refused(&answer, method, target, 403);
            refused += 1;
        }
        if over != "some" {
            let answer = ask(Some(&elsewhere)).await;
            assert_eq!(answer.status, 403, "{method} {target}, another namespace");
            refused += 1;
        }
    }
    assert!(refused > 20, "only {refused} refusals");
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
