//! New objects in a bucket: one PUT, or the parts of a multipart upload; copies, removal, version ids.
//!
//! Requests: `PUT key`; `POST key?uploads`, `PUT key?partNumber&uploadId`, `POST key?uploadId` (join),
//! `DELETE key?uploadId`; `PUT key` with `x-amz-copy-source`; `DELETE key`. Every body is signed with its
//! SHA-256, so the server refuses what was damaged on the way. A 200 to a join or a copy may still hold
//! an error in its body, which is read.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::request::PATH;
use super::{S3, answer, no_answer, request};
use crate::identity::{Token, Version};
use crate::store::failure::{Failure, chain};
use crate::store::write::{Labels, Upload};
use crate::store::{ObjectMeta, StoreErrorKind};

/// Largest object that one request copies.
const COPY_MAX: u64 = 5 << 30;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

/// The id of an upload, once there is one, and the tags of its parts.
#[derive(Debug, Default)]
struct Parts {
    id: Option<Arc<str>>,
    tags: BTreeMap<usize, String>,
}

/// An object that is being written.
#[derive(Debug)]
pub(super) struct S3Upload {
    s3: S3,
    key: String,
    labels: HeaderMap,
    /// Held across the request that begins the upload: it is begun once.
    parts: Mutex<Parts>,
}

impl S3Upload {
    /// Errors: `Invalid` for labels that are no headers.
    pub(super) fn new(s3: S3, key: &str, labels: &Labels) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in labels {
            let name = HeaderName::from_str(&format!("x-amz-meta-{name}"));
            let value = HeaderValue::from_str(value);
            let (Ok(name), Ok(value)) = (name, value) else {
                let reason = "a label is not printable";
                return Err(Failure::last(StoreErrorKind::Invalid, reason));
            };
            headers.insert(name, value);
        }
        Ok(Self {
            s3,
            key: key.to_owned(),
            labels: headers,
            parts: Mutex::default(),
        })
    }

    async fn id(&self) -> Result<Arc<str>, Failure> {
        let mut parts = self.parts.lock().await;
        if let Some(id) = &parts.id {
            return Ok(Arc::clone(id));
        }
        let mut request = self.s3.request(Method::POST, &self.key, Some("uploads="))?;
        request.headers_mut().extend(self.labels.clone());
        let body = text(accepted(self.s3.send(request).await?).await?).await?;
        let begun: Begun = quick_xml::de::from_str(&body)
            .map_err(|error| Failure::corrupt(format!("no upload id: {}", chain(&error))))?;
        let id: Arc<str> = begun.upload_id.into();
        parts.id = Some(Arc::clone(&id));
        Ok(id)
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn whole(&self, bytes: Bytes) -> Result<(), Failure> {
        let mut request = self.s3.request(Method::PUT, &self.key, None)?;
        request.headers_mut().extend(self.labels.clone());
        let response = self.s3.send(with_body(request, bytes)).await?;
        accepted(response).await.map(drop)
    }

    async fn part(&self, number: usize, bytes: Bytes) -> Result<(), Failure> {
        let id = self.id().await?;
        let query = format!("partNumber={}&uploadId={}", number + 1, request::value(&id));
        let request = self.s3.request(Method::PUT, &self.key, Some(&query))?;
        let response = accepted(self.s3.send(with_body(request, bytes)).await?).await?;
        let tag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok());
        let tag = tag.ok_or_else(|| Failure::corrupt("a part without an ETag"))?;
        self.parts.lock().await.tags.insert(number, tag.to_owned());
        Ok(())
    }

    async fn join(&self, count: usize) -> Result<(), Failure> {
        let id = self.id().await?;
        let mut list = String::from("<CompleteMultipartUpload>");
        {
            let parts = self.parts.lock().await;
            for number in 0..count {
                let missing = || Failure::corrupt("a part is missing");
                let tag = parts.tags.get(&number).ok_or_else(missing)?;
                let tag = quick_xml::escape::escape(tag);
                let number = number + 1;
                list.push_str(&format!(
                    "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
                ));
            }
        }
        list.push_str("</CompleteMultipartUpload>");
        let query = format!("uploadId={}", request::value(&id));
        let request = self.s3.request(Method::POST, &self.key, Some(&query))?;
        let response = self.s3.send(with_body(request, list.into())).await?;
        done(accepted(response).await?, "CompleteMultipartUploadResult").await
    }

    async fn abandon(&self) {
        let Some(id) = self.parts.lock().await.id.clone() else {
            return;
        };
        let query = format!("uploadId={}", request::value(&id));
        let Ok(request) = self.s3.request(Method::DELETE, &self.key, Some(&query)) else {
            return;
        };
        if let Err(failure) = self.s3.send(request).await {
            tracing::debug!(reason = %failure.reason, "parts of an upload stay");
        }
    }
}

