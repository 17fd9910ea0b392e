//! The first rows of a file, for people: a few pages of each column, and nothing of the rest.
//!
//! ```text
//! footer -> places of the first row group's columns
//!        -> pages, AT_ONCE columns at a time, until they hold the rows      (the store's time)
//!        -> entries -> rows                                                 (a thread for such work)
//! ```
//!
//! Invariant: however large the file and whatever its bytes say, no more than [`BYTES_MAX`] are read and
//! no more than [`COLUMNS_MAX`] columns are shown. A column that is not read is null in every row, and
//! the note says why.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use serde_json::Value;
use tokio::task::JoinError;

use super::assemble::{Node, Stream, tree};
use super::footer::Place;
use super::page::{Header, Leaf, PAGE_MAX, Page, entries};
use super::{Problem, read_meta};
use crate::schema::rows::Rows;
use crate::upstream::{UpFile, Upstream};

/// Most bytes of pages that one call reads.
const BYTES_MAX: u64 = 64 << 20;

/// Bytes of a column that are read at first: most dictionaries and first pages of small files.
const FIRST: u64 = 64 << 10;

/// Most columns that are shown.
const COLUMNS_MAX: usize = 100;

/// Most pages of a column: the dictionary, and data.
const PAGES_MAX: usize = 8;

/// Entries of a repeated column that are expected to make one row.
const ENTRIES_PER_ROW: usize = 64;

/// Columns that are read at the same time.
const AT_ONCE: usize = 8;

/// Reads the first rows. `Damaged` when the file is no complete Parquet file.
pub(in crate::schema) async fn first_rows(
    upstream: &dyn Upstream,
    file: &UpFile,
    limit: usize,
) -> Result<Rows, Problem> {
    let damaged = |reason: &str| Problem::damaged(&file.path, reason);
    let meta = read_meta(upstream, file).await?;
    let schema = super::columns::schema(&meta.elements);
    let found = schema.zip(tree(&meta.elements));
    let (schema, (mut nodes, leaves)) =
        found.ok_or_else(|| damaged("the columns in its footer contradict each other"))?;
    if leaves.len() != meta.places.len() && !meta.places.is_empty() {
        return Err(damaged("its columns are not those of its schema"));
    }
    let whole = nodes.len();
    nodes.truncate(COLUMNS_MAX);
    let shown = nodes.last().map_or(0, |node| node.leaves.end);
    let limit = limit.min(usize::try_from(meta.rows).unwrap_or(0));
    let budget = AtomicU64::new(BYTES_MAX);
    let columns: Vec<(Leaf, Place)> = leaves.into_iter().zip(meta.places).take(shown).collect();
    let mut reads = Vec::with_capacity(columns.len());
    for (leaf, place) in &columns {
        reads.push(pages(upstream, file, leaf, place, limit, &budget));
    }
    let fetched: Vec<Result<Vec<Page>, Unread>> =
        stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut ready = Vec::with_capacity(columns.len());
    for ((leaf, place), found) in columns.into_iter().zip(fetched) {
        match found {
            Err(Unread::Store(error)) => return Err(error),
            Err(Unread::Because(why)) => ready.push((leaf, place, Err(why))),
            Ok(pages) => ready.push((leaf, place, Ok(pages))),
        }
    }
    // Unpacking is work for a processor, which other requests wait for on this thread.
    let decoded = tokio::task::spawn_blocking(move || decode(&nodes, ready, limit)).await;
    let (rows, mut notes) = match decoded.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        // A fault of this program, and not of the file.
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => return Err(damaged("the catalog is ending")),
    };
    if whole > COLUMNS_MAX {
        notes.insert(0, format!("the first {COLUMNS_MAX} of {whole} columns"));
    }
    let mut fields = schema.fields;
    fields.truncate(COLUMNS_MAX);
    Ok(Rows {
        fields,
        rows,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}

/// Why a column has no pages.
enum Unread {
    Store(Problem),
    Because(String),
}

/// The pages of a column that hold its first rows.
async fn pages(
    upstream: &dyn Upstream,
    file: &UpFile,
    leaf: &Leaf,
    place: &Place,
    rows: usize,
    budget: &AtomicU64,
) -> Result<Vec<Page>, Unread> {
    let because = |why: &str| Unread::Because(why.to_owned());
    let wanted = match leaf.repetition {
        0 => rows,
        _ => rows.saturating_mul(ENTRIES_PER_ROW),
    };
    let start = place
        .dictionary
        .filter(|at| *at > 0)
        .map_or(place.data, |at| at.min(place.data));
    let start = u64::try_from(start).ok();
    let end = start.zip(u64::try_from(place.length).ok());
    let end = end.and_then(|(start, length)| start.checked_add(length));
    let (start, end) = start
        .zip(end.filter(|end| *end <= file.size))
        .ok_or_else(|| because("its pages lie outside of the file"))?;
    let mut window = Window {
        upstream,
        file,
        start,
        end,
        have: BytesMut::new(),
        budget,
    };
    let (mut found, mut values) = (Vec::new(), 0);
    while values < wanted && found.len() < PAGES_MAX && window.start < window.end {
        window.fill(FIRST).await?;
        let (header, length) =
            Header::read(&window.have).map_err(|_| because("its page cannot be read"))?;
        let packed = u64::try_from(header.packed)
            .ok()
            .filter(|packed| *packed <= PAGE_MAX);
        let packed = packed.ok_or_else(|| because("its first page is too large to be shown"))?;
        window.take(length as u64).await?;
        let bytes = window.take(packed).await?;
        if matches!(header.kind, 0 | 3) {
            values = values.saturating_add(usize::try_from(header.values).unwrap_or(0));
        }
        found.push(Page { header, bytes });
    }
    Ok(found)
}

/// The part of a column that is read, from its front.
struct Window<'a> {
    upstream: &'a dyn Upstream,
    file: &'a UpFile,
    /// Where `have` begins, and where the column ends.
    start: u64,
    end: u64,
    have: BytesMut,
    budget: &'a AtomicU64,
}

