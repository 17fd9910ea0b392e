//! A place of the catalog's own in a store: `terrace_catalog::vault::Vault` over `terrace_cache::store`.
//!
//! Reading is [`StoreUpstream`]; this file adds what writes. Bytes stream through one part's buffer,
//! whatever the size of a file.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use terrace_cache::store::{Credentials, Scheme, Store, StoreConfig, StoreUrl};
use terrace_catalog::upstream::{Listed, UpFile, Upstream, UpstreamError};
use terrace_catalog::vault::{Content, Vault};

use super::upstream::{StoreUpstream, error};

/// See the module text. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StoreVault(StoreUpstream);

impl StoreVault {
    /// Opens a place; a directory is made when it is not there. The error is one line for people.
    pub(crate) async fn open(url: &str, credentials: &Credentials) -> Result<Self, String> {
        let url: StoreUrl = url.parse().map_err(|error| format!("{error}"))?;
        match url.scheme() {
            Scheme::S3 => {}
            Scheme::File => {
                let path = format!("/{}", url.prefix());
                tokio::fs::create_dir_all(&path)
                    .await
                    .map_err(|error| format!("make {path}: {error}"))?;
            }
            Scheme::Hdfs | Scheme::WebHdfs { .. } => {
                return Err(format!("{url} takes no files; use s3:// or file:///"));
            }
        }
        let store = Store::open(&url, &StoreConfig::default(), credentials).await;
        let store = store.map_err(|error| format!("open {url}: {error}"))?;
        Ok(Self(StoreUpstream::new(store)))
    }
}

#[async_trait]
impl Upstream for StoreVault {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<Listed, UpstreamError>> {
        self.0.list(directory)
    }

    fn walk(&self, directory: &str) -> BoxStream<'static, Result<UpFile, UpstreamError>> {
        self.0.walk(directory)
    }

    async fn head(&self, path: &str) -> Result<UpFile, UpstreamError> {
        self.0.head(path).await
    }

    async fn read(&self, file: &UpFile, range: Range<u64>) -> Result<Bytes, UpstreamError> {
        self.0.read(file, range).await
    }

    async fn keep(&self, file: &UpFile) -> Result<Option<UpFile>, UpstreamError> {
        self.0.keep(file).await
    }
}

#[async_trait]
impl Vault for StoreVault {
    async fn put(&self, path: &str, mut content: Content<'_>) -> Result<UpFile, UpstreamError> {
        let mut new = self
            .0
            .store()
            .create(&self.0.key(path))
            .await
            .map_err(error)?;
        loop {
            let piece = match content.try_next().await {
                Ok(Some(piece)) => new.write(piece).await.map_err(error),
                Ok(None) => break,
                Err(failed) => Err(failed),
            };
            if let Err(failed) = piece {
                new.abandon().await;
                return Err(failed);
            }
        }
        let meta = new.finish().await.map_err(error)?;
        self.0.found(&meta)
    }

    async fn link(&self, from: &UpFile, to: &str) -> Result<Option<UpFile>, UpstreamError> {
        let from = self.0.meta(from)?;
        let linked = self.0.store().link(&from, &self.0.key(to)).await;
        let linked = linked.map_err(error)?;
        linked.map(|meta| self.0.found(&meta)).transpose()
    }

    async fn remove(&self, file: &UpFile) -> Result<(), UpstreamError> {
        let meta = self.0.meta(file)?;
        self.0.store().remove(&meta).await.map_err(error)
    }
}
