//! Writing: new objects, whole or not at all and durable, and taking them away again.
//!
//! ```text
//! create -> write .. write -> finish    one part: one request; more: numbered parts, then one that joins them
//!                          -> abandon   (or dropped): nothing is ever seen at the key
//! ```
//!
//! Parts have [`PART`] bytes but for the last, are numbered, and are sent again with the same number and
//! the same bytes after a failure, so that no retry can put a byte twice. An existing object at the key
//! is replaced whole: callers that must never replace one write below a directory of their own.
//! WebHDFS takes no files here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::failure::Failure;
use super::stats::Operation;
use super::{ObjectMeta, Store, StoreError, StoreErrorKind};
use crate::identity::Version;

/// Bytes of one part: what a writer holds in memory. S3 allows 10,000 parts, so objects up to 80 GiB.
pub(super) const PART: usize = 8 << 20;

/// What an object says about itself to people and tools: names of lower-case letters, digits and `-`,
/// values of printable ASCII. S3 keeps them as user metadata (`x-amz-meta-*`, 2 KB altogether),
/// directories as extended attributes `user.terrace.*` where their file system has those; HDFS does not.
pub type Labels = BTreeMap<&'static str, String>;

/// The slowest upload that still counts as progress, bytes a second.
const SLOWEST: usize = 128 << 10;

/// An object of one kind of store while it is being written. Dropped unfinished, it is never seen.
#[async_trait]
pub(super) trait Upload: Send + Sync {
    /// Stores the whole object. Not called together with the two below.
    async fn whole(&self, bytes: Bytes) -> Result<(), Failure>;

    /// Stores part `number`, counted from 0. The same one may be stored again.
    async fn part(&self, number: usize, bytes: Bytes) -> Result<(), Failure>;

    /// Makes the parts `0..count` the object, durably.
    async fn join(&self, count: usize) -> Result<(), Failure>;

    /// Removes the parts. An error costs space, nothing else.
    async fn abandon(&self);
}

/// An object that is being written; see the module text.
pub struct NewObject {
    store: Store,
    key: String,
    upload: Box<dyn Upload>,
    buffer: BytesMut,
    parts: usize,
    size: u64,
}

impl std::fmt::Debug for NewObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewObject({}, {} bytes)", self.key, self.size)
    }
}

impl NewObject {
    /// Adds bytes at the end. Dropped, or after an error, only [`NewObject::abandon`] is of use.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            // A full buffer waits for one more byte: the last part is sent by `finish`.
            if self.buffer.len() == PART {
                self.send().await?;
            }
            let room = (PART - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes.split_to(room));
        }
        Ok(())
    }

    /// Makes the object visible; what is at its key then. Durable when it returns.
    pub async fn finish(mut self) -> Result<ObjectMeta, StoreError> {
        if self.parts == 0 {
            let bytes = self.buffer.split().freeze();
            let length = bytes.len();
            let attempt = || self.upload.whole(bytes.clone());
            self.store.write(&self.key, length, attempt).await?;
        } else {
            self.send().await?;
            let attempt = || self.upload.join(self.parts);
            // Joining may take the store a moment for each part.
            let joined = self.store.write(&self.key, self.parts * PART / 8, attempt);
            match joined.await {
                // The answer to an earlier attempt got lost: the object below tells.
                Err(error) if error.is_not_found() => {}
                joined => joined?,
            }
        }
        let found = self.store.head(&self.key).await?;
        if found.version.size != self.size {
            let reason = format!("{} bytes were written", self.size);
            return Err(self.store.error(
                StoreErrorKind::Changed,
                Operation::Write,
                &self.key,
                reason,
            ));
        }
        Ok(found)
    }

    /// Gives up; what was sent is removed.
    pub async fn abandon(self) {
        self.upload.abandon().await;
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let (number, bytes) = (self.parts, self.buffer.split().freeze());
        let attempt = || self.upload.part(number, bytes.clone());
        self.store.write(&self.key, bytes.len(), attempt).await?;
        self.parts += 1;
        Ok(())
    }
}

impl Store {
    /// Begins to write an object at a full key.
    ///
    /// Errors: `Invalid` for stores that take no files and for keys that cannot be written.
    pub async fn create(&self, key: &str) -> Result<NewObject, StoreError> {
        self.create_labelled(key, &Labels::new()).await
    }

    /// As [`Store::create`], of an object that says something about itself.
    pub async fn create_labelled(
        &self,
        key: &str,
        labels: &Labels,
    ) -> Result<NewObject, StoreError> {
        let attempt = || self.backend.create(key, labels);
        let upload = self.write(key, 0, attempt).await?;
        Ok(NewObject {
            store: self.clone(),
            key: key.to_owned(),
            upload,
            buffer: BytesMut::new(),
            parts: 0,
            size: 0,
        })
    }

    /// Removes an object, if this version is there; no error when nothing is. Object stores compare
    /// nothing: whoever removes must own the key.
    pub async fn remove(&self, object: &ObjectMeta) -> Result<(), StoreError> {
        let attempt = || self.backend.remove(object);
        let removed = self.traffic.run(Operation::Remove, attempt).await;
        removed.map_err(|failure| self.failed(Operation::Remove, &object.key, failure))
    }

    /// Lets the bytes of an object of this store be found at another key too, without sending them.
    /// None: this store cannot, or not for this object; read and write it instead.
    pub async fn link(
        &self,
        from: &ObjectMeta,
        to: &str,
    ) -> Result<Option<ObjectMeta>, StoreError> {
        let attempt = || self.backend.link(from, to);
        let length = usize::try_from(from.version.size).unwrap_or(usize::MAX);
        // A store copies inside faster than anybody sends, but it does copy.
        if !self.write(to, length / 16, attempt).await? {
            return Ok(None);
        }
        self.head(to).await.map(Some)
    }

    /// The version that is at a key now, in a form that a later overwrite does not take away. None:
    /// the store keeps no old versions of it.
    pub async fn keep(&self, key: &str) -> Result<Option<Version>, StoreError> {
        let attempt = || self.backend.keep(key);
        let kept = self.traffic.run(Operation::Head, attempt).await;
        kept.map_err(|failure| self.failed(Operation::Head, key, failure))
    }

    /// Runs one request that sends `length` bytes until it is answered or given up.
    async fn write<T, F>(
        &self,
        key: &str,
        length: usize,
        attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let extra = Duration::from_secs((length / SLOWEST) as u64);
        let written = self.traffic.run_for(Operation::Write, extra, attempt).await;
        written.map_err(|failure| self.failed(Operation::Write, key, failure))
    }

    fn failed(&self, operation: Operation, key: &str, failure: Failure) -> StoreError {
        failure.into_error(operation.verb(), self.url.display_key(key))
    }

    fn error(
        &self,
        kind: StoreErrorKind,
        operation: Operation,
        key: &str,
        reason: String,
    ) -> StoreError {
        self.failed(operation, key, Failure::last(kind, reason))
    }
}
