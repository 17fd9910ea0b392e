//! Keys of an issuer: fetched when needed, rotated, and not to be had.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use terrace_catalog::access::AccessError;
use terrace_catalog::access::identity::{ClaimRule, Identities, IdentityConfig, IssuerConfig};

use crate::signer::Signer;
use crate::world::{FakeWeb, NOON, Pages};

const ISSUER: &str = "https://login.example.com/realms/ml";

fn issuer() -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: "terrace".to_owned(),
        grants: vec![ClaimRule {
            claim: "sub".to_owned(),
            value: "ann".to_owned(),
            grants: vec!["read:*".to_owned()],
        }],
        ..IssuerConfig::default()
    }
}

fn open(pages: &Arc<Pages>) -> Identities {
    let config = IdentityConfig {
        issuers: vec![issuer()],
        kubernetes: None,
    };
    Identities::open(&config, &FakeWeb(Arc::clone(pages))).unwrap()
}

fn token(signer: &Signer, key: &str) -> String {
    let claims = json!({"iss": ISSUER, "aud": "terrace", "sub": "ann", "exp": NOON + 600});
    signer.token(&json!({"alg": "ES256", "kid": key}), &claims)
}

async fn good(identities: &Identities, token: &str) -> bool {
    identities.who(token, NOON * 1000).await.is_ok()
}

async fn unchecked(identities: &Identities, token: &str) -> bool {
    let who = identities.who(token, NOON * 1000).await;
    matches!(who, Err(AccessError::Unchecked(_)))
}

// A key that is rotated must be believed soon and its forerunner no more, and tokens with invented keys
// must not make the catalog hammer the issuer.
#[tokio::test(start_paused = true)]
async fn keys_are_rotated() {
    let pages = Arc::new(Pages::default());
    let (old, new) = (Signer::p256(), Signer::p256());
    pages.publish(ISSUER, &[old.jwk("1")]);
    let identities = open(&pages);
    assert!(good(&identities, &token(&old, "1")).await);
    for _ in 0..100 {
        assert!(!good(&identities, &token(&old, "invented")).await);
    }
    assert_eq!(pages.asked(), 2, "invented keys cost requests");

    pages.publish(ISSUER, &[new.jwk("2")]);
    assert!(
        !good(&identities, &token(&new, "2")).await,
        "fetched at once"
    );
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(good(&identities, &token(&new, "2")).await);
    assert_eq!(pages.asked(), 4);
    assert!(!good(&identities, &token(&old, "1")).await, "withdrawn");

    // Withdrawn without any new one: noticed by age.
    pages.publish(ISSUER, &[old.jwk("3")]);
    assert!(good(&identities, &token(&new, "2")).await);
    tokio::time::advance(Duration::from_secs(601)).await;
    assert!(!good(&identities, &token(&new, "2")).await);
}

// An issuer that is down must lock out nobody it has vouched for a moment ago, let in nobody for ever, and
// be asked less and less.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_is_asked_less() {
    let pages = Arc::new(Pages::default());
    let signer = Signer::p256();
    let identities = open(&pages);
    let ours = token(&signer, "1");
    for _ in 0..10 {
        assert!(unchecked(&identities, &ours).await, "not known to be bad");
    }
    assert_eq!(pages.asked(), 1, "asked again without a pause");
    for _ in 0..600 {
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(unchecked(&identities, &ours).await);
    }
    assert!(
        (5..=12).contains(&pages.asked()),
        "{} times in 10 min",
        pages.asked()
    );

    pages.publish(ISSUER, &[signer.jwk("1")]);
    tokio::time::advance(Duration::from_secs(300)).await;
    assert!(good(&identities, &ours).await);
    pages.clear();
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(good(&identities, &ours).await, "an hour without its issuer");
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    assert!(
        unchecked(&identities, &ours).await,
        "a day without its issuer"
    );
}

