//! Tokens of others that a catalog believes: JSON Web Tokens of configured issuers (OpenID Connect) and
//! service accounts of a Kubernetes cluster.
//!
//! ```text
//! bearer text -> a JWT by its shape (jwt) -> its "iss" is a configured issuer?
//!   yes -> key by id, out of the issuer's own set (keys, cache) -> signature (key) -> claims (claims)
//!   no  -> a cluster is configured and the token names our audience? -> the API server says (review)
//! who it is -> grants, by rules of the configuration only (rules)
//! ```
//!
//! Invariants:
//!
//! - Nothing a token says about keys is used but their id: `jwk`, `jku`, `x5u` and `x5c` are not read.
//! - No algorithm that needs a shared secret exists here, so a public key cannot be mistaken for one.
//! - Who cannot be asked lets nobody in. What is fetched has limits of size, time and number.
//! - A token is held for the length of a request; caches know its digest. No message quotes one.
//!
//! The crate opens no connections: whoever runs it hands it [`Web`]s. Sources: RFC 7515, 7517, 7518,
//! 7519, 8037, 8725 (what to refuse), OpenID Connect Discovery 1.0, the TokenReview of
//! `authentication.k8s.io/v1`.

mod cache;
mod claims;
mod config;
mod jwt;
mod key;
mod keys;
mod review;
mod rules;
mod strict;
mod web;

use std::path::Path;
use std::sync::Arc;

pub use config::{
    AccountRule, Algorithm, ClaimRule, IdentityConfig, IssuerConfig, KubernetesConfig,
};
pub use web::{Web, WebAnswer, WebOpener};

use self::cache::KeyCache;
use self::claims::{Claims, Expected};
use self::jwt::Jwt;
use self::review::Reviewer;
use self::rules::Rules;
use super::principal::Principal;
use super::store::AccessError;
use crate::name::shortened;

/// Longest token that is looked at, in bytes: those with many groups have some thousands.
const MAX_TOKEN: usize = 16 << 10;

/// Most issuers: each token is held against all of them.
const MAX_ISSUERS: usize = 16;

/// What is wrong with a configuration: which field, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct ConfigError {
    /// The field, as the configuration writes it.
    pub field: String,
    /// What is wrong.
    pub why: String,
}

impl ConfigError {
    fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        let (field, why) = (field.into(), why.into());
        Self { field, why }
    }
}

/// An issuer that is believed.
#[derive(Debug)]
struct Issuer {
    expected: Expected,
    algorithms: Vec<Algorithm>,
    keys: KeyCache,
    rules: Rules,
}

/// Everybody whose tokens are believed.
#[derive(Debug)]
pub struct Identities {
    issuers: Vec<Issuer>,
    reviewer: Option<Reviewer>,
}

impl Identities {
    /// Checks the configuration; asks nobody yet, but reads files of keys and of roots of trust
    /// (blocks).
    pub fn open(config: &IdentityConfig, webs: &dyn WebOpener) -> Result<Self, ConfigError> {
        if config.issuers.len() > MAX_ISSUERS {
            let why = format!("at most {MAX_ISSUERS}");
            return Err(ConfigError::new("issuers", why));
        }
        let mut issuers = Vec::new();
        for (at, issuer) in config.issuers.iter().enumerate() {
            let field = |name: &str| format!("issuers[{at}].{name}");
            issuers.push(open_issuer(issuer, webs, &field)?);
        }
        let reviewer = match &config.kubernetes {
            None => None,
            Some(own) => Some(Reviewer::open(own, webs)?),
        };
        Ok(Self { issuers, reviewer })
    }

    /// Who sends this token.
    ///
    /// Errors: `Refused` with the reason; `Unchecked` when whoever knows does not answer. Dropping the
    /// call ends what it has begun.
    pub async fn who(&self, text: &str, now_ms: i64) -> Result<Principal, AccessError> {
        if text.len() > MAX_TOKEN {
            let why = format!("it is longer than {MAX_TOKEN} bytes");
            return Err(AccessError::Refused(why));
        }
        let jwt = Jwt::parse(text).map_err(refused)?;
        let claims = Claims::of(&jwt);
        let issuer = claims.issuer().map_err(refused)?;
        let known = |own: &&Issuer| own.expected.issuer == issuer;
        let named = |own: &&Issuer| claims.is_for(&own.expected.audience);
        let mut all = self.issuers.iter().filter(known).peekable();
        if let Some(first) = all.peek().copied() {
            // Two entries of one issuer differ in their audience.
            let own = all.find(named).unwrap_or(first);
            return own.who(&jwt, claims, now_ms).await;
        }
        match &self.reviewer {
            Some(reviewer) => reviewer.who(text, claims, now_ms).await,
            None => Err(AccessError::Refused(format!(
                "its issuer {:?} is not one that this catalog believes",
                shortened(issuer)
            ))),
        }
    }
}

impl Issuer {
    async fn who(
        &self,
        jwt: &Jwt<'_>,
        claims: Claims<'_>,
        now_ms: i64,
    ) -> Result<Principal, AccessError> {
        let header = jwt.header().map_err(refused)?;
        if !self.algorithms.contains(&header.algorithm) {
            let why = "its algorithm is not allowed for its issuer";
            return Err(AccessError::Refused(why.to_owned()));
        }
        // Before any key is fetched: what cannot be good costs nobody a request.
        let good = claims.check(&self.expected, now_ms).map_err(refused)?;
        let key = self
            .keys
            .key(header.key.as_deref(), header.algorithm)
            .await?;
        if !key.verifies(header.algorithm, jwt.signed(), jwt.signature()) {
            return Err(AccessError::Refused("its signature is wrong".to_owned()));
        }
        let grants = self.rules.of_claims(claims.all());
        let label = format!("{}#{}", self.expected.issuer, good.subject);
        Ok(Principal::new(&label, grants, Some(good.expires_ms)))
    }
}

fn open_issuer(
    config: &IssuerConfig,
    webs: &dyn WebOpener,
    field: &dyn Fn(&str) -> String,
) -> Result<Issuer, ConfigError> {
    config.check(field)?;
    let keys = match &config.keys_file {
        Some(path) => {
            KeyCache::of_file(path).map_err(|why| ConfigError::new(field("keys_file"), why))?
        }
        None => {
            let web = open_web(webs, config.ca_file.as_deref());
            let web = web.map_err(|why| ConfigError::new(field("ca_file"), why))?;
            KeyCache::of_issuer(&config.issuer, web)
        }
    };
    Ok(Issuer {
        expected: Expected {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            skew_ms: config.clock_skew_seconds.cast_signed() * 1000,
            lifetime_ms: config.lifetime_seconds.cast_signed() * 1000,
        },
        algorithms: config.algorithms.clone(),
        keys,
        rules: Rules::of_issuer(&config.grants)
            .map_err(|why| ConfigError::new(field("grants"), why))?,
    })
}

fn open_web(webs: &dyn WebOpener, ca_file: Option<&Path>) -> Result<Arc<dyn Web>, String> {
    webs.open(ca_file)
}

fn refused(why: &'static str) -> AccessError {
    AccessError::Refused(why.to_owned())
}
