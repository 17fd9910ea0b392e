//! Scrub: complete objects are read again now and then, the longest unverified first.
//!
//! Reads bypass the page cache (`O_DIRECT` where it works), since what is to be proven is the
//! disk, and the readers' pages are not to be pushed out. A bad block is quarantined as by a
//! reader. The rate is kept over seconds, also within a large object; a disk that is not healthy is
//! left alone.

use std::collections::{BinaryHeap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Instant;

use super::BLOCK;
use super::blocks::BlockTable;
use super::error::HotError;
use super::record::{Record, Stage};
use super::shared::Shared;
use super::stats::add;
use super::sys::now_seconds;
use crate::identity::Digest;

/// Objects chosen by one pass over the table.
const BATCH: usize = 512;

/// Entries looked at while the catalogue is locked.
const SLICE: usize = 1 << 16;

/// Blocks read by one job of the pool.
const BLOCKS_PER_JOB: u32 = 8;

/// Alignment that `O_DIRECT` asks for on every file system in use.
const ALIGN: usize = 4096;

/// What a scrub has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Objects read to their end.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Objects with a bad block, a missing file or a missing description; they are forgotten.
    pub bad: u64,
}

/// The background scrub: its queue and its allowance.
pub(super) struct Scrub {
    queue: VecDeque<Digest>,
    current: Option<Subject>,
    at: Instant,
    /// Bytes that may be read now; below zero while the last step is paid off.
    allowance: i64,
}

/// One object on its way through the scrub.
struct Subject {
    digest: Digest,
    record: Record,
    table: BlockTable,
    file: File,
    next: u32,
    bad: bool,
}

/// What was found under a digest.
enum Opened {
    /// Nothing to scrub (any more).
    Nothing,
    /// File or description are missing or wrong; the object was forgotten.
    Damaged,
    Ready(Box<Subject>),
}

impl Scrub {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            current: None,
            at: Instant::now(),
            allowance: 0,
        }
    }

    /// Reads as much as the rate allows since the last call.
    pub(super) fn tick(&mut self, shared: &Arc<Shared>) {
        let rate = i64::try_from(shared.config.scrub_bytes_per_second).unwrap_or(i64::MAX);
        let elapsed = std::mem::replace(&mut self.at, Instant::now()).elapsed();
        let earned = (rate as f64 * elapsed.as_secs_f64()) as i64;
        // What was not used does not add up to a burst.
        self.allowance = self.allowance.saturating_add(earned).min(rate);
        if rate == 0 {
            return;
        }
        if self.current.is_none() && self.queue.is_empty() {
            let age = shared
                .config
                .scrub_min_age
                .as_secs()
                .min(u64::from(u32::MAX));
            self.queue = shared.oldest_verified(now_seconds().saturating_sub(age as u32));
        }
        while self.allowance > 0 {
            let Some(bytes) = self.step(shared) else {
                return;
            };
            // Objects cost something even if they are empty.
            self.allowance -= bytes.max(4096) as i64;
        }
    }

    /// One step of the current object, or of the next one; `None` when there is none.
    fn step(&mut self, shared: &Arc<Shared>) -> Option<u64> {
        let subject = match self.current.take() {
            Some(subject) => subject,
            None => match shared.scrub_begin(&self.queue.pop_front()?) {
                Ok(Opened::Ready(subject)) => *subject,
                _ => return Some(0),
            },
        };
        match shared.scrub_next(subject) {
            Ok((subject, bytes)) => {
                self.current = (!subject.is_done()).then_some(subject);
                Some(bytes)
            }
            Err(_) => Some(0),
        }
    }
}

impl Subject {
    fn is_done(&self) -> bool {
        self.bad || self.next >= self.table.count()
    }
}

impl Shared {
    /// Complete objects last verified before `limit`, oldest first.
    pub(super) fn oldest_verified(&self, limit: u32) -> VecDeque<Digest> {
        let mut oldest: BinaryHeap<(u32, Digest)> = BinaryHeap::new();
        let mut from = 0;
        loop {
            // Entries move when others are removed; one that is passed over has its turn later.
            let catalogue = self.catalogue();
            let entries = catalogue.table.entries();
            let slice = entries
                .get(from..entries.len().min(from + SLICE))
                .unwrap_or_default();
            if slice.is_empty() {
                break;
            }
            from += slice.len();
            for entry in slice
                .iter()
                .filter(|entry| entry.complete && entry.verified_at <= limit)
            {
                oldest.push((entry.verified_at, entry.digest));
                if oldest.len() > BATCH {
                    oldest.pop();
                }
            }
        }
        oldest
            .into_sorted_vec()
            .into_iter()
            .map(|(_, digest)| digest)
            .collect()
    }

    /// Reads one complete object and checks every block. What is bad is forgotten.
    pub(super) fn scrub_object(self: &Arc<Self>, digest: &Digest) -> Result<ScrubReport, HotError> {
        let mut report = ScrubReport::default();
        let mut subject = match self.scrub_begin(digest)? {
            Opened::Ready(subject) => *subject,
            Opened::Nothing => return Ok(report),
            Opened::Damaged => {
                report.bad = 1;
                return Ok(report);
            }
        };
        loop {
            let (after, bytes) = self.scrub_next(subject)?;
            report.bytes += bytes;
            if after.is_done() {
                report.bad = u64::from(after.bad);
                report.objects = u64::from(!after.bad);
                return Ok(report);
            }
            subject = after;
        }
    }

