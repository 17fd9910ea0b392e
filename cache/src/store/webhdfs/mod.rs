//! HDFS by its REST interface (WebHDFS, also HttpFS).
//!
//! Pin: file id + length + mtime. Metadata is asked for here, because OpenDAL's service drops the
//! file id; the bytes come through OpenDAL (`OPEN` with offset and length, redirected to a
//! DataNode). `OPEN` has no condition, so the status is compared with the pin before the transfer
//! and after every window of bytes (see [`window`](super::window)).
//!
//! Protocol: Hadoop's "WebHDFS REST API", operations `GETFILESTATUS`, `LISTSTATUS_BATCH`, `OPEN`.

mod message;
mod transport;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request, StatusCode};
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector as _, HttpRequestBody, ReqwestConnector};
use opendal::{ErrorKind, HttpTransporter, OperationContext, Operator, services};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::backend::{Backend, Body, Page, Pages, watched};
use super::failure::{Failure, Retry, chain};
use super::window::confirmed;
use super::{Credentials, ListEntry, ObjectMeta, StoreConfig, StoreErrorKind, StoreUrl};
use crate::identity::ObjectId;

use message::{ListingAnswer, RemoteAnswer, Status, StatusAnswer};
use transport::Transport;

/// Everything but the unreserved characters; slashes of paths stay.
const PATH: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');
/// Longest answer about metadata: a page of a listing is below 1 MiB.
const MAX_ANSWER: usize = 64 << 20;

#[derive(Clone, Debug)]
struct WebHdfs {
    http: HttpClient,
    bytes: Operator,
    endpoint: Arc<str>,
    /// `&user.name=..` or `&delegation=..`, or empty.
    login: Arc<str>,
    stall: Duration,
}

/// Prepares the clients; no request is made yet.
pub(super) fn open(
    url: &StoreUrl,
    tls: bool,
    config: &StoreConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>, Failure> {
    let invalid = |reason: String| Failure::last(StoreErrorKind::Invalid, reason);
    let endpoint = format!(
        "{}://{}",
        if tls { "https" } else { "http" },
        url.authority()
    );
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(config.connect_timeout.0)
        .with_allow_http(!tls);
    // The root always exists, so the service has no directory to create on a read.
    let mut service = services::Webhdfs::default().root("/").endpoint(&endpoint);
    let mut login = String::new();
    if let Some(token) = credentials.get("HADOOP_DELEGATION_TOKEN") {
        let encoded = utf8_percent_encode(token, &PATH).to_string();
        service = service.delegation(&encoded);
        login = format!("&delegation={encoded}");
    } else if let Some(user) = credentials.get("HADOOP_USER_NAME") {
        let encoded = utf8_percent_encode(user, &PATH).to_string();
        service = service.user_name(&encoded);
        login = format!("&user.name={encoded}");
    }
    let http = ReqwestConnector::default().connect(&options);
    let http = http.map_err(|error| invalid(chain(&error)))?;
    let transport = HttpTransporter::new(Transport::new(http.clone()));
    let bytes = Operator::new(service).map_err(|error| invalid(chain(&error)))?;
    Ok(Arc::new(WebHdfs {
        bytes: bytes.with_context(OperationContext::new().with_http_transport(transport)),
        http,
        endpoint: endpoint.into(),
        login: login.into(),
        stall: config.stall_timeout.0,
    }))
}

impl WebHdfs {
    async fn ask<T: DeserializeOwned>(&self, key: &str, query: &str) -> Result<T, Failure> {
        let key = utf8_percent_encode(key, &PATH);
        let uri = format!("{}/webhdfs/v1/{key}?{query}{}", self.endpoint, self.login);
        let request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .body(HttpRequestBody::empty())
            .map_err(|error| Failure::last(StoreErrorKind::Invalid, chain(&error)))?;
        let answer = self.http.execute(request).await;
        let (parts, body) = answer
            .map_err(|error| Failure::unreachable(chain(&error)))?
            .into_parts();
        let mut pieces = body.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Failure::unreachable(chain(&error)))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_ANSWER {
                return Err(Failure::corrupt("the answer is too long"));
            }
        }
        if !parts.status.is_success() {
            return Err(refusal(parts.status, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| Failure::corrupt(chain(&error)))
    }

    async fn check(&self, object: &ObjectId) -> Result<(), Failure> {
        let found = self.head(&object.key).await.map_err(Failure::pinned)?;
        match found.version == object.version {
            true => Ok(()),
            false => Err(Failure::changed("another version is at this path now")),
        }
    }
}

/// What an unsuccessful answer means. WebHDFS names the Java exception; an answer without one did
/// not come from it.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    use StoreErrorKind::{Invalid, NotFound, Permission, Throttled, Unreachable};
    let remote = serde_json::from_slice::<RemoteAnswer>(body)
        .unwrap_or_default()
        .remote_exception;
    let (kind, retry) = match (remote.exception.as_str(), status.as_u16()) {
        ("StandbyException", _) => (Unreachable, Retry::Pause),
        ("RetriableException" | "ServerTooBusyException", _) => (Throttled, Retry::Pause),
        ("FileNotFoundException", _) => (NotFound, Retry::Never),
        (_, 401 | 403) => (Permission, Retry::Never),
        (_, 429 | 503) => (Throttled, Retry::Pause),
        ("", 404) => (Unreachable, Retry::Pause),
        ("", 500..=599 | 408) => (Unreachable, Retry::Pause),
        (_, 500..=599) => (Unreachable, Retry::Pause),
        _ => (Invalid, Retry::Never),
    };
    let first_line = remote.message.lines().next().unwrap_or("");
    let reason = format!(
        "status {}: {} {first_line}",
        status.as_u16(),
        remote.exception
    );
    Failure {
        kind,
        reason: reason.trim_end().to_string(),
        retry,
    }
}