/// What is wrong, the issuer's document, and the status and body of its keys.
fn unfit(signer: &Signer) -> Vec<(&'static str, String, u16, String)> {
    let uri = format!("{ISSUER}/keys");
    let keys = json!({"keys": [signer.jwk("1")]}).to_string();
    let mut private = signer.jwk("1");
    private["d"] = "AAAA".into();
    let many: Vec<_> = (0..65)
        .map(|number| signer.jwk(&number.to_string()))
        .collect();
    let says = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    vec![
        (
            "another issuer",
            says("https://evil", &uri),
            200,
            keys.clone(),
        ),
        (
            "no issuer",
            json!({"jwks_uri": uri}).to_string(),
            200,
            keys.clone(),
        ),
        (
            "keys over plain HTTP",
            says(ISSUER, "http://login.example.com/keys"),
            200,
            keys.clone(),
        ),
        (
            "keys in a file",
            says(ISSUER, "file:///etc/passwd"),
            200,
            keys.clone(),
        ),
        ("no JSON", "<html>".to_owned(), 200, keys.clone()),
        ("an error", says(ISSUER, &uri), 500, keys.clone()),
        ("a redirect", says(ISSUER, &uri), 302, keys.clone()),
        (
            "no keys",
            says(ISSUER, &uri),
            200,
            r#"{"keys":[]}"#.to_owned(),
        ),
        (
            "keys of no kind",
            says(ISSUER, &uri),
            200,
            r#"{"keys":[{"kty":"oct","k":"AA"}]}"#.to_owned(),
        ),
        (
            "a private key",
            says(ISSUER, &uri),
            200,
            json!({"keys": [private]}).to_string(),
        ),
        (
            "too many keys",
            says(ISSUER, &uri),
            200,
            json!({"keys": many}).to_string(),
        ),
        (
            "too long",
            says(ISSUER, &uri),
            200,
            format!("{keys}{}", " ".repeat(300 << 10)),
        ),
    ]
}

// What answers at the right address may still not be the issuer, or not be able to be one.
#[tokio::test(start_paused = true)]
async fn documents_that_do_not_fit_are_not_believed() {
    let signer = Signer::p256();
    let about = format!("{ISSUER}/.well-known/openid-configuration");
    let uri = format!("{ISSUER}/keys");
    for (what, document, status, keys) in unfit(&signer) {
        let pages = Arc::new(Pages::default());
        pages.put(&about, 200, &document);
        pages.put(&uri, status, &keys);
        pages.put("http://login.example.com/keys", 200, &keys);
        let identities = open(&pages);
        assert!(unchecked(&identities, &token(&signer, "1")).await, "{what}");
        pages.publish(ISSUER, &[signer.jwk("1")]);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(
            good(&identities, &token(&signer, "1")).await,
            "{what}: stays out for ever"
        );
    }
}

// A file of keys that is replaced counts without a restart; one that cannot be used is told at the start.
#[tokio::test(start_paused = true)]
async fn keys_in_a_file_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let (old, new) = (Signer::p256(), Signer::p256());
    let write = |keys: &[serde_json::Value]| {
        std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
    };
    let open = || {
        let config = IdentityConfig {
            issuers: vec![IssuerConfig {
                keys_file: Some(file.clone()),
                ..issuer()
            }],
            kubernetes: None,
        };
        Identities::open(&config, &FakeWeb(Arc::default()))
    };
    let absent = open().unwrap_err().to_string();
    assert!(
        absent.contains("issuers[0].keys_file") && absent.contains("keys.json"),
        "{absent}"
    );
    write(&[old.jwk("1")]);
    let identities = open().unwrap();
    assert!(good(&identities, &token(&old, "1")).await);
    write(&[old.jwk("1"), new.jwk("2")]);
    assert!(good(&identities, &token(&new, "2")).await);
    std::fs::write(&file, "half a fi").unwrap();
    tokio::time::advance(Duration::from_secs(601)).await;
    assert!(
        good(&identities, &token(&new, "2")).await,
        "the last good file counts"
    );
}

// A configuration that is misread trusts whom nobody meant.
#[test]
fn configurations_that_cannot_be_meant_are_refused() {
    let web = FakeWeb(Arc::default());
    let refused = |change: &dyn Fn(&mut IssuerConfig), field: &str| {
        let mut own = issuer();
        change(&mut own);
        let config = IdentityConfig {
            issuers: vec![issuer(), own],
            kubernetes: None,
        };
        let error = Identities::open(&config, &web).unwrap_err();
        assert_eq!(error.field, format!("issuers[1].{field}"), "{error}");
    };
    refused(
        &|own| own.issuer = "http://login.example.com".to_owned(),
        "issuer",
    );
    refused(&|own| own.issuer.clear(), "issuer");
    refused(&|own| own.audience.clear(), "audience");
    refused(&|own| own.algorithms.clear(), "algorithms");
    refused(&|own| own.clock_skew_seconds = 3600, "clock_skew_seconds");
    refused(&|own| own.lifetime_seconds = u64::MAX, "lifetime_seconds");
    refused(
        &|own| own.grants[0].grants = vec!["root:*".to_owned()],
        "grants",
    );
    refused(&|own| own.grants[0].value.clear(), "grants");
}
