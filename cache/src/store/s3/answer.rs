//! What an answer of an S3 server may say before its body is believed.
//!
//! A body is used only when all of these hold: status 206; one range, exactly the asked one; the
//! total equals the pinned size; a strong ETag equal to the pinned one; a length, when told, equal
//! to the range; no coding applied in between. Anything else is a failure - `Changed` when the
//! server says that the object is another one, `Corrupt` when the answer contradicts the request.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use futures::StreamExt as _;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
    RETRY_AFTER,
};
use http::{HeaderMap, StatusCode};
use object_store::client::HttpResponse;
use serde::Deserialize;

use crate::identity::{ObjectId, Token, Version};
use crate::store::StoreErrorKind;
use crate::store::failure::{Failure, Retry};

/// Bytes of an error body that are read.
const ERROR_BODY: usize = 64 << 10;
/// Longest pause a server can ask for.
const MAX_RETRY_AFTER: u64 = 30;

/// A status that is no success, understood.
pub(super) struct Refusal {
    pub(super) failure: Failure,
    /// Nothing shows that an object store sent it.
    pub(super) doubtful: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ErrorBody {
    code: String,
    message: String,
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// The pin of an object, from the answer to a HEAD.
///
/// The version id is left out: listings do not tell it, and one object must have one identity.
pub(super) fn version(headers: &HeaderMap) -> Result<Version, Failure> {
    let size = number(headers, &CONTENT_LENGTH)
        .ok_or_else(|| Failure::corrupt("no content-length in the answer to HEAD"))?;
    let etag = text(headers, &ETAG).ok_or_else(|| Failure::corrupt("the store sends no ETag"))?;
    let modified = text(headers, &LAST_MODIFIED)
        .and_then(|date| DateTime::parse_from_rfc2822(date).ok())
        .map_or(0, |date| date.timestamp());
    Ok(Version {
        token: Token::ETag {
            etag: strong(etag)?,
            version_id: None,
        },
        size,
        mtime_ns: modified.saturating_mul(1_000_000_000),
    })
}

/// A strong entity tag with its quotes, which some servers leave out. A weak one does not tell
/// versions apart.
pub(super) fn strong(etag: &str) -> Result<Arc<str>, Failure> {
    let etag = etag.trim();
    if etag.is_empty() || etag.starts_with("W/") {
        return Err(Failure::corrupt(format!("not a strong ETag etag={etag}")));
    }
    Ok(match etag.starts_with('"') {
        true => etag.into(),
        false => format!("\"{etag}\"").into(),
    })
}

/// Checks the head of a successful answer to a ranged, conditional GET.
pub(super) fn check_range(
    status: StatusCode,
    headers: &HeaderMap,
    object: &ObjectId,
    asked: &Range<u64>,
) -> Result<(), Failure> {
    let Token::ETag {
        etag: pinned,
        version_id,
    } = &object.version.token
    else {
        return Err(Failure::last(
            StoreErrorKind::Invalid,
            "the identity has no ETag",
        ));
    };
    let etag = text(headers, &ETAG).ok_or_else(|| Failure::corrupt("no ETag in the answer"))?;
    if strong(etag)? != *pinned {
        return Err(Failure::changed(format!(
            "the ETag is now {etag}, was {pinned}"
        )));
    }
    let served = headers
        .get("x-amz-version-id")
        .and_then(|id| id.to_str().ok());
    if let (Some(pinned), Some(served)) = (version_id.as_deref(), served)
        && pinned != served
    {
        return Err(Failure::changed(format!(
            "version {served} instead of {pinned}"
        )));
    }
    if status != StatusCode::PARTIAL_CONTENT {
        return Err(Failure::corrupt(format!(
            "the range was ignored status={}",
            status.as_u16()
        )));
    }
    let content_range = text(headers, &CONTENT_RANGE)
        .ok_or_else(|| Failure::corrupt("no content-range in a partial answer"))?;
    let expected = format!("bytes {}-{}/{}", asked.start, asked.end - 1, object.size());
    if content_range != expected {
        return Err(Failure::corrupt(format!(
            "range `{content_range}` is not `{expected}`"
        )));
    }
    let wanted = asked.end - asked.start;
    let length = text(headers, &CONTENT_LENGTH);
    if length.is_some_and(|length| length.parse() != Ok(wanted)) {
        return Err(Failure::corrupt(format!("content-length is not {wanted}")));
    }
    // A stored object may carry a coding as a label. A body coded on the way has no exact length.
    let coded = text(headers, &CONTENT_ENCODING)
        .is_some_and(|coding| !matches!(coding, "" | "identity" | "aws-chunked"));
    if coded && length.is_none() {
        return Err(Failure::corrupt("the body was encoded on the way"));
    }
    Ok(())
}

/// Reads an unsuccessful answer.
pub(super) async fn refusal(response: HttpResponse) -> Refusal {
    let (parts, body) = response.into_parts();
    let mut stream = body.bytes_stream();
    let mut bytes = Vec::new();
    // The status alone is enough; a body that breaks off only costs the details.
    while let Some(Ok(piece)) = stream.next().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ERROR_BODY {
            break;
        }
    }
    let body = String::from_utf8_lossy(&bytes);
    classify(parts.status, &parts.headers, &body)
}

fn classify(status: StatusCode, headers: &HeaderMap, body: &str) -> Refusal {
    let error: ErrorBody = quick_xml::de::from_str(body).unwrap_or_default();
    let content_type = text(headers, &CONTENT_TYPE).unwrap_or("");
    let foreign_type =
        content_type.starts_with("text/html") || content_type.starts_with("text/plain");
    let doubtful = foreign_type && error.code.is_empty();
    let mut reason = match error.code.as_str() {
        "" => format!("status {status}"),
        code => format!("status {}: {code}: {}", status.as_u16(), error.message),
    };
    let (kind, retry) = verdict(status, &error.code, headers);
    // With a body at hand, a foreign "not found" is known to come from something in between.
    if kind == StoreErrorKind::NotFound && doubtful && !body.trim().is_empty() {
        reason.push_str(" that did not come from an object store");
        return Refusal {
            failure: Failure::unreachable(reason),
            doubtful,
        };
    }
    if status.is_redirection() {
        let region = headers
            .get("x-amz-bucket-region")
            .and_then(|region| region.to_str().ok());
        reason = format!(
            "the bucket is elsewhere region={}",
            region.unwrap_or("unknown")
        );
    }
    Refusal {
        failure: Failure {
            kind,
            reason: one_line(&reason),
            retry,
        },
        doubtful,
    }
}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

/// What a status and an error code mean.
fn verdict(status: StatusCode, code: &str, headers: &HeaderMap) -> (StoreErrorKind, Retry) {
    use StoreErrorKind as Kind;
    let asked = number(headers, &RETRY_AFTER).map_or(Retry::Pause, |seconds| {
        Retry::After(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
    });
    match code {
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded" => return (Kind::Throttled, asked),
        "RequestTimeout" | "InternalError" => return (Kind::Unreachable, asked),
        // The provider may have a fresh token by now.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            return (Kind::Permission, Retry::Once);
        }
        _ => {}
    }
    match status.as_u16() {
        401 | 403 => (Kind::Permission, Retry::Never),
        404 | 410 => (Kind::NotFound, Retry::Never),
        // 405: the pinned version is a delete marker; 412: another ETag; 416: shorter than pinned.
        405 | 412 | 416 => (Kind::Changed, Retry::Never),
        409 => (Kind::Unreachable, asked),
        429 | 503 => (Kind::Throttled, asked),
        501 => (Kind::Invalid, Retry::Never),
        408 | 500..=599 => (Kind::Unreachable, asked),
        _ => (Kind::Invalid, Retry::Never),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
