//! What a live mount asks of a store: three questions and three facts about its manners.

use std::fmt::Debug;

use async_trait::async_trait;
use futures::stream::BoxStream;
use terrace_cache::ObjectId;
use terrace_cache::store::{ListEntry, ObjectMeta, Scheme, Store, StoreError, Stretch};

/// The metadata side of a store. Implemented by [`Store`]; tests implement it to be slow, wrong or
/// away.
#[async_trait]
pub trait Lister: Send + Sync + Debug + 'static {
    /// See [`Store::head`].
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError>;

    /// See [`Store::list`].
    fn list(&self, directory: &str) -> BoxStream<'static, Result<ListEntry, StoreError>>;

    /// See [`Store::list_after`]. `None` unless a store can do it.
    async fn list_after(
        &self,
        _directory: &str,
        _after: &str,
    ) -> Result<Option<Stretch>, StoreError> {
        Ok(None)
    }

    /// See [`Store::object`].
    fn object(&self, meta: &ObjectMeta) -> ObjectId;

    /// Directories are things of their own, so a path is either an object or a directory, and one
    /// question at a time is enough. False where they are only prefixes of keys.
    fn hierarchical(&self) -> bool;

    /// Listings come in the order of names or keys, up to the order within one page. Then a mount
    /// may hand out a listing while it comes in; else it has to be complete first.
    fn ordered(&self) -> bool;
}

#[async_trait]
impl Lister for Store {
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        Self::head(self, key).await
    }

    fn list(&self, directory: &str) -> BoxStream<'static, Result<ListEntry, StoreError>> {
        Self::list(self, directory)
    }

    async fn list_after(
        &self,
        directory: &str,
        after: &str,
    ) -> Result<Option<Stretch>, StoreError> {
        Self::list_after(self, directory, after).await
    }

    fn object(&self, meta: &ObjectMeta) -> ObjectId {
        Self::object(self, meta)
    }

    fn hierarchical(&self) -> bool {
        self.url().scheme() != Scheme::S3
    }

    fn ordered(&self) -> bool {
        match self.url().scheme() {
            // Buckets of the single-zone class list in no order; their names end like this:
            // https://docs.aws.amazon.com/AmazonS3/latest/userguide/directory-bucket-naming-rules.html
            Scheme::S3 => !self.url().authority().ends_with("--x-s3"),
            Scheme::Hdfs | Scheme::WebHdfs { .. } => true,
            Scheme::File => false,
        }
    }
}
