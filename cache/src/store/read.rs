//! A range of one version as a stream that survives cut connections.
//!
//! Each attempt asks for exactly the bytes that are still missing, pinned to the same version; the
//! backend checks that the answer is what was asked for. A piece is handed out once and counted, so
//! a resumed body can neither repeat nor skip a byte. The last piece is held back until the body
//! has ended: an answer that brings more than was asked for is not trusted at all.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use super::backend::{Backend, Body};
use super::failure::Failure;
use super::stats::Operation;
use super::traffic::{Attempts, Slot, Traffic};
use crate::identity::ObjectId;
use crate::source::ByteStream;
use crate::store::StoreError;

/// The deadline of a read grows by a second per this many bytes.
const SLOWEST: u64 = 128 << 10;
/// Bytes that count as progress: earlier failures are forgiven. One byte per connection is not.
const PROGRESS: u64 = 64 << 10;

struct Reading {
    backend: Arc<dyn Backend>,
    traffic: Arc<Traffic>,
    object: ObjectId,
    /// What has not been handed out yet.
    missing: Range<u64>,
    body: Option<(Body, Slot)>,
    attempts: Attempts,
    fresh: u64,
}

/// Opens the range; returns when the first answer has been checked.
pub(super) async fn read(
    backend: Arc<dyn Backend>,
    traffic: Arc<Traffic>,
    object: ObjectId,
    range: Range<u64>,
) -> Result<ByteStream, StoreError> {
    let extra = Duration::from_secs((range.end - range.start) / SLOWEST);
    let mut reading = Reading {
        attempts: Attempts::new(&traffic, Operation::Read, extra),
        backend,
        traffic,
        object,
        missing: range,
        body: None,
        fresh: 0,
    };
    if let Err(failure) = reading.connect().await {
        return Err(reading.error(failure));
    }
    let pieces = stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
            Ok(None) => None,
            Err(failure) => Some((Err(reading.error(failure)), None)),
        }
    });
    Ok(pieces.boxed())
}

impl Reading {
    fn error(&self, failure: Failure) -> StoreError {
        failure.into_error(Operation::Read.verb(), self.object.to_string())
    }

    /// Has a body that starts at `missing.start`.
    async fn connect(&mut self) -> Result<(), Failure> {
        while self.body.is_none() {
            let slot = self.attempts.slot().await?;
            let limit = self.traffic.config.attempt_timeout.0;
            let open = self.backend.open(&self.object, self.missing.clone());
            match self.attempts.wait(limit, open).await.unwrap_or_else(Err) {
                Ok(body) => self.body = Some((body, slot)),
                Err(failure) => {
                    drop(slot);
                    self.attempts.again(failure.pinned()).await?;
                }
            }
        }
        Ok(())
    }

    /// The next piece; `None` when the range is complete.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.missing.is_empty() {
            self.connect().await?;
            match self.piece().await {
                Ok(piece) => {
                    self.traffic.spend(piece.len()).await;
                    self.count(piece.len() as u64);
                    return Ok(Some(piece));
                }
                Err(failure) => {
                    self.body = None;
                    self.attempts.again(failure.pinned()).await?;
                }
            }
        }
        Ok(None)
    }

    /// One non-empty piece of the current body, checked against what is missing.
    async fn piece(&mut self) -> Result<Bytes, Failure> {
        let left = self.missing.end - self.missing.start;
        let piece = loop {
            match self.pull().await? {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => break piece,
                None => return Err(Failure::corrupt(format!("body ended early missing={left}"))),
            }
        };
        let size = piece.len() as u64;
        if size > left {
            return Err(Failure::corrupt(format!(
                "body too long excess={}",
                size - left
            )));
        }
        if size == left {
            while let Some(rest) = self.pull().await? {
                if !rest.is_empty() {
                    return Err(Failure::corrupt(format!(
                        "body too long excess={}",
                        rest.len()
                    )));
                }
            }
            // The connection is free for others before the reader has taken the piece.
            self.body = None;
        }
        Ok(piece)
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some((body, _)) = self.body.as_mut() else {
            return Ok(None);
        };
        self.attempts
            .wait(Duration::MAX, body.next())
            .await?
            .transpose()
    }

    fn count(&mut self, bytes: u64) {
        self.missing.start += bytes;
        self.fresh += bytes;
        self.traffic.counters.bytes.fetch_add(bytes, Relaxed);
        if self.missing.is_empty() {
            self.traffic.counters.record(Operation::Read, Ok(()));
        }
        if self.fresh >= PROGRESS {
            self.fresh = 0;
            self.attempts.progress();
        }
    }
}
