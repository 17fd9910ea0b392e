//! Service accounts: what an API server's answer must say before somebody is let in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use terrace_catalog::access::identity::{
    AccountRule, Identities, IdentityConfig, KubernetesConfig,
};
use terrace_catalog::access::{AccessError, Principal};

use crate::signer::Signer;
use crate::world::{FakeWeb, NOON, Pages};

const URL: &str = "https://api.test/apis/authentication.k8s.io/v1/tokenreviews";

struct Cluster {
    pages: Arc<Pages>,
    identities: Identities,
    signer: Signer,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "own-token\n").unwrap();
        let rule = |account: Option<&str>, grant: &str| AccountRule {
            namespace: "ml".to_owned(),
            account: account.map(str::to_owned),
            grants: vec![grant.to_owned()],
        };
        let config = IdentityConfig {
            issuers: Vec::new(),
            kubernetes: Some(KubernetesConfig {
                api_server: "https://api.test/".to_owned(),
                token_file,
                grants: vec![rule(None, "list:*"), rule(Some("train"), "read:ads")],
                ..KubernetesConfig::default()
            }),
        };
        let pages = Arc::new(Pages::default());
        let identities = Identities::open(&config, &FakeWeb(Arc::clone(&pages))).unwrap();
        Self {
            pages,
            identities,
            signer: Signer::p256(),
            _directory: directory,
        }
    }

    fn says(&self, status: Value) {
        let kind = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {}, "spec": {"token": "-"}, "status": status});
        self.pages.put(URL, 201, &kind.to_string());
    }

    /// A token that the cluster could have made; only the API server knows whether it did.
    fn token(&self, number: u64, claims: &Value) -> String {
        let mut all = json!({"iss": "https://kubernetes.default.svc", "aud": ["terrace"],
            "sub": "system:serviceaccount:ml:train", "exp": NOON + 600, "jti": number});
        let changed = claims.as_object().unwrap();
        all.as_object_mut().unwrap().extend(changed.clone());
        self.signer
            .token(&json!({"alg": "ES256", "kid": "1"}), &all)
    }

    async fn who(&self, token: &str) -> Result<Principal, AccessError> {
        self.identities.who(token, NOON * 1000).await
    }
}

fn good() -> Value {
    json!({"authenticated": true, "audiences": ["terrace"],
        "user": {"username": "system:serviceaccount:ml:train", "uid": "1",
            "groups": ["system:serviceaccounts", "system:authenticated"]}})
}

fn with(name: &str, value: Value) -> Value {
    let mut status = good();
    status[name] = value;
    status
}

// A job must get in with the token that its pod has, as who the API server says, and no farther.
#[tokio::test(start_paused = true)]
async fn accounts_are_who_the_api_server_says() {
    let cluster = Cluster::new();
    cluster.says(good());
    let token = cluster.token(1, &json!({}));
    let who = cluster.who(&token).await.unwrap();
    assert_eq!(who.label(), "kubernetes#system:serviceaccount:ml:train");
    assert_eq!(who.grants().texts(), ["list:*", "read:ads"]);
    assert_eq!(who.expires_ms(), Some((NOON + 600) * 1000));
    let asked = cluster.pages.posted();
    let spec = json!({"token": token, "audiences": ["terrace"]});
    assert_eq!(asked[0]["spec"], spec, "asked without our audience");

    // For a while the answer counts without a question; then a deleted account is out.
    cluster.says(json!({"authenticated": false, "error": "deleted"}));
    assert!(cluster.who(&token).await.is_ok());
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(cluster.who(&token).await.is_err());
    assert_eq!(cluster.pages.asked(), 2);

    let other = json!({"username": "system:serviceaccount:ml2:train"});
    cluster.says(with("user", other));
    let who = cluster.who(&cluster.token(2, &json!({}))).await.unwrap();
    assert_eq!(who.grants().texts(), [""; 0]);
}

/// Answers that are no clear yes.
fn unclear() -> Vec<(&'static str, Value)> {
    let user = |name: &str| with("user", json!({"username": name}));
    vec![
        ("not authenticated", with("authenticated", false.into())),
        ("nothing", json!({})),
        (
            "another audience",
            with("audiences", json!(["https://kubernetes.default.svc"])),
        ),
        (
            "an audience that begins like ours",
            with("audiences", json!(["terrace2"])),
        ),
        ("no audience", with("audiences", json!([]))),
        (
            "audiences unsaid",
            json!({"authenticated": true, "user": good()["user"]}),
        ),
        ("a person", user("ann")),
        ("a node", user("system:node:n1")),
        (
            "an account without a name",
            user("system:serviceaccount:ml:"),
        ),
        (
            "an account without a namespace",
            user("system:serviceaccount::train"),
        ),
        (
            "an account with a tail",
            user("system:serviceaccount:ml:train:x"),
        ),
        (
            "an account in other letters",
            user("system:serviceaccount:ML:train"),
        ),
        (
            "an account with a line feed",
            user("system:serviceaccount:ml:train\nx"),
        ),
        (
            "no user",
            json!({"authenticated": true, "audiences": ["terrace"]}),
        ),
    ]
}

// Everything that is not a clear yes about a service account and our audience is a no.
#[tokio::test(start_paused = true)]
async fn unclear_answers_let_nobody_in() {
    let cluster = Cluster::new();
    for (number, (what, status)) in unclear().into_iter().enumerate() {
        cluster.says(status);
        let who = cluster.who(&cluster.token(number as u64, &json!({}))).await;
        assert!(
            matches!(who, Err(AccessError::Refused(_))),
            "{what}: {who:?}"
        );
    }
    let odd = cluster.token(100, &json!({}));
    for (status, body) in [
        (500, "{}"),
        (401, "{}"),
        (403, "{}"),
        (302, "{}"),
        (201, "<html>"),
        (201, r#"{"status":{"authenticated":"true"}}"#),
    ] {
        cluster.pages.put(URL, status, body);
        let who = cluster.who(&odd).await;
        assert!(
            matches!(who, Err(AccessError::Unchecked(_))),
            "{status} {body}: {who:?}"
        );
    }
    cluster.pages.clear();
    let who = cluster.who(&odd).await;
    assert!(
        matches!(who, Err(AccessError::Unchecked(_))),
        "down: {who:?}"
    );
    cluster.says(good());
    assert!(cluster.who(&odd).await.is_ok(), "stays out after a failure");
}

// The API server serves the whole cluster: garbage must not be passed on to it.
#[tokio::test(start_paused = true)]
async fn tokens_for_others_cost_no_question() {
    let cluster = Cluster::new();
    cluster.says(good());
    for (number, claims) in [
        json!({"aud": ["https://kubernetes.default.svc"]}),
        json!({"aud": null}),
        json!({"exp": NOON - 1}),
        json!({"exp": null}),
        json!({"iss": null}),
    ]
    .iter()
    .enumerate()
    {
        let token = cluster.token(number as u64, claims);
        let who = cluster.who(&token).await;
        assert!(
            matches!(who, Err(AccessError::Refused(_))),
            "{claims}: {who:?}"
        );
    }
    assert!(cluster.who("e30.e30.e30").await.is_err());
    assert_eq!(cluster.pages.asked(), 0);
    // The same no is not asked for twice in a moment.
    cluster.says(json!({"authenticated": false}));
    let token = cluster.token(9, &json!({}));
    for _ in 0..10 {
        assert!(cluster.who(&token).await.is_err());
    }
    assert_eq!(cluster.pages.asked(), 1);
}
