//! One ranged read of the source, cut into blocks.
//!
//! The pieces of the stream are gathered into block buffers (one copy; none when a piece covers a
//! block), delivered to readers, and written to the hot tier. Writes run beside the stream, so the
//! disk does not hold the network up; how many is bounded by the budget.
//!
//! A part whose owner is gone goes on only while a reader waits for one of its blocks. Writes that
//! began always end, because a block on its way to the disk is one that readers find there.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::budget::Class;
use super::engine::Engine;
use super::error::ReadError;
use super::stats::add;
use crate::source::ByteStream;
use crate::store::{StoreError, StoreErrorKind};

/// Claimed blocks and who wants them. Must be run: dropping it unrun would leave readers waiting.
#[derive(Debug)]
#[must_use = "claimed blocks must be fetched"]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) blocks: Range<u32>,
    pub(super) class: Class,
    /// Cancelled when whoever asked has lost interest; `None` when readers wait for it.
    pub(super) owner: Option<CancellationToken>,
}

/// How a part ended.
#[derive(Debug)]
pub(super) enum Ended {
    Done,
    Cancelled,
    Failed(ReadError),
}

type Writes = FuturesUnordered<BoxFuture<'static, ()>>;

/// Fails what is left of a part when its task is dropped or panics.
struct Rest<'a> {
    engine: &'a Engine,
    number: u64,
    blocks: Range<u32>,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            self.engine
                .fail(self.number, self.blocks.clone(), None, &ReadError::Closed);
        }
    }
}

/// Runs a part to its end. Errors reached the readers already; the answer is for a fill.
pub(super) async fn run(engine: Arc<Engine>, part: Part) -> Ended {
    let counters = &engine.shared.counters;
    add(&counters.parts, 1);
    let mut rest = Rest {
        engine: &engine,
        number: part.number,
        blocks: part.blocks.clone(),
    };
    let mut writes = Writes::new();
    let ended = fetch(&engine, &part, &mut rest, &mut writes).await;
    drop(rest);
    while writes.next().await.is_some() {}
    match &ended {
        Ended::Done => {}
        Ended::Cancelled => add(&counters.parts_cancelled, 1),
        Ended::Failed(_) => add(&counters.parts_failed, 1),
    }
    ended
}

/// Transfers until the end, an error, or until nobody is interested.
async fn fetch(
    engine: &Arc<Engine>,
    part: &Part,
    rest: &mut Rest<'_>,
    writes: &mut Writes,
) -> Ended {
    let owner = part.owner.clone().unwrap_or_default();
    let result = {
        let mut transfer = pin!(transfer(engine, part, rest, writes));
        let mut orphan = false;
        loop {
            tokio::select! {
                biased;
                () = engine.gone.cancelled() => return Ended::Cancelled,
                () = owner.cancelled(), if !orphan => {
                    if engine.abandon(part.number, part.blocks.clone()) {
                        return Ended::Cancelled;
                    }
                    orphan = true;
                }
                result = &mut transfer => break result,
            }
        }
    };
    match result {
        Ok(true) => Ended::Done,
        Ok(false) => Ended::Cancelled,
        Err((at, error)) => {
            let error = ReadError::Store(error);
            engine.fail(part.number, part.blocks.clone(), at, &error);
            Ended::Failed(error)
        }
    }
}

/// Moves the bytes. `false`: given up at a block border because nobody waits. An error comes with
/// the block it hit, or none when the request itself failed.
async fn transfer(
    engine: &Arc<Engine>,
    part: &Part,
    rest: &mut Rest<'_>,
    writes: &mut Writes,
) -> Result<bool, (Option<u32>, StoreError)> {
    let bytes = engine.bytes_of(&part.blocks);
    let stream = engine
        .source
        .read(&engine.id, bytes)
        .await
        .map_err(|error| (None, error))?;
    let mut pieces = Pieces {
        stream,
        left: Bytes::new(),
    };
    for block in part.blocks.clone() {
        let unwanted = part
            .owner
            .as_ref()
            .is_some_and(CancellationToken::is_cancelled);
        if unwanted && engine.abandon(part.number, block..part.blocks.end) {
            return Ok(false);
        }
        let range = engine.bytes_of(&(block..block + 1));
        let length = range.end - range.start;
        let arrival = async {
            // Room only for what begins to arrive: a store that stalls between blocks holds none.
            pieces.begin(engine).await?;
            let room = engine.shared.budget.room(part.class, length).await;
            pieces
                .gather(engine, length as usize)
                .await
                .map(|data| (room, data))
        };
        let (room, data) = beside(writes, arrival)
            .await
            .map_err(|error| (Some(block), error))?;
        add(&engine.shared.counters.fetched, length);
        rest.blocks.start = block + 1;
        if let Some((hot, hint)) = engine.deliver(part.number, block, &data) {
            let engine = Arc::clone(engine);
            writes.push(Box::pin(async move {
                let result = hot.write_with(block, data, hint).await;
                engine.settle(block, result);
                drop(room);
            }));
        }
    }
    let last = part.blocks.end - 1;
    beside(writes, pieces.end(engine))
        .await
        .map_err(|error| (Some(last), error))?;
    Ok(true)
}

/// Drives the writes while `work` is under way. Work that waits for room gets it from them.
async fn beside<F: Future>(writes: &mut Writes, work: F) -> F::Output {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(()) = writes.next(), if !writes.is_empty() => {}
        }
    }
}

/// A stream of pieces of any size, read by the block.
struct Pieces {
    stream: ByteStream,
    /// What the last piece had beyond the last block.
    left: Bytes,
}

impl Pieces {
    /// Waits until there is at least one byte.
    async fn begin(&mut self, engine: &Engine) -> Result<(), StoreError> {
        if self.left.is_empty() {
            self.left = self.next(engine).await?;
        }
        Ok(())
    }

    /// The next `length` bytes, in one buffer.
    async fn gather(&mut self, engine: &Engine, length: usize) -> Result<Bytes, StoreError> {
        if self.left.len() >= length {
            return Ok(self.left.split_to(length));
        }
        let mut buffer = engine.shared.pool.take(length);
        loop {
            let piece = self
                .left
                .split_to(self.left.len().min(length - buffer.len()));
            buffer.extend_from_slice(&piece);
            if buffer.len() == length {
                return Ok(engine.shared.pool.freeze(buffer));
            }
            self.left = self.next(engine).await?;
        }
    }

    async fn next(&mut self, engine: &Engine) -> Result<Bytes, StoreError> {
        loop {
            match self.stream.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => return Ok(piece),
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(broken(
                        engine,
                        "the stream ended before the asked range did",
                    ));
                }
            }
        }
    }

    /// Reads the end of the stream, where a source tells that its last check failed.
    async fn end(&mut self, engine: &Engine) -> Result<(), StoreError> {
        let too_long = || {
            Err(broken(
                engine,
                "the stream has more bytes than were asked for",
            ))
        };
        if !self.left.is_empty() {
            return too_long();
        }
        while let Some(piece) = self.stream.next().await {
            if !piece?.is_empty() {
                return too_long();
            }
        }
        Ok(())
    }
}

fn broken(engine: &Engine, reason: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "read range",
        target: engine.id.to_string(),
        reason: reason.to_owned(),
    }
}
