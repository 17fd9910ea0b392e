//! Snapshot file, format 1: layout, and its encoding and decoding without any I/O.
//!
//! All numbers are little-endian. Sections follow each other without gaps, so their places follow
//! from the lengths in the header.
//!
//! ```text
//!      0  header, 4096 bytes
//!           0  8  magic "TERRSNAP"
//!           8  4  format = 1; a reader refuses any other
//!          12  4  zero
//!          16  8  n: entries, root included, 1 ..= 2^32 - 2
//!          24  8  regular files
//!          32  8  sum of their sizes
//!          40  8  length of names        (< 2^40)
//!          48  8  length of references   (< 2^34)
//!          56  8  length of origin
//!          64  4  crc32c of the page table
//!          68 ..  zero
//!        4092  4  crc32c of bytes 0..4092
//!   4096  rows        n x 32 bytes, row i is inode i + 1
//!     ..  names       file names, in row order, not terminated
//!     ..  references  see below, each padded with zeros to a multiple of 4
//!     ..  origin      store and key prefix, each: length u32, UTF-8 bytes
//!     ..  page table  crc32c of each 16 KiB page of what lies between header and table; the last
//!                     page is short
//!
//! row:  0  8  bits 0..40 place in names, 40..48 length of name, 48..50 kind (0 directory, 1 file,
//!             2 symbolic link), 50..62 permission bits, 62: they are given, else the mount decides
//!       8  8  file: size; link: length of target; directory: children (low 32 bits), of them
//!             directories (high 32 bits)
//!      16  8  mtime, signed nanoseconds since the epoch
//!      24  4  row of the parent (root: 0)
//!      28  4  directory: row of the first child (0 when empty); file: place of its version token in
//!             references / 4; link: place of its target / 4
//! ```
//!
//! Order is breadth first: row 0 is the root, the children of a directory are contiguous and sorted
//! by the bytes of their names, and children of an earlier directory come earlier. So a path has one
//! possible place, a lookup is a binary search among siblings, the place among siblings is a stable
//! listing position, and equal sets of entries give equal files (names and references are in row
//! order too). A parent's row is smaller than its child's: walks end even in a hostile file.
//!
//! The key of a file is prefix + `/` + path. What a reader must check before it believes a page is
//! the page's checksum; it may do that on first touch, so opening costs the header and the table.

use crate::namespace::Kind;

/// First bytes of a snapshot file.
pub(super) const MAGIC: &[u8; 8] = b"TERRSNAP";
/// The only format so far.
pub(super) const FORMAT: u32 = 1;
/// Bytes of the header, so that rows start at a page of the operating system.
pub(super) const HEADER: u64 = 4096;
/// Bytes of a row.
pub(super) const ROW: u64 = 32;
/// Bytes under one checksum. 16 KiB: checking the pages of one binary search stays below 100 us.
pub(super) const PAGE: u64 = 16 * 1024;
/// Most entries: a row number is a `u32`, and the number of an inode is the row + 1.
pub(super) const ENTRIES_MAX: u64 = u32::MAX as u64 - 1;
/// Bound of the names section: 40 bits in a row.
pub(super) const NAMES_MAX: u64 = 1 << 40;
/// Bound of the references section: 32 bits in units of 4 bytes.
pub(super) const REFERENCES_MAX: u64 = 1 << 34;
/// Bound of the origin section; keys of real stores end at 1 KiB, paths of HDFS at 8 KiB.
const ORIGIN_MAX: u64 = 1 << 20;

/// The numbers of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) names: u64,
    pub(super) references: u64,
    pub(super) origin: u64,
    pub(super) table_crc: u32,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file does not begin with the magic bytes, or is shorter than a header.
    #[error("not a snapshot file")]
    Magic,
    /// Written by a newer release.
    #[error("snapshot format {0} is not known to this release")]
    Format(u32),
    /// Checksum of the header or of the page table.
    #[error("checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// Lengths contradict each other or the file.
    #[error("lengths in the header do not add up")]
    Lengths,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

impl Header {
    /// Place of the names section.
    pub(super) fn names_at(&self) -> u64 {
        HEADER + self.entries * ROW
    }

    /// Place of the references section.
    pub(super) fn references_at(&self) -> u64 {
        self.names_at() + self.names
    }

    /// Place of the origin section.
    pub(super) fn origin_at(&self) -> u64 {
        self.references_at() + self.references
    }

    /// Place of the page table: the end of the checked part.
    pub(super) fn table_at(&self) -> u64 {
        self.origin_at() + self.origin
    }

