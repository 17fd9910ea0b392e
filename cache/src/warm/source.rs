//! A [`Source`] with the warm tier in front of another one.
//!
//! A read begins in the tier when it can and goes on in the inner source, at the exact offset,
//! whenever the tier has no further block in time. Only the inner source's errors surface.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::copy::Copy;
use super::disk::Fault;
use super::flight::{Block, Flight};
use super::stats::{Cold, add};
use super::tier::{Inner, WarmTier};
use crate::hot::BLOCK;
use crate::identity::ObjectId;
use crate::source::{ByteStream, Source};
use crate::store::StoreError;

/// Blocks per file operation on a finished copy.
const BATCH: u32 = 4;

/// Batches read ahead of the consumer.
const AHEAD: usize = 2;

/// Serves reads from a [`WarmTier`], and from `inner` where the tier has nothing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WarmSource {
    tier: WarmTier,
    inner: Arc<dyn Source>,
}

/// What serves the blocks of one read.
#[derive(Clone, Debug)]
pub(super) enum Supply {
    Copy(Arc<Copy>),
    Flight(Arc<Flight>),
}

impl WarmSource {
    /// Puts `tier` in front of `inner`.
    pub fn new(tier: WarmTier, inner: Arc<dyn Source>) -> Self {
        Self { tier, inner }
    }

    /// The tier, for its counters.
    pub fn tier(&self) -> &WarmTier {
        &self.tier
    }
}

#[async_trait]
impl Source for WarmSource {
    /// See [`Source::read`]. Waits for the tier at most its configured time per block.
    async fn read(&self, object: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let tier = self.tier.inner();
        let begun = Instant::now();
        let supply = tier.supply(object, &self.inner).await;
        tier.disk.counters.waited_since(begun);
        let supply = match supply {
            Ok(supply) => supply,
            Err(why) => {
                tier.disk.counters.cold(why, range.end - range.start);
                return self.inner.read(object, range).await;
            }
        };
        let warm = warm_stream(Arc::clone(tier), supply, object.clone(), range.clone());
        let reading = Reading {
            tier: Arc::clone(tier),
            inner: Arc::clone(&self.inner),
            object: object.clone(),
            offset: range.start,
            end: range.end,
            from: From::Warm(warm),
        };
        Ok(stream::try_unfold(reading, Reading::next).boxed())
    }
}

/// Where the next piece of a read comes from.
enum From {
    Warm(BoxStream<'static, Result<Bytes, Cold>>),
    Cold(ByteStream),
}

/// One read under way.
struct Reading {
    tier: Arc<Inner>,
    inner: Arc<dyn Source>,
    object: ObjectId,
    offset: u64,
    end: u64,
    from: From,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        if let From::Warm(stream) = &mut self.from {
            if self.offset >= self.end {
                return Ok(None);
            }
            let counters = &self.tier.disk.counters;
            let begun = Instant::now();
            let next = stream.next().await;
            counters.waited_since(begun);
            let why = match next {
                Some(Ok(bytes)) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some((bytes, self)));
                }
                Some(Err(why)) => why,
                None => Cold::Failed,
            };
            let rest = self.offset..self.end;
            counters.cold(why, rest.end - rest.start);
            self.from = From::Cold(self.inner.read(&self.object, rest).await?);
        }
        let From::Cold(stream) = &mut self.from else {
            return Ok(None);
        };
        Ok(stream.try_next().await?.map(|bytes| (bytes, self)))
    }
}

/// Verified bytes of `range` from the tier; an error where it has no more.
fn warm_stream(
    tier: Arc<Inner>,
    supply: Supply,
    object: ObjectId,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes, Cold>> {
    let first = (range.start / BLOCK) as u32;
    let last = range.end.div_ceil(BLOCK) as u32;
    let step = match supply {
        Supply::Copy(_) => BATCH,
        Supply::Flight(_) => 1,
    };
    let batches = (first..last).step_by(step as usize);
    let reads = batches.map(move |begin| {
        let (tier, supply, object) = (Arc::clone(&tier), supply.clone(), object.clone());
        let range = range.clone();
        async move {
            let blocks = begin..(begin + step).min(last);
            let offset = u64::from(begin) * BLOCK;
            let bytes = read_blocks(&tier, &supply, &object, blocks).await?;
            let from = range.start.saturating_sub(offset) as usize;
            let to = (range.end - offset).min(bytes.len() as u64) as usize;
            match from < to {
                true => Ok(bytes.slice(from..to)),
                false => Err(Cold::Failed),
            }
        }
    });
    stream::iter(reads).buffered(AHEAD).boxed()
}

async fn read_blocks(
    tier: &Arc<Inner>,
    supply: &Supply,
    object: &ObjectId,
    blocks: Range<u32>,
) -> Result<Bytes, Cold> {
    let copy = match supply {
        Supply::Copy(copy) => Arc::clone(copy),
        Supply::Flight(flight) => {
            match flight
                .block(&tier.disk, blocks.start, tier.config.wait.0)
                .await
            {
                Block::Here(bytes) => return Ok(bytes),
                Block::InCopy(copy) => copy,
                Block::Nowhere(why) => return Err(why),
            }
        }
    };
    match copy.read(&tier.disk, blocks).await {
        Ok(bytes) => {
            add(&tier.disk.counters.hit_bytes, bytes.len() as u64);
            Ok(bytes)
        }
        Err(Fault::Corrupt) => {
            tier.quarantine(object, &copy).await;
            Err(Cold::Failed)
        }
        Err(_) => {
            tier.drop_copy(&object.digest());
            Err(Cold::Failed)
        }
    }
}
