//! The one seam between whoever needs bytes and whoever has them.
//!
//! The store implements it, the warm tier implements it by wrapping another source, and tests wrap
//! it to make it fail. The contract of [`Source::read`]: the stream yields exactly the bytes of the
//! asked range of the asked version, in order, or it ends with an error. Never a byte of another
//! version, never a short stream that ends without an error.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::identity::ObjectId;
use crate::store::StoreError;

/// Bytes of one range, in order. Pieces may have any size. Dropping it cancels the request.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Something that can read ranges of immutable objects.
#[async_trait]
pub trait Source: Send + Sync + Debug + 'static {
    /// Streams exactly `range` (non-empty, inside the object) of `object`.
    ///
    /// Errors: [`StoreError`] of kind `Changed` when the pinned version is gone. Has its own
    /// deadline and retries; callers do not retry. Cancelled by dropping.
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError>;
}
