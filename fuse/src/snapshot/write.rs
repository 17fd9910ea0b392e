//! Writing a snapshot file in one pass, and its digest.
//!
//! The file appears whole or not at all: it is written as `<name>.tmp` under an exclusive lock (a
//! left-over of a crash is overwritten by the next build), synced, renamed, and the directory is
//! synced. The header goes in last, so that even the temporary file is never taken for a snapshot.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use terrace_cache::Digest;

use super::build::BuildError;
use super::format::{HEADER, Header, PAGE, Row};
use crate::namespace::Kind;
use crate::token;

/// Everything a file needs, in final order.
pub(super) struct Ordered {
    /// Rows with final parents and children; names and references are places in the arenas.
    pub(super) nodes: Vec<Row>,
    /// Row number -> place in `nodes`.
    pub(super) order: Vec<u32>,
    pub(super) names: Vec<u8>,
    pub(super) references: Vec<u8>,
    pub(super) origin: Vec<u8>,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// SHA-256 of the file: equal for equal sets of entries, whatever their order was.
    pub digest: Digest,
    /// Entries, root and implied directories included.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Length of the snapshot file.
    pub file_len: u64,
    /// Files left out because their path is also a directory (`Surplus::Hide`).
    pub shadowed: u64,
}

/// Writes the snapshot at `path`.
pub(super) fn write(set: Ordered, shadowed: u64, path: &Path) -> Result<Built, BuildError> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = name.to_owned();
    temporary.push(".tmp");
    let temporary = path.with_file_name(temporary);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&temporary)?;
    match file.try_lock() {
        Ok(()) => file.set_len(0)?,
        Err(TryLockError::WouldBlock) => return Err(BuildError::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let built = fill(&set, shadowed, &file).and_then(|built| {
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(built)
    });
    if built.is_err() {
        // The error that is told is the first one; the next build overwrites a file left here.
        drop(std::fs::remove_file(&temporary));
    }
    built.map_err(BuildError::from)
}

fn fill(set: &Ordered, shadowed: u64, mut file: &File) -> io::Result<Built> {
    file.seek(SeekFrom::Start(HEADER))?;
    let mut out = PageWriter::new(file);
    let mut header = Header {
        entries: set.order.len() as u64,
        origin: set.origin.len() as u64,
        ..Header::default()
    };
    for place in &set.order {
        let node = &set.nodes[*place as usize];
        let mut row = Row {
            name_at: header.names,
            ..*node
        };
        header.names += u64::from(row.name_len);
        if row.kind != Kind::Directory {
            row.reference = (header.references / 4) as u32;
            header.references += record(set, node).len() as u64;
        }
        if row.kind == Kind::File {
            header.files += 1;
            header.bytes = header.bytes.saturating_add(row.size);
        }
        out.write(&row.encode())?;
    }
    for place in &set.order {
        let node = &set.nodes[*place as usize];
        let start = node.name_at as usize;
        out.write(&set.names[start..start + usize::from(node.name_len)])?;
    }
    for place in &set.order {
        out.write(record(set, &set.nodes[*place as usize]))?;
    }
    out.write(&set.origin)?;
    let table = out.finish()?;
    header.table_crc = crc32c::crc32c(&table);
    file.write_all(&table)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.encode())?;
    Ok(Built {
        digest: digest(file)?,
        entries: header.entries,
        files: header.files,
        bytes: header.bytes,
        file_len: header.file_len(),
        shadowed,
    })
}

/// The padded record of a file or link in the builder's arena; empty for a directory.
fn record<'a>(set: &'a Ordered, node: &Row) -> &'a [u8] {
    let rest = &set.references[(node.reference as usize * 4).min(set.references.len())..];
    let len = match node.kind {
        Kind::Directory => 0,
        Kind::Symlink => (node.size as usize).next_multiple_of(4),
        Kind::File => token::record_len(rest).unwrap_or(0),
    };
    &rest[..len]
}

fn digest(mut file: &File) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Writes bytes and keeps the checksum of each page of them.
struct PageWriter<'a> {
    out: BufWriter<&'a File>,
    /// Checksum of the page so far, and its length.
    page: (u32, u64),
    table: Vec<u8>,
}

impl<'a> PageWriter<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 20, file),
            page: (0, 0),
            table: Vec::new(),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        while !bytes.is_empty() {
            let room = (PAGE - self.page.1) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.page = (
                crc32c::crc32c_append(self.page.0, now),
                self.page.1 + now.len() as u64,
            );
            if self.page.1 == PAGE {
                self.end_page();
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_page(&mut self) {
        self.table.extend_from_slice(&self.page.0.to_le_bytes());
        self.page = (0, 0);
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.page.1 > 0 {
            self.end_page();
        }
        self.out.flush()?;
        Ok(self.table)
    }
}
