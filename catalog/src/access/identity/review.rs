//! Service accounts of a Kubernetes cluster: the API server is asked whose a token is.
//!
//! ```text
//! POST <api server>/apis/authentication.k8s.io/v1/tokenreviews
//!   { spec: { token, audiences: [ours] } }
//!   -> { status: { authenticated, audiences, user: { username } } }
//! username = "system:serviceaccount:" namespace ":" name
//! ```
//!
//! Believed is an answer that says authenticated, names our audience among the token's and is about a
//! service account. An API server that knows no audiences names none, and is not believed: its yes is
//! about its own audience. Answers are kept for a short time under the token's SHA-256, a no shorter than
//! a yes. A token that does not claim our audience costs no question.
//!
//! The one lock is held for a look at the answers. Source: TokenReview of `authentication.k8s.io/v1`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::claims::Claims;
use super::config::KubernetesConfig;
use super::rules::Rules;
use super::web::{Web, WebAnswer, WebOpener, check_url};
use super::{ConfigError, refused};
use crate::access::{AccessError, Principal};

/// Most answers that are kept.
const MAX_ANSWERS: usize = 4096;

/// How long a no is believed: a second look right after it would see the same.
const NO: Duration = Duration::from_secs(5);

/// Questions at once; the API server serves others too.
const AT_ONCE: usize = 16;

/// How long a question may take, waiting for its turn included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes of an answer.
const MAX_ANSWER: usize = 256 << 10;

/// Longest time for which a configuration may believe an answer, in seconds.
const MAX_CACHE: u64 = 300;

/// Kind and version of the question.
const API_VERSION: &str = "authentication.k8s.io/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    api_version: &'a str,
    kind: &'a str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

/// The parts of an answer that decide; others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reviewed {
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

/// What an answer came to, and until when it counts.
#[derive(Clone, Debug)]
struct Answer {
    until: Instant,
    who: Result<Principal, &'static str>,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Reviewer {
    url: String,
    audience: String,
    token_file: PathBuf,
    kept: Duration,
    rules: Rules,
    web: Arc<dyn Web>,
    answers: Mutex<HashMap<[u8; 32], Answer>>,
    turns: Semaphore,
}

impl Reviewer {
    pub(super) fn open(
        config: &KubernetesConfig,
        webs: &dyn WebOpener,
    ) -> Result<Self, ConfigError> {
        let wrong = |name: &str, why: String| ConfigError::new(format!("kubernetes.{name}"), why);
        check_url(&config.api_server).map_err(|why| wrong("api_server", why))?;
        if config.audience.is_empty() {
            return Err(wrong("audience", "it is empty".to_owned()));
        }
        if config.cache_seconds > MAX_CACHE {
            return Err(wrong("cache_seconds", format!("at most {MAX_CACHE}")));
        }
        let web = webs.open(Some(&config.ca_file));
        let server = config.api_server.trim_end_matches('/');
        Ok(Self {
            url: format!("{server}/apis/{API_VERSION}/tokenreviews"),
            audience: config.audience.clone(),
            token_file: config.token_file.clone(),
            kept: Duration::from_secs(config.cache_seconds),
            rules: Rules::of_accounts(&config.grants).map_err(|why| wrong("grants", why))?,
            web: web.map_err(|why| wrong("ca_file", why))?,
            answers: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Whose token it is. `claims` are what it says about itself: enough to refuse it, and no more.
    pub(super) async fn who(
        &self,
        token: &str,
        claims: Claims<'_>,
        now_ms: i64,
    ) -> Result<Principal, AccessError> {
        if !claims.is_for(&self.audience) {
            return Err(refused("it is not for this catalog (aud)"));
        }
        let expires_ms = claims.expires_ms().map_err(refused)?;
        let expires_ms = expires_ms.ok_or(refused("it never ends (exp)"))?;
        if expires_ms <= now_ms {
            return Err(refused("it has expired (exp)"));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(answer) = self.known(&digest) {
            return answer.who.map_err(refused);
        }
        let status = timeout(DEADLINE, self.ask(token)).await;
        let status = status.unwrap_or_else(|_| Err("it took too long".to_owned()));
        let status = status.map_err(|why| {
            tracing::warn!(%why, "the Kubernetes API server does not review a token");
            AccessError::Unchecked(format!("the Kubernetes API server: {why}"))
        })?;
        let who = self.decide(&status, expires_ms);
        let left = Duration::from_millis((expires_ms - now_ms).cast_unsigned());
        let kept = if who.is_ok() { self.kept } else { NO };
        self.keep(
            digest,
            Answer {
                until: Instant::now() + kept.min(left),
                who: who.clone(),
            },
        );
        who.map_err(refused)
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = answers.get(digest)?;
        (Instant::now() < found.until).then(|| found.clone())
    }

    fn keep(&self, digest: [u8; 32], answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            let now = Instant::now();
            answers.retain(|_, answer| now < answer.until);
        }
        // Still full: all of them were asked for a moment ago, and asking again costs little.
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(digest, answer);
    }

    async fn ask(&self, token: &str) -> Result<Status, String> {
        let _turn = self.turns.acquire().await.map_err(|why| why.to_string())?;
        let file = &self.token_file;
        let own = tokio::fs::read_to_string(file).await;
        let own = own.map_err(|error| format!("read {}: {error}", file.display()))?;
        let question = Question {
            api_version: API_VERSION,
            kind: "TokenReview",
            spec: Spec {
                token,
                audiences: [&self.audience],
            },
        };
        let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
        let answer = self
            .web
            .post(&self.url, own.trim(), body.into(), MAX_ANSWER);
        let WebAnswer { status, body } = answer.await?;
        match status {
            200 | 201 => {}
            401 | 403 => {
                return Err(format!(
                    "it answered {status} to the catalog's own token; bind its account to the \
                     cluster role system:auth-delegator"
                ));
            }
            _ => return Err(format!("it answered {status}")),
        }
        let reviewed: Reviewed =
            serde_json::from_slice(&body).map_err(|_| "its answer is no TokenReview".to_owned())?;
        Ok(reviewed.status)
    }

    fn decide(&self, status: &Status, expires_ms: i64) -> Result<Principal, &'static str> {
        if !status.authenticated {
            return Err("the Kubernetes API server does not know it");
        }
        if !status.audiences.contains(&self.audience) {
            return Err("the Kubernetes API server says that it is not for this catalog");
        }
        let (namespace, name) =
            account(&status.user.username).ok_or("it is not a service account's")?;
        let grants = self.rules.of_account(namespace, name);
        let label = format!("kubernetes#{}", status.user.username);
        Ok(Principal::new(&label, grants, Some(expires_ms)))
    }
}

/// Namespace and name of a service account's user.
fn account(username: &str) -> Option<(&str, &str)> {
    let rest = username.strip_prefix("system:serviceaccount:")?;
    let (namespace, name) = rest.split_once(':')?;
    let plain = |text: &str| {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        (1..=253).contains(&text.len()) && text.bytes().all(allowed)
    };
    (plain(namespace) && plain(name)).then_some((namespace, name))
}
