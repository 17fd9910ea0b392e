//! A web of a few documents.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use terrace_catalog::access::identity::{Web, WebAnswer, WebOpener};

/// 2026-11-20, noon, in seconds.
pub(crate) const NOON: i64 = 1_795_176_000;

/// Documents at addresses, and how often they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    documents: Mutex<HashMap<String, (u16, String)>>,
    posted: Mutex<Vec<Value>>,
    pub(crate) asked: AtomicUsize,
}

impl Pages {
    pub(crate) fn put(&self, url: &str, status: u16, body: &str) {
        let mut documents = self.documents.lock().unwrap();
        documents.insert(url.to_owned(), (status, body.to_owned()));
    }

    /// Nothing answers from now on.
    pub(crate) fn clear(&self) {
        self.documents.lock().unwrap().clear();
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// What was sent.
    pub(crate) fn posted(&self) -> Vec<Value> {
        self.posted.lock().unwrap().clone()
    }

    /// An issuer that publishes these keys.
    pub(crate) fn publish(&self, issuer: &str, keys: &[Value]) {
        let uri = format!("{issuer}/keys");
        let about = json!({"issuer": issuer, "jwks_uri": uri});
        let url = format!("{issuer}/.well-known/openid-configuration");
        self.put(&url, 200, &about.to_string());
        self.put(&uri, 200, &json!({"keys": keys}).to_string());
    }

    fn answer(&self, url: &str, limit: usize) -> Result<WebAnswer, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let documents = self.documents.lock().unwrap();
        let (status, body) = documents.get(url).ok_or("nothing answers")?;
        if body.len() > limit {
            return Err(format!("its answer is longer than {limit} bytes"));
        }
        Ok(WebAnswer {
            status: *status,
            body: Bytes::from(body.clone()),
        })
    }
}

/// The web as a catalog sees it.
#[derive(Clone, Debug)]
pub(crate) struct FakeWeb(pub(crate) Arc<Pages>);

#[async_trait]
impl Web for FakeWeb {
    async fn get(&self, url: &str, limit: usize) -> Result<WebAnswer, String> {
        self.0.answer(url, limit)
    }

    async fn post(
        &self,
        url: &str,
        bearer: &str,
        body: Bytes,
        limit: usize,
    ) -> Result<WebAnswer, String> {
        assert_eq!(bearer, "own-token");
        let sent = serde_json::from_slice(&body).unwrap();
        self.0.posted.lock().unwrap().push(sent);
        self.0.answer(url, limit)
    }
}

impl WebOpener for FakeWeb {
    fn open(&self, _ca_file: Option<&Path>) -> Result<Arc<dyn Web>, String> {
        Ok(Arc::new(self.clone()))
    }
}
