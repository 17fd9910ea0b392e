//! Who somebody is by a token that the catalog has not made: a Kubernetes API server and an OpenID
//! Connect provider asked over TLS by a real `terrace catalog serve`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::certs::Root;
use crate::cluster::{Answer, Cluster, OWN_TOKEN};
use crate::served::Served;
use crate::signer::Signer;
use crate::skip;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A catalog that believes a cluster and an issuer, both of which are `Cluster`.
struct World {
    served: Served,
    cluster: Cluster,
    signer: Signer,
}

fn write_configuration(directory: &Path, address: &str, root: &Root) -> Vec<String> {
    let (token, ca) = (directory.join("own-token"), root.file());
    std::fs::write(&token, OWN_TOKEN).unwrap();
    let file = directory.join("config.toml");
    let text = format!(
        "[catalog.identity.kubernetes]\napi_server = \"https://{address}\"\n\
         audience = \"terrace.test\"\nca_file = {ca:?}\ntoken_file = {token:?}\ncache_seconds = 0\n\
         [[catalog.identity.kubernetes.grants]]\nnamespace = \"ml\"\naccount = \"train\"\n\
         grants = [\"read:ads\"]\n\
         [[catalog.identity.issuers]]\nissuer = \"https://{address}/realm\"\n\
         audience = \"terrace.test\"\nca_file = {ca:?}\nalgorithms = [\"ES256\"]\n\
         [[catalog.identity.issuers.grants]]\nclaim = \"groups\"\nvalue = \"etl\"\n\
         grants = [\"publish:ads\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    [
        "--config",
        file.to_str().unwrap(),
        "--log",
        "info,audit=debug",
    ]
    .map(str::to_owned)
    .to_vec()
}

impl World {
    /// None: this machine has no `openssl`.
    fn start() -> Option<Self> {
        let mut cluster = None;
        let served = Served::prepared(|directory| {
            let Some(root) = Root::new(&directory.join("tls")) else {
                return Vec::new();
            };
            let (certificate, key) = root.issue("api", "server");
            let started = Cluster::start((&certificate, &key));
            let address = format!("localhost:{}", started.address.port());
            cluster = Some(started);
            write_configuration(directory, &address, &root)
        });
        Some(Self {
            served,
            cluster: cluster?,
            signer: Signer::p256(),
        })
    }

    /// A token as a cluster makes it for a pod.
    fn account(&self, number: u64) -> String {
        let claims = json!({"iss": "https://kubernetes.default.svc.cluster.local",
            "aud": ["terrace.test"], "exp": now() + 600, "jti": number,
            "sub": "system:serviceaccount:ml:train"});
        self.signer
            .token(&json!({"alg": "RS256", "kid": "x"}), &claims)
    }

    /// `terrace dataset list --namespace ads` with a token: status and what it said.
    fn list(&mut self, token: &str) -> (i32, String) {
        self.served.use_token(token);
        let output = self
            .served
            .command(&["dataset", "list", "--namespace", "ads"])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }
}

fn review(changes: &Value) -> Answer {
    let mut status = json!({"authenticated": true, "audiences": ["terrace.test"],
        "user": {"username": "system:serviceaccount:ml:train", "uid": "u",
            "groups": ["system:serviceaccounts:ml"]}});
    let changes = changes.as_object().unwrap().clone();
    status.as_object_mut().unwrap().extend(changes);
    Answer::Review(status)
}