    /// Number of checked pages.
    pub(super) fn pages(&self) -> u64 {
        (self.table_at() - HEADER).div_ceil(PAGE)
    }

    /// Length of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        self.table_at() + self.pages() * 4
    }

    /// The 4096 bytes at the start of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let numbers = [
            self.entries,
            self.files,
            self.bytes,
            self.names,
            self.references,
            self.origin,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.table_crc.to_le_bytes());
        out.resize(HEADER as usize - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Decodes the start of a file of `file_len` bytes. Everything the other methods compute is in
    /// bounds afterwards; the page table is not looked at.
    pub(super) fn decode(start: &[u8], file_len: u64) -> Result<Self, HeaderError> {
        let Some(start) = start.get(..HEADER as usize) else {
            return Err(HeaderError::Magic);
        };
        if &start[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let format = u32_at(start, 8);
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        let crc_at = HEADER as usize - 4;
        if crc32c::crc32c(&start[..crc_at]) != u32_at(start, crc_at) {
            return Err(HeaderError::Checksum("header"));
        }
        let header = Self {
            entries: u64_at(start, 16),
            files: u64_at(start, 24),
            bytes: u64_at(start, 32),
            names: u64_at(start, 40),
            references: u64_at(start, 48),
            origin: u64_at(start, 56),
            table_crc: u32_at(start, 64),
        };
        let sane = (1..=ENTRIES_MAX).contains(&header.entries)
            && header.files < header.entries
            && header.names < NAMES_MAX
            && header.references < REFERENCES_MAX
            && header.origin < ORIGIN_MAX;
        if !sane || header.file_len() != file_len {
            return Err(HeaderError::Lengths);
        }
        Ok(header)
    }
}

/// One row, unpacked. What `size` and `reference` mean depends on `kind`; see the module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name_at: u64,
    pub(super) name_len: u8,
    pub(super) kind: Kind,
    pub(super) mode: Option<u16>,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) parent: u32,
    pub(super) reference: u32,
}

impl Row {
    /// Packs the row.
    pub(super) fn encode(&self) -> [u8; ROW as usize] {
        let kind: u64 = match self.kind {
            Kind::Directory => 0,
            Kind::File => 1,
            Kind::Symlink => 2,
        };
        let mode = self
            .mode
            .map_or(0, |mode| u64::from(mode & 0o7777) | 1 << 12);
        let word = self.name_at | u64::from(self.name_len) << 40 | kind << 48 | mode << 50;
        let mut out = [0; ROW as usize];
        out[0..8].copy_from_slice(&word.to_le_bytes());
        out[8..16].copy_from_slice(&self.size.to_le_bytes());
        out[16..24].copy_from_slice(&self.mtime_ns.to_le_bytes());
        out[24..28].copy_from_slice(&self.parent.to_le_bytes());
        out[28..32].copy_from_slice(&self.reference.to_le_bytes());
        out
    }

    /// Unpacks a row; `None` when the kind is unknown.
    pub(super) fn decode(bytes: &[u8; ROW as usize]) -> Option<Self> {
        let word = u64_at(bytes, 0);
        let kind = match word >> 48 & 3 {
            0 => Kind::Directory,
            1 => Kind::File,
            2 => Kind::Symlink,
            _ => return None,
        };
        Some(Self {
            name_at: word & (NAMES_MAX - 1),
            name_len: (word >> 40) as u8,
            kind,
            mode: (word >> 62 & 1 == 1).then_some((word >> 50) as u16 & 0o7777),
            size: u64_at(bytes, 8),
            mtime_ns: u64_at(bytes, 16) as i64,
            parent: u32_at(bytes, 24),
            reference: u32_at(bytes, 28),
        })
    }

    /// Children of a directory: (first row, count, of them directories).
    pub(super) fn children(&self) -> (u32, u32, u32) {
        (self.reference, self.size as u32, (self.size >> 32) as u32)
    }
}

/// Encodes the origin section.
pub(super) fn encode_origin(store: &str, prefix: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for text in [store, prefix] {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// Decodes the origin section: (store, key prefix).
pub(super) fn decode_origin(bytes: &[u8]) -> Option<(&str, &str)> {
    let mut rest = bytes;
    let mut text = || {
        let (len, tail) = rest.split_at_checked(4)?;
        let (text, tail) = tail.split_at_checked(u32_at(len, 0) as usize)?;
        rest = tail;
        std::str::from_utf8(text).ok()
    };
    let pair = (text()?, text()?);
    rest.is_empty().then_some(pair)
}
