//! Requests of a Kubernetes API server: JSON over HTTPS, a bearer token that is renewed in its file.
//!
//! Every call has a deadline, and answers have a limit. Dropping a call drops its connection; a change
//! may then have happened or not, which is why every change here can be made twice.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::error::KubeError;
use super::resource::Resource;

/// How long an answer may take; API servers give up after a minute themselves.
const ANSWER: Duration = Duration::from_secs(20);

/// Most bytes of one answer or of one event of a watch: an object has at most a few MiB.
const MAX_ANSWER: usize = 64 << 20;

/// Objects of a page of a list.
const PAGE: &str = "500";

/// A watch is ended by the server after so long, so that none is held by a half-dead connection.
const WATCH_SECONDS: &str = "290";

/// Longest silence of a watch: bookmarks come every minute.
const SILENCE: Duration = Duration::from_secs(300);

/// Who owns the fields that this program applies.
pub(crate) const FIELD_MANAGER: &str = "terrace-controller";

/// An API server and who is asking. Cheap to clone.
#[derive(Clone)]
pub struct KubeClient {
    http: reqwest::Client,
    base: Url,
    token_file: Option<PathBuf>,
}

impl fmt::Debug for KubeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("KubeClient");
        shown
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// What an API server says about a failure.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
}

/// A page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    pub(super) metadata: PageMeta,
    pub(super) items: Vec<Value>,
}

/// See [`Page`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// An event of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) object: Value,
}

impl KubeClient {
    /// Sends nothing yet. `http` says which certificates are believed; the token's file is read for each
    /// request, because it is renewed.
    pub fn new(http: reqwest::Client, base: Url, token_file: Option<PathBuf>) -> Self {
        Self {
            http,
            base,
            token_file,
        }
    }

    /// The object, if there is one.
    pub(crate) async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let path = resource.path(namespace, &[name]);
        match self.call(Method::GET, &path, &[], None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an object; an error that [`KubeError::is_taken`] when there is one of that name.
    pub(crate) async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
    ) -> Result<Value, KubeError> {
        let path = resource.path(namespace, &[]);
        let query = [("fieldManager", FIELD_MANAGER)];
        let body = Some(("application/json", object));
        self.call(Method::POST, &path, &query, body).await
    }

