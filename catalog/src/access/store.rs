//! Tokens in the catalog's key-value store: issued, checked, listed, revoked.
//!
//! A revoked or expired token stops working with the next request: nothing is cached, one lookup of
//! a key is what a request costs. Tokens of others are asked for in `identity`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::grant::{GrantError, Grants};
use super::identity::Identities;
use super::principal::Principal;
use super::token::{Token, TokenDigest, TokenId};
use crate::kv::{KeyRange, Kv, KvError, Txn, TxnOutcome};

/// First bytes of the keys of tokens.
const KEY: &[u8] = b"t/";

/// Most tokens of a catalog: a list is one answer.
const MAX_TOKENS: usize = 4096;

/// Longest name of a token, in characters.
const MAX_NAME: usize = 128;

/// What went wrong, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The token is not one of this catalog, was revoked, or has expired.
    #[error("the token is not known here, was revoked or has expired")]
    Unknown,
    /// A token of somebody else that is not believed here, and why.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// Who could say whether the token is good does not answer, so nobody is let in.
    #[error("the token cannot be checked now: {0}")]
    Unchecked(String),
    /// No token has this id.
    #[error("no token {0}")]
    NoSuchToken(TokenId),
    /// Refused: a name, a number of tokens.
    #[error("{0}")]
    Invalid(String),
    /// Refused: a grant.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The database does not answer.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// A token that is to be made.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// Who or what will use it; for people.
    pub name: String,
    /// What it grants.
    pub grants: Grants,
    /// When it ends, in milliseconds since 1970; none: never.
    pub expires_ms: Option<i64>,
}

/// A token as lists show it.
#[derive(Clone, Debug)]
pub struct TokenInfo {
    /// Names it in lists, logs and revocations.
    pub id: TokenId,
    /// Who or what uses it.
    pub name: String,
    /// What it grants.
    pub grants: Grants,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it ends; none: never.
    pub expires_ms: Option<i64>,
}

/// The value of a token's key.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    grants: Vec<String>,
    created_ms: i64,
    expires_ms: Option<i64>,
    digest: String,
}

impl Record {
    fn info(self, digest: &TokenDigest) -> Result<TokenInfo, KvError> {
        let own = TokenDigest::from_hex(&self.digest);
        if own.as_ref() != Some(digest) {
            let what = format!("the record of token {} is another's", digest.id());
            return Err(KvError::Corrupt(what));
        }
        let grants = Grants::parse(&self.grants).map_err(|e| KvError::Corrupt(e.to_string()))?;
        Ok(TokenInfo {
            id: digest.id(),
            name: self.name,
            grants,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
        })
    }
}

/// The tokens of one catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    kv: Arc<dyn Kv>,
    identities: Option<Arc<Identities>>,
}

impl Access {
    /// Over the catalog's own store.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        let identities = None;
        Self { kv, identities }
    }

    /// Also believes tokens of others.
    #[must_use]
    pub fn with_identities(mut self, identities: Identities) -> Self {
        self.identities = Some(Arc::new(identities));
        self
    }

    /// Makes a token. Its secret is in the answer, and nowhere else ever again. `now_ms` is the
    /// present in milliseconds since 1970.
    pub async fn issue(
        &self,
        request: TokenRequest,
        now_ms: i64,
    ) -> Result<(Token, TokenInfo), AccessError> {
        let name = request.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control)
        {
            let why =
                format!("a token's name has 1 to {MAX_NAME} characters, none a control character");
            return Err(AccessError::Invalid(why));
        }
        if request.expires_ms.is_some_and(|end| end <= now_ms) {
            let why = "the token would have expired already".to_owned();
            return Err(AccessError::Invalid(why));
        }
        let range = KeyRange::prefix(KEY);
        if self.kv.scan(range, MAX_TOKENS).await?.len() >= MAX_TOKENS {
            let why = format!("a catalog has at most {MAX_TOKENS} tokens; revoke some");
            return Err(AccessError::Invalid(why));
        }
        let token = Token::random();
        let digest = token.digest();
        let record = Record {
            name: name.to_owned(),
            grants: request.grants.texts(),
            created_ms: now_ms,
            expires_ms: request.expires_ms,
            digest: digest.hex(),
        };
        let value = serde_json::to_vec(&record).map_err(|e| KvError::Corrupt(e.to_string()))?;
        let txn = Txn::new()
            .unchanged(key(&digest), None)
            .put(key(&digest), value.into());
        match self.kv.txn(txn).await? {
            TxnOutcome::Committed { .. } => Ok((token, record.info(&digest)?)),
            TxnOutcome::Conflict { .. } => {
                let why = "a random number came twice; try again".to_owned();
                Err(AccessError::Invalid(why))
            }
        }
    }

    /// Whose token this is. `Unknown` says nothing about why.
    pub async fn check(&self, token: &Token, now_ms: i64) -> Result<Principal, AccessError> {
        let digest = token.digest();
        let found = self.kv.get(&key(&digest)).await?;
        let found = found.ok_or(AccessError::Unknown)?;
        let info = read(&found.value, &digest)?;
        if info.expires_ms.is_some_and(|end| end <= now_ms) {
            return Err(AccessError::Unknown);
        }
        let label = format!("{}({})", info.name, info.id);
        Ok(Principal::new(&label, info.grants, info.expires_ms))
    }

    /// Who sends this text as a bearer token: a token of this catalog, or one of an issuer or a cluster
    /// that it is told to believe.
    pub async fn authenticate(&self, text: &str, now_ms: i64) -> Result<Principal, AccessError> {
        match (text.parse::<Token>(), &self.identities) {
            (Ok(token), _) => self.check(&token, now_ms).await,
            (Err(_), Some(identities)) => identities.who(text, now_ms).await,
            (Err(error), None) => Err(AccessError::Refused(error.to_string())),
        }
    }

    /// Every token, expired ones included, in no particular order.
    pub async fn list(&self) -> Result<Vec<TokenInfo>, AccessError> {
        let found = self.kv.scan(KeyRange::prefix(KEY), MAX_TOKENS).await?;
        let infos = found.iter().map(|(key, value)| {
            let digest = digest_of(key)?;
            read(&value.value, &digest)
        });
        Ok(infos.collect::<Result<_, KvError>>()?)
    }

    /// Ends a token for good. Done twice it answers `NoSuchToken`.
    pub async fn revoke(&self, id: &TokenId) -> Result<TokenInfo, AccessError> {
        let found = self.kv.scan(KeyRange::prefix(KEY), MAX_TOKENS).await?;
        for (key, value) in found {
            let digest = digest_of(&key)?;
            if digest.id() != *id {
                continue;
            }
            let info = read(&value.value, &digest)?;
            self.kv.txn(Txn::new().delete(key)).await?;
            return Ok(info);
        }
        Err(AccessError::NoSuchToken(id.clone()))
    }
}

fn key(digest: &TokenDigest) -> Bytes {
    [KEY, digest.as_bytes().as_slice()].concat().into()
}

fn digest_of(key: &[u8]) -> Result<TokenDigest, KvError> {
    let damaged = || KvError::Corrupt("a key of a token has another length".to_owned());
    let bytes = key.strip_prefix(KEY).ok_or_else(damaged)?;
    bytes
        .try_into()
        .map(TokenDigest::from_bytes)
        .map_err(|_| damaged())
}

fn read(value: &[u8], digest: &TokenDigest) -> Result<TokenInfo, KvError> {
    let record: Record = serde_json::from_slice(value)
        .map_err(|error| KvError::Corrupt(format!("token {}: {error}", digest.id())))?;
    record.info(digest)
}