impl Window<'_> {
    /// Has at least `length` bytes, as far as the column has them.
    async fn fill(&mut self, length: u64) -> Result<(), Unread> {
        let from = self.start + self.have.len() as u64;
        let to = (self.start + length).min(self.end);
        if from >= to {
            return Ok(());
        }
        let spent = |left: u64| left.checked_sub(to - from);
        if self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent)
            .is_err()
        {
            let why = format!(
                "it lies behind the first {} MiB of the preview",
                BYTES_MAX >> 20
            );
            return Err(Unread::Because(why));
        }
        let read = self.upstream.read(self.file, from..to).await;
        let read = read.map_err(|error| Unread::Store(error.into()))?;
        self.have.extend_from_slice(&read);
        Ok(())
    }

    async fn take(&mut self, length: u64) -> Result<Bytes, Unread> {
        self.fill(length).await?;
        if length > self.have.len() as u64 {
            return Err(Unread::Because("its page is cut".to_owned()));
        }
        self.start += length;
        Ok(self.have.split_to(length as usize).freeze())
    }
}

type Ready = (Leaf, Place, Result<Vec<Page>, String>);

/// Rows from pages, and notes about columns that are not shown.
fn decode(nodes: &[Node], ready: Vec<Ready>, limit: usize) -> (Vec<Vec<Value>>, Vec<String>) {
    let mut streams = Vec::with_capacity(ready.len());
    let mut failed: Vec<Option<String>> = Vec::with_capacity(ready.len());
    let mut whole = Vec::with_capacity(ready.len());
    for (leaf, place, pages) in ready {
        let found = pages.and_then(|pages| entries(&leaf, place.codec, &pages, limit));
        let (found, why) = match found {
            Ok(found) => (found, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let begun = found.iter().filter(|entry| entry.repetition == 0).count();
        // Of a list whose end was not read, the last row may go on.
        whole.push(match leaf.repetition > 0 && begun < limit && begun > 1 {
            true => begun - 1,
            false => begun,
        });
        streams.push(Stream {
            entries: found,
            at: 0,
        });
        failed.push(why);
    }
    let of = |node: &Node| {
        failed
            .get(node.leaves.clone())
            .unwrap_or_default()
            .iter()
            .flatten()
            .next()
    };
    let readable = |node: &&Node| of(node).is_none() && !node.leaves.is_empty();
    let counts = nodes
        .iter()
        .filter(readable)
        .flat_map(|node| whole.get(node.leaves.clone()).unwrap_or_default());
    let rows = counts.copied().min().unwrap_or(0).min(limit);
    let row = |streams: &mut Vec<Stream>| {
        let each = nodes.iter().map(|node| match of(node) {
            Some(_) => Value::Null,
            None => node.row(streams),
        });
        each.collect::<Vec<Value>>()
    };
    let rows = (0..rows).map(|_| row(&mut streams)).collect();
    let note = |node: &Node| {
        Some(format!(
            "{} is not shown: {}",
            crate::name::shortened(&node.name),
            of(node)?
        ))
    };
    (rows, nodes.iter().filter_map(note).collect())
}
