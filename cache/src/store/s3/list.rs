//! Listings of a bucket, a thousand keys per page (ListObjectsV2).
//!
//! Keys are asked for in URL encoding, since XML cannot carry every byte a key may have; servers
//! that ignore the wish do not say `EncodingType`, and their keys are taken as they are.
//! Directory markers (keys that end in `/`) are left out.

use async_trait::async_trait;
use chrono::DateTime;
use http::Method;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::{S3, answer, no_answer, request};
use crate::identity::{Token, Version};
use crate::store::backend::{Page, Pages};
use crate::store::failure::{Failure, chain};
use crate::store::{ListEntry, ObjectMeta, StoreErrorKind};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    contents: Vec<Content>,
    #[serde(default)]
    common_prefixes: Vec<CommonPrefix>,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    key: String,
    size: u64,
    last_modified: String,
    #[serde(rename = "ETag")]
    etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommonPrefix {
    prefix: String,
}

enum Cursor {
    Start,
    After(String),
    End,
}

/// One listing in progress.
pub(super) struct S3Pages {
    s3: S3,
    /// Empty or with a trailing slash.
    prefix: String,
    deep: bool,
    must_exist: bool,
    /// Full key after which the listing begins.
    start_after: Option<String>,
    cursor: Cursor,
}

impl S3Pages {
    pub(super) fn new(s3: S3, dir: &str, deep: bool) -> Self {
        Self {
            must_exist: !dir.is_empty() && dir != s3.url.prefix(),
            prefix: if dir.is_empty() {
                String::new()
            } else {
                format!("{dir}/")
            },
            s3,
            deep,
            start_after: None,
            cursor: Cursor::Start,
        }
    }

    /// One level of `dir` from behind `key` on.
    pub(super) fn after(s3: S3, dir: &str, key: &str) -> Self {
        Self {
            must_exist: false,
            start_after: Some(key.to_owned()),
            ..Self::new(s3, dir, false)
        }
    }

    fn query(&self) -> String {
        // Sorted by name, as the signature wants it.
        let mut query = String::new();
        if let Cursor::After(token) = &self.cursor {
            query.push_str(&format!("continuation-token={}&", request::value(token)));
        }
        if !self.deep {
            query.push_str("delimiter=%2F&");
        }
        query.push_str("encoding-type=url&list-type=2");
        query.push_str(&format!("&prefix={}", request::value(&self.prefix)));
        if let (Cursor::Start, Some(key)) = (&self.cursor, &self.start_after) {
            query.push_str(&format!("&start-after={}", request::value(key)));
        }
        query
    }

    async fn fetch(&self) -> Result<Answer, Failure> {
        let request = self.s3.request(Method::GET, "", Some(&self.query()))?;
        let response = self.s3.send(request).await?;
        if !response.status().is_success() {
            return Err(answer::refusal(response).await.failure);
        }
        let body = response
            .into_body()
            .bytes()
            .await
            .map_err(|error| no_answer(&error))?;
        parse(&body)
    }
}

#[async_trait]
impl Pages for S3Pages {
    async fn next(&mut self) -> Result<Option<Page>, Failure> {
        if matches!(self.cursor, Cursor::End) {
            return Ok(None);
        }
        let mut answer = self.fetch().await?;
        let empty = answer.contents.is_empty() && answer.common_prefixes.is_empty();
        if self.must_exist && empty && matches!(self.cursor, Cursor::Start) {
            return Err(Failure::last(
                StoreErrorKind::NotFound,
                "nothing is below this prefix",
            ));
        }
        let next = match (answer.is_truncated, answer.next_continuation_token.take()) {
            (true, Some(token)) => Cursor::After(token),
            (true, None) => return Err(Failure::corrupt("a truncated page without a token")),
            (false, _) => Cursor::End,
        };
        let entries = entries(answer, &self.prefix)?;
        self.cursor = next;
        Ok(Some(Page { entries, hidden: 0 }))
    }