    fn scrub_begin(self: &Arc<Self>, digest: &Digest) -> Result<Opened, HotError> {
        let digest = *digest;
        self.run("open for scrub", move |shared| shared.scrub_open(&digest))
    }

    /// Checks the next blocks, and records the verification after the last one.
    fn scrub_next(self: &Arc<Self>, subject: Subject) -> Result<(Subject, u64), HotError> {
        let (subject, bytes) = self.run("scrub block", move |shared| shared.scrub_step(subject))?;
        add(&self.counters.scrubbed_bytes, bytes);
        if subject.is_done()
            && !subject.bad
            && let Some(entry) = self.catalogue().table.get_mut(&subject.digest)
        {
            entry.verified_at = now_seconds();
            entry.dirty = true;
        }
        Ok((subject, bytes))
    }

    fn scrub_open(&self, digest: &Digest) -> Result<Opened, HotError> {
        let Some(record) = self
            .index
            .get(digest)?
            .filter(|record| record.stage == Stage::Complete)
        else {
            return Ok(Opened::Nothing);
        };
        match self.scrub_parts(digest, &record) {
            Ok((table, file)) => Ok(Opened::Ready(Box::new(Subject {
                digest: *digest,
                record,
                table,
                file,
                next: 0,
                bad: false,
            }))),
            Err(error) if error.kind == super::HotErrorKind::Corrupt => {
                if !self.is_still(digest, record.incarnation) {
                    return Ok(Opened::Nothing);
                }
                tracing::error!(%error, "scrub found a damaged object");
                self.drop_damaged(digest, record.incarnation);
                Ok(Opened::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    fn scrub_parts(
        &self,
        digest: &Digest,
        record: &Record,
    ) -> Result<(BlockTable, File), HotError> {
        let table = match &record.table {
            Some(table) => table.clone(),
            None => self.read_sidecar(digest, record)?,
        };
        let path = self.directory.data(digest, record.incarnation);
        let open = |flags| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NOATIME | flags);
            options.open(&path)
        };
        let file = match open(libc::O_DIRECT) {
            Err(e) if e.kind() == ErrorKind::InvalidInput => open(0),
            other => other,
        };
        match file {
            Ok(file) => Ok((table, file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(HotError::corrupt(
                "open for scrub",
                &path,
                "data file is gone",
            )),
            Err(e) => Err(HotError::io("open for scrub", &path, &e)),
        }
    }

    fn scrub_step(&self, mut subject: Subject) -> Result<(Subject, u64), HotError> {
        let mut room = vec![0; BLOCK as usize + ALIGN];
        let skip = room.as_ptr().align_offset(ALIGN);
        let mut bytes = 0;
        let end = subject.table.count().min(subject.next + BLOCKS_PER_JOB);
        while subject.next < end && !subject.bad {
            let block = subject.next;
            let span = subject.table.span(block);
            let length = (span.end - span.start) as usize;
            let wanted = length.next_multiple_of(ALIGN);
            let read = read_up_to(&subject.file, &mut room[skip..skip + wanted], span.start);
            let path = self
                .directory
                .data(&subject.digest, subject.record.incarnation);
            let read = read.map_err(|e| HotError::io("scrub block", &path, &e))?;
            bytes += read as u64;
            add(&self.counters.verified_blocks, 1);
            let data = &room[skip..skip + read.min(length)];
            if data.len() < length || crc32c::crc32c(data) != subject.table.crc(block) {
                subject.bad = self.is_still(&subject.digest, subject.record.incarnation);
                if subject.bad {
                    self.scrub_bad(&subject, block, data);
                }
            }
            subject.next += 1;
        }
        Ok((subject, bytes))
    }

    fn scrub_bad(&self, subject: &Subject, block: u32, data: &[u8]) {
        let digest = &subject.digest;
        tracing::error!(%digest, block, "scrub found a bad block");
        add(&self.counters.quarantined_blocks, 1);
        self.keep_evidence(digest, subject.record.incarnation, block, data);
        self.drop_damaged(digest, subject.record.incarnation);
    }

    /// Whether the object was neither evicted nor replaced since its record was read.
    fn is_still(&self, digest: &Digest, incarnation: u64) -> bool {
        let record = self.index.get(digest);
        record.is_ok_and(|record| record.is_some_and(|record| record.incarnation == incarnation))
            && self.catalogue().table.get(digest).is_some()
    }

    fn drop_damaged(&self, digest: &Digest, incarnation: u64) {
        let object = self.catalogue().object(digest);
        let file = object
            .as_ref()
            .and_then(|object| object.state().file().map(Arc::clone));
        match (object, file) {
            (Some(object), Some(file)) if file.incarnation == incarnation => {
                object.discard(&file, "scrub found it damaged");
            }
            _ => self.forget(digest, Some(incarnation)),
        }
    }
}

/// Reads until `buffer` is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        // A short read of a direct file is its end, and the rest would not be aligned.
        if done % ALIGN != 0 {
            break;
        }
    }
    Ok(done)
}
