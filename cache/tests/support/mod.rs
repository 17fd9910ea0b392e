//! Test doubles of [`Source`]: objects whose every page says what it is, and wrappers that count,
//! stall and fail. A wrapper may forget no method.
//!
//! Page of 4 KiB: object number, version and page number (`u64` LE each), then a word derived from
//! the three, repeated. So any byte range of any object can be made and checked on its own, and a
//! byte of another object, version or place shows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use terrace_cache::store::{StoreError, StoreErrorKind};
use terrace_cache::{ByteStream, DatasetKey, ObjectId, Source, Token, Version};
use tokio::sync::Semaphore;

/// Unit of self-description.
pub(crate) const PAGE: u64 = 4096;
/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Object `number` in `version` with `size` bytes.
pub(crate) fn object(number: u64, version: u64, size: u64) -> ObjectId {
    let etag = format!("\"v{version}\"").into();
    ObjectId {
        store: "test://pages".into(),
        key: format!("object-{number}").into(),
        version: Version {
            token: Token::ETag {
                etag,
                version_id: None,
            },
            size,
            mtime_ns: 0,
        },
    }
}

/// The dataset of all test objects.
pub(crate) fn dataset() -> DatasetKey {
    DatasetKey("test".into())
}

/// Number and version of an object made by [`object`].
pub(crate) fn describe(id: &ObjectId) -> (u64, u64) {
    let number = id.key.strip_prefix("object-").unwrap().parse().unwrap();
    let Token::ETag { etag, .. } = &id.version.token else {
        panic!("not a test object")
    };
    (
        number,
        etag.trim_matches('"')
            .strip_prefix('v')
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// The bytes of `range` of an object.
pub(crate) fn pages(id: &ObjectId, range: Range<u64>) -> Vec<u8> {
    let (number, version) = describe(id);
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
    let mut page = range.start / PAGE;
    while (bytes.len() as u64) < range.end - range.start {
        let whole = page_bytes(number, version, page);
        let base = page * PAGE;
        let from = range.start.saturating_sub(base) as usize;
        let to = (range.end - base).min(PAGE) as usize;
        bytes.extend_from_slice(&whole[from..to]);
        page += 1;
    }
    bytes
}

fn page_bytes(number: u64, version: u64, page: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE as usize);
    for word in [number, version, page] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let word = (number << 40 ^ version << 32 ^ page).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while bytes.len() < PAGE as usize {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Panics unless `bytes` are those of the object from `offset` on.
pub(crate) fn check(id: &ObjectId, offset: u64, bytes: &[u8]) {
    let expected = pages(id, offset..offset + bytes.len() as u64);
    if expected != bytes {
        let at = expected
            .iter()
            .zip(bytes)
            .position(|(a, b)| a != b)
            .unwrap();
        panic!("wrong byte at {} of {id}", offset + at as u64);
    }
}

/// An error of `kind` about `id`.
pub(crate) fn error(kind: StoreErrorKind, id: &ObjectId) -> StoreError {
    let reason = "made by the test".to_owned();
    StoreError {
        kind,
        operation: "read range",
        target: id.to_string(),
        reason,
    }
}

/// Serves test objects in pieces and remembers what it was asked.
#[derive(Debug)]
pub(crate) struct PageSource {
    piece: u64,
    asked: Mutex<Vec<(ObjectId, Range<u64>)>>,
    live: Arc<AtomicUsize>,
}

/// Counts a stream while it lives.
struct Live(Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl PageSource {
    /// A source whose streams come in pieces of `piece` bytes.
    pub(crate) fn new(piece: u64) -> Arc<Self> {
        Arc::new(Self {
            piece,
            asked: Mutex::default(),
            live: Arc::default(),
        })
    }

    /// Ranges asked of one object, in order.
    pub(crate) fn asked(&self, id: &ObjectId) -> Vec<Range<u64>> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(other, _)| other == id)
            .map(|(_, range)| range.clone())
            .collect()
    }

    /// Bytes asked, over all objects.
    pub(crate) fn asked_bytes(&self) -> u64 {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(_, range)| range.end - range.start)
            .sum()
    }

    /// Panics unless each byte of the object was asked exactly once.
    pub(crate) fn assert_asked_once(&self, id: &ObjectId) {
        let mut asked = self.asked(id);
        asked.sort_by_key(|range| range.start);
        let mut at = 0;
        for range in &asked {
            assert_eq!(range.start, at, "asked twice or left out: {asked:?}");
            at = range.end;
        }
        assert_eq!(at, id.size(), "not all was asked: {asked:?}");
    }

    /// Streams that are being read now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(SeqCst)
    }
}