    fn ended(&self) -> bool {
        matches!(self.cursor, Cursor::End)
    }
}

fn parse(body: &[u8]) -> Result<Answer, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| Failure::corrupt("listing is not UTF-8"))?;
    // Of any other document, an error above all, only defaults would be left.
    if !text.contains("<ListBucketResult") {
        return Err(Failure::corrupt("the answer is not a listing"));
    }
    quick_xml::de::from_str(text).map_err(|error| Failure::corrupt(chain(&error)))
}

fn entries(answer: Answer, prefix: &str) -> Result<Vec<ListEntry>, Failure> {
    let encoded = answer.encoding_type.as_deref() == Some("url");
    let mut entries = Vec::with_capacity(answer.contents.len() + answer.common_prefixes.len());
    for content in answer.contents {
        let key = decode(content.key, encoded)?;
        if !key.starts_with(prefix) {
            return Err(Failure::corrupt(format!(
                "a key outside the prefix key={key}"
            )));
        }
        if key.ends_with('/') {
            continue;
        }
        let version = Version {
            token: Token::ETag {
                etag: answer::strong(&content.etag)?,
                version_id: None,
            },
            size: content.size,
            mtime_ns: seconds(&content.last_modified).saturating_mul(1_000_000_000),
        };
        entries.push(ListEntry::Object(ObjectMeta {
            key: key.into(),
            version,
        }));
    }
    for common in answer.common_prefixes {
        let mut dir = decode(common.prefix, encoded)?;
        if !dir.starts_with(prefix) || dir.pop() != Some('/') {
            return Err(Failure::corrupt("a common prefix outside the listing"));
        }
        entries.push(ListEntry::Directory(dir));
    }
    Ok(entries)
}

fn decode(text: String, encoded: bool) -> Result<String, Failure> {
    if !encoded || !text.contains(['%', '+']) {
        return Ok(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| Failure::corrupt("a key is not UTF-8"))
}

/// Whole seconds only: HEAD tells no more, and one version must look the same from both.
fn seconds(date: &str) -> i64 {
    DateTime::parse_from_rfc3339(date).map_or(0, |date| date.timestamp())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
<NextContinuationToken>t</NextContinuationToken>
<Contents><Key>d/a%20b%2Bc+d</Key><Size>3</Size><LastModified>2026-01-02T03:04:05.678Z</LastModified>
<ETag>&quot;e&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>
<CommonPrefixes><Prefix>d/x%25/</Prefix></CommonPrefixes>
<Contents><Key>d/</Key><Size>0</Size><LastModified>x</LastModified><ETag>"m"</ETag></Contents>
</ListBucketResult>"#;

    // Without it keys with spaces or percent signs would be mangled, or markers shown as files.
    #[test]
    fn keys_come_out_exactly() {
        let entries = entries(parse(PAGE.as_bytes()).unwrap(), "d/").unwrap();
        let ListEntry::Object(meta) = &entries[0] else {
            panic!("{entries:?}")
        };
        assert_eq!(&*meta.key, "d/a b+c d");
        assert_eq!(
            (meta.version.size, meta.version.mtime_ns),
            (3, 1_767_323_045_000_000_000)
        );
        assert_eq!(entries[1..], [ListEntry::Directory("d/x%".into())]);
    }

    // Without it an error page with status 200 would be an empty directory.
    #[test]
    fn other_documents_are_refused() {
        for body in [
            "",
            "<Error><Code>SlowDown</Code></Error>",
            "<html/>",
            "\u{0}",
        ] {
            assert_eq!(
                parse(body.as_bytes()).unwrap_err().kind,
                StoreErrorKind::Corrupt
            );
        }
        assert!(entries(parse(PAGE.as_bytes()).unwrap(), "e/").is_err());
        assert!(parse(&[0xff, 0xfe]).is_err());
        assert!(parse(PAGE.replace("<Size>3", "<Size>-3").as_bytes()).is_err());
    }
}
