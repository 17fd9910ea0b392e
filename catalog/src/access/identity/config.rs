//! What a configuration says about whose tokens are believed and what they may do. Settings only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::web::check_url;

/// Most seconds that two clocks may be apart: more is a clock to repair.
const MAX_SKEW: u64 = 300;

/// Longest life of a token of somebody else, in seconds: until then a leaver comes in.
const MAX_LIFETIME: u64 = 30 * 24 * 3600;

/// Whose tokens are believed besides the catalog's own. The default believes nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Issuers of JSON Web Tokens, such as an OpenID Connect provider.
    pub issuers: Vec<IssuerConfig>,
    /// A cluster whose service accounts are believed. Default: none.
    pub kubernetes: Option<KubernetesConfig>,
}

/// How a token is signed. There is none with a shared secret, and none without a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    RS256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    RS384,
    /// RSA, PKCS #1 v1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// P-256, SHA-256.
    ES256,
    /// P-384, SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// An issuer whose tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// Exactly what its tokens have in `iss`; its keys are found below it
    /// (`/.well-known/openid-configuration`).
    pub issuer: String,
    /// What its tokens have in `aud` when they are for this catalog.
    pub audience: String,
    /// A file with its keys (a JSON Web Key Set) instead of asking for them. Default: none.
    pub keys_file: Option<PathBuf>,
    /// Certificates to trust when asking. Default: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// What its tokens may be signed with. Default: RS256 and ES256.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and ours may be apart. Default: 60.
    pub clock_skew_seconds: u64,
    /// Longest time a token may still live. Default: 86400.
    pub lifetime_seconds: u64,
    /// What holders of its tokens may do; without a rule that fits, nothing.
    pub grants: Vec<ClaimRule>,
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: String::new(),
            keys_file: None,
            ca_file: None,
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
            clock_skew_seconds: 60,
            lifetime_seconds: 24 * 3600,
            grants: Vec::new(),
        }
    }
}

impl IssuerConfig {
    pub(super) fn check(&self, field: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
        let refused = |name: &str, why: String| Err(ConfigError::new(field(name), why));
        if self.keys_file.is_none()
            && let Err(why) = check_url(&self.issuer)
        {
            return refused("issuer", why);
        }
        for (name, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() || value.chars().any(char::is_control) {
                return refused(name, "it is empty or not printable".to_owned());
            }
        }
        if self.algorithms.is_empty() {
            return refused("algorithms", "name at least one".to_owned());
        }
        if self.clock_skew_seconds > MAX_SKEW {
            return refused("clock_skew_seconds", format!("at most {MAX_SKEW}"));
        }
        if !(60..=MAX_LIFETIME).contains(&self.lifetime_seconds) {
            return refused("lifetime_seconds", format!("60 to {MAX_LIFETIME}"));
        }
        Ok(())
    }
}

/// What a claim grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// Name of a claim, such as `groups` or `sub`; with a leading `/` a JSON pointer, such as
    /// `/realm_access/roles`.
    pub claim: String,
    /// The claim is this text, or a list that has it.
    pub value: String,
    /// `scope:namespace` or `scope:*`.
    pub grants: Vec<String>,
}

/// A Kubernetes cluster whose service accounts are believed: tokens are shown to its API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Address of the API server. Default: that of a pod's own cluster.
    pub api_server: String,
    /// Audience that tokens must be made for. Default: terrace.
    pub audience: String,
    /// Certificates to trust. Default: those that a pod is given.
    pub ca_file: PathBuf,
    /// The catalog's own token for the API server, read anew for each question. Default: the one that
    /// a pod is given.
    pub token_file: PathBuf,
    /// How long an answer is believed: so long a deleted account may still come in. Default: 30.
    pub cache_seconds: u64,
    /// What accounts may do; without a rule that fits, nothing.
    pub grants: Vec<AccountRule>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let given = "/var/run/secrets/kubernetes.io/serviceaccount";
        Self {
            api_server: "https://kubernetes.default.svc".to_owned(),
            audience: "terrace".to_owned(),
            ca_file: PathBuf::from(given).join("ca.crt"),
            token_file: PathBuf::from(given).join("token"),
            cache_seconds: 30,
            grants: Vec::new(),
        }
    }
}

/// What service accounts grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRule {
    /// The account's namespace in the cluster.
    pub namespace: String,
    /// Its name. Default: every account of the namespace.
    #[serde(default)]
    pub account: Option<String>,
    /// `scope:namespace` or `scope:*`, of namespaces of the catalog.
    pub grants: Vec<String>,
}
