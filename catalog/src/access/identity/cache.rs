//! The keys of one issuer: fetched when they are needed, kept for a while, fetched again when a token
//! names one that is not there.
//!
//! ```text
//! age of the set   < FRESH   used as it is
//!                  < KEPT    used while a newer one cannot be had
//!                  else      not used: who the issuer is cannot be told
//! between fetches  >= PAUSE after a success, so that tokens with invented keys cost no requests;
//!                  BACKOFF, doubled up to BACKOFF_MAX, after a failure
//! ```
//!
//! One fetch at a time; others wait for it as long as it may take. Lock order: the permit of the fetch,
//! then the state; the state's lock is held for reads and writes of memory only. Dropping a call ends
//! its fetch. Source: OpenID Connect Discovery 1.0, section 4.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::config::Algorithm;
use super::key::Key;
use super::keys::{KeySet, NoKey};
use super::web::{Web, WebAnswer, check_url};
use crate::access::AccessError;

/// A set is fetched again after so long: a key that was withdrawn is believed no longer than this.
const FRESH: Duration = Duration::from_secs(600);

/// Without an answer of the issuer its last set is used so long.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Least time between two fetches: a new key is believed after so long at the latest.
const PAUSE: Duration = Duration::from_secs(30);

/// First and longest pause after a failure.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Both documents together may take so long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes of a document; sets of keys have a few thousand.
const MAX_DOCUMENT: usize = 256 << 10;

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Issuer { issuer: String, web: Arc<dyn Web> },
}

#[derive(Debug)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched: Instant,
    next: Instant,
    failures: u32,
    /// Why the last fetch failed.
    why: String,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct KeyCache {
    source: Source,
    state: Mutex<State>,
    fetching: Semaphore,
}

/// What is to be done now.
enum Next {
    Use(Arc<Key>),
    Fetch,
    Fail(AccessError),
}

impl KeyCache {
    /// Keys in a file, which is read here once (blocks), and again when it may have changed. Errors are
    /// one line.
    pub(super) fn of_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path);
        let text = text.map_err(|error| format!("read {}: {error}", path.display()))?;
        let keys = KeySet::parse(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok(Self::new(Source::File(path.to_owned()), Some(keys)))
    }

    /// Keys that an issuer publishes. Asks nobody yet.
    pub(super) fn of_issuer(issuer: &str, web: Arc<dyn Web>) -> Self {
        let issuer = issuer.to_owned();
        Self::new(Source::Issuer { issuer, web }, None)
    }

    fn new(source: Source, keys: Option<KeySet>) -> Self {
        let now = Instant::now();
        Self {
            source,
            state: Mutex::new(State {
                keys: keys.map(Arc::new),
                fetched: now,
                next: now,
                failures: 0,
                why: String::new(),
            }),
            fetching: Semaphore::new(1),
        }
    }

    /// The key that a token names.
    pub(super) async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Key>, AccessError> {
        match self.look(id, algorithm) {
            Next::Use(key) => return Ok(key),
            Next::Fail(error) => return Err(error),
            Next::Fetch => {}
        }
        let late = || AccessError::Unchecked("its issuer's keys take too long".to_owned());
        let permit = timeout(DEADLINE, self.fetching.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(late());
        };
        // Somebody else may have fetched meanwhile.
        if let Next::Use(key) = self.look(id, algorithm) {
            return Ok(key);
        }
        if self.due() {
            let fetched = timeout(DEADLINE, self.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| Err("it took too long".to_owned()));
            self.keep(fetched);
        }
        match self.look(id, algorithm) {
            Next::Use(key) => Ok(key),
            Next::Fail(error) => Err(error),
            Next::Fetch => Err(late()),
        }
    }

    fn due(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next <= Instant::now()
    }

    fn look(&self, id: Option<&str>, algorithm: Algorithm) -> Next {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (age, due) = (state.fetched.elapsed(), state.next <= Instant::now());
        let Some(keys) = state.keys.as_ref().filter(|_| age < KEPT) else {
            return match due {
                true => Next::Fetch,
                false => Next::Fail(AccessError::Unchecked(state.why.clone())),
            };
        };
        if age >= FRESH && due {
            return Next::Fetch;
        }
        match keys.choose(id, algorithm) {
            Ok(key) => Next::Use(key),
            Err(NoKey::Unknown) if due => Next::Fetch,
            Err(why) => Next::Fail(AccessError::Refused(
                match why {
                    NoKey::Unknown => "its issuer has no such key for its algorithm",
                    NoKey::Unclear => "its issuer has several such keys, and it names none",
                }
                .to_owned(),
            )),
        }
    }

    fn keep(&self, fetched: Result<KeySet, String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match fetched {
            Ok(keys) => {
                state.keys = Some(Arc::new(keys));
                state.fetched = now;
                state.next = now + PAUSE;
                state.failures = 0;
            }
            Err(why) => {
                let doubled = BACKOFF * 2u32.saturating_pow(state.failures.min(16));
                state.next = now + doubled.min(BACKOFF_MAX);
                state.failures = state.failures.saturating_add(1);
                tracing::warn!(from = %self.place(), %why, "keys of an issuer cannot be had");
                state.why = format!("the keys of {} cannot be had: {why}", self.place());
            }
        }
    }

    fn place(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Issuer { issuer, .. } => issuer.clone(),
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let (issuer, web) = match &self.source {
            Source::File(path) => {
                let text = tokio::fs::read(path).await;
                return KeySet::parse(&text.map_err(|error| error.to_string())?);
            }
            Source::Issuer { issuer, web } => (issuer, web),
        };
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let url = format!("{base}/.well-known/openid-configuration");
        let answer = good(web.get(&url, MAX_DOCUMENT).await?)?;
        let about: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("{url} is no JSON: {error}"))?;
        // Otherwise whoever can answer for one address could speak for another issuer.
        if about["issuer"].as_str() != Some(issuer) {
            return Err(format!("{url} is about another issuer"));
        }
        let keys = about["jwks_uri"].as_str().unwrap_or_default();
        check_url(keys).map_err(|why| format!("jwks_uri: {why}"))?;
        KeySet::parse(&good(web.get(keys, MAX_DOCUMENT).await?)?.body)
    }
}

fn good(answer: WebAnswer) -> Result<WebAnswer, String> {
    match answer.status {
        200 => Ok(answer),
        status => Err(format!("it answered {status}")),
    }
}