    /// Puts an object in the place of the one whose `resourceVersion` it has; else a conflict.
    pub(crate) async fn replace(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> Result<Value, KubeError> {
        let path = resource.path(namespace, &[name]);
        let query = [("fieldManager", FIELD_MANAGER)];
        let body = Some(("application/json", object));
        self.call(Method::PUT, &path, &query, body).await
    }

    /// Changes the fields that a JSON merge patch (RFC 7396) names. A `resourceVersion` in it is a
    /// condition.
    pub(crate) async fn patch(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Value, KubeError> {
        let path = resource.path(namespace, &[name]);
        let query = [("fieldManager", FIELD_MANAGER)];
        let body = Some(("application/merge-patch+json", patch));
        self.call(Method::PATCH, &path, &query, body).await
    }

    /// Applies a status (server-side apply): the fields are ours from now on, and those that we no longer
    /// name go.
    pub(crate) async fn apply_status(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> Result<Value, KubeError> {
        let path = resource.path(namespace, &[name, "status"]);
        let query = [("fieldManager", FIELD_MANAGER), ("force", "true")];
        let body = Some(("application/apply-patch+yaml", object));
        self.call(Method::PATCH, &path, &query, body).await
    }

    /// Deletes exactly the object that was looked at; one that is gone, or another of its name, is no
    /// error.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), KubeError> {
        let path = resource.path(namespace, &[name]);
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid},
        });
        let body = Some(("application/json", &options));
        match self.call(Method::DELETE, &path, &[], body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A page of all objects of a kind.
    pub(super) async fn page(&self, resource: &Resource, next: &str) -> Result<Page, KubeError> {
        let path = resource.path("", &[]);
        let mut query = vec![("limit", PAGE)];
        if !next.is_empty() {
            query.push(("continue", next));
        }
        let page = self.call(Method::GET, &path, &query, None).await?;
        serde_json::from_value(page).map_err(|error| strange(resource.plural, error))
    }

    /// Follows what happens to objects of a kind behind a version.
    pub(super) async fn watch(
        &self,
        resource: &Resource,
        version: &str,
    ) -> Result<Watch, KubeError> {
        let what = format!("watch {}", resource.plural);
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", WATCH_SECONDS),
            ("resourceVersion", version),
        ];
        let request = self.request(Method::GET, &resource.path("", &[]), &query);
        let sent = tokio::time::timeout(ANSWER, self.authorized(request).await?.send()).await;
        let sent = sent.map_err(|_| silent(&what))?;
        let response = sent.map_err(|error| unreachable(&what, &error))?;
        let response = accept(&what, response).await?;
        Ok(Watch {
            what,
            response,
            buffer: Vec::new(),
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<(&str, &Value)>,
    ) -> Result<Value, KubeError> {
        let what = format!("{method} {}", path.join("/"));
        let mut request = self.request(method, path, query).timeout(ANSWER);
        if let Some((kind, body)) = body {
            let bytes = serde_json::to_vec(body).map_err(|error| strange(&what, error))?;
            request = request.header(header::CONTENT_TYPE, kind).body(bytes);
        }
        let sent = self.authorized(request).await?.send().await;
        let response = sent.map_err(|error| unreachable(&what, &error))?;
        let response = accept(&what, response).await?;
        let bytes = limited(&what, response).await?;
        serde_json::from_slice(&bytes).map_err(|error| strange(&what, error))
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        request.header(header::ACCEPT, "application/json")
    }

    async fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, KubeError> {
        let Some(file) = &self.token_file else {
            return Ok(request);
        };
        let refused =
            |why: &dyn fmt::Display| KubeError::Token(format!("{}: {why}", file.display()));
        let text = tokio::fs::read_to_string(file).await;
        let text = text.map_err(|error| refused(&error))?;
        let value = header::HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| refused(&"it has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(request.header(header::AUTHORIZATION, value))
    }
}

/// Lets a success pass; reads what the server says about anything else.
async fn accept(what: &str, response: Response) -> Result<Response, KubeError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = tokio::time::timeout(ANSWER, limited(what, response)).await;
    let bytes = bytes.unwrap_or_else(|_| Err(silent(what)))?;
    let said: Status = serde_json::from_slice(&bytes).unwrap_or_default();
    Err(KubeError::Refused {
        what: what.to_owned(),
        status: status.as_u16(),
        reason: said.reason,
        message: said.message.replace('\n', " "),
    })
}

async fn limited(what: &str, mut response: Response) -> Result<Vec<u8>, KubeError> {
    let mut bytes = Vec::new();
    while let Some(part) = response
        .chunk()
        .await
        .map_err(|error| unreachable(what, &error))?
    {
        if bytes.len() + part.len() > MAX_ANSWER {
            return Err(strange(what, format!("longer than {MAX_ANSWER} bytes")));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn unreachable(what: &str, error: &reqwest::Error) -> KubeError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let why = match error.is_timeout() {
        true => "it took too long".to_owned(),
        false => cause.to_string(),
    };
    KubeError::Unreachable {
        what: what.to_owned(),
        why,
    }
}

fn silent(what: &str) -> KubeError {
    KubeError::Unreachable {
        what: what.to_owned(),
        why: "no sign of life".to_owned(),
    }
}

fn strange(what: &str, why: impl fmt::Display) -> KubeError {
    KubeError::Strange {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

/// An open watch.
#[derive(Debug)]
pub(super) struct Watch {
    what: String,
    response: Response,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; none when the server ended the watch. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, KubeError> {
        // Where the search for the end of the line goes on: big events come in many parts.
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|error| strange(&self.what, error));
            }
            searched = self.buffer.len();
            if searched > MAX_ANSWER {
                return Err(strange(&self.what, "an event does not end"));
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Err(_) => return Err(silent(&self.what)),
                Ok(Err(error)) => return Err(unreachable(&self.what, &error)),
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(bytes))) => self.buffer.extend_from_slice(&bytes),
            }
        }
    }
}