#[async_trait]
impl Source for PageSource {
    async fn read(&self, id: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        assert!(
            range.start < range.end && range.end <= id.size(),
            "{range:?} of {id}"
        );
        self.asked.lock().unwrap().push((id.clone(), range.clone()));
        self.live.fetch_add(1, SeqCst);
        let live = Live(Arc::clone(&self.live));
        let (id, piece) = (id.clone(), self.piece);
        let stream = futures::stream::unfold((range.start, live), move |(at, live)| {
            let end = (at + piece).min(range.end);
            let next =
                (at < range.end).then(|| (Ok(Bytes::from(pages(&id, at..end))), (end, live)));
            std::future::ready(next)
        });
        Ok(stream.boxed())
    }
}

/// Lets pieces of chosen objects through only as fast as the test opens the gate.
#[derive(Debug)]
pub(crate) struct SlowSource<S> {
    inner: Arc<S>,
    gates: Mutex<HashMap<ObjectId, Arc<Semaphore>>>,
}

impl<S> SlowSource<S> {
    /// No gate yet.
    pub(crate) fn new(inner: &Arc<S>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            gates: Mutex::default(),
        })
    }

    /// The gate of an object, closed at first: one permit lets one piece through.
    pub(crate) fn gate(&self, id: &ObjectId) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap();
        let gate = gates
            .entry(id.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(0)));
        Arc::clone(gate)
    }
}

#[async_trait]
impl<S: Source> Source for SlowSource<S> {
    async fn read(&self, id: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let stream = self.inner.read(id, range).await?;
        let Some(gate) = self.gates.lock().unwrap().get(id).map(Arc::clone) else {
            return Ok(stream);
        };
        Ok(
            futures::stream::unfold((stream, gate), |(mut stream, gate)| async move {
                let piece = stream.next().await?;
                gate.acquire().await.unwrap().forget();
                Some((piece, (stream, gate)))
            })
            .boxed(),
        )
    }
}

/// What to do to one ranged read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request fails.
    Refuse(StoreErrorKind),
    /// The stream fails in place of this piece.
    FailAt(u64, StoreErrorKind),
    /// The stream ends before this piece.
    EndAt(u64),
    /// One more byte than asked.
    TooLong,
}

/// Decides over a read by object, range and number of the read (from 1).
type Script = Box<dyn Fn(&ObjectId, &Range<u64>, u64) -> Option<Fault> + Send + Sync>;

/// Does faults to another source.
pub(crate) struct FaultSource<S> {
    inner: Arc<S>,
    script: Script,
    reads: AtomicU64,
    fired: AtomicU64,
    gone: Mutex<HashSet<ObjectId>>,
}

impl<S> std::fmt::Debug for FaultSource<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultSource")
            .field("fired", &self.fired)
            .finish_non_exhaustive()
    }
}

impl<S> FaultSource<S> {
    /// Asks `script` about every read.
    pub(crate) fn new(
        inner: &Arc<S>,
        script: impl Fn(&ObjectId, &Range<u64>, u64) -> Option<Fault> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (script, inner) = (Box::new(script), Arc::clone(inner));
        let (reads, fired) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self {
            inner,
            script,
            reads,
            fired,
            gone: Mutex::default(),
        })
    }

    /// From now on this version is gone from the store.
    pub(crate) fn replace(&self, id: &ObjectId) {
        self.gone.lock().unwrap().insert(id.clone());
    }

    /// Faults done so far: a test of faults asserts that it is not 0.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(SeqCst)
    }
}

#[async_trait]
impl<S: Source> Source for FaultSource<S> {
    async fn read(&self, id: &ObjectId, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let number = self.reads.fetch_add(1, SeqCst) + 1;
        if self.gone.lock().unwrap().contains(id) {
            self.fired.fetch_add(1, SeqCst);
            return Err(error(StoreErrorKind::Changed, id));
        }
        let Some(fault) = (self.script)(id, &range, number) else {
            return self.inner.read(id, range).await;
        };
        self.fired.fetch_add(1, SeqCst);
        let failure = |kind| error(kind, id);
        if let Fault::Refuse(kind) = fault {
            return Err(failure(kind));
        }
        let stream = self.inner.read(id, range).await?;
        Ok(match fault {
            Fault::FailAt(piece, kind) => {
                let failure = failure(kind);
                let end = futures::stream::once(std::future::ready(Err(failure)));
                stream.take(piece as usize).chain(end).boxed()
            }
            Fault::EndAt(piece) => stream.take(piece as usize).boxed(),
            _ => {
                let more = futures::stream::once(std::future::ready(Ok(Bytes::from_static(b"x"))));
                stream.chain(more).boxed()
            }
        })
    }
}

/// A small seeded generator (splitmix64): the same sequence on every machine.
#[derive(Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// Waits until `condition` holds; panics with `what` after ten seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("never came true: {what}");
}