/// Removes a key.
pub(super) async fn remove(s3: &S3, key: &str) -> Result<(), Failure> {
    let request = s3.request(Method::DELETE, key, None)?;
    match accepted(s3.send(request).await?).await {
        Err(gone) if gone.kind == StoreErrorKind::NotFound => Ok(()),
        answer => answer.map(drop),
    }
}

/// Copies inside the bucket. False: too large for one request.
pub(super) async fn copy(s3: &S3, from: &ObjectMeta, to: &str) -> Result<bool, Failure> {
    let Token::ETag { etag, version_id } = &from.version.token else {
        return Ok(false);
    };
    if from.version.size > COPY_MAX {
        return Ok(false);
    }
    let bucket = s3.url.authority();
    let mut source = format!("/{bucket}/{}", utf8_percent_encode(&from.key, &PATH));
    if let Some(id) = version_id {
        source.push_str(&format!("?versionId={}", request::value(id)));
    }
    let mut request = s3.request(Method::PUT, to, None)?;
    for (name, value) in [
        ("x-amz-copy-source", source.as_str()),
        ("x-amz-copy-source-if-match", etag),
    ] {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Failure::last(StoreErrorKind::Invalid, "the key is not printable"))?;
        request
            .headers_mut()
            .insert(HeaderName::from_static(name), value);
    }
    let response = accepted(s3.send(request).await?).await;
    done(response.map_err(Failure::pinned)?, "CopyObjectResult").await?;
    Ok(true)
}

/// The version at a key with the id that its bucket gave it; none in a bucket without versions.
pub(super) async fn kept_version(s3: &S3, key: &str) -> Result<Option<Version>, Failure> {
    let response = s3.send(s3.request(Method::HEAD, key, None)?).await?;
    let response = accepted(response).await?;
    let mut version = answer::version(response.headers())?;
    let id = response.headers().get("x-amz-version-id");
    // "null" is an object of a time when the bucket kept no versions: the next overwrite takes it.
    let id = id
        .and_then(|id| id.to_str().ok())
        .filter(|id| *id != "null");
    let (Some(id), Token::ETag { version_id, .. }) = (id, &mut version.token) else {
        return Ok(None);
    };
    *version_id = Some(id.into());
    Ok(Some(version))
}

fn with_body(mut request: HttpRequest, bytes: Bytes) -> HttpRequest {
    *request.body_mut() = HttpRequestBody::from(bytes);
    request
}

async fn accepted(response: HttpResponse) -> Result<HttpResponse, Failure> {
    match response.status().is_success() {
        true => Ok(response),
        false => Err(answer::refusal(response).await.failure),
    }
}

async fn text(response: HttpResponse) -> Result<String, Failure> {
    let bytes = response.into_body().bytes().await;
    let bytes = bytes.map_err(|error| no_answer(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the body of a 200 says that it happened.
async fn done(response: HttpResponse, element: &str) -> Result<(), Failure> {
    let body = text(response).await?;
    if body.contains(element) {
        return Ok(());
    }
    let said: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(Failure::unreachable(format!(
        "the store did not finish it: {said}"
    )))
}
