//! What every kind of store does in its own way: one attempt of each operation.
//!
//! A backend has no deadlines, no retries and no limits of its own; the store around it has. What
//! it does have is the pin: a body it yields belongs to the asked version, or ends with a failure
//! before the byte that does not.

use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, timeout};

use super::failure::Failure;
use super::write::{Labels, Upload};
use super::{ListEntry, ObjectMeta, StoreErrorKind};
use crate::identity::{ObjectId, Version};

/// Bytes a body has to bring within one stall timeout.
const PROGRESS: usize = 64 << 10;

/// Bytes of one attempt, in order from the asked offset; ends after the asked range or early, which
/// the reader notices.
pub(super) type Body = BoxStream<'static, Result<Bytes, Failure>>;

/// One kind of store.
#[async_trait]
pub(super) trait Backend: Send + Sync + Debug {
    /// Metadata of the object at exactly `key`; `NotFound` for a directory.
    async fn head(&self, key: &str) -> Result<ObjectMeta, Failure>;

    /// Opens a listing of `dir` (empty: the whole store): one level. `deep`: for a walk, which lists
    /// the directories it is given in turn; a store that can brings everything below and no
    /// directories, and directories that may lead back up (links) are left out.
    fn pages(&self, dir: &str, deep: bool) -> Box<dyn Pages>;

    /// Opens a listing of one level of `dir` that begins after the full key `after`; an empty one is
    /// no sign that `dir` does not exist. `None`: this store cannot begin in the middle.
    fn pages_after(&self, _dir: &str, _after: &str) -> Option<Box<dyn Pages>> {
        None
    }

    /// Opens the bytes of `range` of exactly this version. The body stalls by itself after the
    /// stall timeout (see [`watched`]).
    async fn open(&self, object: &ObjectId, range: Range<u64>) -> Result<Body, Failure>;

    /// Begins an object at exactly `key`. Stores that take no files keep this.
    async fn create(&self, _key: &str, _labels: &Labels) -> Result<Box<dyn Upload>, Failure> {
        Err(unwritable())
    }

    /// Removes what is at the object's key; directories only if it is that version.
    async fn remove(&self, _object: &ObjectMeta) -> Result<(), Failure> {
        Err(unwritable())
    }

    /// Puts the same bytes at another key without sending them. False: not possible here.
    async fn link(&self, _from: &ObjectMeta, _to: &str) -> Result<bool, Failure> {
        Ok(false)
    }

    /// The version at `key` as it can be read after an overwrite; none where nothing is kept.
    async fn keep(&self, _key: &str) -> Result<Option<Version>, Failure> {
        Ok(None)
    }
}

fn unwritable() -> Failure {
    let reason = "this kind of store takes no files; use s3://, hdfs:// or file://";
    Failure::last(StoreErrorKind::Invalid, reason)
}

/// Some entries of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<ListEntry>,
    /// Names left out because they are no text.
    pub(super) hidden: u64,
}

/// A listing, page by page.
#[async_trait]
pub(super) trait Pages: Send {
    /// The next page, `None` after the last. After a failure the next call repeats that page.
    /// Cancelling a call loses nothing.
    async fn next(&mut self) -> Result<Option<Page>, Failure>;

    /// Whether the last page is known to have been the last one.
    fn ended(&self) -> bool {
        false
    }
}

/// Cuts a body that brings less than [`PROGRESS`] bytes in `stall`. Only time spent waiting for the
/// store counts, not time the reader takes between two pieces.
pub(super) fn watched(body: Body, stall: Duration) -> Body {
    stream::unfold(
        Some((body, Duration::ZERO, 0_usize)),
        move |state| async move {
            let (mut body, waited, brought) = state?;
            let start = Instant::now();
            match timeout(stall.saturating_sub(waited), body.next()).await {
                Ok(Some(Ok(piece))) => {
                    let brought = brought + piece.len();
                    let waited = waited + start.elapsed();
                    let state = match brought >= PROGRESS {
                        true => (body, Duration::ZERO, 0),
                        false => (body, waited, brought),
                    };
                    Some((Ok(piece), Some(state)))
                }
                Ok(Some(Err(failure))) => Some((Err(failure), None)),
                Ok(None) => None,
                Err(_) => {
                    let reason = format!("the body stalled for {} ms", stall.as_millis());
                    Some((Err(Failure::unreachable(reason)), None))
                }
            }
        },
    )
    .boxed()
}
