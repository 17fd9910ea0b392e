//! S3-compatible object stores.
//!
//! `object_store` brings what is hard to get right and easy to reuse: the credential providers
//! (static, web identity, container, instance), the signature and the HTTP client. The requests are
//! built here, because its `Path` cannot express every key (`a//b`, `dir/`) and fails a whole
//! listing page for one of them, and because every answer must be checked against the pin before a
//! byte of it is believed ([`answer`]).
//!
//! Ranged reads over plain HTTP are received by [`wire`], without the copy the general client needs.
//!
//! Requests: `HEAD key`; `GET key` with `Range` and `If-Match`; `GET bucket?list-type=2`; for new
//! objects those of `write.rs`.

mod answer;
mod list;
mod request;
mod wire;
mod write;

use std::ops::Range;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use http::header::{HeaderValue, RANGE};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector as _, HttpError, ReqwestConnector};

use self::wire::{Got, Wire};
use super::backend::{Backend, Body, Pages, watched};
use super::failure::{Failure, chain};
use super::write::{Labels, Upload};
use super::{Credentials, ObjectMeta, StoreConfig, StoreErrorKind, StoreUrl};
use crate::identity::{ObjectId, Version};

/// Region that S3-compatible servers without regions expect in signatures.
const DEFAULT_REGION: &str = "us-east-1";
/// End of the names of buckets that list in no order:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/directory-bucket-naming-rules.html>
const UNORDERED_BUCKET: &str = "--x-s3";
/// Idle connections kept; more are opened when needed.
const IDLE_CONNECTIONS: usize = 64;

/// One bucket. Clones share connections and credentials.
#[derive(Clone, Debug)]
struct S3 {
    url: StoreUrl,
    client: HttpClient,
    credentials: AwsCredentialProvider,
    /// Address of the bucket, without a trailing slash.
    bucket: String,
    region: String,
    unsigned: bool,
    requester_pays: bool,
    stall: Duration,
    /// Receives ranged reads where it can.
    wire: Option<Arc<Wire>>,
}

/// Prepares the client; no request is made yet.
pub(super) fn open(
    url: &StoreUrl,
    config: &StoreConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>, Failure> {
    let options = client_options(config, credentials);
    let mut builder = AmazonS3Builder::new()
        .with_client_options(options.clone())
        .with_bucket_name(url.authority());
    for (name, value) in credentials
        .iter()
        .filter(|(name, _)| name.starts_with("AWS_"))
    {
        let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()) else {
            continue;
        };
        // Times and addresses are ours; a bucket in the environment is not this URL's.
        if !matches!(
            key,
            AmazonS3ConfigKey::Client(_) | AmazonS3ConfigKey::Bucket
        ) {
            builder = builder.with_config(key, value);
        }
    }
    let invalid = |error| Failure::last(StoreErrorKind::Invalid, chain(&error));
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .iter()
        .find_map(|name| credentials.get(name));
    let region = region.unwrap_or(DEFAULT_REGION).to_string();
    let bucket = bucket_address(url, credentials, &region)?;
    Ok(Arc::new(S3 {
        wire: Wire::new(&bucket, config.connect_timeout.0),
        bucket,
        client: ReqwestConnector::default()
            .connect(&options)
            .map_err(invalid)?,
        credentials: Arc::clone(builder.build().map_err(invalid)?.credentials()),
        url: url.clone(),
        region,
        unsigned: credentials.flag("AWS_SKIP_SIGNATURE"),
        requester_pays: credentials.flag("AWS_REQUEST_PAYER"),
        stall: config.stall_timeout.0,
    }))
}

/// Deadlines of whole requests are the caller's: a body may take long when it makes progress.
fn client_options(config: &StoreConfig, credentials: &Credentials) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(config.connect_timeout.0)
        .with_pool_max_idle_per_host(IDLE_CONNECTIONS)
        .with_allow_http(credentials.flag("AWS_ALLOW_HTTP"))
        .with_http1_only()
}

