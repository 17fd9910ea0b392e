//! A small HTTP client of the catalog: one method for each kind of request, errors with what to try,
//! the token in one place and in no message.
//!
//! Every call has a deadline. Dropping a call drops its connection; a change may then have happened
//! or not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use terrace_catalog::rest::wire::{ErrorBody, EventItem, EventQuery};
use url::Url;

use super::bearer::Bearer;
pub(crate) use super::error::CatalogError;
use super::web::trusting;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take: longer than the server's own deadline for a request.
const ANSWER: Duration = Duration::from_secs(40);

/// Longest time between two signs of life in a stream; the server sends one every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Most bytes of one event; more is not from a catalog.
const MAX_EVENT: usize = 1 << 20;

/// A catalog and who is asking. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CatalogClient {
    http: reqwest::Client,
    base: Url,
    bearer: Option<Bearer>,
}

impl fmt::Debug for CatalogClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogClient")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl CatalogClient {
    /// Sends nothing yet. `token` is what follows `Bearer`. With a file of certificates the catalog's
    /// own must come from one of them; without one, from those of the machine.
    pub(crate) fn new(
        address: &str,
        token: Option<&str>,
        ca_file: Option<&Path>,
    ) -> Result<Self, CatalogError> {
        let refused = |why: String| CatalogError::Address {
            url: address.to_owned(),
            why,
        };
        let base: Url = address.parse().map_err(|e| refused(format!("{e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(refused("it is neither http nor https".to_owned()));
        }
        let local = match base.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => return Err(refused("it names no host".to_owned())),
        };
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT);
        if local {
            // A proxy of the environment cannot reach this machine's own loopback.
            builder = builder.no_proxy();
        } else if base.scheme() == "http" && token.is_some() {
            tracing::warn!(
                catalog = %base,
                "the token goes over plain HTTP, where others can read it; use https://"
            );
        }
        if let Some(file) = ca_file {
            builder = trusting(builder, file).map_err(|error| refused(format!("{error:#}")))?;
        }
        let bearer = token.map(Bearer::fixed).transpose();
        Ok(Self {
            http: builder.build().map_err(|e| refused(cause(&e)))?,
            base,
            bearer: bearer.map_err(|error| refused(error.to_string()))?,
        })
    }

    /// The same, with a token that is read from a file again and again, and was `token` a moment ago.
    pub(crate) fn renewing(mut self, file: PathBuf, token: &str) -> Result<Self, CatalogError> {
        let bearer = Bearer::file(file, token);
        let bearer = bearer.map_err(|error| CatalogError::Address {
            url: self.base.to_string(),
            why: error.to_string(),
        });
        self.bearer = Some(bearer?);
        Ok(self)
    }

    /// Where the catalog is.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str()
    }

    /// Asks. `path` is what follows `/api/v1`, a part each, encoded here.
    pub(crate) async fn get<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &Q,
    ) -> Result<T, CatalogError> {
        let url = self.url(path, query)?;
        self.send(self.http.request(Method::GET, url)).await
    }

    /// Asks for bytes that are not JSON.
    pub(crate) async fn bytes(&self, path: &[&str]) -> Result<Bytes, CatalogError> {
        let request = self.http.request(Method::GET, self.url(path, &())?);
        self.answer(request).await
    }

    /// Sends JSON.
    pub(crate) async fn send_json<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &B,
    ) -> Result<T, CatalogError> {
        let bytes = serde_json::to_vec(body).map_err(|e| self.strange(e.to_string()))?;
        self.send_text(method, path, "application/json", bytes.into())
            .await
    }

    /// Sends bytes of a content type.
    pub(crate) async fn send_text<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        kind: &str,
        body: Bytes,
    ) -> Result<T, CatalogError> {
        let request = self.http.request(method, self.url(path, &())?);
        let request = request.header(header::CONTENT_TYPE, kind).body(body);
        self.send(request).await
    }

    /// Removes.
    pub(crate) async fn delete<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &Q,
    ) -> Result<T, CatalogError> {
        let url = self.url(path, query)?;
        self.send(self.http.request(Method::DELETE, url)).await
    }

    /// Follows the events behind a sequence number; from now on without one. The server ends a stream
    /// now and then: start again behind [`Events::seen`]. Without `follow` the stream ends
    /// behind the last event that has happened.
    pub(crate) async fn events(
        &self,
        after: Option<u64>,
        follow: bool,
    ) -> Result<Events, CatalogError> {
        let follow = Some(follow).filter(|follow| !follow);
        let url = self.url(&["events"], &EventQuery { after, follow })?;
        let request = self.authorized(self.http.request(Method::GET, url));
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.accept(response).await?;
        Ok(Events {
            client: self.clone(),
            response,
            buffer: Vec::new(),
            seen: after,
        })
    }

    /// Asks for something that takes long and is answered line by line, one JSON object each.
    pub(crate) async fn lines<Q: Serialize>(
        &self,
        path: &[&str],
        query: &Q,
    ) -> Result<Lines, CatalogError> {
        let request = self.http.request(Method::POST, self.url(path, query)?);
        let response = self.authorized(request).send().await;
        let response = self
            .accept(response.map_err(|e| self.unreachable(&e))?)
            .await?;
        Ok(Lines {
            client: self.clone(),
            response,
            buffer: Vec::new(),
        })
    }

    fn url<Q: Serialize>(&self, path: &[&str], query: &Q) -> Result<Url, CatalogError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let query = serde_urlencoded::to_string(query).map_err(|e| self.strange(e.to_string()))?;
        url.set_query((!query.is_empty()).then_some(query.as_str()));
        Ok(url)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.header(header::AUTHORIZATION, bearer.value()),
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CatalogError> {
        let bytes = self.answer(request).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.strange(e.to_string()))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Bytes, CatalogError> {
        let request = self.authorized(request).timeout(ANSWER);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.accept(response).await?;
        response.bytes().await.map_err(|e| self.unreachable(&e))
    }

    /// Lets a success pass; reads what the catalog says about anything else.
    async fn accept(&self, response: Response) -> Result<Response, CatalogError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = tokio::time::timeout(ANSWER, response.bytes()).await;
        let bytes = bytes.map(Result::unwrap_or_default).unwrap_or_default();
        let Ok(body) = serde_json::from_slice::<ErrorBody>(&bytes) else {
            return Err(self.strange(format!("it answered {status}")));
        };
        Err(CatalogError::Refused {
            status: status.as_u16(),
            code: body.error.code,
            message: body.error.message,
            hint: body.error.hint,
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> CatalogError {
        let (url, why) = (self.base.to_string(), cause(error));
        // The client's errors have no kind for this.
        match error.is_connect() && why.contains("certificate") {
            true => CatalogError::Unbelieved { url, why },
            false => CatalogError::Unreachable { url, why },
        }
    }

    fn silent(&self) -> CatalogError {
        CatalogError::Unreachable {
            url: self.base.to_string(),
            why: format!("no sign of life for {SILENCE:?}"),
        }
    }

    fn strange(&self, why: String) -> CatalogError {
        CatalogError::Strange {
            url: self.base.to_string(),
            why,
        }
    }
}

/// The innermost reason: what a user can act on.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    crate::control::client::root_cause(error)
}

