//! Blobs in memory: for tests of what is stored, not of how.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, iter};
use terrace_catalog::blobs::{BlobError, BlobId, BlobName, Blobs, Listed};

/// Everything that was put, in order of its name.
#[derive(Debug, Default)]
pub(crate) struct MemoryBlobs {
    pub(crate) blobs: Mutex<BTreeMap<BlobId, Bytes>>,
    pub(crate) named: Mutex<BTreeMap<BlobName, Bytes>>,
}

impl MemoryBlobs {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::default()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Blobs for MemoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<BlobId, BlobError> {
        let id = BlobId::of(&bytes);
        self.blobs.lock().unwrap().insert(id, bytes);
        Ok(id)
    }

    async fn get(&self, id: &BlobId) -> Result<Bytes, BlobError> {
        let found = self.blobs.lock().unwrap().get(id).cloned();
        found.ok_or_else(|| BlobError::NotFound(id.to_string()))
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        self.blobs.lock().unwrap().remove(id);
        Ok(())
    }

    async fn collect(&self, id: &BlobId, grace: Duration) -> Result<bool, BlobError> {
        // Everything here is new.
        Ok(grace.is_zero() && self.blobs.lock().unwrap().remove(id).is_some())
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, BlobError>> {
        let blobs = self.blobs.lock().unwrap();
        let listed = blobs.iter().map(|(id, bytes)| {
            let size = bytes.len() as u64;
            let age = Duration::ZERO;
            Ok(Listed { id: *id, size, age })
        });
        iter(listed.collect::<Vec<_>>()).boxed()
    }

    async fn put_named(&self, name: &BlobName, bytes: Bytes) -> Result<(), BlobError> {
        self.named.lock().unwrap().insert(name.clone(), bytes);
        Ok(())
    }

    async fn get_named(&self, name: &BlobName) -> Result<Bytes, BlobError> {
        let found = self.named.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| BlobError::NotFound(name.to_string()))
    }

    async fn delete_named(&self, name: &BlobName) -> Result<(), BlobError> {
        self.named.lock().unwrap().remove(name);
        Ok(())
    }

    fn list_named(&self, prefix: &str) -> BoxStream<'static, Result<BlobName, BlobError>> {
        let prefix = prefix.to_owned();
        let named = self.named.lock().unwrap();
        let found = named
            .keys()
            .filter(|name| name.as_str().starts_with(&prefix));
        iter(found.cloned().map(Ok).collect::<Vec<_>>()).boxed()
    }
}
