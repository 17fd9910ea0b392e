//! Tokens that somebody made to look good. Each differs in one thing from one that is.

use std::sync::Arc;

use serde_json::{Value, json};
use terrace_catalog::access::identity::{
    Algorithm, ClaimRule, Identities, IdentityConfig, IssuerConfig,
};
use terrace_catalog::access::{AccessError, Principal};

use crate::signer::{Signer, encode};
use crate::world::{FakeWeb, NOON, Pages};

const ISSUER: &str = "https://login.example.com";

/// An issuer with a key of each kind, and a stranger.
struct World {
    rsa: Signer,
    p256: Signer,
    p384: Signer,
    ed25519: Signer,
    stranger: Signer,
    pages: Arc<Pages>,
    identities: Identities,
}

fn config(algorithms: &[Algorithm]) -> IdentityConfig {
    IdentityConfig {
        issuers: vec![IssuerConfig {
            issuer: ISSUER.to_owned(),
            audience: "terrace".to_owned(),
            algorithms: algorithms.to_vec(),
            grants: vec![ClaimRule {
                claim: "groups".to_owned(),
                value: "etl".to_owned(),
                grants: vec!["publish:ads".to_owned()],
            }],
            ..IssuerConfig::default()
        }],
        kubernetes: None,
    }
}

impl World {
    fn new() -> Self {
        use Algorithm::{ES256, ES384, EdDSA, PS256, RS256};
        let pages = Arc::new(Pages::default());
        let (rsa, p256) = (Signer::rsa(), Signer::p256());
        let (p384, ed25519) = (Signer::p384(), Signer::ed25519());
        let secret = json!({"kty": "oct", "kid": "secret", "k": encode(b"a shared secret")});
        let mut encrypts = Signer::p256().jwk("encrypts");
        encrypts["use"] = "enc".into();
        let keys = [
            rsa.jwk("rsa"),
            p256.jwk("p256"),
            p384.jwk("p384"),
            ed25519.jwk("ed"),
            secret,
            encrypts,
            json!({"kty": "future"}),
        ];
        pages.publish(ISSUER, &keys);
        let config = config(&[RS256, PS256, ES256, ES384, EdDSA]);
        let identities = Identities::open(&config, &FakeWeb(Arc::clone(&pages))).unwrap();
        Self {
            rsa,
            p256,
            p384,
            ed25519,
            stranger: Signer::rsa(),
            pages,
            identities,
        }
    }

    async fn who(&self, token: &str) -> Result<Principal, AccessError> {
        self.identities.who(token, NOON * 1000).await
    }
}

fn header(algorithm: &str, key: &str) -> Value {
    json!({"alg": algorithm, "kid": key, "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "terrace", "sub": "ann", "groups": ["x", "etl"],
        "exp": NOON + 600, "nbf": NOON - 5, "iat": NOON - 5})
}

/// The good claims with one changed; null takes it away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims
            .as_object_mut()
            .unwrap()
            .insert(name.to_owned(), value),
    };
    claims
}

/// The good header with one member more.
fn head(name: &str, value: Value) -> Value {
    let mut header = header("RS256", "rsa");
    header[name] = value;
    header
}

// What a real provider issues must be let in, or nobody turns the checks on.
#[tokio::test]
async fn good_tokens_say_who_somebody_is() {
    let world = World::new();
    let mut plain = header("RS256", "rsa");
    plain.as_object_mut().unwrap().remove("typ");
    let tokens = [
        world.rsa.token(&header("RS256", "rsa"), &claims()),
        world.rsa.token(&header("PS256", "rsa"), &claims()),
        world.p256.token(&header("ES256", "p256"), &claims()),
        world.p384.token(&header("ES384", "p384"), &claims()),
        world.ed25519.token(&header("EdDSA", "ed"), &claims()),
        world.rsa.token(&plain, &claims()),
        world.rsa.token(&head("typ", "at+jwt".into()), &claims()),
        // Only one of its keys can have signed this.
        world.p256.token(&json!({"alg": "ES256"}), &claims()),
        world.rsa.token(
            &header("RS256", "rsa"),
            &with("aud", json!(["other", "terrace"])),
        ),
        world.rsa.token(
            &header("RS256", "rsa"),
            &with("exp", json!(NOON as f64 + 60.5)),
        ),
        // Clocks are a little apart.
        world
            .rsa
            .token(&header("RS256", "rsa"), &with("exp", json!(NOON - 59))),
        world
            .rsa
            .token(&header("RS256", "rsa"), &with("nbf", json!(NOON + 59))),
    ];
    for (at, token) in tokens.iter().enumerate() {
        let who = world.who(token).await;
        let who = who.unwrap_or_else(|error| panic!("token {at}: {error}"));
        assert_eq!(who.label(), "https://login.example.com#ann");
        assert_eq!(who.grants().texts(), ["publish:ads"]);
        assert!(who.expires_ms().is_some());
    }
    let nobody = world
        .rsa
        .token(&header("RS256", "rsa"), &with("groups", json!(["x"])));
    let who = world.who(&nobody).await.unwrap();
    assert_eq!(
        who.grants().texts(),
        [""; 0],
        "nothing fits, so nothing is granted"
    );
    assert_eq!(world.pages.asked(), 2, "the keys were fetched once");
}

