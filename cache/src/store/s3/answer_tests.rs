//! Which answers of an S3 server are believed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use http::HeaderValue;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn object(version_id: Option<&str>) -> ObjectId {
    ObjectId {
        store: "s3://b".into(),
        key: "k".into(),
        version: Version {
            token: Token::ETag {
                etag: "\"e\"".into(),
                version_id: version_id.map(Into::into),
            },
            size: 100,
            mtime_ns: 0,
        },
    }
}

const GOOD: [(&str, &str); 3] = [
    ("etag", "\"e\""),
    ("content-range", "bytes 10-19/100"),
    ("content-length", "10"),
];

fn check(status: u16, changes: &[(&'static str, &str)]) -> Result<(), StoreErrorKind> {
    let mut all = headers(&GOOD);
    for (name, value) in headers(changes).iter() {
        match value.is_empty() {
            true => all.remove(name),
            false => all.insert(name, value.clone()),
        };
    }
    let status = StatusCode::from_u16(status).unwrap();
    check_range(status, &all, &object(Some("v1")), &(10..20)).map_err(|failure| failure.kind)
}

// Without it an answer to another question would be cached as the bytes of this one.
#[test]
fn only_the_asked_range_of_the_pinned_version_is_believed() {
    use StoreErrorKind::{Changed, Corrupt};
    assert_eq!(check(206, &[]), Ok(()));
    assert_eq!(check(206, &[("content-length", "")]), Ok(()));
    assert_eq!(check(206, &[("etag", "e")]), Ok(()));
    assert_eq!(
        check(206, &[("content-encoding", "gzip")]),
        Ok(()),
        "a stored label"
    );
    for (status, changes, kind) in [
        (200, vec![], Corrupt),
        (206, vec![("etag", "\"f\"")], Changed),
        (200, vec![("etag", "\"f\"")], Changed),
        (206, vec![("etag", "W/\"e\"")], Corrupt),
        (206, vec![("etag", "")], Corrupt),
        (206, vec![("x-amz-version-id", "v2")], Changed),
        (206, vec![("content-range", "")], Corrupt),
        (206, vec![("content-range", "bytes 0-9/100")], Corrupt),
        (206, vec![("content-range", "bytes 10-18/100")], Corrupt),
        (206, vec![("content-range", "bytes 10-20/100")], Corrupt),
        (206, vec![("content-range", "bytes 10-19/*")], Corrupt),
        (206, vec![("content-range", "bytes 10-19/101")], Corrupt),
        (206, vec![("content-length", "11")], Corrupt),
        (206, vec![("content-length", "x")], Corrupt),
        (
            206,
            vec![("content-encoding", "gzip"), ("content-length", "")],
            Corrupt,
        ),
    ] {
        assert_eq!(check(status, &changes), Err(kind), "{status} {changes:?}");
    }
}

fn verdict_of(status: u16, code: &str, pairs: &[(&'static str, &str)]) -> Failure {
    let body = match code {
        "" => String::new(),
        code => format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"),
    };
    classify(
        StatusCode::from_u16(status).unwrap(),
        &headers(pairs),
        &body,
    )
    .failure
}

// Without it an outage could look like a deletion, or a refusal be asked again for ever.
#[test]
fn refusals_are_told_apart() {
    use StoreErrorKind::{Changed, Invalid, NotFound, Permission, Throttled, Unreachable};
    for (status, code, kind, retried) in [
        (404, "NoSuchKey", NotFound, false),
        (404, "", NotFound, false),
        (403, "AccessDenied", Permission, false),
        (403, "ExpiredToken", Permission, true),
        (400, "ExpiredToken", Permission, true),
        (400, "RequestTimeout", Unreachable, true),
        (400, "InvalidArgument", Invalid, false),
        (412, "PreconditionFailed", Changed, false),
        (416, "InvalidRange", Changed, false),
        (429, "", Throttled, true),
        (503, "SlowDown", Throttled, true),
        (500, "SlowDown", Throttled, true),
        (500, "InternalError", Unreachable, true),
        (502, "", Unreachable, true),
        (504, "", Unreachable, true),
        (301, "", Invalid, false),
    ] {
        let failure = verdict_of(status, code, &[]);
        assert_eq!(failure.kind, kind, "{status} {code}");
        assert_eq!(failure.retry != Retry::Never, retried, "{status} {code}");
    }
    let asked = verdict_of(503, "", &[("retry-after", "3")]);
    assert_eq!(asked.retry, Retry::After(Duration::from_secs(3)));
}

// Without it a load balancer without backends would "delete" every object.
#[test]
fn a_foreign_404_is_not_a_deletion() {
    let headers = headers(&[("content-type", "text/html; charset=utf-8")]);
    let page = classify(StatusCode::NOT_FOUND, &headers, "<html>no backend</html>");
    assert_eq!(page.failure.kind, StoreErrorKind::Unreachable);
    let bare = classify(StatusCode::NOT_FOUND, &headers, "");
    assert!(bare.doubtful && bare.failure.kind == StoreErrorKind::NotFound);
}

// Without it a broken date or length in an answer could panic, or pin the wrong size.
#[test]
fn versions_come_from_head() {
    let good = [
        ("content-length", "7"),
        ("etag", "abc"),
        ("last-modified", "Thu, 01 Jan 1970 00:00:02 GMT"),
    ];
    let version = version(&headers(&good)).unwrap();
    assert_eq!((version.size, version.mtime_ns), (7, 2_000_000_000));
    assert_eq!(
        version.token,
        Token::ETag {
            etag: "\"abc\"".into(),
            version_id: None
        }
    );
    for missing in 0..2 {
        let mut pairs = good.to_vec();
        pairs.remove(missing);
        assert!(super::version(&headers(&pairs)).is_err());
    }
}
