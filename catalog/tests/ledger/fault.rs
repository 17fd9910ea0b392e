//! A crash at a chosen step: a key-value store and a store of blobs that share one count of calls.
//!
//! From the chosen call on nothing answers any more, as for a process that is killed there. The call
//! itself is either not done, or done and not answered. Whoever looks afterwards opens the stores
//! underneath.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, once};
use futures::{FutureExt, StreamExt};
use terrace_catalog::blobs::{BlobError, BlobId, BlobName, Blobs, Listed};
use terrace_catalog::kv::{
    DumpPage, KeyRange, Kv, KvError, Limits, Txn, TxnOutcome, Versioned, Watch,
};

/// When the crash is, and whether the call at that moment still happens.
#[derive(Debug)]
pub(crate) struct Crash {
    at: u64,
    done: bool,
    calls: AtomicU64,
}

/// What becomes of a call.
enum Fate {
    Lives,
    /// Happens, and its answer is lost.
    Lost,
    Dead,
}

impl Crash {
    pub(crate) fn new(at: u64, done: bool) -> Arc<Self> {
        let calls = AtomicU64::new(0);
        Arc::new(Self { at, done, calls })
    }

    /// Whether the crash has come.
    pub(crate) fn came(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.at
    }

    fn next(&self) -> Fate {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match call.cmp(&self.at) {
            std::cmp::Ordering::Less => Fate::Lives,
            std::cmp::Ordering::Equal if self.done => Fate::Lost,
            _ => Fate::Dead,
        }
    }
}

#[derive(Debug)]
pub(crate) struct FaultKv {
    pub(crate) inner: Arc<dyn Kv>,
    pub(crate) crash: Arc<Crash>,
}

impl FaultKv {
    async fn run<T>(&self, call: impl Future<Output = Result<T, KvError>>) -> Result<T, KvError> {
        let dead = || KvError::Unavailable("crashed".into());
        match self.crash.next() {
            Fate::Lives => call.await,
            Fate::Dead => Err(dead()),
            Fate::Lost => {
                call.await?;
                Err(dead())
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Kv for FaultKv {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        self.run(self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, KvError> {
        self.run(self.inner.get_many(keys)).await
    }

    async fn scan(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, KvError> {
        self.run(self.inner.scan(range, limit)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, KvError> {
        self.run(self.inner.txn(txn)).await
    }

    async fn watch(&self, key: &[u8]) -> Result<Watch, KvError> {
        self.run(self.inner.watch(key)).await
    }

    fn dump(&self) -> BoxStream<'static, Result<DumpPage, KvError>> {
        self.inner.dump()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[derive(Debug)]
pub(crate) struct FaultBlobs {
    pub(crate) inner: Arc<dyn Blobs>,
    pub(crate) crash: Arc<Crash>,
}

fn dead() -> BlobError {
    BlobError::Unavailable {
        operation: "reach",
        name: "the store".into(),
        reason: "crashed".into(),
    }
}

impl FaultBlobs {
    async fn run<T>(
        &self,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        match self.crash.next() {
            Fate::Lives => call.await,
            Fate::Dead => Err(dead()),
            Fate::Lost => {
                call.await?;
                Err(dead())
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Blobs for FaultBlobs {
    async fn put(&self, bytes: Bytes) -> Result<BlobId, BlobError> {
        self.run(self.inner.put(bytes)).await
    }

    async fn get(&self, id: &BlobId) -> Result<Bytes, BlobError> {
        self.run(self.inner.get(id)).await
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        self.run(self.inner.delete(id)).await
    }

    async fn collect(&self, id: &BlobId, grace: std::time::Duration) -> Result<bool, BlobError> {
        self.run(self.inner.collect(id, grace)).await
    }

    fn list(&self) -> BoxStream<'static, Result<Listed, BlobError>> {
        match self.crash.next() {
            Fate::Lives => self.inner.list(),
            _ => once(async { Err(dead()) }.boxed()).boxed(),
        }
    }

    async fn put_named(&self, name: &BlobName, bytes: Bytes) -> Result<(), BlobError> {
        self.run(self.inner.put_named(name, bytes)).await
    }

    async fn get_named(&self, name: &BlobName) -> Result<Bytes, BlobError> {
        self.run(self.inner.get_named(name)).await
    }

    async fn delete_named(&self, name: &BlobName) -> Result<(), BlobError> {
        self.run(self.inner.delete_named(name)).await
    }

    fn list_named(&self, prefix: &str) -> BoxStream<'static, Result<BlobName, BlobError>> {
        match self.crash.next() {
            Fate::Lives => self.inner.list_named(prefix),
            _ => once(async { Err(dead()) }.boxed()).boxed(),
        }
    }
}
