//! Signed requests for one bucket.
//!
//! Keys travel as they are: every byte outside the unreserved set of RFC 3986 is percent-encoded,
//! `/` is kept. Only keys with a `.` or `..` component cannot be asked for: URL libraries resolve
//! them, encoded or not, and would ask for another key.

use std::ops::Range;

use http::header::{ACCEPT_ENCODING, HeaderValue, IF_MATCH, RANGE};
use http::{Method, Request};
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{S3, no_answer};
use crate::identity::{ObjectId, Token};
use crate::store::StoreErrorKind;
use crate::store::failure::{Failure, Retry, chain};

/// Everything but the unreserved characters, for query values.
const VALUE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same for keys in a path, whose slashes stay.
pub(super) const PATH: AsciiSet = VALUE.remove(b'/');

/// Percent-encoded query value.
pub(super) fn value(text: &str) -> String {
    utf8_percent_encode(text, &VALUE).to_string()
}

impl S3 {
    /// A request for `key`, optionally with a query (already encoded).
    pub(super) fn request(
        &self,
        method: Method,
        key: &str,
        query: Option<&str>,
    ) -> Result<HttpRequest, Failure> {
        let invalid = |reason: String| Failure::last(StoreErrorKind::Invalid, reason);
        if key.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(invalid(
                "keys with a `.` or `..` component cannot be requested".into(),
            ));
        }
        let separator = if query.is_some() { "?" } else { "" };
        let uri = format!(
            "{}/{}{separator}{}",
            self.bucket,
            utf8_percent_encode(key, &PATH),
            query.unwrap_or("")
        );
        Request::builder()
            .method(method)
            .uri(uri)
            .body(HttpRequestBody::empty())
            .map_err(|error| invalid(chain(&error)))
    }

    /// A ranged GET of exactly this version.
    pub(super) fn range_request(
        &self,
        object: &ObjectId,
        range: &Range<u64>,
    ) -> Result<HttpRequest, Failure> {
        let Token::ETag { etag, version_id } = &object.version.token else {
            return Err(Failure::last(
                StoreErrorKind::Invalid,
                "the identity has no ETag",
            ));
        };
        let query = version_id
            .as_deref()
            .map(|id| format!("versionId={}", value(id)));
        let mut request = self.request(Method::GET, &object.key, query.as_deref())?;
        let header = |text: String| {
            HeaderValue::from_str(&text)
                .map_err(|_| Failure::last(StoreErrorKind::Invalid, "the ETag is not printable"))
        };
        let last = range.end - 1;
        let headers = request.headers_mut();
        headers.insert(RANGE, header(format!("bytes={}-{last}", range.start))?);
        headers.insert(IF_MATCH, header(etag.to_string())?);
        Ok(request)
    }

    /// Signs and sends; any status is an answer.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.execute(self.signed(request).await?).await
    }

    /// The request with what proves who asks.
    pub(super) async fn signed(&self, mut request: HttpRequest) -> Result<HttpRequest, Failure> {
        if !self.unsigned {
            let credential = self
                .credentials
                .get_credential()
                .await
                .map_err(|error| Failure {
                    kind: StoreErrorKind::Permission,
                    reason: format!("no credentials: {}", chain(&error)),
                    retry: Retry::Once,
                })?;
            AwsAuthorizer::new(&credential, "s3", &self.region)
                .with_request_payer(self.requester_pays)
                .try_authorize(&mut request, None)
                .map_err(|error| Failure::last(StoreErrorKind::Invalid, chain(&error)))?;
        }
        // After signing: proxies may drop it. Without it a proxy may compress the body.
        request
            .headers_mut()
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(request)
    }

    /// Sends a signed request with the general client.
    pub(super) async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        self.client
            .execute(request)
            .await
            .map_err(|error| no_answer(&error))
    }
}