#[async_trait]
impl Backend for WebHdfs {
    async fn head(&self, key: &str) -> Result<ObjectMeta, Failure> {
        let answer: StatusAnswer = self.ask(key, "op=GETFILESTATUS").await?;
        if answer.file_status.kind != "FILE" {
            return Err(Failure::last(StoreErrorKind::NotFound, "not a file"));
        }
        Ok(ObjectMeta {
            key: key.into(),
            version: answer.file_status.version(),
        })
    }

    fn pages(&self, dir: &str, _deep: bool) -> Box<dyn Pages> {
        let (web, dir) = (self.clone(), dir.to_string());
        Box::new(WebHdfsPages {
            web,
            dir,
            after: None,
            end: false,
        })
    }

    async fn open(&self, object: &ObjectId, range: Range<u64>) -> Result<Body, Failure> {
        self.check(object).await?;
        let reader = self
            .bytes
            .reader(&object.key)
            .await
            .map_err(|error| data_failure(&error))?;
        let pieces = reader
            .into_stream(range)
            .await
            .map_err(|error| data_failure(&error))?;
        let pieces = pieces
            .map_err(|error| data_failure(&error))
            .map_ok(|buffer| futures::stream::iter(Iterator::map(buffer, Ok)))
            .try_flatten();
        let (this, id) = (self.clone(), object.clone());
        let check = move || {
            let (this, id) = (this.clone(), id.clone());
            async move { this.check(&id).await }
        };
        Ok(confirmed(watched(pieces.boxed(), self.stall), check))
    }
}

fn data_failure(error: &opendal::Error) -> Failure {
    use StoreErrorKind::{Changed, Invalid, Permission, Throttled, Unreachable};
    let (kind, retry) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory => (StoreErrorKind::NotFound, Retry::Never),
        ErrorKind::PermissionDenied => (Permission, Retry::Never),
        ErrorKind::RateLimited => (Throttled, Retry::Pause),
        ErrorKind::RangeNotSatisfied => (Changed, Retry::Never),
        ErrorKind::ConfigInvalid | ErrorKind::Unsupported => (Invalid, Retry::Never),
        _ => (Unreachable, Retry::Pause),
    };
    Failure {
        kind,
        reason: chain(error),
        retry,
    }
}

struct WebHdfsPages {
    web: WebHdfs,
    dir: String,
    after: Option<String>,
    end: bool,
}

#[async_trait]
impl Pages for WebHdfsPages {
    async fn next(&mut self) -> Result<Option<Page>, Failure> {
        if self.end {
            return Ok(None);
        }
        let mut query = "op=LISTSTATUS_BATCH".to_string();
        if let Some(after) = &self.after {
            query.push_str(&format!(
                "&startAfter={}",
                utf8_percent_encode(after, &PATH)
            ));
        }
        let answer: ListingAnswer = self.web.ask(&self.dir, &query).await?;
        let listing = answer.directory_listing;
        let statuses = listing.partial_listing.statuses.file_status;
        let last = statuses.last().map(|status| status.path_suffix.clone());
        if last.is_none() && listing.remaining_entries > 0 {
            return Err(Failure::corrupt("an empty page that is not the last"));
        }
        let entries = statuses.into_iter().map(|status| entry(&self.dir, &status));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        self.end = listing.remaining_entries == 0;
        self.after = last;
        Ok(Some(Page { entries, hidden: 0 }))
    }
}

fn entry(dir: &str, status: &Status) -> Result<ListEntry, Failure> {
    let name = status.path_suffix.as_str();
    if name.is_empty() {
        // A file listed as if it were a directory shows itself without a name.
        return Err(Failure::last(StoreErrorKind::NotFound, "not a directory"));
    }
    let key = if dir.is_empty() {
        name.to_string()
    } else {
        format!("{dir}/{name}")
    };
    Ok(match status.kind.as_str() {
        "DIRECTORY" => ListEntry::Directory(key),
        _ => ListEntry::Object(ObjectMeta {
            key: key.into(),
            version: status.version(),
        }),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::identity::Token;

    // Without it a standby NameNode or a foreign web server would look like a missing file.
    #[test]
    fn refusals_are_told_apart() {
        let remote = |exception: &str| {
            format!(r#"{{"RemoteException":{{"exception":"{exception}","message":"m\nat x"}}}}"#)
        };
        for (status, body, kind) in [
            (
                404,
                remote("FileNotFoundException"),
                StoreErrorKind::NotFound,
            ),
            (404, "<html>".to_string(), StoreErrorKind::Unreachable),
            (
                403,
                remote("AccessControlException"),
                StoreErrorKind::Permission,
            ),
            (403, remote("StandbyException"), StoreErrorKind::Unreachable),
            (
                400,
                remote("IllegalArgumentException"),
                StoreErrorKind::Invalid,
            ),
            (503, String::new(), StoreErrorKind::Throttled),
        ] {
            let failure = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(failure.kind, kind, "{status} {body}");
        }
    }

    // Without it file ids would be lost, and with them the strongest part of the pin.
    #[test]
    fn statuses_become_pins() {
        let text = r#"{"FileStatus":{"accessTime":1,"fileId":16388,"length":1024,
            "modificationTime":1473305896965,"pathSuffix":"x","type":"FILE"}}"#;
        let answer: StatusAnswer = serde_json::from_str(text).unwrap();
        let version = answer.file_status.version();
        assert_eq!(version.token, Token::Hdfs { file_id: 16388 });
        assert_eq!(version.mtime_ns, 1_473_305_896_965_000_000);
    }
}