/// Tokens by what is wrong with them.
type Cases = Vec<(&'static str, String)>;

/// Every forged token.
fn forged(world: &World) -> Cases {
    let mut cases = [algorithms(world), keys(world), forms(world)].concat();
    for (what, name, value) in changed_claims() {
        let token = world.rsa.token(&header("RS256", "rsa"), &with(name, value));
        cases.push((what, token));
    }
    cases
}

/// Another algorithm than that of the signature or of the key, and headers that cannot be meant.
fn algorithms(world: &World) -> Cases {
    let good = world.rsa.token(&header("RS256", "rsa"), &claims());
    let (_, rest) = good.split_once('.').unwrap();
    let (second, _) = rest.split_once('.').unwrap();
    let swap = |header: Value| format!("{}.{rest}", encode(header.to_string().as_bytes()));
    vec![
        (
            "alg none, no signature",
            format!("{}.{second}.", encode(br#"{"alg":"none"}"#)),
        ),
        (
            "alg none, signed",
            swap(json!({"alg": "none", "kid": "rsa"})),
        ),
        ("alg NONE", swap(json!({"alg": "nOnE", "kid": "rsa"}))),
        ("alg absent", swap(json!({"kid": "rsa"}))),
        ("alg a number", swap(json!({"alg": 1, "kid": "rsa"}))),
        ("alg a list", swap(json!({"alg": ["RS256"], "kid": "rsa"}))),
        ("alg of a shared secret", swap(header("HS256", "rsa"))),
        (
            "alg of a shared secret, its key listed",
            swap(header("HS256", "secret")),
        ),
        ("alg not allowed", swap(header("RS512", "rsa"))),
        (
            "alg of another family, same key",
            swap(header("ES256", "rsa")),
        ),
        ("alg of another padding", swap(header("PS256", "rsa"))),
        (
            "alg with another curve's key",
            world.p256.token(&header("ES384", "p256"), &claims()),
        ),
        (
            "alg with another curve's key, too",
            world.p384.token(&header("ES256", "p384"), &claims()),
        ),
        (
            "a key for encryption",
            world.p256.token(&header("ES256", "encrypts"), &claims()),
        ),
        (
            "must be understood",
            world.rsa.token(&head("crit", json!(["exp"])), &claims()),
        ),
        (
            "for something else",
            world
                .rsa
                .token(&head("typ", "logout+jwt".into()), &claims()),
        ),
        (
            "key id is huge",
            world
                .rsa
                .token(&head("kid", "r".repeat(5000).into()), &claims()),
        ),
    ]
}

/// Another key than the issuer's.
fn keys(world: &World) -> Cases {
    let own = world.stranger.jwk("rsa");
    vec![
        (
            "signed by a stranger",
            world.stranger.token(&header("RS256", "rsa"), &claims()),
        ),
        (
            "unknown key",
            world.rsa.token(&header("RS256", "other"), &claims()),
        ),
        (
            "key id is a path",
            world
                .rsa
                .token(&header("RS256", "../../../../dev/null"), &claims()),
        ),
        (
            "key id is SQL",
            world.rsa.token(&header("RS256", "x' or '1'='1"), &claims()),
        ),
        (
            "key id is an address",
            world
                .rsa
                .token(&header("RS256", "https://evil/k"), &claims()),
        ),
        (
            "key id is no text",
            world.rsa.token(&head("kid", json!(["rsa"])), &claims()),
        ),
        (
            "own key embedded",
            world.stranger.token(&head("jwk", own.clone()), &claims()),
        ),
        (
            "own key's address",
            world
                .stranger
                .token(&head("jku", "https://evil/k".into()), &claims()),
        ),
        (
            "own certificate",
            world
                .stranger
                .token(&head("x5c", json!(["AA=="])), &claims()),
        ),
        (
            "own certificate's address",
            world
                .stranger
                .token(&head("x5u", "https://evil".into()), &claims()),
        ),
        (
            "own key by a new name",
            world.stranger.token(
                &json!({"alg": "RS256", "kid": "evil", "jwk": own}),
                &claims(),
            ),
        ),
    ]
}

/// Texts that are not the one spelling of a token.
fn forms(world: &World) -> Cases {
    let good = world.rsa.token(&header("RS256", "rsa"), &claims());
    let [first, second, third] = good.splitn(3, '.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    let plain = header("RS256", "rsa").to_string();
    let doubled = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let doubled_group = claims()
        .to_string()
        .replacen('{', r#"{"groups":["etl"],"#, 1);
    let root = encode(with("sub", "root".into()).to_string().as_bytes());
    let mut last = third.to_owned();
    let bits = if last.pop() == Some('A') { 'B' } else { 'A' };
    last.push(bits);
    vec![
        (
            "doubled alg",
            world.rsa.raw(
                r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#,
                &claims().to_string(),
            ),
        ),
        ("doubled subject", world.rsa.raw(&plain, &doubled)),
        ("doubled group", world.rsa.raw(&plain, &doubled_group)),
        ("claims are a list", world.rsa.raw(&plain, "[]")),
        ("claims are no JSON", world.rsa.raw(&plain, "{")),
        ("claims of another token", format!("{first}.{root}.{third}")),
        (
            "last bits of the signature",
            format!("{first}.{second}.{last}"),
        ),
        ("truncated", good[..good.len() - 4].to_owned()),
        ("no signature", format!("{first}.{second}.")),
        ("two parts", format!("{first}.{second}")),
        ("five parts", format!("{good}.{second}.{third}")),
        ("padding", format!("{good}=")),
        ("a space inside", good.replacen('.', ". ", 1)),
        ("a line feed", format!("{good}\n")),
        (
            "other alphabet",
            format!(
                "{first}.{second}.{}",
                third.replace('_', "/").replace('-', "+") + "/+"
            ),
        ),
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("huge", format!("{first}.{}.{third}", "A".repeat(64 << 10))),
    ]
}

fn changed_claims() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("no issuer", "iss", Value::Null),
        (
            "another issuer",
            "iss",
            "https://login.example.com.evil".into(),
        ),
        (
            "an issuer with a slash",
            "iss",
            "https://login.example.com/".into(),
        ),
        (
            "an issuer in other letters",
            "iss",
            "https://LOGIN.example.com".into(),
        ),
        ("a list of issuers", "iss", json!([ISSUER])),
        ("no audience", "aud", Value::Null),
        ("another audience", "aud", "terrace2".into()),
        ("an empty audience", "aud", json!([])),
        ("an audience of odd parts", "aud", json!(["terrace", 1])),
        (
            "an audience inside an object",
            "aud",
            json!({"terrace": true}),
        ),
        ("never ends", "exp", Value::Null),
        ("expired", "exp", json!(NOON - 61)),
        ("ends in words", "exp", "tomorrow".into()),
        ("ends before time began", "exp", json!(-1)),
        ("lives for ever", "exp", json!(1e18)),
        ("lives past any number", "exp", json!(u64::MAX)),
        ("lives for a year", "exp", json!(NOON + 365 * 86_400)),
        ("not yet", "nbf", json!(NOON + 61)),
        ("not yet, in words", "nbf", "now".into()),
        ("issued in the future", "iat", json!(NOON + 3600)),
        ("no subject", "sub", Value::Null),
        ("an empty subject", "sub", "".into()),
        (
            "a subject that steers a terminal",
            "sub",
            "ann\u{1b}[2J".into(),
        ),
        (
            "a subject with a line feed",
            "sub",
            "ann\naudit who=root".into(),
        ),
        ("a huge subject", "sub", "a".repeat(300).into()),
        ("a subject that is a number", "sub", json!(1)),
    ]
}

// Each of these has opened a door somewhere.
#[tokio::test]
async fn forged_tokens_are_refused() {
    let world = World::new();
    let cases = forged(&world);
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for (what, token) in &cases {
        match world.who(token).await {
            Err(AccessError::Refused(why)) => {
                assert!(
                    !why.is_empty() && why.len() < 300 && !why.contains('\n'),
                    "{what}: {why}"
                );
                let quoted = token.len() > 20 && why.contains(&token[..20]);
                assert!(!quoted, "{what}: the answer repeats the token");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let good = world.rsa.token(&header("RS256", "rsa"), &claims());
    assert!(
        world.who(&good).await.is_ok(),
        "nobody is let in, so nothing was tested"
    );
}

// An algorithm that the configuration leaves out is not believed because the issuer has a key for it.
#[tokio::test]
async fn only_the_named_algorithms_are_believed() {
    let world = World::new();
    let web = FakeWeb(Arc::clone(&world.pages));
    let narrow = Identities::open(&config(&[Algorithm::ES256]), &web).unwrap();
    let at = NOON * 1000;
    let rsa = world.rsa.token(&header("RS256", "rsa"), &claims());
    assert!(matches!(
        narrow.who(&rsa, at).await,
        Err(AccessError::Refused(_))
    ));
    let p256 = world.p256.token(&header("ES256", "p256"), &claims());
    assert!(narrow.who(&p256, at).await.is_ok());
}
