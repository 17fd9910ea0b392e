//! The bytes of a snapshot file, each page checked before its first use.
//!
//! Opening reads the header and the page table only, so ten million entries are there at once; what
//! is never looked at is never read from disk. A page that fails its checksum is an error each time
//! it is asked for, never wrong bytes. No locks: "already checked" is one bit per page, and checking
//! a page twice at the same time is only wasted work.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

use super::SnapshotError;
use super::format::{HEADER, Header, HeaderError, PAGE, ROW, Row};

/// Where the bytes live.
enum Bytes {
    Mapped(Mmap),
    Memory(Vec<u8>),
}

/// A snapshot file with lazily checked pages.
pub(super) struct Pages {
    bytes: Bytes,
    header: Header,
    /// One bit per page: it was checked and is good.
    checked: Vec<AtomicU64>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// Maps a whole file read-only.
#[expect(
    unsafe_code,
    reason = "a mapping is only sound while nobody changes the file"
)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: snapshot files are written under another name, synced and renamed into place, and
    // never opened for writing afterwards; they live in a directory only the daemon's user writes.
    unsafe { Mmap::map(file) }
}

impl Pages {
    /// Maps `file` and checks header and page table.
    pub(super) fn open(file: &File) -> Result<Self, SnapshotError> {
        if file.metadata()?.len() < HEADER {
            return Err(HeaderError::Magic.into());
        }
        Self::new(Bytes::Mapped(map(file)?))
    }

    /// The same over bytes in memory.
    pub(super) fn from_vec(bytes: Vec<u8>) -> Result<Self, SnapshotError> {
        Self::new(Bytes::Memory(bytes))
    }

    fn new(bytes: Bytes) -> Result<Self, SnapshotError> {
        let header = Header::decode(bytes.all(), bytes.all().len() as u64)?;
        let table = &bytes.all()[header.table_at() as usize..];
        if crc32c::crc32c(table) != header.table_crc {
            return Err(HeaderError::Checksum("page table").into());
        }
        let checked = (0..header.pages().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        Ok(Self {
            bytes,
            header,
            checked,
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The whole file, unchecked: for its digest.
    pub(super) fn all(&self) -> &[u8] {
        self.bytes.all()
    }

    /// Row `index`.
    pub(super) fn row(&self, index: u32) -> Result<Row, SnapshotError> {
        if u64::from(index) >= self.header.entries {
            return Err(SnapshotError::Corrupt("a row number is out of range"));
        }
        let bytes = self.get(HEADER + u64::from(index) * ROW, ROW)?;
        let bytes = bytes
            .first_chunk()
            .ok_or(SnapshotError::Corrupt("a row is short"))?;
        Row::decode(bytes).ok_or(SnapshotError::Corrupt("kind of an entry is unknown"))
    }

    /// Name of a row.
    pub(super) fn name(&self, row: &Row) -> Result<&[u8], SnapshotError> {
        let end = row.name_at + u64::from(row.name_len);
        if end > self.header.names {
            return Err(SnapshotError::Corrupt("a name is out of range"));
        }
        self.get(self.header.names_at() + row.name_at, row.name_len.into())
    }

    /// Up to `len` bytes of the references section from a row's reference on: fewer at its end.
    pub(super) fn reference(&self, row: &Row, len: u64) -> Result<&[u8], SnapshotError> {
        let at = u64::from(row.reference) * 4;
        if at > self.header.references {
            return Err(SnapshotError::Corrupt("a reference is out of range"));
        }
        let len = len.min(self.header.references - at);
        self.get(self.header.references_at() + at, len)
    }

    /// The origin section.
    pub(super) fn origin(&self) -> Result<&[u8], SnapshotError> {
        self.get(self.header.origin_at(), self.header.origin)
    }

    /// Checks every page. For `doctor` and tests; reads the whole file.
    pub(super) fn check_all(&self) -> Result<(), SnapshotError> {
        (0..self.header.pages()).try_for_each(|page| self.check(page))
    }

    /// Checked bytes of the part between header and page table.
    fn get(&self, at: u64, len: u64) -> Result<&[u8], SnapshotError> {
        let end = at
            .checked_add(len)
            .filter(|end| *end <= self.header.table_at());
        let Some(end) = end else {
            return Err(SnapshotError::Corrupt("a place is out of range"));
        };
        if len > 0 {
            for page in (at - HEADER) / PAGE..=(end - 1 - HEADER) / PAGE {
                self.check(page)?;
            }
        }
        Ok(&self.bytes.all()[at as usize..end as usize])
    }

    fn check(&self, page: u64) -> Result<(), SnapshotError> {
        let (word, bit) = (&self.checked[page as usize / 64], 1 << (page % 64));
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let all = self.bytes.all();
        let start = HEADER + page * PAGE;
        let end = (start + PAGE).min(self.header.table_at());
        let entry = (self.header.table_at() + page * 4) as usize;
        let expected = crc32c::crc32c(&all[start as usize..end as usize]).to_le_bytes();
        if all[entry..entry + 4] != expected {
            return Err(SnapshotError::Page(page));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}