/// An open stream of events.
#[derive(Debug)]
pub(crate) struct Events {
    client: CatalogClient,
    response: Response,
    buffer: Vec<u8>,
    seen: Option<u64>,
}

impl Events {
    /// The sequence number up to which the stream was read: where the next one goes on. None: the server
    /// has not said yet where this one began.
    pub(crate) fn seen(&self) -> Option<u64> {
        self.seen
    }

    /// The next event; none when the server ended the stream. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Result<Option<EventItem>, CatalogError> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let message: Vec<u8> = self.buffer.drain(..end + 2).collect();
                self.seen = id_of(&message).or(self.seen);
                if let Some(data) = data_of(&message) {
                    let event = serde_json::from_slice(&data);
                    return event
                        .map(Some)
                        .map_err(|e| self.client.strange(e.to_string()));
                }
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(self.client.strange("an event does not end".to_owned()));
            }
            let more = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            match more {
                Err(_) => return Err(self.client.silent()),
                Ok(Err(error)) => return Err(self.client.unreachable(&error)),
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(bytes))) => self.buffer.extend_from_slice(&bytes),
            }
        }
    }
}

/// An answer that comes line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    client: CatalogClient,
    response: Response,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<serde_json::Value>, CatalogError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return line
                    .map(Some)
                    .map_err(|e| self.client.strange(e.to_string()));
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(self.client.strange("a line does not end".to_owned()));
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Err(_) => return Err(self.client.silent()),
                Ok(Err(error)) => return Err(self.client.unreachable(&error)),
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(bytes))) => self.buffer.extend_from_slice(&bytes),
            }
        }
    }
}

/// The lines of one message that begin with a field's name, without it.
fn field<'a>(message: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = message.split(|byte| *byte == b'\n');
    lines
        .filter_map(move |line| line.strip_prefix(name)?.strip_prefix(b":"))
        .map(|line| line.strip_prefix(b" ").unwrap_or(line))
}

/// The sequence number of one message; none for a comment.
fn id_of(message: &[u8]) -> Option<u64> {
    let id = field(message, b"id").last()?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// The `data:` lines of one message, joined; none for a comment and for the first message.
fn data_of(message: &[u8]) -> Option<Vec<u8>> {
    let data: Vec<&[u8]> = field(message, b"data").collect();
    (!data.is_empty()).then(|| data.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // Without it a path with a slash or a question mark in a name would be another route.
    #[test]
    fn parts_of_paths_and_queries_are_encoded() {
        let client = CatalogClient::new("http://127.0.0.1:1/below/", None, None).unwrap();
        let url = client
            .url(&["datasets", "a/b?c"], &[("q", "x&y=z")])
            .unwrap();
        let expected = "http://127.0.0.1:1/below/api/v1/datasets/a%2Fb%3Fc?q=x%26y%3Dz";
        assert_eq!(url.as_str(), expected);
        for bad in ["127.0.0.1:80", "ftp://x", "http://", "", "file:///x"] {
            assert!(
                CatalogClient::new(bad, None, None).is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    // Without it a token would be printed with the first error that shows the client.
    #[test]
    fn the_token_is_not_shown() {
        let client = CatalogClient::new("http://h:1", Some("trc_canary"), None).unwrap();
        assert!(!format!("{client:?}").contains("canary"));
        let bad = CatalogClient::new("http://h:1", Some("trc_\u{1}canary"), None).unwrap_err();
        assert!(!bad.to_string().contains("canary"));
    }

    // Comments keep a stream alive and are no events.
    #[test]
    fn messages_are_read_as_the_format_says() {
        assert_eq!(data_of(b": alive\n\n"), None);
        let event = b"id: 7\nevent: version\ndata: {\"a\":\ndata: 1}\n\n";
        assert_eq!(data_of(event).unwrap(), b"{\"a\":\n1}");
        assert_eq!((id_of(event), id_of(b": alive\n\n")), (Some(7), None));
        let first = b"id: 6\n\n";
        assert_eq!((id_of(first), data_of(first)), (Some(6), None));
    }
}