fn bucket_address(
    url: &StoreUrl,
    credentials: &Credentials,
    region: &str,
) -> Result<String, Failure> {
    let bucket = url.authority();
    let virtual_hosted = credentials.flag("AWS_VIRTUAL_HOSTED_STYLE_REQUEST");
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let Some(endpoint) = names.iter().find_map(|name| credentials.get(name)) else {
        // A dot in the bucket's name would not match the certificate of a virtual host.
        return Ok(match bucket.contains('.') {
            true => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            false => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        });
    };
    let endpoint = endpoint.trim_end_matches('/');
    let plain = endpoint.starts_with("http://");
    let invalid = |reason| Err(Failure::last(StoreErrorKind::Invalid, reason));
    if plain && !credentials.flag("AWS_ALLOW_HTTP") {
        return invalid("the endpoint is plain http; set AWS_ALLOW_HTTP=true to use it");
    }
    if !plain && !endpoint.starts_with("https://") {
        return invalid("AWS_ENDPOINT_URL must start with https:// or http://");
    }
    Ok(match virtual_hosted {
        true => endpoint.to_string(),
        false => format!("{endpoint}/{bucket}"),
    })
}

#[async_trait]
impl Backend for S3 {
    async fn head(&self, key: &str) -> Result<ObjectMeta, Failure> {
        let response = self.send(self.request(Method::HEAD, key, None)?).await?;
        if !response.status().is_success() {
            let refusal = answer::refusal(response).await;
            return Err(self.confirmed(key, refusal).await);
        }
        let version = answer::version(response.headers())?;
        Ok(ObjectMeta {
            key: key.into(),
            version,
        })
    }

    fn pages(&self, dir: &str, deep: bool) -> Box<dyn Pages> {
        Box::new(list::S3Pages::new(self.clone(), dir, deep))
    }

    fn pages_after(&self, dir: &str, after: &str) -> Option<Box<dyn Pages>> {
        // The single-zone class lists in no order and does not know `start-after`.
        let ordered = !self.url.authority().ends_with(UNORDERED_BUCKET);
        ordered.then(|| Box::new(list::S3Pages::after(self.clone(), dir, after)) as _)
    }

    async fn open(&self, object: &ObjectId, range: Range<u64>) -> Result<Body, Failure> {
        let request = self.signed(self.range_request(object, &range)?).await?;
        if let Some(wire) = &self.wire {
            match wire.get(&request).await? {
                Got::Answer(answer) if answer.status.is_success() => {
                    answer::check_range(answer.status, &answer.headers, object, &range)?;
                    return Ok(watched(answer.body(range.start), self.stall));
                }
                Got::Answer(answer) => {
                    let refusal = answer::refusal(answer.refusal().await).await;
                    return Err(refusal.failure.pinned());
                }
                Got::Untold(status, headers) => {
                    answer::check_range(status, &headers, object, &range)?;
                }
                Got::Unable => {}
            }
        }
        let response = self.execute(request).await?;
        if let Some(wire) = &self.wire {
            wire.give_up();
        }
        if !response.status().is_success() {
            return Err(answer::refusal(response).await.failure.pinned());
        }
        answer::check_range(response.status(), response.headers(), object, &range)?;
        let body = response
            .into_body()
            .bytes_stream()
            .map_err(|error| no_answer(&error));
        Ok(watched(body.boxed(), self.stall))
    }

    async fn create(&self, key: &str, labels: &Labels) -> Result<Box<dyn Upload>, Failure> {
        Ok(Box::new(write::S3Upload::new(self.clone(), key, labels)?))
    }

    async fn remove(&self, object: &ObjectMeta) -> Result<(), Failure> {
        write::remove(self, &object.key).await
    }

    async fn link(&self, from: &ObjectMeta, to: &str) -> Result<bool, Failure> {
        write::copy(self, from, to).await
    }

    async fn keep(&self, key: &str) -> Result<Option<Version>, Failure> {
        write::kept_version(self, key).await
    }
}

impl S3 {
    /// The answer to a HEAD has no body, so a 404 of something in between - a load balancer whose
    /// backends are gone - looks like a deleted object. A doubtful one is asked again with GET,
    /// whose body tells who answers.
    async fn confirmed(&self, key: &str, refusal: answer::Refusal) -> Failure {
        if refusal.failure.kind != StoreErrorKind::NotFound || !refusal.doubtful {
            return refusal.failure;
        }
        let mut request = match self.request(Method::GET, key, None) {
            Ok(request) => request,
            Err(failure) => return failure,
        };
        request
            .headers_mut()
            .insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        match self.send(request).await {
            Ok(response) if response.status().is_success() => {
                Failure::corrupt("HEAD says not found, GET says found")
            }
            Ok(response) => answer::refusal(response).await.failure,
            Err(failure) => failure,
        }
    }
}

/// A request without an answer, or a body that broke off.
fn no_answer(error: &HttpError) -> Failure {
    Failure::unreachable(chain(error))
}
