//! Connections to issuers of tokens and to Kubernetes, for `access::identity`: HTTPS with limits, no
//! redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, header, redirect};
use terrace_catalog::access::identity::{Web, WebAnswer, WebOpener};

use crate::control::client::root_cause;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a whole answer may take; whoever asks may give up earlier.
const ANSWER: Duration = Duration::from_secs(15);

/// Makes a client trust the certificates in a PEM file, and no others.
pub(crate) fn trusting(builder: ClientBuilder, ca_file: &Path) -> Result<ClientBuilder> {
    let what = || format!("use the certificates in {}", ca_file.display());
    let pem = std::fs::read(ca_file).with_context(what)?;
    let certificates = Certificate::from_pem_bundle(&pem).with_context(what)?;
    anyhow::ensure!(!certificates.is_empty(), "{}: there are none", what());
    Ok(builder.tls_certs_only(certificates))
}

/// Opens [`HttpsWeb`]s.
#[derive(Debug)]
pub(crate) struct HttpsOpener;

impl WebOpener for HttpsOpener {
    fn open(&self, ca_file: Option<&Path>) -> Result<Arc<dyn Web>, String> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(redirect::Policy::none());
        if let Some(file) = ca_file {
            builder = trusting(builder, file).map_err(|error| format!("{error:#}"))?;
        }
        let client = builder.build().map_err(|error| root_cause(&error))?;
        Ok(Arc::new(HttpsWeb(client)))
    }
}

#[derive(Debug)]
struct HttpsWeb(Client);

#[async_trait]
impl Web for HttpsWeb {
    async fn get(&self, url: &str, limit: usize) -> Result<WebAnswer, String> {
        answer(self.0.get(url), limit).await
    }

    async fn post(
        &self,
        url: &str,
        bearer: &str,
        body: Bytes,
        limit: usize,
    ) -> Result<WebAnswer, String> {
        let token = header::HeaderValue::from_str(&format!("Bearer {bearer}"));
        let mut token = token.map_err(|_| "its token has characters no token has".to_owned())?;
        token.set_sensitive(true);
        let request = self.0.post(url).header(header::AUTHORIZATION, token);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        answer(request.body(body), limit).await
    }
}

async fn answer(request: RequestBuilder, limit: usize) -> Result<WebAnswer, String> {
    let failed = |error: reqwest::Error| root_cause(&error.without_url());
    let request = request.header(header::ACCEPT, "application/json");
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > limit {
            return Err(format!("its answer is longer than {limit} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(WebAnswer {
        status,
        body: body.freeze(),
    })
}