// A job on a node has no other credential than its pod's, and an API server that is down, slow or says no
// must keep everybody out and not let everybody in.
#[test]
fn accounts_are_asked_for_at_the_api_server() {
    let Some(mut world) = World::start() else {
        return skip("accounts_are_asked_for_at_the_api_server", "no openssl");
    };
    world.cluster.answers(review(&json!({})));
    let good = world.account(1);
    let (status, said) = world.list(&good);
    assert_eq!(status, 0, "{said}");
    let asked = &world.cluster.reviewed()[0];
    assert_eq!(
        *asked,
        json!({"token": good, "audiences": ["terrace.test"]})
    );
    // As far as the rules go, and no farther.
    let (status, said) = world.served.fail(&["catalog", "token", "list"]);
    assert!(
        status == 1 && said.contains("does not grant admin"),
        "{said}"
    );

    world
        .cluster
        .answers(review(&json!({"authenticated": false})));
    let no = world.account(2);
    let (status, said) = world.list(&no);
    assert!(status == 1 && said.contains("does not know it"), "{said}");
    world
        .cluster
        .answers(review(&json!({"audiences": ["https://kubernetes"]})));
    let other = world.account(3);
    let (status, said) = world.list(&other);
    assert!(
        status == 1 && said.contains("not for this catalog"),
        "{said}"
    );
    world.cluster.answers(Answer::Silence);
    let slow = world.account(4);
    let (status, said) = world.list(&slow);
    assert!(status == 1 && said.contains("took too long"), "{said}");
    world.cluster.stop();
    let down = world.account(5);
    let (status, said) = world.list(&down);
    assert!(
        status == 1 && said.contains("cannot be checked now"),
        "{said}"
    );

    let log = world.served.log();
    let line = |parts: &[&str]| {
        let found = log
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?}:\n{log}");
    };
    line(&[
        "audit",
        "kubernetes#system:serviceaccount:ml:train",
        "GET /api/v1/datasets",
        "200",
    ]);
    line(&["audit", "nobody", "unauthenticated"]);
    for token in [good, no, other, slow, down, OWN_TOKEN.to_owned()] {
        assert!(!log.contains(&token), "a token is in the log");
    }
}

// The people of an organisation come with what its login page gives them; the keys behind it are found by
// the issuer's name alone.
#[test]
fn people_come_with_tokens_of_their_issuer() {
    let Some(mut world) = World::start() else {
        return skip("people_come_with_tokens_of_their_issuer", "no openssl");
    };
    let issuer = format!("https://localhost:{}/realm", world.cluster.address.port());
    let uri = format!("{issuer}/keys");
    world.cluster.publish(
        "/realm/.well-known/openid-configuration",
        &json!({"issuer": issuer, "jwks_uri": uri}),
    );
    let keys = json!({"keys": [world.signer.jwk("k1")]});
    world.cluster.publish("/realm/keys", &keys);
    let claims = json!({"iss": issuer, "aud": "terrace.test", "sub": "ann", "exp": now() + 600,
        "groups": ["etl"]});
    let header = json!({"alg": "ES256", "kid": "k1"});
    let good = world.signer.token(&header, &claims);
    let (status, said) = world.list(&good);
    assert_eq!(status, 0, "{said}");
    let file = world.served.scratch("x.yaml");
    let text = "apiVersion: terrace.io/v1\nkind: Dataset\nmetadata: {name: ads.x}\n\
        spec: {source: \"file:///x\"}\n";
    std::fs::write(&file, text).unwrap();
    world
        .served
        .succeed(&["dataset", "register", "-f", file.to_str().unwrap()]);
    let forged = Signer::p256().token(&header, &claims);
    let (status, said) = world.list(&forged);
    assert!(status == 1 && said.contains("signature is wrong"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");

    let log = world.served.log();
    let who = format!("{issuer}#ann");
    let audited = |line: &str| line.contains(&who) && line.contains("PUT /api/v1/datasets");
    assert!(log.lines().any(audited), "{log}");
    assert!(
        !log.contains(&good) && !log.contains(&forged),
        "a token is in the log"
    );
}

// A wrong word in the configuration must end the start, not believe somebody else.
#[test]
fn a_wrong_configuration_is_refused_at_the_start() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("config.toml");
    for (text, said) in [
        (
            "[[catalog.identity.issuers]]\nissuer = \"http://x\"\naudience = \"t\"\n",
            "issuers[0].issuer",
        ),
        (
            "[[catalog.identity.issuers]]\nisuer = \"https://x\"\n",
            "isuer",
        ),
        (
            "[catalog.identity.kubernetes]\nca_file = \"/nowhere/ca\"\n",
            "/nowhere/ca",
        ),
        (
            "[[catalog.identity.issuers]]\nissuer = \"https://x\"\naudience = \"t\"\nalgorithms = [\"HS256\"]\n",
            "HS256",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_terrace"))
            .args(["catalog", "serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(directory.path().join("data"))
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(said) && error.trim_end().lines().count() == 1,
            "{error}"
        );
    }
}
